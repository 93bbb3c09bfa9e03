//! The slow step of the importance-weighted bound. Knows no weight optimiser.

use crate::error::argument;
use crate::key::SampleOf;
use crate::weight_grad::TakeGradient;
use crate::{Error, Gaussian, InferKey, Problem, Result};

/// What an importance-weighted slow step measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted {
    /// Negative log-likelihood of each sequence's targets, in nats, as the mean over samples, `(B)`.
    pub nll: Vec<f64>,
    /// KL of each sequence's posterior from the prior, in nats, `(B)`.
    pub kl: Vec<f64>,
}

impl Problem<'_> {
    /// Hands over, sample by sample, what adds up to the gradients of the importance-weighted bound of Burda et al. (2016) with `samples` fresh samples of
    /// `q`, `sum_b w_b · -log mean_k (p(z_k)/q(z_k))^kl_weight p(x|z_k)`, where `w_b` is the weight of the sequence's
    /// tokens: `token_weight (B·T)` as in [`weight_gradients`](Self::weight_gradients).
    ///
    /// The gradient of the decoder, and of a learned prior, is that at each sample, times its normalised weight. An
    /// encoder whose own posterior `q` is ([`SlowGradient::Joint`](crate::SlowGradient::Joint)) has the doubly
    /// reparametrised one (Tucker et al. 2019), whose noise does not outgrow it as the samples become more; an encoder
    /// beside a fit has that of its own bound.
    ///
    /// # Errors
    /// [`Error::NoSlowGradient`] for a program without weight gradients or not made for
    /// [importance](crate::Training::importance), [`Error::Argument`] when a length differs or `samples` is 0,
    /// [`Error::Autodiff`] when a kernel fails, and those of `take`.
    pub fn each_importance_gradient(
        &mut self,
        q: &Gaussian,
        samples: usize,
        key: InferKey,
        token_weight: &[f32],
        kl_weight: f64,
        take: &mut TakeGradient<'_>,
    ) -> Result<Weighted> {
        let [b, t] = self.batch.shape();
        if !self.program.training.importance {
            return Err(Error::NoSlowGradient);
        }
        if samples == 0 {
            return Err(argument("samples", "at least 1", samples));
        }
        if token_weight.len() != b * t {
            let expected = format!("{} numbers, B·T", b * t);
            return Err(argument("token_weight", expected, token_weight.len()));
        }
        let host = q.to_host()?;
        let prior = self.prior()?;
        let mut nll = vec![0.0; b];
        let mut log_weights = vec![Vec::with_capacity(samples); b];
        let mut draws = Vec::with_capacity(samples);
        self.load_gaussian(q)?;
        for sample in 0..samples {
            let draw = host.draw(b, key, SampleOf::Slow, sample)?;
            self.load_noise(&draw)?;
            let found = self.stored_nll()?;
            let ratios = prior.log_ratios(&host, &draw, b);
            for (row, (found, ratio)) in self.sum_rows(&found).into_iter().zip(ratios).enumerate() {
                log_weights[row].push(kl_weight * ratio - found);
                nll[row] += found / samples as f64;
            }
            draws.push(draw);
        }
        let weights: Vec<Vec<f64>> = log_weights.iter().map(|row| normalised(row)).collect();
        let plain: Vec<f32> = token_weight.iter().map(|w| w / samples as f32).collect();
        let mut kl = Vec::new();
        for (sample, draw) in draws.iter().enumerate() {
            self.load_noise(draw)?;
            let of_row: Vec<f32> = weights.iter().map(|row| row[sample] as f32).collect();
            let of_token = token_weight.iter().enumerate().map(|(at, w)| w * of_row[at / t]);
            let of_token: Vec<f32> = of_token.collect();
            let found =
                self.each_gradient_at_stored(&of_token, &plain, Some(&of_row), kl_weight, take)?;
            kl = found.kl.unwrap_or_default();
        }
        Ok(Weighted { nll, kl })
    }
}

/// Weights that add up to 1, from their logarithms up to a constant.
fn normalised(log_weights: &[f64]) -> Vec<f64> {
    let max = log_weights.iter().fold(f64::NEG_INFINITY, |max, w| max.max(*w));
    let weights: Vec<f64> = log_weights.iter().map(|w| (w - max).exp()).collect();
    let total: f64 = weights.iter().sum();
    weights.iter().map(|w| w / total).collect()
}
