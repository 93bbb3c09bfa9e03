//! The distribution of latents before a text is seen. Knows no model.

use std::sync::Arc;

use ltm_autodiff::{Graph, Value, ops};
use ltm_model::DeviceWeights;

use crate::key::Draw;
use crate::{Posterior, Result, estimators, posterior};

/// A Gaussian `q(z|x)` in a graph, with one sample.
#[derive(Clone, Copy, Debug)]
pub struct TracedGaussian {
    /// Means, `(B,L·Z,C)`.
    pub mu: Value,
    /// Logarithms of each number's own variance, `(B,L·Z,C)`.
    pub log_var: Value,
    /// A sample, through which gradients flow, `(B,L·Z,C)`. With a [`Factor`](crate::Factor) its numbers are correlated.
    pub z: Value,
}

/// `p(z)`, of each sequence's latents. [`StandardNormal`] is the one of the paper, and [`Flow`](crate::Flow) a learned one.
///
/// A prior that is learned has its parameters among those of the [`Likelihood`](crate::Likelihood), of
/// [`Part::Prior`](ltm_model::Part::Prior); any other ignores the weights that it is given.
pub trait Prior: Send + Sync {
    /// Traces `KL(q || p)` of each of `rows` equal parts of `q`, in nats, `(rows)` of full precision: in closed form,
    /// or `log q(z) - log p(z)` at its sample, of which the KL is the mean. `weights` has one value per parameter of the
    /// model. `q` is of independent numbers; what their correlation adds is the same for every prior, and added by the
    /// caller. So a closed form is for a prior of independent numbers.
    ///
    /// Where `log_var` and the noise are 0, its gradient by `mu` must be that of `-log p(mu)`: Langevin dynamics
    /// follow it. Both forms have that for a Gaussian prior, and the second for any.
    ///
    /// # Errors
    /// Those of the operations.
    fn kl(
        &self,
        g: &mut Graph,
        weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> ltm_autodiff::Result<Value>;

    /// The distribution at these weights.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for another model's weights, [`Error::Kernel`](crate::Error::Kernel) when
    /// their device fails.
    fn density(&self, weights: &DeviceWeights) -> Result<Arc<dyn Density>>;
}

/// A [`Prior`] at given weights, on the host and in double precision. Latents are all those of one sequence, `(L·Z·C)`.
pub trait Density: Send + Sync {
    /// `log p(z)`, in nats.
    fn log_density(&self, z: &[f64]) -> f64;

    /// Latents distributed as `p(z)`, from as many standard normal numbers.
    fn sample(&self, noise: &[f64]) -> Vec<f64>;

    /// Mean and log-variance of each of `len` numbers: those of a Gaussian like the prior, from which fits may start. The mean
    /// stands for latents that say nothing.
    fn moments(&self, len: usize) -> [Vec<f32>; 2];

    /// The KL of a part of one sequence's posterior of independent numbers, in closed form and double precision; `None` where
    /// it is to be estimated from samples, and for a prior whose own numbers are not independent.
    fn exact_kl(&self, _mu: &[f32], _log_var: &[f32]) -> Option<f64> {
        None
    }

    /// `log p(z) - log q(z)` at the sample `z = mu + noise·exp(log_var/2)` of one sequence's `q`.
    fn log_ratio(&self, mu: &[f32], log_var: &[f32], noise: &[f32]) -> f64 {
        let mut z = Vec::with_capacity(mu.len());
        let mut log_q = 0.0;
        for ((mu, log_var), noise) in mu.iter().zip(log_var).zip(noise) {
            let [mu, log_var, noise] = [mu, log_var, noise].map(|x| f64::from(*x));
            z.push(mu + noise * (log_var / 2.0).exp());
            log_q -= 0.5 * (noise * noise + log_var + std::f64::consts::TAU.ln());
        }
        self.log_density(&z) - log_q
    }
}

impl dyn Density {
    /// `log p(z) - log q(z)` of each of the `b` sequences of `q` at the sample of `draw`.
    pub(crate) fn log_ratios(&self, q: &Posterior, draw: &Draw, b: usize) -> Vec<f64> {
        let noise = q.correlated(draw);
        let layers = q.layers();
        let len = q.mu.len() / b;
        let sequence = |row: usize| {
            let [mu, log_var, noise] =
                [&q.mu, &q.log_var, &*noise].map(|numbers| &numbers[row * len..][..len]);
            let independent = self.log_ratio(mu, log_var, noise);
            let of_row = layers.len() / b;
            let layers = &layers[row * of_row..][..of_row];
            let parts = layers.iter().zip(noise.chunks(len / of_row.max(1)));
            let more = parts.map(|(layer, w)| 0.5 * (layer.log_det() - layer.explained(w)));
            independent + more.sum::<f64>()
        };
        (0..b).map(sequence).collect()
    }

    /// Latents `(L·Z·C)` of a sequence from its noise, in single precision.
    pub(crate) fn sample_f32(&self, noise: &[f32]) -> Vec<f32> {
        let noise: Vec<f64> = noise.iter().map(|x| f64::from(*x)).collect();
        self.sample(&noise).iter().map(|z| *z as f32).collect()
    }
}

/// `N(0, I)`.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandardNormal;

impl Prior for StandardNormal {
    fn kl(
        &self,
        g: &mut Graph,
        _weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> ltm_autodiff::Result<Value> {
        ops::gaussian_kl(g, q.mu, q.log_var, rows)
    }

    fn density(&self, _weights: &DeviceWeights) -> Result<Arc<dyn Density>> {
        Ok(Arc::new(*self))
    }
}

impl Density for StandardNormal {
    fn log_density(&self, z: &[f64]) -> f64 {
        -0.5 * z.iter().map(|z| z * z + std::f64::consts::TAU.ln()).sum::<f64>()
    }

    fn sample(&self, noise: &[f64]) -> Vec<f64> {
        noise.to_vec()
    }

    fn moments(&self, len: usize) -> [Vec<f32>; 2] {
        [vec![0.0; len], vec![0.0; len]]
    }

    fn exact_kl(&self, mu: &[f32], log_var: &[f32]) -> Option<f64> {
        Some(mu.iter().zip(log_var).map(|(mu, log_var)| posterior::kl(*mu, *log_var)).sum())
    }

    fn log_ratio(&self, mu: &[f32], log_var: &[f32], noise: &[f32]) -> f64 {
        // The constants and the squares of the noise cancel: fewer roundings.
        estimators::log_ratio(mu, log_var, noise).expect("one sequence's numbers")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A density that defines only what it must.
    struct Plain;

    impl Density for Plain {
        fn log_density(&self, z: &[f64]) -> f64 {
            StandardNormal.log_density(z)
        }
        fn sample(&self, noise: &[f64]) -> Vec<f64> {
            StandardNormal.sample(noise)
        }
        fn moments(&self, len: usize) -> [Vec<f32>; 2] {
            StandardNormal.moments(len)
        }
    }

    #[test]
    fn a_ratio_from_the_density_is_that_of_the_closed_form() {
        let (mu, log_var, noise) = ([0.3, -1.2, 2.0], [-5.0, 0.4, 0.0], [0.1, -0.7, 1.9]);
        let (found, expected) = (
            Plain.log_ratio(&mu, &log_var, &noise),
            StandardNormal.log_ratio(&mu, &log_var, &noise),
        );
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} is not {expected}");
    }
}
