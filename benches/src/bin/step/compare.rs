//! A peer's loss and gradients, held to ours from the same inputs. Knows neither peer nor time.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ltm_model::param_table;
use ltm_testkit::relative_frobenius;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::inputs::Inputs;

/// The distance of each of the peer's numbers from ours in the Frobenius norm, and how many roundings of random sign it
/// may be worth: the root of the terms summed into one number, and of the values stored on the way to it.
pub fn gradients(inputs: &Inputs, path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
    let peer = SafeTensors::deserialize(&bytes).context("the peer's gradients")?;
    let mut distances = serde_json::Map::new();
    for (name, ours) in ours(inputs)? {
        let tensor = peer.tensor(&name).with_context(|| format!("the peer has no `{name}`"))?;
        let (numbers, _) = tensor.data().as_chunks::<4>();
        let found: Vec<_> = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        ensure!(found.len() == ours.len(), "`{name}` has {} numbers at the peer", found.len());
        distances.insert(name, relative_frobenius(&found, &ours).into());
    }
    let model = &inputs.config.model;
    // Forth and back: each layer's products, its attention and its feed-forward; once the vocabulary.
    let layer = 8 * model.dim + 3 * model.ffn_hidden + 2 * inputs.config.train.seq_len;
    let terms = 2 * model.n_layers * layer + model.vocab_size;
    // A layer stores its norms, projections, rotations, attentions and sums.
    let values = 2 * model.n_layers * 20;
    let [summed, stored] = [terms, values].map(|n| (n as f64).sqrt());
    Ok(json!({ "distances": distances, "summed": summed, "stored": stored }))
}

/// `bound` and `loss`, the gradients of the bound for `mu` and `log_var`, and those of the loss for every weight.
fn ours(inputs: &Inputs) -> Result<Vec<(String, Vec<f64>)>> {
    let mut program = inputs.program()?;
    let (weights, rows) = (inputs.config.on_device(&inputs.weights()?)?, inputs.rows()?);
    let mut problem = program.problem(&weights, &rows)?;
    let q = inputs.gaussian()?;
    let mut results = Vec::new();
    let at = problem.gradient(&q, 1.0)?;
    results.push(("bound".into(), vec![at.nelbo()]));
    results.push(("mu".into(), at.dmu.to_f64()?));
    results.push(("log_var".into(), at.dlog_var.to_f64()?));
    let (scored, token_weight) = (inputs.batch.scored, inputs.token_weight());
    let slow = problem.weight_gradients(&q.into(), &token_weight, 1.0)?;
    results.push(("loss".into(), vec![slow.nll.iter().sum::<f64>() / scored as f64]));
    for (spec, gradient) in param_table(&inputs.config.model).into_iter().zip(slow.gradients) {
        results.push((spec.name, gradient.to_f64()?));
    }
    Ok(results)
}
