//! Short stories whose exact likelihood is known: their grammar, samples and entropy. Knows no files and no
//! tokenizer.

mod grammar;
mod story;

use std::sync::LazyLock;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::grammar::Grammar;
use super::difference::Difference;
use crate::{Error, Result};

/// Stories enough for [`true_entropy`] to be known to a thousandth.
pub const ENTROPY_DOCUMENTS: u64 = 4000;

/// No story is longer, its separator included.
pub const MAX_TOKENS: usize = 96;

/// The random stream of this module: "tale" in ASCII.
const STREAM: u64 = 0x7461_6c65;

static STORIES: LazyLock<Grammar> = LazyLock::new(story::grammar);

/// A story.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its words, then the separator.
    pub tokens: Vec<u32>,
    /// Its log-probability in nats, the separator included.
    pub log_prob: f64,
}

/// An estimate of the stories' entropy, which no model's expected NLL can be below, with its standard errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entropy {
    /// Nats per story: the mean of `-log_prob`.
    pub nats_per_document: f64,
    /// Its standard error.
    pub nats_per_document_se: f64,
    /// All nats over all tokens, separators included.
    pub nats_per_token: f64,
    /// Its standard error, by the delta method for a ratio of means.
    pub nats_per_token_se: f64,
}

/// The words in the order of their ids.
pub fn vocabulary() -> Vec<String> {
    STORIES.words().to_vec()
}

fn separator() -> u32 {
    STORIES.words().len() as u32
}

pub(crate) fn tokens(seed: u64, index: u64) -> Vec<u32> {
    let mut tokens = STORIES.sample(&Philox::new(PhiloxKey { seed, stream: STREAM, step: index }));
    tokens.push(separator());
    tokens
}

/// Story number `index` of `seed`.
pub fn sample(seed: u64, index: u64) -> Document {
    let tokens = tokens(seed, index);
    let log_prob = log_prob(&tokens);
    Document { tokens, log_prob }
}

/// The exact log-probability, in nats, of a story with its separator, summed over all derivations; minus
/// infinity for anything that is no story.
pub fn log_prob(tokens: &[u32]) -> f64 {
    match tokens.split_last() {
        Some((&last, text)) if last == separator() => STORIES.probability(text).ln(),
        _ => f64::NEG_INFINITY,
    }
}

/// Estimates the entropy from stories `0..n` of `seed`.
///
/// # Errors
/// [`Error::Field`] when `n` is under 2, too few for a standard error.
pub fn true_entropy(seed: u64, n: u64) -> Result<Entropy> {
    if n < 2 {
        return Err(Error::field("n", "at least 2 documents", n));
    }
    let drawn: Vec<(f64, f64)> = (0..n)
        .into_par_iter()
        .map(|index| {
            let document = sample(seed, index);
            (-document.log_prob, document.tokens.len() as f64)
        })
        .collect();
    let count = n as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| drawn.iter().map(of).sum::<f64>() / count;
    let (nats, length) = (mean(&|d| d.0), mean(&|d| d.1));
    let ratio = nats / length;
    let standard_error = |residual: &dyn Fn(&(f64, f64)) -> f64| {
        (mean(&|d| residual(d).powi(2)) / (count - 1.0)).sqrt()
    };
    Ok(Entropy {
        nats_per_document: nats,
        nats_per_document_se: standard_error(&|d| d.0 - nats),
        nats_per_token: ratio,
        nats_per_token_se: standard_error(&|d| d.0 - ratio * d.1) / length,
    })
}

/// Which stories a corpus holds: `0..documents` of `seed` in the training split, the next `val_documents` in the
/// validation split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The seed that stories are drawn with.
    pub seed: u64,
    /// Stories to train on.
    pub documents: u64,
    /// Stories to validate on.
    pub val_documents: u64,
}

impl Parameters {
    /// How `new` differs.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        [
            Difference::of("storyworld.seed", self.seed, new.seed),
            Difference::of("storyworld.documents", self.documents, new.documents),
            Difference::of("storyworld.val_documents", self.val_documents, new.val_documents),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_have_the_promised_size() {
        let words = vocabulary().len();
        assert!((200..400).contains(&words), "{words} words");
        let lengths: Vec<usize> = (0..2000).map(|index| tokens(1, index).len()).collect();
        let (min, max) = (lengths.iter().min().expect("some"), lengths.iter().max().expect("some"));
        assert!(*min >= 48 && *max <= MAX_TOKENS, "{min} to {max} tokens");
    }

    #[test]
    fn drawn_stories_are_possible_and_others_are_not() {
        for index in 0..50 {
            let document = sample(2, index);
            assert!(document.log_prob.is_finite() && document.log_prob < -20.0, "{document:?}");
            let text = &document.tokens[..document.tokens.len() - 1];
            assert_eq!(log_prob(text), f64::NEG_INFINITY, "no separator");
            let mut other = document.tokens.clone();
            other.swap(3, 20);
            assert_eq!(log_prob(&other), f64::NEG_INFINITY);
        }
        assert_eq!(log_prob(&[]), f64::NEG_INFINITY);
        assert_eq!(log_prob(&[separator()]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_story_is_a_function_of_seed_and_index() {
        assert_eq!(sample(3, 7), sample(3, 7));
        assert_ne!(sample(3, 7), sample(3, 8));
        assert_ne!(sample(3, 7), sample(4, 7));
    }

    #[test]
    fn the_entropy_estimate_is_consistent() {
        let (few, more) =
            (true_entropy(1, 300).expect("enough"), true_entropy(2, 1200).expect("enough"));
        let gap = (few.nats_per_token - more.nats_per_token).abs();
        assert!(
            gap <= 4.0 * few.nats_per_token_se.hypot(more.nats_per_token_se),
            "{few:?} {more:?}"
        );
        assert!(more.nats_per_document_se < few.nats_per_document_se);
        // The choices behind a story alone are worth log(380 * 24 * 6 * 6 * 8 * 8 * 64 * 8) = 23.1 nats; not
        // every story shows all of them, but the choice of sentences adds more.
        assert!((25.0..60.0).contains(&more.nats_per_document), "{more:?}");
        assert!(true_entropy(1, 1).is_err());
    }

    #[test]
    fn the_errors_of_the_entropy_by_hand() {
        let stories = [0, 1, 2].map(|index| sample(7, index));
        let (nats, lengths) = (
            stories.each_ref().map(|story| -story.log_prob),
            stories.each_ref().map(|story| story.tokens.len() as f64),
        );
        let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
        // Of a mean of three: sqrt(sum of squared residuals / (3·2)).
        let error =
            |residuals: [f64; 3]| (residuals.iter().map(|r| r * r).sum::<f64>() / 6.0).sqrt();
        let ratio = nats.iter().sum::<f64>() / lengths.iter().sum::<f64>();
        let found = true_entropy(7, 3).expect("enough");
        for (found, expected) in [
            (found.nats_per_document, mean(nats)),
            (found.nats_per_document_se, error(nats.map(|x| x - mean(nats)))),
            (found.nats_per_token, ratio),
            // Of a ratio of means to first order: that of what it leaves, per mean length.
            (
                found.nats_per_token_se,
                error([0, 1, 2].map(|i| nats[i] - ratio * lengths[i])) / mean(lengths),
            ),
        ] {
            assert!((found - expected).abs() <= 1e-12 * expected, "{found} is not {expected}");
        }
        true_entropy(7, 2).expect("two are enough");
        let error = true_entropy(7, 1).expect_err("too few").to_string();
        assert!(
            error.contains("`n`") && error.contains("at least 2") && error.contains("found 1"),
            "{error}"
        );
    }
}
