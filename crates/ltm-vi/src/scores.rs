//! Scores of sequences, collected from batches, and the corpus's number with its errors. Knows no
//! model and no sampling.

use crate::engine::argument;
use crate::{Protocol, Result, estimators};

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
    /// [`Error::Argument`](crate::Error::Argument) when the protocols differ.
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
    /// [`Error::Argument`](crate::Error::Argument) when no token is scored.
    pub fn estimate(&self) -> Result<Estimate> {
        let kept: Vec<usize> = (0..self.tokens.len()).filter(|i| self.tokens[*i] > 0).collect();
        if kept.is_empty() {
            return Err(argument("targets", "at least one that is scored", "none"));
        }
        let per_sequence: Vec<f64> = kept.iter().map(|i| self.nats[*i]).collect();
        let lengths: Vec<f64> = kept.iter().map(|i| self.tokens[*i] as f64).collect();
        let (mean_nats_per_token, standard_error) = estimators::ratio(&per_sequence, &lengths);
        let perplexities = per_sequence.iter().zip(&lengths).map(|(nats, n)| (nats / n).exp());
        let variance: f64 = kept.iter().map(|i| self.variance[*i]).sum();
        Ok(Estimate {
            protocol: self.protocol,
            mean_nats_per_token,
            standard_error,
            sampling_error: variance.sqrt() / lengths.iter().sum::<f64>(),
            mean_sequence_perplexity: perplexities.sum::<f64>() / kept.len() as f64,
            tokens: self.tokens.iter().sum(),
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
    /// The mean of the sequences' own perplexities: what the published code prints. Ruled by the
    /// hardest sequences, and not to be compared with a corpus perplexity.
    pub mean_sequence_perplexity: f64,
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

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(estimate.mean_sequence_perplexity, (5f64.exp() + 1f64.exp()) / 2.0);
        // Residuals 3 and -3 of two sequences, over four tokens.
        assert_eq!(estimate.standard_error, 36f64.sqrt() / 4.0);
        assert!(Scores { tokens: vec![0; 3], ..scores }.estimate().is_err());
    }
}
