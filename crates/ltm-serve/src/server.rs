//! Connections and routes: what is accepted, for how long, and how the server ends. Knows no request.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use ltm_eval::ltm_train::Checkpoint;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::timeout::RequestBodyTimeoutLayer;

use crate::engine;
use crate::error::{ApiError, Result};
use crate::explorer::{Explorers, ROUTE};
use crate::metrics::Metrics;
use crate::models::{self, Model};
use crate::shared::{BODY_BYTES, Inner, Shared};
use crate::{completions, explorations, guard, status, thoughts, tokens};

/// The most bytes of a request's head, and the most fields in it.
const HEAD_BYTES: usize = 64 << 10;
const HEADERS: usize = 64;
/// Connections at a time; further ones wait.
const CONNECTIONS: usize = 512;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// Prompts that may wait for the engine; a request with more than there is room for is refused with 429.
    pub queue: usize,
    /// Texts that are written together.
    pub texts: usize,
    /// The host names, without ports, that requests may be sent to; loopback's own are always among them. A page of another
    /// site whose name was pointed at this machine names that site.
    pub hosts: Vec<String>,
    /// The key that requests must send as `Authorization: Bearer KEY`; without one any is accepted.
    pub api_key: Option<String>,
    /// How long a client may take for a request's head, and between pieces of its body.
    pub reading: Duration,
    /// How long texts that are being written may go on after the end was asked for.
    pub drain: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 256,
            texts: 64,
            hosts: Vec::new(),
            api_key: None,
            reading: Duration::from_secs(10),
            drain: Duration::from_secs(30),
        }
    }
}

/// A server of several models, with one engine.
pub struct Server {
    shared: Shared,
    reading: Duration,
    drain: Duration,
    engine: JoinHandle<()>,
}

impl Server {
    /// Starts the engine with these models, each under a name that requests call it by.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) for names that cannot be told apart and no room at all,
    /// [`Error::Model`](crate::Error::Model) for a model that does not write token by token, or for which its device has no
    /// memory.
    pub fn start(checkpoints: Vec<(String, Checkpoint)>, options: Options) -> Result<Self> {
        models::check_names(checkpoints.iter().map(|(id, _)| id.as_str()))?;
        for (field, found) in [("queue", options.queue), ("texts", options.texts)] {
            if found == 0 {
                let (expected, found) = ("at least 1".into(), found.to_string());
                return Err(crate::Error::Field { field, expected, found });
            }
        }
        let models: Vec<Model> =
            checkpoints.iter().map(|(id, checkpoint)| Model::new(id, checkpoint)).collect();
        let metrics = Arc::new(Metrics::new());
        let (queue, engine, weights) =
            engine::start(checkpoints, options.queue, options.texts, metrics.clone())?;
        let explorers = Explorers::start(&models, weights, metrics.clone())?;
        let Options { hosts, api_key, reading, drain, .. } = options;
        let is_draining = AtomicBool::new(false);
        let inner = Inner { models, queue, explorers, metrics, hosts, api_key, is_draining };
        Ok(Self { shared: Arc::new(inner), reading, drain, engine })
    }

    /// The routes, for a server of one's own.
    pub fn router(&self) -> Router {
        router(self.shared.clone(), self.reading)
    }

    /// Serves the listener's connections until `shutdown` is done; then refuses new requests with 503, lets those that were
    /// accepted end within [`Options::drain`], and returns.
    pub async fn run(self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let service = TowerToHyperService::new(self.router());
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(self.reading)
            .max_buf_size(HEAD_BYTES)
            .max_headers(HEADERS);
        builder.http2().timer(TokioTimer::new()).max_header_list_size(HEAD_BYTES as u32);
        let (graceful, places) = (GracefulShutdown::new(), Arc::new(Semaphore::new(CONNECTIONS)));
        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let accepted = async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            };
            let (place, accepted) = tokio::select! {
                accepted = accepted => accepted,
                () = &mut shutdown => break,
            };
            // Such as no more file descriptors: there will be some when connections end.
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Tokens go out one by one.
            let _ = stream.set_nodelay(true);
            let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
            let connection = graceful.watch(connection.into_owned());
            tokio::spawn(async move {
                // A client that breaks its connection off is no fault of the server.
                let _ = connection.await;
                drop(place);
            });
        }
        self.shared.is_draining.store(true, Ordering::Relaxed);
        let _ = tokio::time::timeout(self.drain, graceful.shutdown()).await;
        // The engine ends with the last queue, after the texts whose clients are still there.
        drop((service, self.shared));
        let engine = self.engine;
        let _ =
            tokio::time::timeout(self.drain, tokio::task::spawn_blocking(|| engine.join())).await;
    }
}

fn router(shared: Shared, reading: Duration) -> Router {
    Router::new()
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .route("/v1/models", get(status::list))
        .route("/v1/models/{id}", get(status::one))
        .route("/v1/completions", post(completions::complete))
        .route("/v1/thoughts", post(thoughts::think))
        .route("/", get(explorations::first))
        .route("/explorer/{id}", get(explorations::of))
        .route(ROUTE, post(explorations::fit))
        .route(&format!("{ROUTE}/decode"), post(explorations::decode))
        .route("/tokenizer_info", get(tokens::info))
        .route("/tokenize", post(tokens::tokenize))
        .route("/detokenize", post(tokens::detokenize))
        .fallback(|| async { ApiError::no_route() })
        .method_not_allowed_fallback(|| async { ApiError::no_method() })
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(RequestBodyTimeoutLayer::new(reading))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), guard::check))
        .with_state(shared)
}
