//! Scores of sequences, collected from batches, and the corpus's estimate with its standard errors.
//! Knows no model and no sampling.

use crate::error::argument;
use crate::{Protocol, Result, estimators};

/// Scores of sequences by one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Scores {
    /// The protocol of the numbers.
    pub protocol: Protocol,
    /// Scored tokens of each sequence.
    pub tokens: Vec<usize>,
    /// Nats of each sequence, a bound on `-log p(x)` unless the protocol is not a bound.
    pub nats: Vec<f64>,
    /// Variance of each of the `nats` from sampling the latents: 0 where nothing is sampled, NaN for a
    /// single sample.
    pub variance: Vec<f64>,
}

impl Scores {
    /// Scores of no sequences.
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
    /// ignored.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when no token is scored, or the lengths of the three
    /// vectors differ.
    pub fn estimate(&self) -> Result<Estimate> {
        estimators::check_length("nats", self.tokens.len(), self.nats.len())?;
        estimators::check_length("variance", self.tokens.len(), self.variance.len())?;
        let kept: Vec<usize> = (0..self.tokens.len()).filter(|i| self.tokens[*i] > 0).collect();
        if kept.is_empty() {
            return Err(argument("targets", "at least one that is scored", "none"));
        }
        let per_sequence: Vec<f64> = kept.iter().map(|i| self.nats[*i]).collect();
        let lengths: Vec<f64> = kept.iter().map(|i| self.tokens[*i] as f64).collect();
        let (mean_nats_per_token, standard_error) = estimators::ratio(&per_sequence, &lengths)?;
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
    /// The protocol of the number.
    pub protocol: Protocol,
    /// All nats over all tokens.
    pub mean_nats_per_token: f64,
    /// Standard error of the mean over sequences, sampling included; NaN for one sequence.
    pub standard_error: f64,
    /// The part of it that more samples of the latents would remove; NaN for a single sample.
    pub sampling_error: f64,
    /// The mean of the sequences' own perplexities, which the published code prints. The hardest
    /// sequences dominate it; it is not comparable with a corpus perplexity.
    pub mean_sequence_perplexity: f64,
    /// Scored tokens.
    pub tokens: usize,
    /// Nats of each sequence.
    pub per_sequence: Vec<f64>,
}

impl Estimate {
    /// The corpus perplexity, `exp(total nats / total tokens)`.
    pub fn perplexity(&self) -> f64 {
        self.mean_nats_per_token.exp()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corpus_scores_weight_tokens_not_sequences() {
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
        assert!(Scores { tokens: vec![0; 3], ..scores.clone() }.estimate().is_err());
        let uneven = Scores { nats: vec![5.0], ..scores.clone() }.estimate().unwrap_err();
        assert!(uneven.to_string().contains("`nats`"), "{uneven}");
        let uneven = Scores { variance: vec![0.0; 4], ..scores }.estimate().unwrap_err();
        assert!(uneven.to_string().contains("`variance`"), "{uneven}");
    }
}
