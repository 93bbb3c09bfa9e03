//! What a corpus uses its latents for: KL, active units and the floor. Knows no likelihood.

use ltm_model::ModelConfig;

use crate::engine::argument;
use crate::posterior::kl;
use crate::{Posterior, Result};

/// How much of the latents a corpus uses: KL by layer, active units, and what the rest costs.
#[derive(Clone, Debug)]
pub struct LatentUse {
    n_layers: usize,
    dim: usize,
    sequences: usize,
    /// Sums over sequences for each of the `L·Z·C` dimensions.
    mu: Vec<f64>,
    mu_squared: Vec<f64>,
    kl: Vec<f64>,
}

impl LatentUse {
    /// The variance of the mean over sequences from which Burda et al. (2016) call a unit active.
    pub const ACTIVE: f64 = 0.01;

    /// No sequences yet.
    pub fn new(config: &ModelConfig) -> Self {
        let zeros = || vec![0.0; config.n_latents * config.dim];
        let (mu, mu_squared, kl) = (zeros(), zeros(), zeros());
        let ModelConfig { n_layers, dim, .. } = *config;
        Self { n_layers, dim, sequences: 0, mu, mu_squared, kl }
    }

    /// Adds the posterior of a batch. Sequences without a scored token, by `scored_tokens` of each,
    /// are left out.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the posterior is not one of as many sequences.
    pub fn add(&mut self, posterior: &Posterior, scored_tokens: &[usize]) -> Result<()> {
        let n = self.mu.len();
        let expected = n * scored_tokens.len();
        for len in [posterior.mu.len(), posterior.log_var.len()] {
            if len != expected {
                return Err(argument("posterior", format!("{expected} dimensions"), len));
            }
        }
        for (b, _) in scored_tokens.iter().enumerate().filter(|(_, tokens)| **tokens > 0) {
            self.sequences += 1;
            for i in 0..n {
                let (mu, log_var) = (posterior.mu[b * n + i], posterior.log_var[b * n + i]);
                self.mu[i] += f64::from(mu);
                self.mu_squared[i] += f64::from(mu).powi(2);
                self.kl[i] += kl(mu, log_var);
            }
        }
        Ok(())
    }

    /// Sequences added.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// KL of each layer's latents, in nats a sequence; NaN without sequences, empty without
    /// latents.
    pub fn kl_per_layer(&self) -> Vec<f64> {
        self.means(self.kl.len() / self.n_layers)
    }

    /// KL of each latent vector, layer after layer, in nats a sequence; NaN without sequences, empty
    /// without latents.
    pub fn kl_per_latent(&self) -> Vec<f64> {
        self.means(self.dim)
    }

    /// The KL of every `n` dimensions together, a sequence.
    fn means(&self, n: usize) -> Vec<f64> {
        let mean = |kl: &[f64]| kl.iter().sum::<f64>() / self.sequences as f64;
        if n == 0 { Vec::new() } else { self.kl.chunks(n).map(mean).collect() }
    }

    /// Dimensions of a sequence's latents, `L·Z·C`: what [`active_units`](Self::active_units) is of.
    pub fn units(&self) -> usize {
        self.kl.len()
    }

    /// Dimensions whose mean varies over the sequences by more than `threshold`, usually
    /// [`ACTIVE`](Self::ACTIVE).
    pub fn active_units(&self, threshold: f64) -> usize {
        (0..self.mu.len()).filter(|i| self.is_active(*i, threshold)).count()
    }

    /// The KL floor: what the dimensions that are not active cost, in nats a sequence. Steps and
    /// rates too small for them to get back to the prior make it large.
    pub fn kl_floor(&self, threshold: f64) -> f64 {
        let inactive = (0..self.mu.len()).filter(|i| !self.is_active(*i, threshold));
        // From 0, since the sum of nothing is -0, and prints as that.
        inactive.fold(0.0, |sum, i| sum + self.kl[i]) / self.sequences as f64
    }

    fn is_active(&self, i: usize, threshold: f64) -> bool {
        let n = self.sequences as f64;
        self.mu_squared[i] / n - (self.mu[i] / n).powi(2) > threshold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_of_latents() {
        let config = ModelConfig { dim: 1, n_layers: 2, n_latents: 4, ..ModelConfig::ltm_small() };
        let mut used = LatentUse::new(&config);
        // Dimension 0 varies; 1 sits at the prior; 2 and 3 are stuck with a small variance.
        let posterior = Posterior {
            mu: vec![1.0, 0.0, 0.5, 0.5, -1.0, 0.0, 0.5, 0.5, 9.0, 9.0, 9.0, 9.0],
            log_var: vec![0.0, 0.0, -4.0, -4.0, 0.0, 0.0, -4.0, -4.0, 9.0, 9.0, 9.0, 9.0],
            noise: vec![],
        };
        used.add(&posterior, &[4, 4, 0]).unwrap();
        assert_eq!(used.sequences(), 2);
        assert_eq!(used.active_units(LatentUse::ACTIVE), 1);
        let stuck = 2.0 * kl(0.5, -4.0);
        assert!((used.kl_floor(LatentUse::ACTIVE) - stuck).abs() <= 1e-12);
        assert_eq!(used.units(), 4);
        assert_eq!(used.kl_per_layer(), [0.5, stuck]);
        assert_eq!(used.kl_per_latent(), [0.5, 0.0, stuck / 2.0, stuck / 2.0]);
        assert!(used.add(&posterior, &[4, 4]).is_err());
    }
}
