//! `GET /` and `POST /v1/explorations`: the page that shows latents, and what it asks for. Computes nothing.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::error::ApiError;
use crate::explorer::What;
use crate::guard::Body;
use crate::models;
use crate::shared::Shared;

/// A text to fit and look at.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FitRequest {
    model: String,
    text: String,
    #[serde(default)]
    seed: u64,
}

/// Latents to decode.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DecodeRequest {
    model: String,
    /// `(L·Z,C)`, row-major.
    z: Vec<f32>,
    /// A text to score at the latents.
    text: Option<String>,
}

/// `GET /`: the page of the first model with latents.
pub(crate) async fn first(State(shared): State<Shared>) -> Result<Response, ApiError> {
    let model = shared.models.iter().position(|model| model.config.model.n_latents > 0);
    let expected = "a model with latents, which the page shows";
    let model = model.ok_or_else(|| ApiError::field("model", expected, "none"))?;
    Ok(shared.explorers.ask(model, What::Page).await?.into_response())
}

/// `GET /explorer/{id}`: the page of a model.
pub(crate) async fn of(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let model = models::find(&shared.models, &id)?.model;
    Ok(shared.explorers.ask(model, What::Page).await?.into_response())
}

/// `POST /v1/explorations`: fits a text and looks at it.
pub(crate) async fn fit(
    State(shared): State<Shared>,
    Body(FitRequest { model, text, seed }): Body<FitRequest>,
) -> Result<Response, ApiError> {
    let model = models::find(&shared.models, &model)?.model;
    Ok(shared.explorers.ask(model, What::Fit { text, seed }).await?.into_response())
}

/// `POST /v1/explorations/decode`: the text of latents, and the nats of another text at them.
pub(crate) async fn decode(
    State(shared): State<Shared>,
    Body(DecodeRequest { model, z, text }): Body<DecodeRequest>,
) -> Result<Response, ApiError> {
    let model = models::find(&shared.models, &model)?.model;
    Ok(shared.explorers.ask(model, What::Decode { z, text }).await?.into_response())
}
