//! Bounds at a posterior that has seen the text: the negative ELBO and its importance-weighted form. Knows no fit.

use super::samples::{Draws, draw};
use crate::estimators::{self, Sampled};
use crate::{Gaussian, InferKey, Problem, Result};

/// `-log p(x|z) + KL` of each row at the sample that the fit has seen: not a bound where its noise was fixed.
pub(super) fn at_the_fitted_noise(problem: &mut Problem<'_>, q: &Gaussian) -> Result<Vec<f64>> {
    let kl = row_kl(problem, q)?;
    let nll = problem.gaussian_nll(q)?;
    let nll = problem.sum_rows(&nll);
    let (posterior, prior) = (q.to_host()?, problem.prior()?);
    let n = posterior.mu.len() / nll.len();
    let of = |(row, (nll, kl)): (usize, (&f64, Option<f64>))| {
        let [mu, log_var, noise] = [&posterior.mu, &posterior.log_var, &posterior.noise]
            .map(|numbers| &numbers[row * n..(row + 1) * n]);
        // Without a closed form, by the one sample.
        nll + kl.unwrap_or_else(|| -prior.log_ratio(mu, log_var, noise))
    };
    Ok(nll.iter().zip(kl).enumerate().map(of).collect())
}

/// The negative ELBO of each row over fresh samples.
pub(super) fn nelbo(
    problem: &mut Problem<'_>,
    q: &Gaussian,
    samples: usize,
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let kl = row_kl(problem, q)?;
    let draws = draw(problem, q, &[], key, 0, samples, |problem, nll| problem.sum_rows(nll))?;
    let of = |(draws, kl): (&Draws, Option<f64>)| match kl {
        Some(kl) => estimators::nelbo(&draws.nll, kl),
        None => {
            let sampled = draws.nll.iter().zip(&draws.log_ratio).map(|(nll, ratio)| nll - ratio);
            estimators::nelbo(&sampled.collect::<Vec<_>>(), 0.0)
        }
    };
    Ok(draws.iter().zip(kl).map(of).collect())
}

/// The negative importance-weighted bound of each row over fresh samples.
pub(super) fn iwae(
    problem: &mut Problem<'_>,
    q: &Gaussian,
    samples: usize,
    key: InferKey,
) -> Result<Vec<Sampled>> {
    let draws = draw(problem, q, &[], key, 0, samples, |problem, nll| problem.sum_rows(nll))?;
    draws.iter().map(|draws| estimators::iwae(&draws.nll, &draws.log_ratio)).collect()
}

/// The KL of each row in closed form, where the prior has one.
fn row_kl(problem: &Problem<'_>, q: &Gaussian) -> Result<Vec<Option<f64>>> {
    let (posterior, prior) = (q.to_host()?, problem.prior()?);
    let [b, _] = problem.batch().shape();
    let n = posterior.mu.len() / b;
    let rows = posterior.mu.chunks(n).zip(posterior.log_var.chunks(n));
    Ok(rows.map(|(mu, log_var)| prior.exact_kl(mu, log_var)).collect())
}
