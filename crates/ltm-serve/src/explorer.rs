//! The page that shows latents, and what it asks for, computed on a thread of its own, so that the texts of other requests
//! go on; asks wait for each other. Knows no route.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use ltm_eval::explore::{Document, Explorer, Wanted, demo_texts, held_out, page};
use ltm_eval::ltm_model::DeviceWeights;
use ltm_eval::ltm_train::Config;
use ltm_eval::ltm_train::data::SharedTokenizer;
use ltm_eval::ltm_vi::FastStep;
use ltm_eval::ltm_vi::fit::Observer;
use serde_json::json;
use tokio::sync::oneshot;

use crate::error::{ApiError, Error, Result};
use crate::metrics::Metrics;
use crate::models::Model;

/// Where the page posts texts; latents to decode go to `/decode` under it.
pub(crate) const ROUTE: &str = "/v1/explorations";
/// Asks that may wait.
const WAITING: usize = 16;
/// Texts that a page begins with, places on its map, and texts decoded along each of its axes.
const TEXTS: usize = 3;
const PLACES: u64 = 256;
const GRID: usize = 10;
/// What a page begins with where the model's own corpus is not at hand.
const ANY_TEXT: &str = "One sunny morning, Tom went to the river.";

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Explorers {
    asks: mpsc::SyncSender<Ask>,
}

struct Ask {
    model: usize,
    what: What,
    answer: oneshot::Sender<std::result::Result<Answer, ApiError>>,
}

/// What is asked for.
pub(crate) enum What {
    Page,
    Fit { text: String, seed: u64 },
    Decode { z: Vec<f32>, text: Option<String> },
}

/// A page, or a JSON object.
pub(crate) enum Answer {
    Page(Arc<str>),
    Json(serde_json::Value),
}

/// A model, and what was made for it.
struct Explored {
    id: String,
    config: Config,
    tokenizer: SharedTokenizer,
    weights: DeviceWeights,
    explorer: Option<Explorer>,
    page: Option<Arc<str>>,
}

impl Explorers {
    /// Starts the thread, which ends when the last way to it is dropped. Models and their weights are in the same order.
    ///
    /// # Errors
    /// [`Error::Field`] when the system has no thread.
    pub(crate) fn start(
        models: &[Model],
        weights: Vec<DeviceWeights>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let of = |(model, weights): (&Model, DeviceWeights)| Explored {
            id: model.id.clone(),
            config: model.config.clone(),
            tokenizer: model.tokenizer.clone(),
            weights,
            explorer: None,
            page: None,
        };
        let mut explored: Vec<Explored> = models.iter().zip(weights).map(of).collect();
        let (asks, waiting) = mpsc::sync_channel::<Ask>(WAITING);
        let thread = std::thread::Builder::new().name("explorer".into()).spawn(move || {
            while let Ok(Ask { model, what, answer }) = waiting.recv() {
                // A client that has gone away needs no answer.
                if !answer.is_closed() {
                    let mut on_step = |_: &FastStep| match answer.is_closed() {
                        true => Err(ltm_eval::ltm_vi::Error::Stopped),
                        false => {
                            metrics.fast_steps.inc();
                            Ok(())
                        }
                    };
                    let found = explored[model].answer(what, &mut on_step);
                    let _ = answer.send(found);
                }
            }
        });
        let failed = |error: std::io::Error| Error::Field {
            field: "explorer",
            expected: "a thread of its own".into(),
            found: error.to_string(),
        };
        thread.map(|_| Self { asks }).map_err(failed)
    }

    /// Asks about a model, by its number.
    ///
    /// # Errors
    /// [`ApiError::busy`] where too many wait, and those of the ask.
    pub(crate) async fn ask(
        &self,
        model: usize,
        what: What,
    ) -> std::result::Result<Answer, ApiError> {
        let (answer, answered) = oneshot::channel();
        let sent = self.asks.try_send(Ask { model, what, answer });
        sent.map_err(|error| match error {
            mpsc::TrySendError::Full(_) => ApiError::busy(),
            mpsc::TrySendError::Disconnected(_) => ApiError::internal(),
        })?;
        answered.await.unwrap_or_else(|_| Err(ApiError::internal()))
    }
}

impl Explored {
    /// What is asked; a panic harms no later one. The steps of a fit are reported to `on_step`.
    fn answer(
        &mut self,
        what: What,
        on_step: &mut Observer<'_>,
    ) -> std::result::Result<Answer, ApiError> {
        let done = catch_unwind(AssertUnwindSafe(|| self.compute(what, on_step)));
        done.unwrap_or_else(|_| {
            self.explorer = None;
            Err(ApiError::internal())
        })
    }

    fn compute(
        &mut self,
        what: What,
        on_step: &mut Observer<'_>,
    ) -> std::result::Result<Answer, ApiError> {
        let mut explorer = match self.explorer.take() {
            Some(explorer) => explorer,
            None => {
                let (config, tokenizer) = (self.config.clone(), self.tokenizer.clone());
                Explorer::new(config, self.weights.clone(), tokenizer)?
            }
        };
        let answer = match what {
            What::Page => self.page(&mut explorer).map(Answer::Page),
            What::Fit { text, seed } => {
                let found = explorer.explore(&text, seed, on_step);
                found.map_err(ApiError::from).map(|found| Answer::Json(json!(found)))
            }
            What::Decode { z, text } => Self::decode(&mut explorer, &z, text.as_deref()),
        };
        self.explorer = Some(explorer);
        answer
    }

    fn page(&mut self, explorer: &mut Explorer) -> std::result::Result<Arc<str>, ApiError> {
        if let Some(page) = &self.page {
            return Ok(page.clone());
        }
        // A corpus that was left behind is no reason to show no page.
        let held_out = held_out(&self.config, &self.tokenizer, PLACES).ok().flatten();
        let texts = held_out.as_ref().map(|texts| demo_texts(texts, &self.tokenizer, TEXTS));
        let mut texts = texts.transpose()?.unwrap_or_default();
        if texts.is_empty() {
            texts.push(ANY_TEXT.into());
        }
        let name = self.id.clone();
        let wanted = Wanted { name, texts, seed: 0, places: PLACES, grid: GRID };
        let document = Document::of(explorer, &wanted, held_out.as_ref(), &mut |_, _, _| ())?;
        let page: Arc<str> = page(&document, Some(ROUTE))?.into();
        self.page = Some(page.clone());
        Ok(page)
    }

    fn decode(
        explorer: &mut Explorer,
        z: &[f32],
        text: Option<&str>,
    ) -> std::result::Result<Answer, ApiError> {
        let decoded = explorer.decode(z)?;
        let nll = text.map(|text| explorer.nll(text, z)).transpose()?;
        Ok(Answer::Json(json!({ "text": decoded, "nll": nll })))
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Self::Page(page) => Html(page.to_string()).into_response(),
            Self::Json(json) => Json(json).into_response(),
        }
    }
}
