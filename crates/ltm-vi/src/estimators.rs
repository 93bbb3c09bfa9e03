//! Estimators of `-log p(x)` from samples of latents, for any model that computes `-log p(x|z)`. Knows no
//! graph and no protocol.

use crate::Result;
use crate::error::argument;

/// An estimate in nats, and its variance from sampling the latents: NaN for one sample.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sampled {
    /// The estimate.
    pub nats: f64,
    /// Variance of the estimate over redrawn samples.
    pub variance: f64,
}

/// The negative evidence lower bound `E_q[-log p(x|z)] + KL(q || p)` from `nll`, the `-log p(x|z_s)` at samples
/// `z_s` of `q`, and the exact `kl`. Unbiased, and so is its variance.
pub fn nelbo(nll: &[f64], kl: f64) -> Sampled {
    let (mean, variance) = mean_and_its_variance(nll);
    Sampled { nats: mean + kl, variance }
}

/// The importance-weighted bound `-log mean_k p(x|z_k)·p(z_k)/q(z_k)` of Burda et al. (2016), from
/// `nll`, the `-log p(x|z_k)`, and `log_ratio`, the `log p(z_k) - log q(z_k)`, at samples of `q`.
///
/// The mean inside the logarithm is an unbiased estimate of `p(x)`, so the bound is above `-log p(x)` in
/// expectation, by about half its variance. The variance is to first order.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the lengths differ.
pub fn iwae(nll: &[f64], log_ratio: &[f64]) -> Result<Sampled> {
    check_length("log_ratio", nll.len(), log_ratio.len())?;
    let log_weights: Vec<f64> = nll.iter().zip(log_ratio).map(|(nll, ratio)| ratio - nll).collect();
    Ok(negative_log_mean_exp(&log_weights))
}

/// The code length `-log mean_s p(x|z_s)` under the mixture of samples that do not depend on `x`: a
/// normalised distribution. The variance is to first order.
pub fn predictive(nll: &[f64]) -> Sampled {
    let log_weights: Vec<f64> = nll.iter().map(|nll| -nll).collect();
    negative_log_mean_exp(&log_weights)
}

/// `log p(z) - log q(z)` for `p = N(0, I)` and `q = N(mu, diag(exp(log_var)))` at the sample
/// `z = mu + noise·exp(log_var/2)`.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the lengths differ.
pub fn log_ratio(mu: &[f32], log_var: &[f32], noise: &[f32]) -> Result<f64> {
    check_length("log_var", mu.len(), log_var.len())?;
    check_length("noise", mu.len(), noise.len())?;
    let of = |((mu, log_var), noise): ((&f32, &f32), &f32)| {
        let [mu, log_var, noise] = [mu, log_var, noise].map(|x| f64::from(*x));
        let z = mu + noise * (log_var / 2.0).exp();
        0.5 * (noise * noise + log_var - z * z)
    };
    Ok(mu.iter().zip(log_var).zip(noise).map(of).sum())
}

/// The ratio of two sums over sequences, with its standard error over sequences to first order: NaN for
/// one sequence.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the lengths differ.
pub fn ratio(numerators: &[f64], denominators: &[f64]) -> Result<(f64, f64)> {
    check_length("denominators", numerators.len(), denominators.len())?;
    let n = numerators.len() as f64;
    let total: f64 = denominators.iter().sum();
    let ratio = numerators.iter().sum::<f64>() / total;
    let residuals = numerators.iter().zip(denominators).map(|(x, y)| (x - ratio * y).powi(2));
    Ok((ratio, (residuals.sum::<f64>() * n / (n - 1.0)).sqrt() / total))
}

pub(crate) fn check_length(arg: &'static str, expected: usize, found: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(argument(arg, format!("{expected} numbers"), found))
}

/// The mean, and the variance of the mean as an estimate: NaN for one number.
fn mean_and_its_variance(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
}

/// `-log mean exp(log_weights)`, and its variance to first order.
fn negative_log_mean_exp(log_weights: &[f64]) -> Sampled {
    let max = log_weights.iter().fold(f64::NEG_INFINITY, |max, w| max.max(*w));
    let weights: Vec<f64> = log_weights.iter().map(|w| (w - max).exp()).collect();
    let (mean, variance) = mean_and_its_variance(&weights);
    Sampled { nats: -(max + mean.ln()), variance: variance / (mean * mean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn importance_weights_do_not_overflow() {
        let Sampled { nats, variance } = predictive(&[5000.0, 5000.0 - 3f64.ln()]);
        assert!((nats - (5000.0 - 2f64.ln())).abs() <= 1e-9, "{nats}");
        // Weights 1 and 3: mean 2, variance of the mean 1.
        assert!((variance - 0.25).abs() <= 1e-9, "{variance}");
        let one = iwae(&[7.0], &[-0.5]).unwrap();
        assert!(one.nats == 7.5 && one.variance.is_nan(), "{one:?}");
    }

    #[test]
    fn a_ratio_weights_by_its_denominators() {
        let (mean, error) = ratio(&[5.0, 3.0], &[1.0, 3.0]).unwrap();
        // Residuals 3 and -3 of two sequences, over four.
        assert_eq!((mean, error), (2.0, 36f64.sqrt() / 4.0));
        assert!(ratio(&[5.0], &[1.0]).unwrap().1.is_nan());
    }

    #[test]
    fn slices_of_different_lengths_are_refused_by_name() {
        for (refused, arg) in [
            (iwae(&[1.0, 2.0], &[0.0]).map(|_| ()), "log_ratio"),
            (ratio(&[1.0], &[1.0, 2.0]).map(|_| ()), "denominators"),
            (log_ratio(&[0.0; 2], &[0.0], &[0.0; 2]).map(|_| ()), "log_var"),
            (log_ratio(&[0.0; 2], &[0.0; 2], &[0.0; 3]).map(|_| ()), "noise"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(&format!("`{arg}`")), "{error}");
        }
    }
}
