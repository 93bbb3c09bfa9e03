//! The KL of fitted posteriors from the prior, as it is reported: in closed form where the prior has one. Knows no fit and
//! no protocol.

use std::sync::Arc;

use crate::key::SampleOf;
use crate::prior::Density;
use crate::{Gaussian, InferKey, Posterior, Problem, Program, Result};

/// Fresh samples of a KL without a closed form.
const SAMPLES: usize = 8;

impl Problem<'_> {
    /// The prior at the problem's weights.
    ///
    /// # Errors
    /// Those of [`Prior::density`](crate::Prior::density).
    pub fn prior(&self) -> Result<Arc<dyn Density>> {
        self.program.prior.density(self.weights)
    }

    /// KL of `q` from the prior of each layer of a sequence, `(B·L)`, in nats: in closed form and double precision, or where
    /// the prior has none, as a mean over 8 fresh samples under `key`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a posterior of another shape,
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) for a model without latents,
    /// [`Error::Autodiff`](crate::Error::Autodiff) when a kernel fails.
    pub fn kl(&mut self, q: &Gaussian, key: InferKey) -> Result<Vec<f64>> {
        self.load_gaussian(q)?;
        let extents = self.extents();
        let [b, _] = self.batch().shape();
        let host = q.to_host()?;
        if let Some(exact) = self.exact_kl(&host, b * extents.n_layers)? {
            return Ok(exact);
        }
        let mut mean = vec![0.0; b * extents.n_layers];
        for sample in 0..SAMPLES {
            self.load_noise(&host.draw(b, key, SampleOf::Score, sample)?)?;
            for (mean, kl) in mean.iter_mut().zip(self.stored_kl()?) {
                *mean += kl / SAMPLES as f64;
            }
        }
        Ok(mean)
    }

    /// KL in closed form of each of `rows` equal parts of a posterior, where the prior has one and the parts are independent.
    pub(crate) fn exact_kl(&self, q: &Posterior, rows: usize) -> Result<Option<Vec<f64>>> {
        let prior = self.prior()?;
        let (len, log_var) = (q.mu.len() / rows, q.marginal_log_var());
        let Some(correlation) = q.total_correlation(rows) else { return Ok(None) };
        let parts = q.mu.chunks(len).zip(log_var.chunks(len)).zip(correlation);
        let part = |((mu, log_var), correlation): ((&[f32], &[f32]), f64)| {
            prior.exact_kl(mu, log_var).map(|kl| kl + correlation)
        };
        Ok(parts.map(part).collect())
    }

    /// The KL as the objective has it at the latents in the store, `(B·L)`.
    fn stored_kl(&mut self) -> Result<Vec<f64>> {
        let Program { graph, device, precision, nodes, plans, store, .. } = &mut *self.program;
        let kl = nodes.latents.as_ref().ok_or_else(crate::suits::no_latents)?.kl;
        let plan = Program::plan(&mut plans.kl, graph, device, *precision, || vec![kl])?;
        plan.run(store.with(self.weights.parameters()))?;
        Ok(plan.output(kl)?.to_f64()?)
    }
}
