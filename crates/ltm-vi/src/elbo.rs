//! Bounds on the likelihood by named protocols, with their errors. Knows no corpus: batches are
//! scored one by one and collected.

use crate::engine::argument;
use crate::posterior::Purpose;
use crate::{Engine, Error, InferKey, Posterior, Result};

/// What a number of nats per token, or a perplexity, stands for. Numbers of different protocols
/// must not be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `-log p(x|z)` at the sample that the fit ended with. No bound: the latents cost nothing.
    Reconstruction,
    /// Reconstruction and KL, with the noise that the fit used. With [`Noise::Fixed`](crate::Noise)
    /// it is what the paper reports, and optimistic: the fit may hide information in the noise.
    ElboFittedNoise,
    /// The evidence lower bound, `E_q[-log p(x|z)] + KL`, as a mean over fresh samples.
    Elbo {
        /// Samples a sequence.
        samples: usize,
    },
    /// The importance-weighted bound `-log mean_k p(x,z_k)/q(z_k)` over fresh samples, never looser
    /// than the evidence lower bound (Burda et al. 2016). It holds in expectation.
    Iwae {
        /// Samples a sequence.
        samples: usize,
    },
    /// `-log p(x)` of a model without latents, exact.
    Autoregressive,
}

impl Protocol {
    /// Samples of `elbo` and `iwae` when their name stands alone.
    pub const DEFAULT_SAMPLES: usize = 8;

    /// The name, without a number of samples.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reconstruction => "reconstruction",
            Self::ElboFittedNoise => "elbo-fitted-noise",
            Self::Elbo { .. } => "elbo",
            Self::Iwae { .. } => "iwae",
            Self::Autoregressive => "autoregressive",
        }
    }
}

impl std::fmt::Display for Protocol {
    /// The name, with `:samples` behind it where there are any.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Elbo { samples } | Self::Iwae { samples } => {
                write!(f, "{}:{samples}", self.name())
            }
            _ => f.write_str(self.name()),
        }
    }
}

impl std::str::FromStr for Protocol {
    type Err = Error;

    /// Parses a name; `elbo` and `iwae` may have `:samples` behind it.
    ///
    /// # Errors
    /// [`Error::UnknownProtocol`], also for a number of samples that is 0 or not a number.
    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownProtocol { name: text.into() };
        let (name, samples) = match text.split_once(':') {
            Some((name, samples)) => (name, Some(samples.parse().map_err(|_| unknown())?)),
            None => (text, None),
        };
        let sampled = samples.unwrap_or(Self::DEFAULT_SAMPLES);
        match (name, samples) {
            ("reconstruction", None) => Ok(Self::Reconstruction),
            ("elbo-fitted-noise", None) => Ok(Self::ElboFittedNoise),
            ("elbo", _) if sampled > 0 => Ok(Self::Elbo { samples: sampled }),
            ("iwae", _) if sampled > 0 => Ok(Self::Iwae { samples: sampled }),
            ("autoregressive", None) => Ok(Self::Autoregressive),
            _ => Err(unknown()),
        }
    }
}

/// Scores of sequences by one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// What the numbers stand for.
    pub protocol: Protocol,
    /// Scored tokens of each sequence.
    pub tokens: Vec<usize>,
    /// Nats of each sequence, a bound on `-log p(x)` unless the protocol says otherwise.
    pub nats: Vec<f64>,
    /// Variance that sampling the latents gives each of the `nats`: 0 where nothing is sampled, NaN
    /// for a single sample.
    pub variance: Vec<f64>,
}

impl Scores {
    /// No sequences yet.
    pub fn new(protocol: Protocol) -> Self {
        Self { protocol, tokens: Vec::new(), nats: Vec::new(), variance: Vec::new() }
    }

    /// Adds another batch of the same protocol.
    ///
    /// # Errors
    /// [`Error::Argument`] when the protocols differ.
    pub fn extend(&mut self, batch: Scores) -> Result<()> {
        if batch.protocol != self.protocol {
            let expected = format!("of protocol {}", self.protocol);
            return Err(argument("batch", expected, batch.protocol));
        }
        self.tokens.extend(batch.tokens);
        self.nats.extend(batch.nats);
        self.variance.extend(batch.variance);
        Ok(())
    }

    /// The corpus's nats per token. Sequences without a scored token, which only fill a batch, are
    /// left out.
    ///
    /// # Errors
    /// [`Error::Argument`] when no token is scored.
    pub fn estimate(&self) -> Result<Estimate> {
        let kept = || (0..self.tokens.len()).filter(|i| self.tokens[*i] > 0);
        let tokens: usize = self.tokens.iter().sum();
        if tokens == 0 {
            return Err(argument("targets", "at least one that is scored", "none"));
        }
        let per_sequence: Vec<f64> = kept().map(|i| self.nats[i]).collect();
        let n = per_sequence.len() as f64;
        let total = tokens as f64;
        let mean = per_sequence.iter().sum::<f64>() / total;
        // The mean is a ratio of two sums: the standard error of that, to first order.
        let squares: f64 =
            kept().map(|i| (self.nats[i] - mean * self.tokens[i] as f64).powi(2)).sum();
        Ok(Estimate {
            protocol: self.protocol,
            mean_nats_per_token: mean,
            standard_error: (squares * n / (n - 1.0)).sqrt() / total,
            sampling_error: kept().map(|i| self.variance[i]).sum::<f64>().sqrt() / total,
            tokens,
            per_sequence,
        })
    }
}

/// A corpus's score by one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// What the number stands for.
    pub protocol: Protocol,
    /// All nats over all tokens.
    pub mean_nats_per_token: f64,
    /// Standard error of the mean as the sequences vary, sampling included; NaN for one sequence.
    pub standard_error: f64,
    /// The part of it that more samples of the latents would remove; NaN for a single sample.
    pub sampling_error: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// Nats of each sequence.
    pub per_sequence: Vec<f64>,
}

impl Estimate {
    /// The corpus perplexity, `exp(total nats / total tokens)`: not a mean of the sequences' own.
    pub fn perplexity(&self) -> f64 {
        self.mean_nats_per_token.exp()
    }
}

/// Scores the batch that `engine` holds, at the posterior that it holds, by one protocol. Fresh
/// samples depend on `key` alone, and `elbo` and `iwae` see the same; the posterior stays.
///
/// # Errors
/// [`Error::Protocol`] when the protocol does not suit the model, [`Error::Argument`] for no
/// samples, and those of [`Engine::token_nll`].
pub fn score_batch(engine: &mut Engine, protocol: Protocol, key: InferKey) -> Result<Scores> {
    let config = *engine.config();
    if (protocol == Protocol::Autoregressive) != (config.n_latents == 0) {
        let (protocol, n_latents) = (protocol.name(), config.n_latents);
        return Err(Error::Protocol { protocol, n_latents });
    }
    let (b, t) = engine.batch_shape();
    let nll = |engine: &mut Engine| -> Result<Vec<f64>> {
        Ok(engine.token_nll()?.chunks(t).map(|nll| nll.iter().sum()).collect())
    };
    let (nats, variance) = match protocol {
        Protocol::Reconstruction | Protocol::Autoregressive => (nll(engine)?, vec![0.0; b]),
        Protocol::ElboFittedNoise => {
            let kl = engine.posterior()?.kl(b);
            (nll(engine)?.iter().zip(kl).map(|(nll, kl)| nll + kl).collect(), vec![0.0; b])
        }
        Protocol::Elbo { samples } => {
            let kl = engine.posterior()?.kl(b);
            let draws = draw(engine, key, samples, nll)?;
            let of = |sequence: usize| {
                let nats: Vec<f64> = draws.iter().map(|d| d.nll[sequence]).collect();
                let (mean, variance) = mean_and_its_variance(&nats);
                (mean + kl[sequence], variance)
            };
            (0..b).map(of).unzip()
        }
        Protocol::Iwae { samples } => {
            let draws = draw(engine, key, samples, nll)?;
            let of = |sequence: usize| {
                let log_weights: Vec<f64> =
                    draws.iter().map(|d| d.log_ratio[sequence] - d.nll[sequence]).collect();
                iwae(&log_weights)
            };
            (0..b).map(of).unzip()
        }
    };
    Ok(Scores { protocol, tokens: engine.scored_tokens().to_vec(), nats, variance })
}

/// One fresh sample of the latents of each sequence.
struct Draw {
    nll: Vec<f64>,
    /// `log p(z) - log q(z)`.
    log_ratio: Vec<f64>,
}

/// Draws and scores samples, then puts the fit's noise back.
fn draw(
    engine: &mut Engine,
    key: InferKey,
    samples: usize,
    nll: impl Fn(&mut Engine) -> Result<Vec<f64>>,
) -> Result<Vec<Draw>> {
    if samples == 0 {
        return Err(argument("samples", "at least 1", samples));
    }
    let (config, b) = (*engine.config(), engine.batch_shape().0);
    let mut posterior = engine.posterior()?;
    let fitted = posterior.noise.clone();
    let mut draws = Vec::with_capacity(samples);
    let mut result = Ok(());
    for sample in 0..samples {
        posterior.noise = key.normal(&config, b, Purpose::ScoreNoise, sample, 0.0, 1.0)?;
        engine.set_noise(&posterior.noise)?;
        match nll(engine) {
            Ok(nll) => draws.push(Draw { nll, log_ratio: log_ratio(&posterior, b) }),
            Err(error) => {
                result = Err(error);
                break;
            }
        }
    }
    engine.set_noise(&fitted)?;
    result.map(|()| draws)
}

/// `log p(z) - log q(z)` of each sequence's sample.
fn log_ratio(posterior: &Posterior, b: usize) -> Vec<f64> {
    let Posterior { mu, log_var, noise } = posterior;
    let n = mu.len() / b;
    let parts = mu.chunks(n).zip(log_var.chunks(n)).zip(noise.chunks(n));
    let of = |((mu, log_var), noise): ((&f32, &f32), &f32)| {
        let [mu, log_var, noise] = [mu, log_var, noise].map(|x| f64::from(*x));
        let z = mu + noise * (log_var / 2.0).exp();
        0.5 * (noise * noise + log_var - z * z)
    };
    parts.map(|((mu, lv), noise)| mu.iter().zip(lv).zip(noise).map(of).sum()).collect()
}

/// The mean, and the variance of the mean as an estimate: NaN for one number.
fn mean_and_its_variance(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n)
}

/// `-log mean exp(log_weights)`, and its variance to first order.
fn iwae(log_weights: &[f64]) -> (f64, f64) {
    let max = log_weights.iter().fold(f64::NEG_INFINITY, |max, w| max.max(*w));
    let weights: Vec<f64> = log_weights.iter().map(|w| (w - max).exp()).collect();
    let (mean, variance) = mean_and_its_variance(&weights);
    (-(max + mean.ln()), variance / (mean * mean))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for protocol in [
            Protocol::Reconstruction,
            Protocol::ElboFittedNoise,
            Protocol::Elbo { samples: 3 },
            Protocol::Iwae { samples: 64 },
            Protocol::Autoregressive,
        ] {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
        }
        let samples = Protocol::DEFAULT_SAMPLES;
        assert_eq!("elbo".parse::<Protocol>().unwrap(), Protocol::Elbo { samples });
        for wrong in ["", "ELBO", "elbo:0", "iwae:", "reconstruction:2", "iwae:x"] {
            assert!(wrong.parse::<Protocol>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn importance_weights_do_not_overflow() {
        let (bound, variance) = iwae(&[-5000.0, -5000.0 + 3f64.ln()]);
        assert!((bound - (5000.0 - 2f64.ln())).abs() <= 1e-9, "{bound}");
        // Weights 1 and 3: mean 2, variance of the mean 1.
        assert!((variance - 0.25).abs() <= 1e-9, "{variance}");
        assert_eq!(iwae(&[-7.5]).0, 7.5);
    }

    #[test]
    fn corpus_scores_weigh_tokens_not_sequences() {
        let scores = Scores {
            protocol: Protocol::Autoregressive,
            tokens: vec![1, 3, 0],
            nats: vec![5.0, 3.0, 99.0],
            variance: vec![0.0; 3],
        };
        let estimate = scores.estimate().unwrap();
        assert_eq!((estimate.mean_nats_per_token, estimate.tokens), (2.0, 4));
        assert_eq!(estimate.per_sequence, [5.0, 3.0]);
        assert_eq!(estimate.perplexity(), 2f64.exp());
        // Residuals 3 and -3 of two sequences, over four tokens.
        assert_eq!(estimate.standard_error, 36f64.sqrt() / 4.0);
        assert!(Scores { tokens: vec![0; 3], ..scores }.estimate().is_err());
    }
}
