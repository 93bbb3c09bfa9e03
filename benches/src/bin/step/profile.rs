//! Where the time of an iteration goes, op by op, from a program's own plans. Knows no peer.

use anyhow::Result;
use ltm_autodiff::NodeCount;
use ltm_vi::{DeviceWeights, Program};
use serde_json::json;

use crate::inputs::Inputs;

/// Seconds, operations and bytes of each kind of node: of `steps` fast steps, and of one pass for the weights'
/// gradients.
pub fn table(inputs: &Inputs, steps: usize) -> Result<serde_json::Value> {
    let (mut program, rows) = (inputs.program()?, inputs.rows()?);
    let mut weights = inputs.config.on_device(&inputs.weights()?)?;
    let (q, token_weight) = (inputs.gaussian()?, inputs.token_weight());
    let fast = |program: &mut Program, weights: &DeviceWeights| -> Result<()> {
        program.problem(weights, &rows)?.gradient(&q, 1.0)?;
        Ok(())
    };
    // Memory is touched for the first time in a run that is not counted.
    fast(&mut program, &weights)?;
    let [before, _] = program.plan_counts();
    for _ in 0..steps {
        fast(&mut program, &weights)?;
    }
    let [after, _] = program.plan_counts();
    let fast = lines(after, before);

    let latents = q.into();
    let mut slow = |weights: &DeviceWeights| -> Result<Vec<NodeCount>> {
        program.problem(weights, &rows)?.weight_gradients(&latents, &token_weight, 1.0)?;
        let [_, slow] = program.plan_counts();
        Ok(slow)
    };
    let before = slow(&weights)?;
    weights.param_mut(0)?; // counts as a change
    Ok(json!({ "fast": fast, "slow": lines(slow(&weights)?, before) }))
}

/// What ran between two counts of one plan.
fn lines(after: Vec<NodeCount>, before: Vec<NodeCount>) -> Vec<serde_json::Value> {
    let line = |(after, before): (NodeCount, NodeCount)| {
        let seconds = (after.time - before.time).as_secs_f64();
        let flops = after.cost.flops - before.cost.flops;
        let bytes = after.cost.bytes - before.cost.bytes;
        let runs = after.runs - before.runs;
        json!({ "op": after.name, "runs": runs, "seconds": seconds, "flops": flops, "bytes": bytes })
    };
    after.into_iter().zip(before).map(line).collect()
}
