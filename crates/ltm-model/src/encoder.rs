//! The encoder as a graph: from a text to the posterior of its latents, in one pass. Knows no decoder, no loss and no
//! training.

use ltm_autodiff::ops;
use ltm_autodiff::{Graph, Kind, Result, Value};

use crate::blocks::cast_matrices;
use crate::model::{check, check_config, check_weights};
use crate::{ModelConfig, ModelParams, NormedParams};

/// What the encoder reads.
#[derive(Clone, Copy, Debug)]
pub struct EncoderInputs {
    /// The text, integers `(B,T)` in `0..=V`; `V` stands for a position without text.
    pub text: Value,
    /// 1 where there is text and 0 elsewhere, `(B,T)`.
    pub present: Value,
}

/// A posterior predicted by the encoder.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// Means, `(B,L·Z,C)`.
    pub mu: Value,
    /// Logarithms of the variances, `(B,L·Z,C)`.
    pub log_var: Value,
    /// Where numbers are normalised by [calibrated](Normed) gains and shifts, first to last.
    pub normed: Vec<Normed>,
}

/// Numbers that the encoder normalises: `gain · x + shift`, each feature by itself.
///
/// Gain and shift are set once, before training, such that each feature of `x` has mean 0 and variance 1 over texts
/// (a data-dependent initialisation: Salimans and Kingma 2016), and are trained like other weights from there. A text's
/// posterior therefore never depends on its batch. Without it the sum over a text is nearly the same for all
/// texts, and the decoder learns to ignore its latents.
#[derive(Clone, Copy, Debug)]
pub struct Normed {
    /// The numbers before, `(B,F)`.
    pub x: Value,
    /// The parameters, as indices into [`param_table`](crate::param_table).
    pub params: NormedParams<usize>,
}

/// Traces the encoder: mean and log-variance, of [`Kind::Float`].
///
/// `weights` as from [`declare_weights`](crate::model::declare_weights) for a configuration with an `encoder_width`.
///
/// A feature is a function of three neighbouring tokens, `relu(W [e(t-1) e(t) e(t+1)] + b)`; features are summed over
/// the text, normalised, mixed by a residual layer, and two matrices map the result to mean and log-variance. The means are
/// normalised too, so that they differ between texts from the first step on; the log-variance starts at -3.
///
/// # Errors
/// [`Error::Shape`](ltm_autodiff::Error::Shape) when `config` is invalid or has no encoder, or an input
/// does not fit it.
pub fn trace(
    g: &mut Graph,
    config: &ModelConfig,
    weights: &[Value],
    inputs: EncoderInputs,
) -> Result<Encoded> {
    check_config(config)?;
    check_weights(config, weights)?;
    let params = ModelParams::indices(config).encoder;
    check(params.is_some(), || "the configuration has no encoder".into())?;
    let Some(params) = params else { unreachable!("checked above") };
    let EncoderInputs { text, present } = inputs;
    g.check("text", text)?;
    g.check("present", present)?;
    let shape = g.shape(text).to_vec();
    check(shape.len() == 2 && shape[1] <= config.max_seq_len, || {
        format!("text must be (B,T) within the context, found {shape:?}")
    })?;
    let (b, t) = (shape[0], shape[1]);
    let found = g.shape(present);
    check(found == [b, t], || format!("present must be {:?}, found {found:?}", [b, t]))?;

    let weights = &cast_matrices(g, weights)?;
    let embedded = ops::embedding(g, weights[params.tok_embeddings], text)?;
    // What follows a text is the same whether its row ends there or goes on without text.
    let nothing = ops::narrow(g, weights[params.tok_embeddings], 0, config.vocab_size, 1)?;
    let neighbours = neighbours(g, embedded, nothing)?;
    let features = affine(g, neighbours, weights[params.features], weights[params.features_bias])?;
    let features = ops::relu(g, features)?;
    let present = ops::reshape(g, present, &[b, t, 1])?;
    let features = ops::mul(g, features, present)?;
    let pooled = ops::sum(g, features, &[1])?;
    let pooled = ops::reshape(g, pooled, &[b, config.encoder_width])?;
    let mut normed = Vec::new();
    let pooled = norm(g, weights, &mut normed, pooled, params.pooled)?;
    let mixed = affine(g, pooled, weights[params.mix], weights[params.mix_bias])?;
    let mixed = ops::relu(g, mixed)?;
    let mixed = ops::add(g, pooled, mixed)?;
    let mixed = norm(g, weights, &mut normed, mixed, params.mixed)?;
    let read = ops::cast(g, mixed, Kind::Activation)?;
    let mu = ops::linear(g, read, weights[params.mu])?;
    let mu = ops::cast(g, mu, Kind::Float)?;
    let mu = norm(g, weights, &mut normed, mu, params.means)?;
    let log_var = affine(g, mixed, weights[params.log_var], weights[params.log_var_bias])?;
    let latents = [b, config.n_latents, config.dim];
    let [mu, log_var] = [ops::reshape(g, mu, &latents)?, ops::reshape(g, log_var, &latents)?];
    Ok(Encoded { mu, log_var, normed })
}

/// `(B,T,E)` → `(B,T,3·E)`: each position with the one before it and the one after it; zeros before the first, and `nothing
/// (1,E)` after the last.
fn neighbours(g: &mut Graph, x: Value, nothing: Value) -> Result<Value> {
    let &[b, t, e] = g.shape(x) else { unreachable!("an embedding of (B,T)") };
    let zeros = ops::fill(g, &[b, 1, e], 0.0);
    let before = ops::cast(g, zeros, Kind::Activation)?;
    let nothing = ops::cast(g, nothing, Kind::Activation)?;
    let nothing = ops::reshape(g, nothing, &[1, 1, e])?;
    let after = ops::add(g, before, nothing)?;
    let padded = ops::concat(g, &[before, x, after], 1)?;
    let shifted = |g: &mut Graph, start| ops::narrow(g, padded, 1, start, t);
    let parts = [shifted(g, 0)?, x, shifted(g, 2)?];
    ops::concat(g, &parts, 2)
}

/// `W x + b`, in full precision.
fn affine(g: &mut Graph, x: Value, weight: Value, bias: Value) -> Result<Value> {
    let x = ops::cast(g, x, Kind::Activation)?;
    let x = ops::linear(g, x, weight)?;
    let x = ops::cast(g, x, Kind::Float)?;
    ops::add(g, x, bias)
}

fn norm(
    g: &mut Graph,
    weights: &[Value],
    normed: &mut Vec<Normed>,
    x: Value,
    params: NormedParams<usize>,
) -> Result<Value> {
    normed.push(Normed { x, params });
    let scaled = ops::mul(g, x, weights[params.gain])?;
    ops::add(g, scaled, weights[params.shift])
}
