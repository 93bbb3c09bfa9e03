//! Where the time of an iteration goes, op by op: the engine's graph, traced again, with a plan whose runs are timed.
//! Knows no peer.

use anyhow::Result;
use ltm_autodiff::{Graph, Kind, Plan, Store, UpdateRate, Value, grad, ops};
use ltm_model::model;
use serde_json::json;

use crate::inputs::Inputs;

/// Seconds, operations and bytes of each kind of node: of `steps` fast steps, and of one pass for the weights'
/// gradients.
pub fn table(inputs: &Inputs, steps: usize) -> Result<serde_json::Value> {
    let Inputs { config, batch, posterior } = inputs;
    let (b, t, model) = (config.train.batch, config.train.seq_len, &config.model);
    let mut graph = Graph::new();
    let g = &mut graph;
    let params = model::declare_weights(g, model);
    let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
    let targets = g.input("targets", &[b * t], Kind::Int, UpdateRate::Batch);
    let latents = ["mu", "log_var", "noise"]
        .map(|name| g.input(name, &[b, model.n_latents, model.dim], Kind::Float, UpdateRate::Step));
    let [mu, log_var, noise] = latents;
    let z = ops::reparam(g, mu, log_var, noise)?;
    let hidden = model::trace(g, model, &params, tokens, Some(z), b, t)?;
    let output_weight = model::output_weight(g, &params)?;
    let nll = ops::cross_entropy(g, hidden, output_weight, targets)?;
    let kl = ops::gaussian_kl(g, mu, log_var, b * model.n_layers)?;
    let (loss, divergence) = (sum(g, nll)?, sum(g, kl)?);
    let bound = ops::add(g, loss, divergence)?;
    let fast = grad(g, bound, &[mu, log_var])?;
    let slow = grad(g, loss, &params)?;

    let (device, precision) = config.run.compute()?;
    let mut store = Store::new(g, &device, precision)?;
    for (value, data) in params.iter().zip(inputs.weights()?.params) {
        store.write_f32(*value, &data)?;
    }
    store.write_i32(tokens, &batch.tokens)?;
    store.write_i32(targets, &batch.targets)?;
    for (value, data) in latents.iter().zip([&posterior.mu, &posterior.log_var, &posterior.noise]) {
        store.write_f32(*value, data)?;
    }
    let mut counts = |outputs: &[Value], changing, runs| {
        // Memory is touched for the first time in a run that is not counted.
        let mut plan = Plan::new(&graph, &device, precision, outputs)?;
        plan.run(&store)?;
        let before = plan.counts();
        for _ in 0..runs {
            store.get_mut(changing)?; // counts as a change
            plan.run(&store)?;
        }
        let line = |(after, before): (ltm_autodiff::NodeCount, ltm_autodiff::NodeCount)| {
            let seconds = (after.time - before.time).as_secs_f64();
            let flops = after.cost.flops - before.cost.flops;
            let bytes = after.cost.bytes - before.cost.bytes;
            let runs = after.runs - before.runs;
            json!({ "op": after.name, "runs": runs, "seconds": seconds, "flops": flops, "bytes": bytes })
        };
        anyhow::Ok(plan.counts().into_iter().zip(before).map(line).collect::<Vec<_>>())
    };
    Ok(json!({ "fast": counts(&fast, mu, steps)?, "slow": counts(&slow, params[0], 1)? }))
}

fn sum(g: &mut Graph, x: Value) -> Result<Value> {
    let ones = ops::fill(g, &[g.spec(x).len()], 1.0);
    Ok(ops::dot(g, x, ones)?)
}
