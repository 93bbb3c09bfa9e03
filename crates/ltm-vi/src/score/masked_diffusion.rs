//! Masked diffusion: random masks, and the bound from predicting the masked tokens. Knows no corpus and no
//! training.

use crate::error::argument;
use crate::estimators::Sampled;
use crate::key::Purpose;
use crate::{Batch, Extents, InferKey, Latents, Problem, Result, Sequences};

/// A masked batch, `(B,T)` throughout.
#[derive(Clone, Debug, PartialEq)]
pub struct Masked {
    /// The model's input: the text, with the mask token in masked positions.
    pub tokens: Vec<i32>,
    /// The tokens of masked positions, -1 elsewhere.
    pub targets: Vec<i32>,
    /// The weight of a masked position's nats, so that a row's weighted sum is an unbiased estimate of its
    /// bound; 0 elsewhere.
    pub weight: Vec<f32>,
}

/// Masks positions of a batch for one step of training, drawn under `key`.
///
/// The bound is that of masked diffusion in continuous time (Sahoo et al. 2024),
/// `-log p(x) <= E_t[ 1/t · sum over hidden i of -log p(x_i | the others) ]` where `t` is uniform in (0,1)
/// and each position is masked with probability `t`. Given the number `k` of masked positions all choices
/// are equally likely, and the integral over `t` leaves `E_k[ T/k · sum ]` with `k` uniform in `1..=T`
/// (Hoogeboom et al. 2022): the same expectation with less variance. Over consecutive sequences `k` is
/// spread evenly.
///
/// A row's text is all of its `T` positions: padding, the positions without a target, is text too, of the
/// tokens at these positions. So the masks do not reveal a text's length, and the bound is on
/// `-log p(text and padding) >= -log p(text)`. A row without any target stays empty.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) for a model without a mask token, or lengths that differ or
/// are not a multiple of `t`.
pub fn mask_batch(
    model: impl Into<Extents>,
    key: InferKey,
    tokens: &[i32],
    targets: &[i32],
    t: usize,
) -> Result<Masked> {
    let share = |row: usize| {
        let (seed, number) = key.seed_and_number(row)?;
        let first = InferKey { seed, sequences: Sequences::From(0), ..key };
        let shift = first.generator(0, Purpose::MaskCount, 0)?.uniform(0);
        // Multiples of the golden ratio's inverse fill the unit interval evenly from any start.
        Ok((shift + (number % (1 << 32)) as f64 * 0.618_033_988_749_894_9).fract())
    };
    mask_rows(model.into(), key, 0, [tokens, targets], t, share)
}

/// Masks the share `share(row)`, in 0..1, of each row's `t` positions.
fn mask_rows(
    model: Extents,
    key: InferKey,
    draw: usize,
    [tokens, targets]: [&[i32]; 2],
    t: usize,
    share: impl Fn(usize) -> Result<f64>,
) -> Result<Masked> {
    let Some(mask) = model.mask_id else {
        let expected = "`bidirectional` for masked diffusion";
        return Err(argument("model.attention", expected, "causal"));
    };
    if t == 0 || !tokens.len().is_multiple_of(t) || tokens.len() != targets.len() {
        let expected = format!("{} entries, a multiple of {t}", tokens.len());
        return Err(argument("targets", expected, targets.len()));
    }
    let mut masked = Masked {
        tokens: tokens.to_vec(),
        targets: vec![-1; targets.len()],
        weight: vec![0.0; targets.len()],
    };
    for (row, targets) in targets.chunks(t).enumerate() {
        if targets.iter().all(|id| *id < 0) {
            continue;
        }
        let mut left = 1 + ((share(row)? * t as f64) as usize).min(t - 1);
        let weight = t as f32 / left as f32;
        let philox = key.generator(row, Purpose::Mask, draw)?;
        for (position, target) in targets.iter().enumerate() {
            let at = row * t + position;
            let word = if *target < 0 { tokens[at] } else { *target };
            // Each remaining position is one of the `left` to mask with equal probability (Knuth's selection
            // sampling).
            let rest = (t - position) as u64;
            if philox.below(position as u64, rest) < left as u64 {
                left -= 1;
                masked.tokens[at] = mask as i32;
                masked.targets[at] = word;
                masked.weight[at] = weight;
            } else {
                masked.tokens[at] = word;
            }
        }
    }
    Ok(masked)
}

/// The bound of [`mask_batch`] for each sequence of a batch, as a mean over `samples` draws
/// stratified by the share of masked positions.
pub(super) fn score(
    problem: &mut Problem<'_>,
    samples: usize,
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let extents = problem.extents();
    let [b, t] = problem.batch().shape();
    let (tokens, targets) = (problem.batch().tokens().to_vec(), problem.batch().targets().to_vec());
    let mut draws = vec![Vec::with_capacity(samples); b];
    for sample in 0..samples {
        let share = |row: usize| {
            let jitter = key.generator(row, Purpose::MaskCount, 1 + sample)?.uniform(0);
            Ok((sample as f64 + jitter) / samples as f64)
        };
        let masked = mask_rows(extents, key, 1 + sample, [&tokens, &targets], t, share)?;
        let batch = Batch::new(extents, b, &masked.tokens, &masked.targets)?;
        let nll = problem.with_batch(&batch)?.token_nll(&Latents::None)?;
        let rows = nll.chunks(t).zip(masked.weight.chunks(t));
        for (draws, (nll, weight)) in draws.iter_mut().zip(rows) {
            draws.push(nll.iter().zip(weight).map(|(x, w)| x * f64::from(*w)).sum());
        }
    }
    Ok(draws.iter().map(|draws| stratified(draws)).collect())
}

/// The mean of one draw per stratum, and an upper estimate of its variance: half the mean squared
/// difference of neighbours contains their variances plus the distance of their means. NaN for one draw.
fn stratified(draws: &[f64]) -> Sampled {
    let n = draws.len() as f64;
    let squares: f64 = draws.windows(2).map(|pair| (pair[1] - pair[0]).powi(2)).sum();
    Sampled { nats: draws.iter().sum::<f64>() / n, variance: squares / 2.0 / (n - 1.0) / n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variance_of_a_mean_over_strata_by_hand() {
        // Neighbours differ by 2 and -1: (4 + 1)/2/(3 - 1)/3.
        let Sampled { nats, variance } = stratified(&[1.0, 3.0, 2.0]);
        assert_eq!(nats, 2.0);
        assert!((variance - 5.0 / 12.0).abs() <= 1e-15, "{variance}");
    }
}
