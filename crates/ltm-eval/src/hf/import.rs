//! Reads a model from a folder of `transformers` or a file of weights. Writes nothing.

use std::fs;
use std::path::Path;

use ltm_train::config::Config;
use ltm_train::data::SharedTokenizer;
use ltm_train::ltm_model::{self, WeightFile};
use ltm_train::{Trained, chain};
use serde_json::Value;

use super::{CONFIG_JSON, FORMAT, Ltm, MODEL_TYPE, WEIGHTS};
use crate::{Error, Result};

/// Prefixes that PyTorch's wrappers put before the names of a module.
const WRAPPERS: [&str; 2] = ["module.", "_orig_mod."];
/// Tables that are computed, and that some versions of the published code save with the weights.
const BUFFERS: [&str; 3] = ["freqs_cos", "freqs_sin", "inv_freq"];

/// The model in a folder that [`export`](super::export) wrote, or that `save_pretrained` wrote of such a model after more
/// training.
///
/// # Errors
/// [`Error::File`] and [`Error::Config`] naming the file that is missing, damaged, or of another kind of model.
pub fn import(dir: &Path) -> Result<Trained> {
    let path = dir.join(CONFIG_JSON);
    let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
    let damaged = |error: serde_json::Error| {
        Error::content(
            &path,
            "content",
            "the configuration of an exported model",
            error.to_string(),
        )
    };
    let mut json: Value = serde_json::from_slice(&bytes).map_err(damaged)?;
    if json["model_type"] != MODEL_TYPE {
        let found = json["model_type"].to_string();
        return Err(Error::content(&path, "model_type", format!("{MODEL_TYPE:?}"), found));
    }
    let format = &json["ltm"]["format"];
    if *format != FORMAT {
        let expected = format!("{FORMAT}, which this build reads");
        return Err(Error::content(&path, "ltm.format", expected, format.to_string()));
    }
    let Ltm { step, tokenizer, config, .. } =
        serde_json::from_value(json["ltm"].take()).map_err(damaged)?;
    let table = toml::to_string(&to_toml(config)).map_err(|error| {
        Error::content(&path, "ltm.config", "sections of a configuration", error.to_string())
    })?;
    let config = Config::parse_resolved(&table, &path, &[])?;
    let tokenizer = tokenizer.open(dir)?;
    let path = dir.join(WEIGHTS);
    let weights = ltm_model::Weights::load(&path, &config.model)?;
    Ok(Trained::new(config, weights, tokenizer, step)?)
}

/// The model of `config` over `tokenizer` with the weights of a safetensors file under the published code's names, which may
/// be those of a compiled or distributed module.
///
/// # Errors
/// [`Error::File`] naming the file that cannot be read or is not a safetensors file; [`Error::Train`] for weights of another
/// model.
pub fn import_weights(path: &Path, config: Config, tokenizer: SharedTokenizer) -> Result<Trained> {
    let bytes = fs::read(path).map_err(Error::io(path, "read"))?;
    let file = WeightFile::parse(&bytes, path.display().to_string()).map_err(|error| {
        let expected = "a safetensors file; docs/export.md shows how to convert others";
        Error::content(path, "content", expected, chain(&error))
    })?;
    let weights = file.rename(published).weights(&config.model)?;
    Ok(Trained::new(config, weights, tokenizer, 0)?)
}

/// The name of a weight without the prefixes of wrappers; `None` for a tensor that is not a weight.
fn published(name: &str) -> Option<String> {
    let mut name = name;
    while let Some(inner) = WRAPPERS.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = inner;
    }
    let is_buffer = BUFFERS.iter().any(|buffer| name.rsplit('.').next() == Some(buffer));
    (!is_buffer).then(|| name.into())
}

/// The same in TOML's types, where infinity has a form: JSON's `null` stands for it.
fn to_toml(json: Value) -> toml::Value {
    match json {
        Value::Null => f64::INFINITY.into(),
        Value::Bool(value) => value.into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, number) => number.unwrap_or(f64::NAN).into(),
        },
        Value::String(text) => text.into(),
        Value::Array(items) => items.into_iter().map(to_toml).collect::<Vec<_>>().into(),
        Value::Object(keys) => {
            let keys = keys.into_iter().map(|(key, value)| (key, to_toml(value)));
            keys.collect::<toml::Table>().into()
        }
    }
}
