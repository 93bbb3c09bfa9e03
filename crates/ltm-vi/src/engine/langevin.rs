//! A sample of the posterior by Langevin dynamics, driven from the host on every device. Knows no
//! density.

use super::{Engine, FastStep};
use crate::posterior::Purpose;
use crate::{Error, InferConfig, InferKey, Method, Posterior, Result};

impl Engine {
    /// The unadjusted Langevin algorithm from the mean of `start` (Roberts and Tweedie 1996):
    /// `z -= lr·dU/dz + sqrt(2·lr)·N(0,I)` with `U(z) = -log p(x|z) - log p(z)`.
    ///
    /// With noise and log-variance at 0 the sample is the mean and the KL is `|z|²/2`, so the fast
    /// objective is `U` up to a constant.
    pub(super) fn langevin(
        &mut self,
        start: Posterior,
        infer: &InferConfig,
        progress: f64,
        key: InferKey,
        observer: &mut dyn FnMut(&FastStep) -> Result<()>,
    ) -> Result<()> {
        let mut z = start.mu;
        let zeros = vec![0.0; z.len()];
        self.set_posterior(&Posterior { mu: z.clone(), log_var: zeros.clone(), noise: zeros })?;
        self.method = Method::Langevin;
        self.make_fast_plan()?;
        for step in 0..infer.steps {
            let latents = self.latents.as_ref().expect("`infer` returns early without latents");
            let plan = self.fast_plan.as_mut().expect("made above");
            plan.run(&self.store)?;
            let nll = plan.output(self.nll)?.to_f64()?.iter().sum();
            let kl = plan.output(latents.kl)?.to_f64()?;
            let gradient = plan.output(latents.dmu)?.to_f32()?;
            let lr = infer.lr_at(step, progress);
            observer(&FastStep::new(step, lr, nll, &kl, self.config.n_layers))?;
            // Draw 0 is the start's.
            let (draw, std) = (step + 1, (2.0 * lr).sqrt());
            let noise = key.normal(&self.config, self.b, Purpose::FitNoise, draw, 0.0, std)?;
            for ((z, gradient), noise) in z.iter_mut().zip(gradient).zip(noise) {
                *z += noise - lr as f32 * gradient;
            }
            self.store.write_f32(latents.mu, &z)?;
        }
        Ok(())
    }

    /// Refuses a protocol that needs the density of the latents when they have none.
    ///
    /// # Errors
    /// [`Error::NoDensity`] naming the protocol.
    pub(crate) fn need_density(&self, protocol: &'static str) -> Result<()> {
        if self.has_density() { Ok(()) } else { Err(Error::NoDensity { protocol }) }
    }
}
