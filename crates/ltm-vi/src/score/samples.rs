//! Fresh samples of a posterior, scored. Knows no protocol.

use crate::key::SampleOf;
use crate::{Gaussian, InferKey, Problem, Result};

/// Fresh samples of one row's latents.
#[derive(Clone, Default)]
pub(super) struct Draws {
    /// The result of `nll` for each.
    pub(super) nll: Vec<f64>,
    /// `log p(z) - log q(z)` of each.
    pub(super) log_ratio: Vec<f64>,
}

/// Draws `samples` samples of each row's latents, from number `first` of the stream on: of `q`, or in `prior_rows` of the
/// prior, where the ratios mean nothing. `nll` turns the nats of each
/// target into those of each row.
pub(super) fn draw(
    problem: &mut Problem<'_>,
    q: &Gaussian,
    prior_rows: &[usize],
    key: InferKey,
    first: usize,
    samples: usize,
    nll: impl Fn(&Problem<'_>, &[f64]) -> Vec<f64>,
) -> Result<Vec<Draws>> {
    let [b, _] = problem.batch().shape();
    let n = problem.extents().latent_len();
    let (posterior, prior) = (q.to_host()?, problem.prior()?);
    let mut draws = vec![Draws::default(); b];
    problem.load_gaussian(q)?;
    for sample in first..first + samples {
        let mut noise = posterior.draw(b, key, SampleOf::Score, sample)?;
        let columns = noise.columns.len() / b;
        for row in prior_rows {
            // What maps the Gaussian of independent numbers to the prior's own sample.
            noise.columns[row * columns..(row + 1) * columns].fill(0.0);
            let range = row * n..(row + 1) * n;
            let z = prior.sample_f32(&noise.numbers[range.clone()]);
            let [mu, log_var] =
                [&posterior.mu, &posterior.log_var].map(|numbers| &numbers[range.clone()]);
            for (i, noise) in noise.numbers[range.clone()].iter_mut().enumerate() {
                *noise = (z[i] - mu[i]) * (-log_var[i] / 2.0).exp();
            }
        }
        problem.load_noise(&noise)?;
        let tokens = problem.stored_nll()?;
        let ratios = prior.log_ratios(&posterior, &noise, b);
        for ((draws, nll), ratio) in draws.iter_mut().zip(nll(problem, &tokens)).zip(ratios) {
            draws.nll.push(nll);
            draws.log_ratio.push(ratio);
        }
    }
    Ok(draws)
}
