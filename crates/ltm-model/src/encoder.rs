//! The amortised encoder as a graph: from a text to the posterior of its latents. Knows no decoder, no loss
//! and no training.

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{Graph, Kind, Result, Value};

use crate::model::{
    Residual, attention, cast_matrices, check, check_config, check_weights, feed_forward,
};
use crate::{ModelConfig, ModelParams};

/// Traces the encoder: mean and log-variance `(B,L·Z,C)`, both of [`Kind::Float`].
///
/// `weights` as from [`declare_weights`](crate::model::declare_weights) for a configuration with
/// `encoder_layers`; `text (B,T)` of integers in `0..=V`, where `V` stands for a position without text;
/// `latents (B,L·Z)` of integers, each row `0..L·Z`.
///
/// The layers attend to the whole text. Then one query per latent attends to their output, and two matrices
/// map the result to mean and log-variance: the encoder of a variational autoencoder (Kingma and Welling
/// 2014).
///
/// # Errors
/// [`Error::Shape`](ltm_autodiff::Error::Shape) when `config` is invalid or has no encoder, or an input
/// does not fit it.
pub fn trace(
    g: &mut Graph,
    config: &ModelConfig,
    weights: &[Value],
    text: Value,
    latents: Value,
) -> Result<[Value; 2]> {
    check_config(config)?;
    check_weights(config, weights)?;
    let params = ModelParams::indices(config).encoder;
    check(params.is_some(), || "the configuration has no encoder".into())?;
    let Some(params) = params else { unreachable!("checked above") };
    g.check("text", text)?;
    g.check("latents", latents)?;
    let shape = g.shape(text);
    check(shape.len() == 2 && shape[1] <= config.max_seq_len, || {
        format!("text must be (B,T) within the context, found {shape:?}")
    })?;
    let (b, t) = (shape[0], shape[1]);
    let found = g.shape(latents);
    let expected = [b, config.n_latents];
    check(found == expected, || format!("latents must be {expected:?}, found {found:?}"))?;

    let (theta, head_dim) = (config.rope_theta, config.head_dim());
    let positions = ops::positions(g, t, 1)?;
    let text_table = ops::rope_table(g, positions, theta, head_dim)?;
    // Queries have no position in the text: all have position 0.
    let positions = ops::positions(g, config.n_latents, 0)?;
    let query_table = ops::rope_table(g, positions, theta, head_dim)?;

    let weights = &cast_matrices(g, weights)?;
    let sum = ops::embedding(g, weights[params.tok_embeddings], text)?;
    let mut h = Residual { sum, last: None, eps: config.norm_eps };
    for layer in &params.layers {
        let x = h.norm(g, weights[layer.attention.norm])?;
        let (params, tables) = (&layer.attention, [text_table, text_table]);
        h.last = Some(attention(g, config, weights, params, [x, x], tables, Mask::None)?);
        let x = h.norm(g, weights[layer.feed_forward.norm])?;
        h.last = Some(feed_forward(g, weights, &layer.feed_forward, x)?);
    }
    let read = h.norm(g, weights[params.norm])?;

    let sum = ops::embedding(g, weights[params.queries], latents)?;
    let mut h = Residual { sum, last: None, eps: config.norm_eps };
    let x = h.norm(g, weights[params.pool.attention.norm])?;
    let (pool, tables) = (&params.pool.attention, [query_table, text_table]);
    h.last = Some(attention(g, config, weights, pool, [x, read], tables, Mask::None)?);
    let x = h.norm(g, weights[params.pool.feed_forward.norm])?;
    h.last = Some(feed_forward(g, weights, &params.pool.feed_forward, x)?);
    let x = h.norm(g, weights[params.pool_norm])?;
    let mu = ops::linear(g, x, weights[params.mu])?;
    let log_var = ops::linear(g, x, weights[params.log_var])?;
    Ok([ops::cast(g, mu, Kind::Float)?, ops::cast(g, log_var, Kind::Float)?])
}
