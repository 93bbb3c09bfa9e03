//! A sample of the posterior by Langevin dynamics, driven from the host on every device. Knows no
//! density.

use super::{Fit, Observer};
use crate::key::Purpose;
use crate::{FastStep, InferConfig, InferKey, Latents, Problem, Result, SlowGradient, Start};

/// The unadjusted Langevin algorithm from the mean of the start (Roberts and Tweedie 1996):
/// `z -= lr·dU/dz + sqrt(2·lr)·N(0,I)` with `U(z) = -log p(x|z) - log p(z)`.
///
/// With noise and log-variance at 0 the sample is the mean, and the objective of a fit is `U` up to a constant: see
/// [`Prior::kl`](crate::Prior::kl).
#[derive(Clone, Debug, PartialEq)]
pub struct Langevin {
    /// The size of each step; a chain takes as many steps.
    pub rates: Vec<f64>,
}

impl Langevin {
    /// The chain that a configuration describes at `progress` of training.
    pub fn new(infer: &InferConfig, progress: f64) -> Self {
        Self { rates: (0..infer.steps).map(|step| infer.lr_at(step, progress)).collect() }
    }
}

impl Fit for Langevin {
    fn fit(
        &self,
        problem: &mut Problem<'_>,
        start: &Start,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Latents> {
        if problem.program.training.gradient == SlowGradient::Trajectory {
            return Err(crate::suits::no_trajectory());
        }
        let mut z = problem.start(start, key)?.mu.to_f32()?;
        let [b, _] = problem.batch().shape();
        let extents = problem.extents();
        for (step, lr) in self.rates.iter().enumerate() {
            problem.load_z(&z)?;
            let at = problem.run_fast(1.0)?;
            let gradient = at.dmu.to_f32()?;
            let nll = at.nll.iter().sum();
            observer(&FastStep::new(step, *lr, nll, &at.kl, extents.n_layers))?;
            // Draw 0 is the start's.
            let (shape, std) = ([b, extents.latent_len()], (2.0 * lr).sqrt());
            let noise = key.normal(shape, Purpose::FitNoise, step + 1, [0.0, std])?;
            for ((z, gradient), noise) in z.iter_mut().zip(gradient).zip(noise) {
                *z += noise - *lr as f32 * gradient;
            }
        }
        let z = crate::latents::upload(&z, &problem.device(), problem.dtype())?;
        Ok(Latents::Sample(z))
    }
}
