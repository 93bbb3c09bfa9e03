//! The map from noise to what a decoder attends to, as a graph. Knows no tokens, no device and no training.

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{Graph, Kind, Result, Value};

use crate::blocks::{Residual, attention, feed_forward};
use crate::{ModelConfig, ModelParams};

/// Traces the map of the latents `z (B,L·Z,C)`; they and the result are of [`Kind::Float`]: `map_layers` layers of attention among a
/// text's latents and the gated feed-forward, each of the normed state and added to it (the prior model of Kong et al.
/// 2026). `weights` are cast. Without such layers, `z`.
pub(crate) fn trace(
    g: &mut Graph,
    config: &ModelConfig,
    weights: &[Value],
    z: Value,
) -> Result<Value> {
    let params = ModelParams::indices(config);
    if params.map.is_empty() {
        return Ok(z);
    }
    let positions = ops::positions(g, config.n_latents, 1)?;
    let table = ops::rope_table(g, positions, config.rope_theta, config.head_dim())?;
    let mut h =
        Residual { sum: ops::cast(g, z, Kind::Activation)?, last: None, eps: config.norm_eps };
    for layer in &params.map {
        let x = h.norm(g, weights[layer.attention.norm])?;
        let tables = [table, table];
        let params = &layer.attention;
        h.last = Some(attention(g, config, weights, params, [x, x], tables, Mask::None)?);
        let x = h.norm(g, weights[layer.feed_forward.norm])?;
        h.last = Some(feed_forward(g, weights, &layer.feed_forward, x)?);
    }
    let sum = match h.last {
        Some(last) => ops::add(g, h.sum, last)?,
        None => h.sum,
    };
    ops::cast(g, sum, Kind::Float)
}
