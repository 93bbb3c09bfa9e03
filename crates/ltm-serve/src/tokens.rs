//! Tokens of texts and texts of tokens, as clients that prepare requests need them. Computes nothing.

use axum::Json;
use axum::extract::State;
use ltm_eval::ltm_train::data::tokenizer::END_OF_TEXT;
use ltm_eval::ltm_train::data::{SharedTokenizer, Tokenizer};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::guard::Body;
use crate::models::{self, Model};
use crate::shared::Shared;

/// The ids of a text, in which the [end of a text](END_OF_TEXT) is the token that documents end with.
///
/// # Errors
/// Those of the tokenizer: a closed vocabulary may lack a word.
pub(crate) fn encode(tokenizer: &dyn Tokenizer, text: &str) -> Result<Vec<u32>, ApiError> {
    let mut ids = Vec::new();
    for (i, part) in text.split(END_OF_TEXT).enumerate() {
        if i > 0 {
            ids.push(tokenizer.separator());
        }
        if !part.is_empty() {
            ids.extend(tokenizer.encode(part).map_err(ltm_eval::Error::from)?);
        }
    }
    Ok(ids)
}

/// Refuses ids that a tokenizer does not have.
pub(crate) fn check_ids(
    field: &'static str,
    tokenizer: &SharedTokenizer,
    ids: &[u32],
) -> Result<(), ApiError> {
    let vocab_size = tokenizer.vocab_size();
    match ids.iter().find(|id| **id as usize >= vocab_size) {
        Some(id) => Err(ApiError::field(field, format!("ids below {vocab_size}"), id)),
        None => Ok(()),
    }
}

/// The model that a request names, or the first where all have one tokenizer.
fn model<'a>(shared: &'a Shared, name: Option<&str>) -> Result<&'a Model, ApiError> {
    let models = &shared.models[..];
    if let Some(name) = name {
        return Ok(&models[models::find(models, name)?.model]);
    }
    let same = |model: &Model| model.tokenizer.fingerprint() == models[0].tokenizer.fingerprint();
    match models.iter().all(same) {
        true => Ok(&models[0]),
        false => {
            let expected = "a name, because the models have different tokenizers";
            Err(ApiError::field("model", expected, "none"))
        }
    }
}

/// A text to take apart.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tokenize {
    model: Option<String>,
    prompt: String,
    #[serde(default)]
    add_special_tokens: bool,
}

/// Tokens to put together.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Detokenize {
    model: Option<String>,
    tokens: Vec<u32>,
}

/// `GET /tokenizer_info`: of the first model.
pub(crate) async fn info(State(shared): State<Shared>) -> Json<Value> {
    let model = &shared.models[0];
    Json(json!({
        "tokenizer": model.tokenizer.spec().to_string(),
        "vocab_size": model.tokenizer.vocab_size(),
        "eos_token": END_OF_TEXT, "eos_token_id": model.tokenizer.separator(),
        "bos_token": END_OF_TEXT, "bos_token_id": model.tokenizer.separator(),
        "max_model_len": model.config.model.max_seq_len,
        "chat_template": null,
    }))
}

/// `POST /tokenize`.
pub(crate) async fn tokenize(
    State(shared): State<Shared>,
    Body(request): Body<Tokenize>,
) -> Result<Json<Value>, ApiError> {
    let model = model(&shared, request.model.as_deref())?;
    let mut ids = encode(&*model.tokenizer, &request.prompt)?;
    if request.add_special_tokens {
        ids.insert(0, model.tokenizer.separator());
    }
    let max_model_len = model.config.model.max_seq_len;
    Ok(Json(json!({ "tokens": ids, "count": ids.len(), "max_model_len": max_model_len })))
}

/// `POST /detokenize`.
pub(crate) async fn detokenize(
    State(shared): State<Shared>,
    Body(request): Body<Detokenize>,
) -> Result<Json<Value>, ApiError> {
    let model = model(&shared, request.model.as_deref())?;
    check_ids("tokens", &model.tokenizer, &request.tokens)?;
    Ok(Json(json!({ "prompt": model.tokenizer.decode(&request.tokens) })))
}
