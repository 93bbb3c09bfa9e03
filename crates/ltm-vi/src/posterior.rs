//! The Gaussian posterior of a batch on the host. Knows no graph and no device.

use std::borrow::Cow;

use crate::error::argument;
use crate::estimators::check_length;
use crate::factor::Layer;
use crate::key::{Draw, Purpose, SampleOf};
use crate::{Extents, Factor, InferConfig, InferKey, Initial, Result};

/// `q(z|x) = N(mu, diag(exp(log_var)))` for each sequence of a batch, or with a [`Factor`] its correlated form, and the
/// noise of one sample. All three are `(B,L·Z,C)`, and empty for a model without latents.
#[derive(Clone, Debug, PartialEq)]
pub struct Posterior {
    /// Means.
    pub mu: Vec<f32>,
    /// Logarithms of the variances.
    pub log_var: Vec<f32>,
    /// Standard normal noise of the sample.
    pub noise: Vec<f32>,
    /// What correlates the numbers of a layer; `None` for independent ones.
    pub factor: Option<Factor<Vec<f32>>>,
}

impl Posterior {
    /// The start of a fit of `b` sequences under `key`, as in the published code.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when memory runs out.
    pub fn initial(
        model: impl Into<Extents>,
        infer: &InferConfig,
        b: usize,
        key: InferKey,
    ) -> Result<Self> {
        Self::drawn(model.into(), infer.initial(), b, key)
    }

    pub(crate) fn drawn(
        extents: Extents,
        initial: Initial,
        b: usize,
        key: InferKey,
    ) -> Result<Self> {
        let shape = [b, extents.latent_len()];
        let Initial { mu_std, log_var_mean, log_var_std } = initial;
        let mu = key.normal(shape, Purpose::InitMu, 0, [0.0, mu_std])?;
        let log_var = key.normal(shape, Purpose::InitLogVar, 0, [log_var_mean, log_var_std])?;
        let noise = key.normal(shape, Purpose::FitNoise, 0, [0.0, 1.0])?;
        Ok(Self { mu, log_var, noise, factor: None })
    }

    /// The sample `z = mu + noise·exp(log_var/2)`, `(B,L·Z,C)`, whose noise a factor correlates.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the lengths of the three differ, or those of a factor do not fit.
    pub fn sample(&self) -> Result<Vec<f32>> {
        self.sample_by(&self.own_draw())
    }

    /// The noise of its sample.
    pub(crate) fn own_draw(&self) -> Draw {
        Draw { numbers: self.noise.clone(), columns: self.column_noise().to_vec() }
    }

    /// Fresh noise of sample number `index` of its `b` sequences.
    pub(crate) fn draw(&self, b: usize, key: InferKey, of: SampleOf, index: usize) -> Result<Draw> {
        key.draw([b, self.mu.len() / b.max(1), self.column_noise().len() / b.max(1)], of, index)
    }

    /// Sample number `index` by fresh noise, `(B,L·Z,C)`: the one that scores under `key` use.
    ///
    /// # Errors
    /// Those of [`sample`](Self::sample) and [`initial`](Self::initial).
    pub fn fresh_sample(
        &self,
        model: impl Into<Extents>,
        key: InferKey,
        index: usize,
    ) -> Result<Vec<f32>> {
        let b = self.mu.len() / model.into().latent_len().max(1);
        self.sample_by(&self.draw(b, key, SampleOf::Score, index)?)
    }

    fn sample_by(&self, draw: &Draw) -> Result<Vec<f32>> {
        check_length("log_var", self.mu.len(), self.log_var.len())?;
        check_length("noise", self.mu.len(), draw.numbers.len())?;
        self.check_factor()?;
        let noise = self.correlated(draw);
        let scale = self.log_var.iter().map(|log_var| (log_var / 2.0).exp());
        Ok(self.mu.iter().zip(&*noise).zip(scale).map(|((mu, e), s)| mu + e * s).collect())
    }

    /// `KL(q || N(0,I))` of each of `rows` equal parts, in nats, in double precision: one part per
    /// sequence, or one per layer of a sequence. All 0 for an empty posterior.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `rows` does not divide the means, or with a factor the layers, and
    /// when there are more or fewer log-variances than means, or the lengths of a factor do not fit.
    pub fn kl(&self, rows: usize) -> Result<Vec<f64>> {
        check_length("log_var", self.mu.len(), self.log_var.len())?;
        self.check_factor()?;
        if self.mu.is_empty() {
            return Ok(vec![0.0; rows]);
        }
        if rows == 0 || !self.mu.len().is_multiple_of(rows) {
            return Err(argument("rows", format!("a divisor of {} means", self.mu.len()), rows));
        }
        let correlation = self.total_correlation(rows);
        let correlation =
            correlation.ok_or_else(|| argument("rows", "parts of whole layers", rows))?;
        let (n, log_var) = (self.mu.len() / rows, self.marginal_log_var());
        let parts = self.mu.chunks(n).zip(log_var.chunks(n)).zip(correlation);
        let part = |((mu, log_var), correlation): ((&[f32], &[f32]), f64)| {
            mu.iter().zip(log_var).map(|(m, v)| kl(*m, *v)).sum::<f64>() + correlation
        };
        Ok(parts.map(part).collect())
    }

    /// Columns of each layer, `R`; 0 for independent numbers.
    pub fn rank(&self) -> usize {
        self.factor.as_ref().map_or(0, |factor| factor.rank(self.mu.len()))
    }

    /// The posterior of each of its `b` sequences.
    pub(crate) fn rows(&self, b: usize) -> Vec<Self> {
        let row = |row: usize| {
            let part = |numbers: &Vec<f32>| {
                let len = numbers.len() / b;
                numbers[row * len..][..len].to_vec()
            };
            let [mu, log_var, noise] = [&self.mu, &self.log_var, &self.noise].map(part);
            let factor = self.factor.as_ref().map(|Factor { columns, noise }| Factor {
                columns: part(columns),
                noise: part(noise),
            });
            Self { mu, log_var, noise, factor }
        };
        (0..b).map(row).collect()
    }

    /// Numbers of the columns' noise.
    fn column_noise(&self) -> &[f32] {
        self.factor.as_ref().map_or(&[], |factor| &factor.noise)
    }

    /// Refuses a factor whose columns are not as many for every layer.
    pub(crate) fn check_factor(&self) -> Result<()> {
        self.factor.as_ref().map_or(Ok(()), |factor| factor.check(self.mu.len()))
    }

    /// Every layer of every sequence; none without a factor.
    pub(crate) fn layers(&self) -> Vec<Layer<'_>> {
        self.factor.as_ref().map_or(Vec::new(), |factor| factor.layers(self.mu.len()))
    }

    /// The noise of all numbers `e + A·f`, `(B,L·Z,C)`.
    pub(crate) fn correlated<'n>(&self, draw: &'n Draw) -> Cow<'n, [f32]> {
        let layers = self.layers();
        if layers.is_empty() {
            return Cow::Borrowed(&draw.numbers);
        }
        let (len, rank) = (self.mu.len() / layers.len(), self.rank());
        let mut noise = draw.numbers.clone();
        let parts = noise.chunks_mut(len).zip(&layers).zip(draw.columns.chunks(rank));
        for ((part, layer), factors) in parts {
            for (i, x) in part.iter_mut().enumerate() {
                let columns = layer.columns.iter().zip(factors);
                let sum: f64 = columns.map(|(v, c)| f64::from(v[i]) * f64::from(*c)).sum();
                *x = (f64::from(*x) + sum) as f32;
            }
        }
        Cow::Owned(noise)
    }

    /// The logarithm of each number's own variance, `(B,L·Z,C)`.
    pub(crate) fn marginal_log_var(&self) -> Cow<'_, [f32]> {
        let squares = self.layers().into_iter().flat_map(|layer| layer.squares());
        if self.factor.is_none() {
            return Cow::Borrowed(&self.log_var);
        }
        let of = |(log_var, square): (&f32, f64)| (f64::from(*log_var) + square.ln_1p()) as f32;
        Cow::Owned(self.log_var.iter().zip(squares).map(of).collect())
    }

    /// The KL of each of `rows` equal parts from independent numbers of the same variances, in nats: 0 without a factor. `None`
    /// where a part is not of whole layers.
    ///
    /// The KL from a prior of independent numbers is this plus that of such numbers.
    pub(crate) fn total_correlation(&self, rows: usize) -> Option<Vec<f64>> {
        let layers = self.layers();
        if layers.is_empty() {
            return Some(vec![0.0; rows]);
        }
        let of = |layer: &Layer<'_>| {
            let marginal: f64 = layer.squares().iter().map(|square| square.ln_1p()).sum();
            0.5 * (marginal - layer.log_det())
        };
        let whole = rows > 0 && layers.len().is_multiple_of(rows);
        whole.then(|| {
            let part = |layers: &[Layer<'_>]| layers.iter().map(of).sum();
            layers.chunks(layers.len() / rows).map(part).collect()
        })
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
    use crate::Sequences;
    use ltm_model::ModelConfig;

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
        encoder_width: 0,
        init_std: 0.02,
        prior_layers: 0,
        map_layers: 0,
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
            let key = InferKey { seed: 3, step: 7, sequences: Sequences::From(first_sequence) };
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
        let (mu, log_var, noise) = (vec![0.0; 6], vec![0.0; 5], vec![0.0; 6]);
        let uneven = Posterior { mu, log_var, noise, factor: None };
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
        let empty = Posterior { mu: vec![], log_var: vec![], noise: vec![], factor: None };
        assert_eq!(empty.kl(3).unwrap(), [0.0; 3]);
    }
}
