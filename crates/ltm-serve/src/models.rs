//! The models that are served, as routes see them, and their names. Computes nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use ltm_eval::ltm_train::data::SharedTokenizer;
use ltm_eval::ltm_train::{Checkpoint, Config};
use ltm_eval::ltm_vi::Protocol;
use serde_json::{Value, json};

use crate::error::{ApiError, Error, Result};

/// Targets of a block where the model's name does not specify them.
pub(crate) const STRIDE: usize = 32;
/// Samples of the latents of each block.
pub(crate) const SAMPLES: usize = Protocol::DEFAULT_SAMPLES;
/// What separates a model's name from the protocol of its scores.
const SCORED_BY: &str = "@prequential-";

/// A model, without its weights.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) config: Config,
    pub(crate) tokenizer: SharedTokenizer,
    /// Seconds since 1970.
    created: u64,
}

/// A model that a request names, with the block length of its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Named {
    /// Its number.
    pub(crate) model: usize,
    /// Targets per block.
    pub(crate) stride: usize,
}

impl Model {
    /// The model of a checkpoint under a name.
    pub(crate) fn new(id: &str, checkpoint: &Checkpoint) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            id: id.into(),
            config: checkpoint.config.clone(),
            tokenizer: checkpoint.tokenizer.clone(),
            created: now.as_secs(),
        }
    }

    /// The protocol of its scores of prompts.
    pub(crate) fn protocol(&self, stride: usize) -> Protocol {
        match self.config.model.n_latents {
            0 => Protocol::Autoregressive,
            _ => Protocol::Prequential { stride, samples: SAMPLES },
        }
    }

    /// Tokens of a text after the one that documents begin with, which is added where they do not begin with it.
    pub(crate) fn document(&self, ids: &[u32]) -> Vec<i32> {
        let separator = self.tokenizer.separator();
        let first = (ids.first() != Some(&separator)).then_some(separator);
        first.into_iter().chain(ids.iter().copied()).map(|id| id as i32).collect()
    }

    /// Its entry in `/v1/models`, under a name that may specify the block length of its scores.
    pub(crate) fn entry(&self, id: &str, stride: usize) -> Value {
        let model = &self.config.model;
        json!({
            "id": id, "object": "model", "created": self.created, "owned_by": "ltm",
            "max_model_len": model.max_seq_len, "latents": model.n_latents,
            "scoring": self.protocol(stride).to_string(),
        })
    }
}

/// Refuses names that requests could not tell apart.
pub(crate) fn check_names<'a>(ids: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for id in ids {
        let (field, found) = ("model", format!("`{id}`"));
        if id.is_empty() || id.contains('@') || id.chars().any(char::is_control) {
            let expected =
                "a name without `@`, which separates a model from the protocol of its scores";
            return Err(Error::Field { field, expected: expected.into(), found });
        }
        if !seen.insert(id) {
            return Err(Error::Field {
                field,
                expected: "names that differ".into(),
                found: format!("{found} twice"),
            });
        }
    }
    match seen.is_empty() {
        true => Err(Error::Field {
            field: "model",
            expected: "at least one".into(),
            found: "none".into(),
        }),
        false => Ok(()),
    }
}

/// The model that a request names, such as `quickstart` or `quickstart@prequential-16`.
pub(crate) fn find(models: &[Model], name: &str) -> std::result::Result<Named, ApiError> {
    let (id, stride) = match name.split_once(SCORED_BY) {
        None => (name, None),
        Some((id, stride)) => (id, Some(stride)),
    };
    let model =
        models.iter().position(|model| model.id == id).ok_or_else(|| ApiError::no_model(name))?;
    let stride = match stride {
        None => STRIDE,
        Some(stride) => stride.parse().ok().filter(|stride| *stride > 0).ok_or_else(|| {
            ApiError::field(
                "model",
                format!("a number of at least 1 after `{SCORED_BY}`"),
                format!("`{stride}`"),
            )
        })?,
    };
    Ok(Named { model, stride })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_separate_the_protocol() {
        let refused = |ids: &[&str]| check_names(ids.iter().copied()).unwrap_err().to_string();
        assert!(check_names(["a", "b"]).is_ok());
        assert!(refused(&[]).contains("at least one"));
        assert!(refused(&["a", "a"]).contains("`a` twice"));
        assert!(refused(&["a@b"]).contains("without `@`"));
        assert!(refused(&[""]).contains("a name"));
    }
}
