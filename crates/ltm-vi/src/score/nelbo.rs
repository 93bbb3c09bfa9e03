//! Bounds at a posterior that has seen the text: the negative ELBO and its importance-weighted form. Knows no fit.

use super::samples::{Draws, draw};
use crate::estimators::{self, Sampled};
use crate::{Gaussian, InferKey, Problem, Result};

/// `-log p(x|z) + KL` of each row at the sample that the fit has seen: not a bound where its noise was fixed.
pub(super) fn at_the_fitted_noise(problem: &mut Problem<'_>, q: &Gaussian) -> Result<Vec<f64>> {
    let kl = row_kl(problem, q)?;
    let nll = problem.gaussian_nll(q)?;
    let nll = problem.sum_rows(&nll);
    // Without a closed form, by the one sample.
    let kl = match kl {
        Some(kl) => kl,
        None => {
            let posterior = q.to_host()?;
            let draw = posterior.own_draw();
            let ratios = problem.prior()?.log_ratios(&posterior, &draw, nll.len());
            ratios.iter().map(|ratio| -ratio).collect()
        }
    };
    Ok(nll.iter().zip(kl).map(|(nll, kl)| nll + kl).collect())
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
    let sampled = |draws: &Draws| {
        let sampled = draws.nll.iter().zip(&draws.log_ratio).map(|(nll, ratio)| nll - ratio);
        estimators::nelbo(&sampled.collect::<Vec<_>>(), 0.0)
    };
    Ok(match kl {
        Some(kl) => {
            draws.iter().zip(kl).map(|(draws, kl)| estimators::nelbo(&draws.nll, kl)).collect()
        }
        None => draws.iter().map(sampled).collect(),
    })
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
fn row_kl(problem: &Problem<'_>, q: &Gaussian) -> Result<Option<Vec<f64>>> {
    let [b, _] = problem.batch().shape();
    problem.exact_kl(&q.to_host()?, b)
}
