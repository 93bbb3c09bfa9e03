//! The Gaussian posterior of a batch on the host, and its random numbers. Knows no graph.

use ltm_kernels::ops::philox::{self, Philox, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::ModelConfig;

use crate::engine::argument;
use crate::estimators::check_length;
use crate::{InferConfig, Result};

/// What the random numbers of a fit or an estimate are a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferKey {
    /// The experiment's seed.
    pub seed: u64,
    /// The training step, or another number that separates one use of the seed from the next.
    pub step: u64,
    /// The number of the batch's first sequence; the others count up from it. A sequence draws the same
    /// numbers in whichever batch it is.
    pub first_sequence: u64,
}

/// What numbers are drawn for. "tho" and a digit in ASCII separate these streams from others of the
/// same seed; the draw's index is added to the lower half.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    Sequence = 0x7468_6f30 << 32,
    InitMu = 0x7468_6f31 << 32,
    InitLogVar = 0x7468_6f32 << 32,
    FitNoise = 0x7468_6f33 << 32,
    ScoreNoise = 0x7468_6f34 << 32,
    Token = 0x7468_6f35 << 32,
    MaskCount = 0x7468_6f36 << 32,
    Mask = 0x7468_6f37 << 32,
}

impl InferKey {
    /// Standard normal numbers `(B,L·Z,C)`, scaled and shifted: draw `index` for `purpose`.
    pub(crate) fn normal(
        &self,
        config: &ModelConfig,
        b: usize,
        purpose: Purpose,
        index: usize,
        mean: f64,
        std: f64,
    ) -> Result<Vec<f32>> {
        config.validate()?;
        let len = config.n_latents * config.dim;
        let mut one = Buffer::zeros(&Device::Cpu, DType::F32, len)?;
        let mut all = Vec::with_capacity(b * len);
        for sequence in 0..b {
            let key = self.philox_key(sequence, purpose, index);
            philox::normal(&Device::Cpu, &mut one, key, mean, std)?;
            all.extend_from_slice(one.as_slice()?);
        }
        Ok(all)
    }

    /// The generator of draw `index` for the batch's sequence number `sequence`.
    pub(crate) fn generator(&self, sequence: usize, purpose: Purpose, index: usize) -> Philox {
        Philox::new(self.philox_key(sequence, purpose, index))
    }

    fn philox_key(&self, sequence: usize, purpose: Purpose, index: usize) -> PhiloxKey {
        // Each sequence has a seed of its own, so that step, purpose and index are free.
        let sequence = self.first_sequence.wrapping_add(sequence as u64);
        let key = PhiloxKey { seed: self.seed, stream: Purpose::Sequence as u64, step: sequence };
        let [low, high, ..] = Philox::new(key).u32x4(0);
        PhiloxKey {
            seed: (u64::from(high) << 32) | u64::from(low),
            stream: purpose as u64 + index as u64,
            step: self.step,
        }
    }
}

/// `q(z|x) = N(mu, diag(exp(log_var)))` for each sequence of a batch, and the noise of one sample.
/// All three are `(B,L·Z,C)`, and empty for a model without latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// Means.
    pub mu: Vec<f32>,
    /// Logarithms of the variances.
    pub log_var: Vec<f32>,
    /// Standard normal noise of the sample.
    pub noise: Vec<f32>,
}

impl Posterior {
    /// The start of a fit of `b` sequences under `key`.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for an invalid configuration,
    /// [`Error::Kernel`](crate::Error::Kernel) when memory runs out.
    pub fn initial(
        config: &ModelConfig,
        infer: &InferConfig,
        b: usize,
        key: InferKey,
    ) -> Result<Self> {
        let mu = key.normal(config, b, Purpose::InitMu, 0, 0.0, infer.init_mu_std)?;
        let (mean, std) = (infer.init_log_var_mean, infer.init_log_var_std);
        let log_var = key.normal(config, b, Purpose::InitLogVar, 0, mean, std)?;
        let noise = key.normal(config, b, Purpose::FitNoise, 0, 0.0, 1.0)?;
        Ok(Self { mu, log_var, noise })
    }

    /// The sample `z = mu + noise·exp(log_var/2)`, `(B,L·Z,C)`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the lengths of the three differ.
    pub fn sample(&self) -> Result<Vec<f32>> {
        self.sample_by(&self.noise)
    }

    /// Sample number `index` by fresh noise, `(B,L·Z,C)`: the one that scores under `key` use.
    ///
    /// # Errors
    /// Those of [`sample`](Self::sample) and [`initial`](Self::initial).
    pub fn fresh_sample(
        &self,
        config: &ModelConfig,
        key: InferKey,
        index: usize,
    ) -> Result<Vec<f32>> {
        let b = self.mu.len() / (config.n_latents * config.dim).max(1);
        let noise = key.normal(config, b, Purpose::ScoreNoise, index, 0.0, 1.0)?;
        self.sample_by(&noise)
    }

    fn sample_by(&self, noise: &[f32]) -> Result<Vec<f32>> {
        check_length("log_var", self.mu.len(), self.log_var.len())?;
        check_length("noise", self.mu.len(), noise.len())?;
        let scale = self.log_var.iter().map(|log_var| (log_var / 2.0).exp());
        Ok(self.mu.iter().zip(noise).zip(scale).map(|((mu, e), s)| mu + e * s).collect())
    }

    /// `KL(q || N(0,I))` of each of `rows` equal parts, in nats, in double precision: one part per
    /// sequence, or one per layer of a sequence. All 0 for an empty posterior.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `rows` does not divide the means, or there are
    /// more or fewer log-variances than means.
    pub fn kl(&self, rows: usize) -> Result<Vec<f64>> {
        check_length("log_var", self.mu.len(), self.log_var.len())?;
        if self.mu.is_empty() {
            return Ok(vec![0.0; rows]);
        }
        if rows == 0 || !self.mu.len().is_multiple_of(rows) {
            return Err(argument("rows", format!("a divisor of {} means", self.mu.len()), rows));
        }
        let n = self.mu.len() / rows;
        let parts = self.mu.chunks(n).zip(self.log_var.chunks(n));
        Ok(parts.map(|(mu, lv)| mu.iter().zip(lv).map(|(m, v)| kl(*m, *v)).sum()).collect())
    }
}

/// `KL(N(mu, exp(log_var)) || N(0,1)) = (mu² + exp(log_var) - 1 - log_var)/2`, in nats.
pub(crate) fn kl(mu: f32, log_var: f32) -> f64 {
    let (mu, log_var) = (f64::from(mu), f64::from(log_var));
    0.5 * (mu * mu + log_var.exp_m1() - log_var)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ModelConfig = ModelConfig {
        dim: 4,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 2,
        vocab_size: 5,
        max_seq_len: 4,
        window: 4,
        n_latents: 4,
        ffn_hidden: 8,
        norm_eps: 1e-5,
        rope_theta: 1e4,
        attention: ltm_model::Attention::Causal,
        encoder_layers: 0,
    };

    #[test]
    fn kl_against_its_integral() {
        // Trapezoids over q·(log q - log p), 12 standard deviations wide.
        for (mu, log_var) in [(0.0f32, 0.0f32), (0.7, -2.0), (-1.5, 0.6)] {
            let (m, s) = (f64::from(mu), (f64::from(log_var) / 2.0).exp());
            let n = 20_000;
            let step = 24.0 * s / f64::from(n);
            let sum: f64 = (0..=n)
                .map(|i| {
                    let x = m - 12.0 * s + f64::from(i) * step;
                    let u = (x - m) / s;
                    let q = (-0.5 * u * u).exp() / (s * std::f64::consts::TAU.sqrt());
                    q * (0.5 * x * x - 0.5 * u * u - s.ln())
                })
                .sum();
            let found = kl(mu, log_var);
            assert!((found - sum * step).abs() <= 1e-9, "{found} is not {}", sum * step);
        }
    }

    #[test]
    fn numbers_belong_to_the_sequence_not_its_place() {
        let infer = InferConfig::published();
        let draw = |first_sequence, b| {
            let key = InferKey { seed: 3, step: 7, first_sequence };
            Posterior::initial(&CONFIG, &infer, b, key).unwrap()
        };
        let (all, tail) = (draw(10, 3), draw(11, 2));
        let len = CONFIG.n_latents * CONFIG.dim;
        assert_eq!(all.mu[len..], tail.mu);
        assert_eq!(all.log_var[len..], tail.log_var);
        assert_eq!(all.noise[len..], tail.noise);
        assert_ne!(all.noise[..len], all.noise[len..2 * len]);
        let (whole, parts) = (all.kl(3).unwrap(), all.kl(6).unwrap());
        assert_eq!(whole.len(), 3);
        assert!((whole[0] - parts[0] - parts[1]).abs() <= 1e-12 * whole[0]);
    }

    #[test]
    fn uneven_parts_are_refused_by_name() {
        let uneven = Posterior { mu: vec![0.0; 6], log_var: vec![0.0; 5], noise: vec![0.0; 6] };
        let even = Posterior { log_var: vec![0.0; 6], ..uneven.clone() };
        let short = Posterior { noise: vec![0.0; 5], ..even.clone() };
        for (refused, arg) in [
            (uneven.kl(3).map(|_| ()), "`log_var`"),
            (uneven.sample().map(|_| ()), "`log_var`"),
            (short.sample().map(|_| ()), "`noise`"),
            (even.kl(4).map(|_| ()), "`rows`"),
            (even.kl(0).map(|_| ()), "`rows`"),
        ] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains(arg), "{error}");
        }
        assert_eq!(even.kl(3).unwrap(), [0.0; 3]);
        let empty = Posterior { mu: vec![], log_var: vec![], noise: vec![] };
        assert_eq!(empty.kl(3).unwrap(), [0.0; 3]);
        let invalid = ModelConfig { n_latents: usize::MAX, ..CONFIG };
        let key = InferKey { seed: 3, step: 7, first_sequence: 0 };
        assert!(Posterior::initial(&invalid, &InferConfig::published(), 1, key).is_err());
    }
}
