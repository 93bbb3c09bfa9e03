//! What the server says of itself: whether it is well, what it serves and what it has counted. Computes nothing.

use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::models::{self, STRIDE};
use crate::shared::Shared;

/// `GET /health`: 200, or 503 once the end was asked for.
pub(crate) async fn health(State(shared): State<Shared>) -> Result<Json<Value>, ApiError> {
    match shared.is_draining.load(Ordering::Relaxed) {
        true => Err(ApiError::draining()),
        false => Ok(Json(json!({ "status": "ok" }))),
    }
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], shared.metrics.text())
}

/// `GET /v1/models`.
pub(crate) async fn list(State(shared): State<Shared>) -> Json<Value> {
    let data: Vec<Value> =
        shared.models.iter().map(|model| model.entry(&model.id, STRIDE)).collect();
    Json(json!({ "object": "list", "data": data }))
}

/// `GET /v1/models/{id}`.
pub(crate) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let named = models::find(&shared.models, &id)?;
    Ok(Json(shared.models[named.model].entry(&id, named.stride)))
}
