//! Next-block prediction: latents are fitted to the targets before a block, then the block is scored.
//! Knows no corpus.

use crate::elbo::draw;
use crate::estimators::{self, Sampled};
use crate::posterior::Purpose;
use crate::{Engine, InferConfig, InferKey, Posterior, Result};

/// The target of a position that a fit must not see.
const IGNORED: i32 = -1;

/// Nats of each row of the engine's batch after its first `context` targets, which are known, by
/// [`Protocol::Prequential`](crate::Protocol::Prequential). Batch, posterior and noise are restored.
///
/// Only targets are hidden from a fit, not the tokens after the block: the decoder is causal, so no
/// earlier target depends on them.
pub(crate) fn score(
    engine: &mut Engine,
    stride: usize,
    samples: usize,
    infer: &InferConfig,
    context: &[usize],
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let targets = engine.targets().to_vec();
    // An engine that was never fitted has none to restore.
    let posterior = engine.posterior().ok();
    let result = score_blocks(engine, &targets, stride, samples, infer, context, key);
    engine.set_targets(&targets)?;
    if let Some(posterior) = posterior {
        engine.set_posterior(&posterior)?;
    }
    result
}

fn score_blocks(
    engine: &mut Engine,
    targets: &[i32],
    stride: usize,
    samples: usize,
    infer: &InferConfig,
    context: &[usize],
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let (b, t) = engine.batch_shape();
    let mut sums = vec![Sampled::default(); b];
    for block in 0..t.div_ceil(stride) {
        let range = |row: usize| {
            let start = (context[row] + block * stride).min(t);
            row * t + start..row * t + (start + stride).min(t)
        };
        if !(0..b).flat_map(range).any(|at| targets[at] >= 0) {
            continue;
        }
        let mut prefix = vec![IGNORED; b * t];
        for row in 0..b {
            let known = row * t..range(row).start;
            prefix[known.clone()].copy_from_slice(&targets[known]);
        }
        fit(engine, &prefix, infer, key)?;
        engine.set_targets(targets)?;
        let nll = |engine: &mut Engine| -> Result<Vec<f64>> {
            let nll = engine.token_nll()?;
            Ok((0..b).map(|row| nll[range(row)].iter().sum()).collect())
        };
        // Each block has samples of its own, so that a row's variance is the sum of its blocks'.
        let draws = draw(engine, key, block * samples, samples, nll)?;
        for (sum, draws) in sums.iter_mut().zip(&draws) {
            let Sampled { nats, variance } = estimators::predictive(&draws.nll);
            sum.nats += nats;
            sum.variance += variance;
        }
    }
    Ok(sums)
}

/// Fits the latents to the targets of `prefix` alone. A row without any gets the prior, the posterior
/// given nothing.
fn fit(engine: &mut Engine, prefix: &[i32], infer: &InferConfig, key: InferKey) -> Result<()> {
    let (config, (b, t)) = (*engine.config(), engine.batch_shape());
    let n = config.n_latents * config.dim;
    let mut posterior = if prefix.iter().all(|target| *target < 0) {
        let noise = key.normal(&config, b, Purpose::FitNoise, 0, 0.0, 1.0)?;
        Posterior { mu: vec![0.0; b * n], log_var: vec![0.0; b * n], noise }
    } else {
        engine.set_targets(prefix)?;
        engine.infer(infer, 1.0, key, &mut |_| Ok(()))?;
        engine.need_density("prequential")?;
        engine.posterior()?
    };
    for (row, prefix) in prefix.chunks(t).enumerate() {
        if prefix.iter().all(|target| *target < 0) {
            posterior.mu[row * n..(row + 1) * n].fill(0.0);
            posterior.log_var[row * n..(row + 1) * n].fill(0.0);
        }
    }
    engine.set_posterior(&posterior)
}
