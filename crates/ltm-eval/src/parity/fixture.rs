//! A file of recorded values: a small model with its batch and its hyperparameters, and what another implementation
//! computed from them. Computes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ltm_model::{Attention, ModelConfig, Weights, param_table};
use ltm_train::chain;
use ltm_vi::{Batch, Posterior};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::{Error, Result};

/// Recorded values of another implementation, with the model, batch and posterior that they belong to.
#[derive(Debug)]
pub struct Fixture {
    path: PathBuf,
    pub(super) hyperparameters: Hyperparameters,
    pub(super) model: ModelConfig,
    pub(super) weights: Weights,
    /// `(B,T)` tokens and targets.
    pub(super) batch: Batch,
    /// The posterior before the first fast step.
    pub(super) start: Posterior,
    /// The file's tensors of floats, by name.
    pub(super) floats: HashMap<String, Vec<f32>>,
    /// Tokens of greedy decoding, `(B,N)`.
    pub(super) greedy: Option<Vec<i32>>,
}

/// The metadata `config` of a fixture; other keys are notes.
#[derive(Debug, Deserialize)]
pub(super) struct Hyperparameters {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    max_seq_len: usize,
    window_size: usize,
    n_latents: usize,
    batch: usize,
    ffn_hidden: usize,
    norm_eps: f64,
    rope_theta: f64,
    pub(super) fast_betas: [f64; 2],
    pub(super) fast_eps: f64,
    pub(super) fast_weight_decay: f64,
    pub(super) fast_lrs: Vec<f64>,
    #[serde(default)]
    pub(super) nelbo_trajectory: Vec<f64>,
    pub(super) slow_lr: f64,
    pub(super) slow_betas: [f64; 2],
    pub(super) slow_weight_decay: f64,
    pub(super) grad_clip: f64,
}

impl Hyperparameters {
    fn model(&self) -> ModelConfig {
        ModelConfig {
            dim: self.dim,
            n_layers: self.n_layers,
            n_heads: self.n_heads,
            n_kv_heads: self.n_kv_heads,
            vocab_size: self.vocab_size,
            max_seq_len: self.max_seq_len,
            window: self.window_size,
            n_latents: self.n_latents,
            ffn_hidden: self.ffn_hidden,
            norm_eps: self.norm_eps,
            rope_theta: self.rope_theta,
            attention: Attention::Causal,
            encoder_width: 0,
            init_std: 0.02,
            prior_layers: 0,
            map_layers: 0,
        }
    }
}

impl Fixture {
    /// Reads a safetensors file with hyperparameters in the metadata key `config`.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, and one whose metadata or tensors are missing or invalid.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(Error::io(path, "read"))?;
        let invalid = |what: &str, error: &dyn std::error::Error| {
            Error::content(path, what, "a fixture", chain(error))
        };
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| invalid("header", &error))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|error| invalid("content", &error))?;
        let config = header.metadata().as_ref().and_then(|map| map.get("config"));
        let config =
            config.ok_or_else(|| Error::content(path, "metadata", "the key `config`", "none"))?;
        let hyperparameters: Hyperparameters =
            serde_json::from_str(config).map_err(|error| invalid("metadata `config`", &error))?;

        let (mut floats, mut ints) = (HashMap::new(), HashMap::new());
        for (name, view) in file.tensors() {
            let (words, _) = view.data().as_chunks::<4>();
            match view.dtype() {
                Dtype::F32 => {
                    let values: Vec<f32> = words.iter().map(|w| f32::from_le_bytes(*w)).collect();
                    floats.insert(name, values);
                }
                Dtype::I32 => {
                    let values: Vec<i32> = words.iter().map(|w| i32::from_le_bytes(*w)).collect();
                    ints.insert(name, values);
                }
                other => {
                    let (what, found) = (format!("tensor `{name}`"), format!("{other:?}"));
                    return Err(Error::content(path, what, "F32 or I32", found));
                }
            }
        }

        let model = hyperparameters.model();
        model.validate().map_err(|error| invalid("metadata `config`", &error))?;
        if model.n_latents == 0 {
            return Err(Error::content(path, "`n_latents` of the metadata", "at least 1", "0"));
        }
        let param = |name: &str| Ok(tensor(path, &floats, &format!("param.{name}"))?.clone());
        let params =
            param_table(&model).iter().map(|spec| param(&spec.name)).collect::<Result<_>>();
        let weights = Weights { params: params? };
        weights.check(&model).map_err(|error| invalid("tensors `param.*`", &error))?;
        let (tokens, targets) = (tensor(path, &ints, "tokens")?, tensor(path, &ints, "targets")?);
        let batch = Batch::new(&model, hyperparameters.batch, tokens, targets)
            .map_err(|error| invalid("tensors `tokens`, `targets`", &error))?;
        let start = Posterior {
            mu: tensor(path, &floats, "mu0")?.clone(),
            log_var: tensor(path, &floats, "log_var0")?.clone(),
            noise: tensor(path, &floats, "eps")?.clone(),
            factor: None,
        };
        let greedy = ints.remove("greedy_after");
        let path = path.into();
        Ok(Self { path, hyperparameters, model, weights, batch, start, floats, greedy })
    }

    /// A recorded tensor.
    pub(super) fn recorded(&self, name: &str) -> Result<&[f32]> {
        tensor(&self.path, &self.floats, name).map(Vec::as_slice)
    }
}

fn tensor<'a, T>(path: &Path, tensors: &'a HashMap<String, T>, name: &str) -> Result<&'a T> {
    let missing = || Error::content(path, "tensors", format!("one called `{name}`"), "none");
    tensors.get(name).ok_or_else(missing)
}
