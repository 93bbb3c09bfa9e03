//! A peer's loss and gradients, held to ours from the same inputs. Knows neither peer nor time.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use ltm_model::param_table;
use ltm_testkit::relative_frobenius;
use ltm_vi::{Engine, InferConfig, SlowGradient};
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
    let Inputs { config, batch, posterior } = inputs;
    let (b, t) = (config.train.batch, config.train.seq_len);
    let kind = SlowGradient::Final;
    let (device, precision) = config.run.compute()?;
    let mut engine = Engine::new(&config.model, b, t, &device, precision, kind)?;
    engine.set_weights(&inputs.weights()?)?;
    engine.set_batch(&batch.tokens, &batch.targets)?;
    engine.set_posterior(posterior)?;

    let share = 1.0 / batch.scored as f32;
    let gradients = engine.slow_gradients(&vec![share; b * t])?;
    let mut results = Vec::new();
    for (spec, gradient) in param_table(&config.model).into_iter().zip(gradients) {
        results.push((spec.name, gradient.to_f64()?));
    }
    let loss = engine.slow_token_nll()?.iter().sum::<f64>() / batch.scored as f64;
    results.push(("loss".into(), vec![loss]));

    // An AdamW that remembers nothing, with an eps far above the gradient, takes a step of rate/eps
    // times the gradient.
    let (lr, eps) = (1e6, 1e6);
    let plain = InferConfig { beta1: 0.0, beta2: 0.0, eps, weight_decay: 0.0, ..config.infer };
    let step = engine.fast_step(lr, &plain)?;
    results.push(("bound".into(), vec![step.bound]));
    let moved = engine.posterior()?;
    for (name, before, after) in
        [("mu", &posterior.mu, &moved.mu), ("log_var", &posterior.log_var, &moved.log_var)]
    {
        let gradient = before.iter().zip(after).map(|(x, y)| f64::from(*x) - f64::from(*y));
        results.push((name.into(), gradient.collect()));
    }
    Ok(results)
}
