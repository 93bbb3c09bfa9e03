//! What a decoder must be to have latents fitted, scored and trained. Knows no device and no posterior.

use ltm_autodiff::{Graph, Result, Value, ops};
use ltm_model::encoder::{self, Encoded, EncoderInputs};
use ltm_model::{ModelConfig, ParamSpec, model, param_table};

/// The extents of a model that fits and scores depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extents {
    /// Latent vectors of a sequence, `L·Z`; 0 for a model without latents.
    pub n_latents: usize,
    /// Width of a latent vector, `C`.
    pub dim: usize,
    /// Groups of latents whose KL is reported apart, `L`: a divisor of `n_latents`, at least 1.
    pub n_layers: usize,
    /// Token ids are below this, `V`.
    pub vocab_size: usize,
    /// Most tokens of a sequence.
    pub max_seq_len: usize,
    /// The id that stands for a masked token, of a masked diffusion model.
    pub mask_id: Option<usize>,
    /// Whether the model predicts posteriors itself.
    pub has_encoder: bool,
}

impl Extents {
    /// Numbers of one sequence's latents, `L·Z·C`.
    pub fn latent_len(&self) -> usize {
        self.n_latents * self.dim
    }
}

impl From<&ModelConfig> for Extents {
    fn from(config: &ModelConfig) -> Self {
        Self {
            n_latents: config.n_latents,
            dim: config.dim,
            n_layers: config.n_layers,
            vocab_size: config.vocab_size,
            max_seq_len: config.max_seq_len,
            mask_id: config.mask_id(),
            has_encoder: config.encoder_width > 0,
        }
    }
}

/// `p(x|z)` as a graph. [`ModelConfig`] is one: the decoder of Latent Thought Models and its baselines.
pub trait Likelihood: Send + Sync {
    /// The model's extents.
    fn extents(&self) -> Extents;

    /// The trained parameters.
    fn params(&self) -> Vec<ParamSpec>;

    /// Traces `-log p` of each target, in nats, `(B·T)` of full precision; 0 for a target of -1.
    ///
    /// `weights` has one value per entry of [`params`](Self::params); `tokens (B,T)` and `targets (B·T)` are integers;
    /// `z (B,L·Z,C)` is `None` for a model without latents.
    ///
    /// # Errors
    /// Those of the operations.
    fn nll(
        &self,
        g: &mut Graph,
        weights: &[Value],
        tokens: Value,
        targets: Value,
        z: Option<Value>,
    ) -> Result<Value>;

    /// Traces the posterior that the model predicts from the targets alone; `None` without an encoder.
    ///
    /// # Errors
    /// Those of the operations.
    fn encode(
        &self,
        _g: &mut Graph,
        _weights: &[Value],
        _inputs: EncoderInputs,
    ) -> Result<Option<Encoded>> {
        Ok(None)
    }
}

impl Likelihood for ModelConfig {
    fn extents(&self) -> Extents {
        self.into()
    }

    fn params(&self) -> Vec<ParamSpec> {
        param_table(self)
    }

    fn nll(
        &self,
        g: &mut Graph,
        weights: &[Value],
        tokens: Value,
        targets: Value,
        z: Option<Value>,
    ) -> Result<Value> {
        let &[b, t] = g.shape(tokens) else {
            let reason = format!("tokens must be (B,T), found {:?}", g.shape(tokens));
            return Err(ltm_autodiff::Error::Shape { op: "model", reason });
        };
        let hidden = model::trace(g, self, weights, tokens, z, b, t)?.hidden;
        let output_weight = model::output_weight(g, weights)?;
        ops::cross_entropy(g, hidden, output_weight, targets)
    }

    fn encode(
        &self,
        g: &mut Graph,
        weights: &[Value],
        inputs: EncoderInputs,
    ) -> Result<Option<Encoded>> {
        match self.encoder_width {
            0 => Ok(None),
            _ => Ok(Some(encoder::trace(g, self, weights, inputs)?)),
        }
    }
}
