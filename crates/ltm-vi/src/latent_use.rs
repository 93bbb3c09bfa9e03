//! How much of a corpus its latents carry: KL, what they are worth to the likelihood, and how much of their
//! means another fit of the same sequences reproduces.

use ltm_model::ModelConfig;
use serde::{Deserialize, Serialize};

use crate::error::argument;
use crate::key::Purpose;
use crate::{Gaussian, InferKey, Inference, Latents, Problem, Result, estimators, suits};

/// Measures of what the latents of a corpus carry. None grows with the number of sequences, nor with noise
/// that a fit adds to the means: a model that ignores its latents has a worth of 0 and a signal of about 0.
#[derive(Clone, Debug)]
pub struct LatentUse {
    n_layers: usize,
    n_latents: usize,
    /// KL of each layer's latents, summed over sequences; empty before the first.
    kl_per_layer: Vec<f64>,
    /// KL of each latent vector, summed over sequences; empty before the first, without a closed form, and where latents of a
    /// layer are correlated.
    kl_per_latent: Vec<f64>,
    /// Per sequence: nats at the prior's mean minus nats at a fresh sample of the posterior.
    gains: Vec<f64>,
    /// Per sequence: the bound at the posterior minus the bound at the prior, each by one fresh sample.
    excess: Vec<f64>,
    /// The document of the last sequence, whose further rows are added to it.
    document: Option<u64>,
    /// Per sequence: scored tokens.
    tokens: Vec<f64>,
    /// Sequences that were fitted twice.
    refitted: usize,
    /// Moments over them of each dimension's means in the first and the second fit.
    moments: Vec<Moments>,
}

/// What was measured of one batch, to be [added](LatentUse::add) to that of a corpus, here or in another process.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct BatchUse {
    /// The means of the fit, `(B,L·Z,C)`, and those of a second one, if there was one.
    fits: Option<[Vec<f32>; 2]>,
    /// KL of each layer of a sequence, `(B·L)`.
    kl_per_layer: Vec<f64>,
    /// KL of each latent vector, `(B·L·Z)`, in closed form.
    kl_per_latent: Option<Vec<f64>>,
    rows: Vec<Row>,
}

/// What is measured of one row besides its posterior.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Row {
    tokens: usize,
    gain: f64,
    excess: f64,
    document: Option<u64>,
}

/// Sums over sequences of one dimension's mean `x` in the first fit and `y` in the second.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
}

/// The variance over sequences of the posterior's means, summed over all dimensions of a sequence's latents
/// and split by a second fit of the same sequences with independent noise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanVariance {
    /// Covariance of the two fits: what the sequences determine.
    pub signal: f64,
    /// The rest of the variance: starting points, noise and optimiser of a fit.
    pub noise: f64,
}

impl MeanVariance {
    /// The signal's share of the variance, near 0 for latents that the model ignores; NaN where the means
    /// do not vary at all.
    pub fn share(&self) -> f64 {
        self.signal / (self.signal + self.noise)
    }
}

impl LatentUse {
    /// Batches are fitted a second time, at the cost of another fit, until this many sequences have been.
    pub const REFITTED: usize = 64;

    /// The bit in which the step of the second fit's key differs: no training step is that large.
    const SECOND_FIT: u64 = 1 << 63;

    /// Measures of no sequences.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            n_layers: config.n_layers,
            n_latents: config.n_latents,
            kl_per_layer: Vec::new(),
            kl_per_latent: Vec::new(),
            gains: Vec::new(),
            excess: Vec::new(),
            document: None,
            tokens: Vec::new(),
            refitted: 0,
            moments: Vec::new(),
        }
    }

    /// Fits a problem's batch under `key` and adds its rows, except those without a scored token; returns the fit. Consecutive
    /// rows of one of the `documents` are one sequence; a row of none is a sequence of its own.
    /// The first [`REFITTED`](Self::REFITTED) rows are fitted under a second key too.
    ///
    /// # Errors
    /// Those of [`measure`](Self::measure).
    pub fn fit(
        &mut self,
        problem: &mut Problem<'_>,
        inference: &Inference,
        key: InferKey,
        documents: &[Option<u64>],
    ) -> Result<Gaussian> {
        let twice = self.refitted < Self::REFITTED;
        let (q, measured) = Self::measure(problem, inference, key, documents, twice)?;
        self.add(&measured)?;
        Ok(q)
    }

    /// Fits a problem's batch under `key`, or `twice` under a second key too, and measures it; returns the fit.
    ///
    /// # Errors
    /// Those of [`Inference::infer`] and [`Problem::token_nll_at`];
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) for latents without a density.
    pub fn measure(
        problem: &mut Problem<'_>,
        inference: &Inference,
        key: InferKey,
        documents: &[Option<u64>],
        twice: bool,
    ) -> Result<(Gaussian, BatchUse)> {
        let second = if twice {
            let key = InferKey { step: key.step ^ Self::SECOND_FIT, ..key };
            Some(inference.infer(problem, key, &mut |_| Ok(()))?.center()?)
        } else {
            None
        };
        let Latents::Gaussian(q) = inference.infer(problem, key, &mut |_| Ok(()))? else {
            return Err(suits::no_density("latent use"));
        };
        let posterior = q.to_host()?;
        let sample = posterior.fresh_sample(problem.extents(), key, 0)?;
        // By the same noise, which makes their difference more certain.
        let [b, t] = problem.batch().shape();
        let extents = problem.extents();
        let (prior, len) = (problem.prior()?, extents.latent_len());
        let noise = key.normal([b, len], Purpose::ScoreNoise, 0, [0.0, 1.0])?;
        let prior_sample: Vec<f32> =
            noise.chunks(len).flat_map(|noise| prior.sample_f32(noise)).collect();
        let [mean, _] = prior.moments(len);
        let mut nats_at = |z: &[f32]| -> Result<Vec<f64>> {
            Ok(problem.token_nll_at(z)?.chunks(t).map(|row| row.iter().sum()).collect())
        };
        let at_prior = nats_at(&mean.repeat(b))?;
        let at_posterior = nats_at(&sample)?;
        let at_prior_sample = nats_at(&prior_sample)?;
        let scored = problem.batch().scored_tokens();
        let kl_per_layer = problem.kl(&q, key)?;
        let kl_per_latent = problem.exact_kl(&posterior, b * extents.n_latents)?;
        let kl: Vec<f64> =
            kl_per_layer.chunks(extents.n_layers).map(|row| row.iter().sum()).collect();
        let row = |b: usize| Row {
            tokens: scored[b],
            gain: at_prior[b] - at_posterior[b],
            excess: at_posterior[b] + kl[b] - at_prior_sample[b],
            document: documents.get(b).copied().flatten(),
        };
        let rows: Vec<Row> = (0..scored.len()).map(row).collect();
        let fits = second.map(|second| [posterior.mu, second]);
        Ok((q, BatchUse { fits, kl_per_layer, kl_per_latent, rows }))
    }

    /// Adds what was measured of a batch, except of rows without a scored token. Batches are added in their order in the
    /// corpus.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a batch of another model.
    pub fn add(&mut self, batch: &BatchUse) -> Result<()> {
        let BatchUse { fits, kl_per_layer, kl_per_latent, rows } = batch;
        let n = match fits {
            Some([mu, _]) => mu.len() / rows.len().max(1),
            None => self.moments.len(),
        };
        for len in fits.iter().flatten().map(Vec::len) {
            if len != n * rows.len() {
                let expected = format!("{} dimensions", n * rows.len());
                return Err(argument("posterior", expected, len));
            }
        }
        self.kl_per_layer.resize(self.n_layers, 0.0);
        self.kl_per_latent.resize(kl_per_latent.as_ref().map_or(0, |_| self.n_latents), 0.0);
        self.moments.resize(n, Moments::default());
        for (b, measured) in rows.iter().enumerate().filter(|(_, row)| row.tokens > 0) {
            let of_row = |sums: &mut [f64], kl: &[f64]| {
                let n = sums.len();
                let of_row = kl.iter().skip(b * n);
                sums.iter_mut().zip(of_row).for_each(|(sum, kl)| *sum += kl);
            };
            of_row(&mut self.kl_per_layer, kl_per_layer);
            of_row(&mut self.kl_per_latent, kl_per_latent.as_deref().unwrap_or_default());
            let Row { tokens, gain, excess, document } = *measured;
            if document.is_none() || document != self.document {
                for all in [&mut self.gains, &mut self.excess, &mut self.tokens] {
                    all.push(0.0);
                }
                self.document = document;
            }
            let at = self.tokens.len() - 1;
            self.gains[at] += gain;
            self.excess[at] += excess;
            self.tokens[at] += tokens as f64;
            let Some([first, second]) = fits else { continue };
            self.refitted += 1;
            let row = b * n..(b + 1) * n;
            let both = first[row.clone()].iter().zip(&second[row]);
            for (sums, (x, y)) in self.moments.iter_mut().zip(both) {
                let (x, y) = (f64::from(*x), f64::from(*y));
                sums.x += x;
                sums.y += y;
                sums.xx += x * x;
                sums.yy += y * y;
                sums.xy += x * y;
            }
        }
        Ok(())
    }

    /// Sequences added.
    pub fn sequences(&self) -> usize {
        self.tokens.len()
    }

    /// Sequences that were fitted twice.
    pub fn refitted(&self) -> usize {
        self.refitted
    }

    /// KL of each layer's latents, in nats per sequence; empty without sequences.
    pub fn kl_per_layer(&self) -> Vec<f64> {
        self.per_sequence(&self.kl_per_layer)
    }

    /// KL of each latent vector, layer after layer, in nats per sequence; empty without sequences, and under a prior
    /// without a closed form or with a factor, whose KL is of a layer's latents together.
    pub fn kl_per_latent(&self) -> Vec<f64> {
        self.per_sequence(&self.kl_per_latent)
    }

    fn per_sequence(&self, sums: &[f64]) -> Vec<f64> {
        sums.iter().map(|sum| sum / self.sequences() as f64).collect()
    }

    /// What the latents are worth: nats per token at the prior's mean, the latents of no noise, minus nats per token at a
    /// fresh sample of the posterior, with its standard error over sequences. Exactly 0 for a model that
    /// ignores its latents; below 0 where the fit makes predictions worse. The KL is not subtracted.
    pub fn worth(&self) -> (f64, f64) {
        estimators::ratio(&self.gains, &self.tokens).expect("`add` grows both together")
    }

    /// How far the bound at the fitted posterior, its KL included, is above the bound at the prior, whose KL is 0: in nats
    /// per token, each by one fresh sample, with its standard error over sequences. Below 0 where fitting pays.
    pub fn above_prior(&self) -> (f64, f64) {
        estimators::ratio(&self.excess, &self.tokens).expect("`add` grows both together")
    }

    /// Whether the fitted bound is above that of the prior by more than two standard errors, or at all for one sequence: the
    /// fit does harm.
    pub fn is_worse_than_prior(&self) -> bool {
        let (nats, error) = self.above_prior();
        nats > if error.is_nan() { 0.0 } else { 2.0 * error }
    }

    /// The variance of the means over the sequences that were fitted twice; NaN for fewer than two.
    pub fn mean_variance(&self) -> MeanVariance {
        let n = self.refitted as f64;
        let (mut signal, mut total) = (0.0, 0.0);
        for sums in &self.moments {
            signal += (sums.xy - sums.x * sums.y / n) / (n - 1.0);
            let both = sums.xx - sums.x * sums.x / n + sums.yy - sums.y * sums.y / n;
            total += both / 2.0 / (n - 1.0);
        }
        MeanVariance { signal, noise: total - signal }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two sequences of two layers of one latent pair, and a third that only fills the batch.
    #[test]
    fn measures_by_hand() {
        let config = ModelConfig { dim: 1, n_layers: 2, n_latents: 4, ..ModelConfig::ltm_small() };
        let mut used = LatentUse::new(&config);
        // Dimension 0 is determined by the sequence, 1 is at the prior, 2 is noise, 3 does not vary.
        let mu = [1.0, 0.0, 0.5, 0.5, -1.0, 0.0, -0.5, 0.5, 9.0, 9.0, 9.0, 9.0];
        let kl_per_latent = [0.5, 0.0, 2.0, 2.0, 0.5, 0.0, 2.0, 4.0, 9.0, 9.0, 9.0, 9.0];
        let kl_per_layer = [0.5, 4.0, 0.5, 6.0, 18.0, 18.0];
        let measured = |second: Option<&[f32]>, rows: &[Row]| BatchUse {
            fits: second.map(|second| [mu.to_vec(), second.to_vec()]),
            kl_per_layer: kl_per_layer.to_vec(),
            kl_per_latent: Some(kl_per_latent.to_vec()),
            rows: rows.to_vec(),
        };
        let second = [1.0, 0.0, -0.5, 0.5, -1.0, 0.0, 0.5, 0.5, 9.0, 9.0, 9.0, 9.0];
        let row = |(gain, tokens)| Row { tokens, gain, excess: -2.0 * gain, document: None };
        let rows = [(3.0, 3), (-1.0, 1), (99.0, 0)].map(row);
        used.add(&measured(Some(&second), &rows)).unwrap();
        assert_eq!((used.sequences(), used.refitted()), (2, 2));
        assert_eq!(used.kl_per_layer(), [0.5, 5.0]);
        assert_eq!(used.kl_per_latent(), [0.5, 0.0, 2.0, 3.0]);
        // 2 nats for 4 tokens; residuals 1.5 and -1.5.
        let error = (2.0 * 2.0 * 1.5_f64.powi(2)).sqrt() / 4.0;
        assert_eq!(used.worth(), (0.5, error));
        assert_eq!(used.above_prior(), (-1.0, 2.0 * error));
        assert!(!used.is_worse_than_prior());
        // Of dimension 0 a variance and covariance of 2; of dimension 2 a variance of 0.5, covariance -0.5.
        let variance = used.mean_variance();
        assert_eq!(variance, MeanVariance { signal: 1.5, noise: 1.0 });
        assert_eq!(variance.share(), 0.6);
        // Later sequences without a second fit change all but that.
        let later = [(0.0, 4), (0.0, 4), (0.0, 0)].map(row);
        used.add(&measured(None, &later)).unwrap();
        assert_eq!((used.sequences(), used.refitted()), (4, 2));
        assert_eq!(used.mean_variance(), variance);
        assert!(used.add(&measured(Some(&second[1..]), &later)).is_err());
        // Rows of one document are one sequence, in one batch or in two.
        let of = |document| Row { tokens: 2, excess: 1.0, document, ..Row::default() };
        let mut used = LatentUse::new(&config);
        used.add(&measured(None, &[of(Some(1)), of(Some(1)), of(Some(2))])).unwrap();
        used.add(&measured(None, &[of(Some(2)), of(None), of(None)])).unwrap();
        assert_eq!((used.tokens.as_slice(), used.sequences()), (&[4.0, 4.0, 2.0, 2.0][..], 4));
        assert_eq!(used.above_prior(), (0.5, 0.0));
        assert!(used.is_worse_than_prior());
    }

    #[test]
    fn nothing_is_measured_of_nothing() {
        let used = LatentUse::new(&ModelConfig::ltm_small());
        assert!(used.kl_per_layer().is_empty() && used.kl_per_latent().is_empty());
        assert!(used.worth().0.is_nan() && used.mean_variance().share().is_nan());
    }
}
