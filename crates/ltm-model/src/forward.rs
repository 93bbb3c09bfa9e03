//! One pass over whole texts, for the values at every position: logits and hidden states of each layer. Knows no
//! cache, no loss and no training.

use ltm_autodiff::{Graph, Kind, Plan, Precision, Store, UpdateRate, Value, ops};

use crate::inputs::{argument, check_latents, check_tokens};
use crate::model::{declare_weights, output_weight, trace};
use crate::{DeviceWeights, Error, ModelConfig, ModelParams, Result, param_table};

/// A value that [`Forward`] returns. Each is of the residual sum after this many layers: 0 for the embedding, `L` for
/// what the model's own output is computed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tap {
    /// The sum itself, `(B,T,C)`.
    State(usize),
    /// Its norm, the model's last, `(B,T,C)`.
    Normed(usize),
    /// The logits of that norm, `(B,T,V)`: the model's for `L`, the "logit lens" for fewer (nostalgebraist 2020).
    Logits(usize),
}

impl Tap {
    fn layers(self) -> usize {
        match self {
            Self::State(layers) | Self::Normed(layers) | Self::Logits(layers) => layers,
        }
    }
}

/// Computes logits and hidden states of whole texts, of every model: causal, bidirectional, with and without latents.
///
/// The graph is traced for the shape of a batch and kept until one of another shape comes. To continue texts token by
/// token, [`Decoder`](crate::Decoder) is faster.
///
/// ```
/// use ltm_model::ltm_autodiff::Precision;
/// use ltm_model::{Device, DeviceWeights, Forward, ModelConfig, Tap, Weights};
/// # fn main() -> ltm_model::Result<()> {
/// let config = ModelConfig { dim: 8, n_layers: 2, n_heads: 2, n_kv_heads: 1, vocab_size: 5, max_seq_len: 4,
///     window: 4, n_latents: 2, ffn_hidden: 8, ..ModelConfig::ltm_small() };
/// let weights = Weights::init(&config, 1)?;
/// let weights = DeviceWeights::new(&config, &weights, &Device::Cpu, Precision::F32)?;
/// let taps = [Tap::Logits(2), Tap::State(1)];
/// let mut forward = Forward::new(config, weights, Precision::F32, &taps)?;
/// // Two texts of three tokens.
/// let found = forward.run(2, &[0, 1, 2, 0, 4, 3], &[0.0; 2 * 2 * 8])?;
/// assert_eq!(found[0].len(), 2 * 3 * 5); // logits (B,T,V)
/// assert_eq!(found[1].len(), 2 * 3 * 8); // the state after the first layer (B,T,C)
/// # Ok(())
/// # }
/// ```
pub struct Forward {
    config: ModelConfig,
    weights: DeviceWeights,
    precision: Precision,
    taps: Vec<Tap>,
    pass: Option<Pass>,
}

/// A graph of one batch shape, with its memory.
struct Pass {
    shape: [usize; 2],
    store: Store,
    plan: Plan,
    tokens: Value,
    z: Option<Value>,
    outputs: Vec<Value>,
}

impl Forward {
    /// A pass over the model of `weights`, which it shares, on their device, that returns `taps`.
    ///
    /// # Errors
    /// [`Error::Config`]; those of [`DeviceWeights::check`]; [`Error::Argument`] for taps after more layers than the
    /// model has, and for a precision whose floats are not the weights'.
    pub fn new(
        config: ModelConfig,
        weights: DeviceWeights,
        precision: Precision,
        taps: &[Tap],
    ) -> Result<Self> {
        config.validate()?;
        weights.check(&param_table(&config))?;
        let device = weights.device();
        if !precision.fits(&device) {
            let device = device.to_string();
            return Err(ltm_autodiff::Error::Precision { precision, device }.into());
        }
        if weights.dtype() != precision.float {
            let expected = format!("of {}, as the weights", weights.dtype());
            return Err(argument("precision", expected, precision.float));
        }
        if let Some(tap) = taps.iter().find(|tap| tap.layers() > config.n_layers) {
            let expected = format!("after at most {} layers", config.n_layers);
            return Err(argument("taps", expected, format!("{tap:?}")));
        }
        Ok(Self { config, weights, precision, taps: taps.to_vec(), pass: None })
    }

    /// Each tap's values, row-major and rounded to single precision, for the texts `tokens (B,T)` and their latents
    /// `z (B,L·Z,C)`, which are no numbers for a model without latents.
    ///
    /// # Errors
    /// [`Error::Argument`] when `tokens` is not a positive number of tokens for each of `b` texts, or `z` has another
    /// length or a number that is not finite; [`Error::ContextFull`]; [`Error::Kernel`] for a token outside the
    /// vocabulary, or when memory runs out.
    pub fn run(&mut self, b: usize, tokens: &[i32], z: &[f32]) -> Result<Vec<Vec<f32>>> {
        let config = &self.config;
        if b == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(b) {
            let expected = format!("a positive multiple of {b} tokens");
            return Err(argument("tokens", expected, tokens.len()));
        }
        let t = tokens.len() / b;
        if t > config.max_seq_len {
            let max_seq_len = config.max_seq_len;
            return Err(Error::ContextFull { position: 0, added: t, max_seq_len });
        }
        check_tokens(tokens, config.vocab_size)?;
        check_latents(config, b, z)?;
        if self.pass.as_ref().is_some_and(|pass| pass.shape != [b, t]) {
            // Before another one takes memory.
            self.pass = None;
        }
        let pass = match &mut self.pass {
            Some(pass) => pass,
            empty => {
                let new = Pass::new(config, &self.weights, self.precision, &self.taps, [b, t])?;
                empty.insert(new)
            }
        };
        pass.store.write_i32(pass.tokens, tokens)?;
        if let Some(latents) = pass.z {
            pass.store.write_f32(latents, z)?;
        }
        pass.plan.run(pass.store.with(self.weights.parameters()))?;
        pass.outputs.iter().map(|value| Ok(pass.plan.output(*value)?.to_f32()?)).collect()
    }
}

impl Pass {
    fn new(
        config: &ModelConfig,
        weights: &DeviceWeights,
        precision: Precision,
        taps: &[Tap],
        [b, t]: [usize; 2],
    ) -> Result<Self> {
        let mut g = Graph::new();
        let params = declare_weights(&mut g, config);
        let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
        let latents = [b, config.n_latents, config.dim];
        let z =
            (config.n_latents > 0).then(|| g.input("z", &latents, Kind::Float, UpdateRate::Step));
        let traced = trace(&mut g, config, &params, tokens, z, b, t)?;
        let norm = params[ModelParams::indices(config).norm];
        let output_weight = output_weight(&mut g, &params)?;
        let mut outputs = Vec::with_capacity(taps.len());
        for tap in taps {
            let state = traced.states[tap.layers()];
            let mut normed = || match tap.layers() == config.n_layers {
                true => Ok(traced.hidden),
                false => ops::rms_norm(&mut g, state, norm, config.norm_eps),
            };
            outputs.push(match tap {
                Tap::State(_) => state,
                Tap::Normed(_) => normed()?,
                Tap::Logits(_) => {
                    let normed = normed()?;
                    ops::linear(&mut g, normed, output_weight)?
                }
            });
        }
        let device = weights.device();
        let store = Store::with_parameters(&g, &device, precision, &params)?;
        let plan = Plan::new(&g, &device, precision, &outputs)?;
        Ok(Self { shape: [b, t], store, plan, tokens, z, outputs })
    }
}
