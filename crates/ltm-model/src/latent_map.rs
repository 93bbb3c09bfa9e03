//! The map from noise to what a decoder attends to, as a graph, and its run for decoding. Knows no tokens, no loss and no
//! training.

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{Graph, Kind, Plan, Precision, Result, Store, UpdateRate, Value};

use crate::model::{Residual, attention, cast_matrices, declare_weights, feed_forward};
use crate::{DeviceWeights, ModelConfig, ModelParams};

/// Traces the map of the latents `z (B,L·Z,C)`, of [`Kind::Float`] as its result: `map_layers` layers of attention among a
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

/// What the decoder attends to at the latents `z (B,L·Z,C)`, computed on the weights' device in single precision.
pub(crate) fn run(
    config: &ModelConfig,
    weights: &DeviceWeights,
    z: &[f32],
) -> crate::Result<Vec<f32>> {
    let mut g = Graph::new();
    let params = declare_weights(&mut g, config);
    let shape = [z.len() / (config.n_latents * config.dim), config.n_latents, config.dim];
    let noise = g.input("z", &shape, Kind::Float, UpdateRate::Step);
    let cast = cast_matrices(&mut g, &params)?;
    let mapped = trace(&mut g, config, &cast, noise)?;
    let (device, precision) = (weights.device(), Precision::F32);
    let mut store = Store::with_parameters(&g, &device, precision, &params)?;
    let mut plan = Plan::new(&g, &device, precision, &[mapped])?;
    store.write_f32(noise, z)?;
    plan.run(store.with(weights.parameters()))?;
    Ok(plan.output(mapped)?.to_f32()?)
}
