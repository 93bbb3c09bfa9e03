//! The decoder as a graph: tokens and latents in, hidden states and logits out. Knows no device, no
//! loss and no training.

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{Error, Graph, Kind, Result, UpdateRate, Value};

use crate::blocks::{Residual, attention, cast_matrices, feed_forward};
use crate::{Attention, ModelConfig, ModelParams, latent_map, param_table};

/// Declares every parameter as a graph input of [`UpdateRate::Weights`], named and ordered as in
/// [`param_table`].
pub fn declare_weights(g: &mut Graph, config: &ModelConfig) -> Vec<Value> {
    param_table(config)
        .iter()
        .map(|spec| g.input(&spec.name, &spec.shape, Kind::Float, UpdateRate::Weights))
        .collect()
}

/// What [`trace`] finds on its way, all `(B,T,C)` and of [`Kind::Activation`].
#[derive(Clone, Debug)]
pub struct Traced {
    /// The residual sum that each layer reads, and that after the last: `L+1` values. A graph computes them anyway,
    /// so those that nobody reads cost nothing.
    pub states: Vec<Value>,
    /// The norm of the last state, which [`logits`] reads.
    pub hidden: Value,
}

/// Traces the decoder up to and with its last norm.
///
/// `weights` as from [`declare_weights`]; `tokens (B,T)` of integers; `z (B,L·Z,C)`, the latents of
/// layer `l` in rows `l·Z..(l+1)·Z`, and `None` for the baseline without latents. Weights and latents
/// are of [`Kind::Float`].
///
/// Every layer adds, in this order, self-attention within the window, cross-attention to its own
/// latents, and the gated feed-forward, each of the normed state (Kong et al. 2025). With
/// [`Attention::Bidirectional`] self-attention sees every token. With `map_layers` the latents are first mapped, all layers'
/// together.
///
/// # Errors
/// [`Error::Shape`] when `config` is invalid, an input does not fit it, `b` and `t`, or `t` exceeds the
/// context.
pub fn trace(
    g: &mut Graph,
    config: &ModelConfig,
    weights: &[Value],
    tokens: Value,
    z: Option<Value>,
    b: usize,
    t: usize,
) -> Result<Traced> {
    check_config(config)?;
    let indices = ModelParams::indices(config);
    check_weights(config, weights)?;
    g.check("tokens", tokens)?;
    z.map_or(Ok(()), |z| g.check("z", z))?;
    check(g.shape(tokens) == [b, t] && t <= config.max_seq_len, || {
        let (found, most) = (g.shape(tokens), config.max_seq_len);
        format!("tokens must be [{b}, {t}] and at most {most} long, found {found:?}")
    })?;
    let latents = [b, config.n_latents, config.dim];
    check(z.map(|z| g.shape(z)) == (config.n_latents > 0).then_some(&latents[..]), || {
        let found = z.map(|z| g.shape(z));
        format!("z must be {latents:?}, and absent without latents, found {found:?}")
    })?;

    let (theta, head_dim) = (config.rope_theta, config.head_dim());
    let positions = ops::positions(g, t, 1)?;
    let token_table = ops::rope_table(g, positions, theta, head_dim)?;
    let weights = &cast_matrices(g, weights)?;
    let latents = match z {
        Some(z) => {
            let z = latent_map::trace(g, config, weights, z)?;
            let positions = ops::positions(g, config.latents_per_layer(), config.latent_stride())?;
            Some((z, ops::rope_table(g, positions, theta, head_dim)?))
        }
        None => None,
    };

    let embedded = ops::embedding(g, weights[indices.tok_embeddings], tokens)?;
    let mut h = Residual { sum: embedded, last: None, eps: config.norm_eps };
    let mask = match config.attention {
        Attention::Causal => Mask::Window(config.window),
        Attention::Bidirectional => Mask::None,
    };
    let mut states = Vec::with_capacity(config.n_layers + 1);
    for (layer_idx, layer) in indices.layers.iter().enumerate() {
        let x = h.norm(g, weights[layer.attention.norm])?;
        states.push(h.sum);
        let params = &layer.attention;
        let tables = [token_table, token_table];
        h.last = Some(attention(g, config, weights, params, [x, x], tables, mask)?);
        if let (Some((z, latent_table)), Some(params)) = (latents, &layer.cross_attention) {
            let n = config.latents_per_layer();
            let z = ops::slice(g, z, layer_idx * n, n)?;
            let z = ops::cast(g, z, Kind::Activation)?;
            let tables = [token_table, latent_table];
            let x = h.norm(g, weights[params.norm])?;
            let attended = attention(g, config, weights, params, [x, z], tables, Mask::None)?;
            h.last = Some(attended);
        }
        let x = h.norm(g, weights[layer.feed_forward.norm])?;
        h.last = Some(feed_forward(g, weights, &layer.feed_forward, x)?);
    }
    let hidden = h.norm(g, weights[indices.norm])?;
    states.push(h.sum);
    Ok(Traced { states, hidden })
}

/// The output matrix `(V,C)` as [`Kind::MatmulWeight`]: the embedding, which it is tied to.
///
/// # Errors
/// None for weights as from [`declare_weights`].
pub fn output_weight(g: &mut Graph, weights: &[Value]) -> Result<Value> {
    ops::cast(g, weights[0], Kind::MatmulWeight) // the table's first entry
}

/// Logits `(B,T,V)` of hidden states `(B,T,C)`, both of [`Kind::Activation`].
///
/// # Errors
/// [`Error::Shape`] when the widths differ.
pub fn logits(g: &mut Graph, hidden: Value, weights: &[Value]) -> Result<Value> {
    let output_weight = output_weight(g, weights)?;
    ops::linear(g, hidden, output_weight)
}

/// Refuses an invalid configuration.
pub(crate) fn check_config(config: &ModelConfig) -> Result<()> {
    config.validate().map_err(|error| Error::Shape { op: "model", reason: error.to_string() })
}

/// Refuses another number of weights than the configuration has.
pub(crate) fn check_weights(config: &ModelConfig, weights: &[Value]) -> Result<()> {
    let expected = param_table(config).len();
    let found = weights.len();
    check(found == expected, || format!("{found} weights, the configuration has {expected}"))
}

pub(crate) fn check(holds: bool, reason: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Shape { op: "model", reason: reason() }) }
}
