//! `POST /v1/thoughts`: the posterior of a text, its fast steps as events, and the text that its latents give. Computes
//! nothing.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{self, Sse};
use axum::response::{IntoResponse, Response};
use ltm_eval::ltm_vi::FastStep;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::UnboundedReceiverStream;

use crate::engine::{Event, Job, ReadJob, ThinkJob};
use crate::error::ApiError;
use crate::guard::Body;
use crate::models;
use crate::shared::Shared;
use crate::tokens::encode;

/// The most fast steps of a request.
const MOST_STEPS: usize = 1024;
/// Tokens of the text that the latents give, where the request does not specify them.
const MAX_TOKENS: usize = 96;

/// A text to fit latents to.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    model: String,
    text: String,
    /// Fast steps [default: `infer.steps` of the run].
    steps: Option<usize>,
    #[serde(default)]
    seed: u64,
    /// What is changed before the text is written.
    #[serde(default)]
    interventions: Vec<Intervention>,
    max_tokens: Option<usize>,
    /// Whether fast steps are sent as events.
    #[serde(default)]
    stream: bool,
}

/// A change of one latent vector.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Intervention {
    /// Its number, from 0: layer by layer as in the posterior's rows.
    latent: usize,
    /// What its mean is multiplied with: 0 sets it to the mean of the prior.
    scale: f32,
}

/// Answers with the posterior; with `stream` as events `step`, `fitted` and `error`, after which `[DONE]` comes.
pub(crate) async fn think(
    State(shared): State<Shared>,
    Body(request): Body<Request>,
) -> Result<Response, ApiError> {
    let named = models::find(&shared.models, &request.model)?;
    let model = &shared.models[named.model];
    let extents = &model.config.model;
    if extents.n_latents == 0 {
        return Err(ApiError::field("model", "a model with latents", "one without"));
    }
    let text = model.document(&encode(&*model.tokenizer, &request.text)?);
    match text.len() - 1 {
        0 => return Err(ApiError::field("text", "at least one token", "none")),
        tokens if tokens > extents.max_seq_len => {
            return Err(ApiError::too_long(tokens, extents.max_seq_len));
        }
        _ => {}
    }
    if let Some(steps) = request.steps.filter(|steps| *steps > MOST_STEPS) {
        return Err(ApiError::field("steps", format!("at most {MOST_STEPS}"), steps));
    }
    let max_tokens = request.max_tokens.unwrap_or(MAX_TOKENS).min(extents.max_seq_len);
    let mut scales = vec![1.0; extents.n_latents];
    for Intervention { latent, scale } in request.interventions {
        if !scale.is_finite() {
            return Err(ApiError::field("interventions.scale", "a finite number", scale));
        }
        *scales.get_mut(latent).ok_or_else(|| {
            let expected = format!("a number below {}, the latents", extents.n_latents);
            ApiError::field("interventions.latent", expected, latent)
        })? *= scale;
    }
    let (events, mut incoming) = mpsc::unbounded_channel();
    let job = ThinkJob {
        model: named.model,
        text,
        steps: request.steps,
        seed: request.seed,
        scales,
        max_tokens,
        events,
    };
    shared.queue.put(vec![Job::Read(ReadJob::Think(Box::new(job)))])?;
    if request.stream {
        let events = UnboundedReceiverStream::new(incoming).map(|event| match event {
            Event::Step(step, steps) => named_event("step", &step_line(&step, steps)),
            Event::Fitted(fitted) => named_event("fitted", &json!(fitted)),
            Event::Failed(error) => named_event("error", &error.body()),
            Event::Token { .. } | Event::Scored { .. } | Event::Thinking { .. } => {
                sse::Event::default().comment("another")
            }
        });
        let done = tokio_stream::once(sse::Event::default().data("[DONE]"));
        return Ok(Sse::new(events.chain(done).map(Ok::<_, Infallible>)).into_response());
    }
    let (mut steps, mut fitted) = (Vec::new(), None);
    while let Some(event) = incoming.recv().await {
        match event {
            Event::Step(step, of) => steps.push(step_line(&step, of)),
            Event::Fitted(found) => fitted = Some(found),
            Event::Failed(error) => return Err(error),
            Event::Token { .. } | Event::Scored { .. } | Event::Thinking { .. } => {}
        }
    }
    let mut answer = json!(fitted.ok_or_else(ApiError::internal)?);
    answer["model"] = request.model.into();
    answer["steps"] = steps.into();
    Ok(Json(answer).into_response())
}

/// A fast step as clients see it.
fn step_line(step: &FastStep, of: usize) -> Value {
    json!({
        "step": step.step, "of": of, "lr": step.lr, "nll": step.nll, "kl_per_layer": step.kl_per_layer,
        "bound": step.bound,
    })
}

fn named_event(name: &str, value: &Value) -> sse::Event {
    sse::Event::default().event(name).data(value.to_string())
}
