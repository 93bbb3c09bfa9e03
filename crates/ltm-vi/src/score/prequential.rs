//! Next-block prediction: latents are fitted to the targets before a block, then the block is scored.
//! Knows no corpus.

use super::samples::draw;
use super::{Protocol, density};
use crate::estimators::{self, Sampled};
use crate::{Batch, Gaussian, InferKey, Inference, Problem, Result, Start};

/// Nats of each row after its first known targets, by [`Protocol::Prequential`] with blocks of `stride` targets.
///
/// Only targets are hidden from a fit, not the tokens after the block: the decoder is causal, so no
/// earlier target depends on them.
pub(super) fn score(
    problem: &mut Problem<'_>,
    protocol: Protocol,
    [stride, samples]: [usize; 2],
    inference: &Inference,
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let [b, t] = problem.batch().shape();
    let (targets, context) =
        (problem.batch().targets().to_vec(), problem.batch().context().to_vec());
    let donors = match protocol {
        Protocol::PrequentialShuffled { .. } => Some(donors(&targets, b)),
        _ => None,
    };
    let mut sums = vec![Sampled::default(); b];
    for block in 0..t.div_ceil(stride) {
        let range = |row: usize| {
            let start = (context[row] + block * stride).min(t);
            row * t + start..row * t + (start + stride).min(t)
        };
        if !(0..b).flat_map(range).any(|at| targets[at] >= 0) {
            continue;
        }
        let mut prefix = vec![Batch::IGNORED; b * t];
        for row in 0..b {
            let known = row * t..range(row).start;
            prefix[known.clone()].copy_from_slice(&targets[known]);
        }
        let (mut q, mut prior_rows) = fit(problem, protocol, &prefix, inference, key)?;
        if let Some(donors) = &donors {
            (q, prior_rows) = exchanged(&q, &prior_rows, donors)?;
        }
        let nll =
            |_: &Problem<'_>, nll: &[f64]| (0..b).map(|row| nll[range(row)].iter().sum()).collect();
        // Each block has samples of its own, so that a row's variance is the sum of its blocks'.
        let draws = draw(problem, &q, &prior_rows, key, block * samples, samples, nll)?;
        for (sum, draws) in sums.iter_mut().zip(&draws) {
            let Sampled { nats, variance } = estimators::predictive(&draws.nll);
            sum.nats += nats;
            sum.variance += variance;
        }
    }
    Ok(sums)
}

/// The row whose latents each row of `targets` gets: the one half of the rows with targets away, so that it is no
/// neighbour, which may be of the same text. `None` for a row that is the only one.
fn donors(targets: &[i32], b: usize) -> Vec<Option<usize>> {
    let rows = targets.chunks(targets.len() / b).enumerate();
    let real: Vec<usize> =
        rows.filter(|(_, row)| row.iter().any(|t| *t >= 0)).map(|(row, _)| row).collect();
    let mut donors = vec![None; b];
    if real.len() > 1 {
        for (row, donor) in real.iter().zip(real.iter().cycle().skip(real.len() / 2)) {
            donors[*row] = Some(*donor);
        }
    }
    donors
}

/// Each row's latents in place of its donor's; a row without a donor has those of the prior.
fn exchanged(
    q: &Gaussian,
    prior_rows: &[usize],
    donors: &[Option<usize>],
) -> Result<(Gaussian, Vec<usize>)> {
    let mut taken = q.try_clone()?;
    let n = q.mu.len() / donors.len();
    let mut from_prior = Vec::new();
    for (row, donor) in donors.iter().enumerate() {
        match donor {
            Some(donor) => {
                taken.mu.copy_range(row * n, &q.mu, donor * n, n)?;
                taken.log_var.copy_range(row * n, &q.log_var, donor * n, n)?;
                if let (Some(taken), Some(q)) = (&mut taken.factor, &q.factor) {
                    let n = q.columns.len() / donors.len();
                    taken.columns.copy_range(row * n, &q.columns, donor * n, n)?;
                }
                from_prior.extend(prior_rows.contains(donor).then_some(row));
            }
            None => from_prior.push(row),
        }
    }
    Ok((taken, from_prior))
}

/// Fits the latents to the targets of `prefix` alone. A row without any gets the prior, the posterior given nothing, and
/// is named; or what an encoder predicts from nothing, where a fit begins at the encoder.
pub(super) fn fit(
    problem: &mut Problem<'_>,
    protocol: Protocol,
    prefix: &[i32],
    inference: &Inference,
    key: InferKey,
) -> Result<(Gaussian, Vec<usize>)> {
    let [b, t] = problem.batch().shape();
    let knows_nothing = |row: &[i32]| row.iter().all(|target| *target < 0);
    let encodes = inference.start().encodes(problem.extents());
    let rows = prefix.chunks(t).enumerate();
    let prior_rows: Vec<usize> =
        rows.filter(|(_, row)| knows_nothing(row) && !encodes).map(|(row, _)| row).collect();
    let prior = problem.start(&Start::Prior, key)?;
    let batch = problem.batch().with_targets(prefix)?;
    if knows_nothing(prefix) {
        return match encodes {
            true => Ok((problem.with_batch(&batch)?.start(&Start::Encoder, key)?, prior_rows)),
            false => Ok((prior, prior_rows)),
        };
    }
    let latents = inference.infer(&mut problem.with_batch(&batch)?, key, &mut |_| Ok(()))?;
    let mut q = density(&latents, protocol)?.try_clone()?;
    let n = q.mu.len() / b;
    for row in &prior_rows {
        q.mu.copy_range(row * n, &prior.mu, row * n, n)?;
        q.log_var.copy_range(row * n, &prior.log_var, row * n, n)?;
    }
    Ok((q, prior_rows))
}
