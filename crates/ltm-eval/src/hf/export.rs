//! Writes the folder of a model for `transformers`. Reads nothing.

use std::path::Path;

use ltm_files::{create_dir, write_whole};
use ltm_train::Trained;
use ltm_train::config::Config;
use ltm_train::data::tokenizer::{END_OF_TEXT, TOKENIZER_FILE, TokenizerSpec, portable};
use ltm_train::ltm_model::Attention;
use ltm_train::trained::check_empty;
use ltm_vi::{Method, Protocol};
use serde_json::{Value, json};

use super::{CONFIG_JSON, FORMAT, Ltm, MODEL_TYPE, PYTHON, WEIGHTS};
use crate::{Error, Result};

/// The protocol of a model's log-probabilities where none is given: each block of at most 32 tokens from latents that are
/// fitted to the text before it; exact for a model without latents.
pub fn default_protocol(config: &Config) -> Protocol {
    match config.model.n_latents {
        0 => Protocol::Autoregressive,
        _ => Protocol::Prequential {
            stride: config.train.seq_len.min(32),
            samples: Protocol::DEFAULT_SAMPLES,
        },
    }
}

/// Writes a folder that `AutoModelForCausalLM.from_pretrained(dir, trust_remote_code=True)` loads: weights, tokenizer,
/// configuration, and the PyTorch code of the model. The log-probabilities of its `forward` are those of `protocol`.
///
/// # Errors
/// [`Error::Field`] for what the PyTorch code does not do, such as bidirectional attention, and for a protocol that does
/// not predict text from left to right; [`Error::File`] when `dir` has files already or cannot be written.
pub fn export(model: &Trained, protocol: Protocol, dir: &Path) -> Result<()> {
    check(model, protocol)?;
    check_empty(dir)?;
    let tokenizer = portable(&*model.tokenizer)?;
    let metadata = [("format".to_string(), "pt".to_string())];
    let weights = model.weights.to_bytes_with(&model.config.model, metadata)?;
    create_dir(dir)?;
    let text = |value: &Value| serde_json::to_vec_pretty(value).expect("plain data serialises");
    let separator = model.tokenizer.separator();
    let generation = json!({
        "bos_token_id": separator, "eos_token_id": separator, "pad_token_id": separator
    });
    for (name, code) in PYTHON {
        write_whole(&dir.join(name), code.as_bytes())?;
    }
    write_whole(&dir.join(TOKENIZER_FILE), &tokenizer)?;
    write_whole(&dir.join("tokenizer_config.json"), &text(&tokenizer_config(model)))?;
    write_whole(&dir.join("generation_config.json"), &text(&generation))?;
    write_whole(&dir.join(WEIGHTS), &weights)?;
    // Last: a folder without it is no model.
    Ok(write_whole(&dir.join(CONFIG_JSON), &text(&config_json(model, protocol)))?)
}

/// Refuses what the PyTorch code does not do.
fn check(model: &Trained, protocol: Protocol) -> Result<()> {
    let Config { model: decoder, infer, train, .. } = &model.config;
    if decoder.attention == Attention::Bidirectional {
        let expected = "`causal`, for a model that predicts text from left to right";
        return Err(Error::field("model.attention", expected, "bidirectional"));
    }
    if infer.method == Method::Langevin && decoder.n_latents > 0 {
        let expected = "`variational`: a score needs a density of the latents";
        return Err(Error::field("infer.method", expected, "langevin"));
    }
    match (protocol, decoder.n_latents) {
        (Protocol::Prequential { .. }, _) | (Protocol::Autoregressive, 0) => {}
        (other, 0) => {
            return Err(Error::field("protocol", "`autoregressive` or `prequential`", other));
        }
        (other, _) => return Err(Error::field("protocol", "`prequential:STRIDE:SAMPLES`", other)),
    }
    Ok(protocol.check(train.seq_len)?)
}

fn config_json(model: &Trained, protocol: Protocol) -> Value {
    let Config { model: decoder, .. } = &model.config;
    let separator = model.tokenizer.separator();
    let ltm = Ltm {
        format: FORMAT,
        protocol,
        step: model.step,
        tokenizer: model.tokenizer.spec(),
        config: json!(model.config),
    };
    json!({
        "architectures": ["LtmForCausalLM"],
        "auto_map": {
            "AutoConfig": "configuration_ltm.LtmConfig",
            "AutoModelForCausalLM": "modeling_ltm.LtmForCausalLM"
        },
        "model_type": MODEL_TYPE,
        "bos_token_id": separator,
        "eos_token_id": separator,
        "pad_token_id": separator,
        "dtype": "float32",
        "hidden_size": decoder.dim,
        "max_position_embeddings": decoder.max_seq_len,
        "num_attention_heads": decoder.n_heads,
        "num_hidden_layers": decoder.n_layers,
        "tie_word_embeddings": false,
        "vocab_size": decoder.vocab_size,
        "ltm": ltm
    })
}

fn tokenizer_config(model: &Trained) -> Value {
    let separator = match model.tokenizer.spec() {
        TokenizerSpec::Json { separator: Some(separator), .. } => separator,
        _ => END_OF_TEXT.into(),
    };
    json!({
        "auto_map": { "AutoTokenizer": ["tokenization_ltm.LtmTokenizer", null] },
        "tokenizer_class": "LtmTokenizer",
        "bos_token": separator,
        "eos_token": separator,
        "pad_token": separator,
        "clean_up_tokenization_spaces": false,
        "model_max_length": model.config.model.max_seq_len,
        "vocab_size": model.tokenizer.vocab_size()
    })
}
