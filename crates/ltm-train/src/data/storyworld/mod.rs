//! A synthetic corpus of little stories whose exact likelihood is known, to hold a model's bound against.
//!
//! Each story draws a cast, a place with its trade, the weather, a mood, an animal and its colour, a treat
//! and a small sum, and mentions them again and again; which sentences and synonyms tell it is drawn as it
//! goes. A few hundred words; 50 to 90 tokens a story. Knows nothing of models.

mod grammar;
mod story;

use std::path::Path;
use std::sync::LazyLock;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use rayon::prelude::*;

use self::grammar::Grammar;
use super::pipeline::Sink;
use super::shard::{Meta, Split};
use super::tokenizer::Tokenizer;
use super::writer::CorpusWriter;
use crate::{Error, Result};

/// Stories enough for [`true_entropy`] to be known to a thousandth.
pub const ENTROPY_DOCUMENTS: u64 = 4000;

/// No story is longer, its separator included.
pub const MAX_TOKENS: usize = 96;

/// The random stream of this module: "tale" in ASCII.
const STREAM: u64 = 0x7461_6c65;

const SHARD_TOKENS: u64 = 100_000_000;

static STORIES: LazyLock<Grammar> = LazyLock::new(story::grammar);

/// A story.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its words, then the separator.
    pub tokens: Vec<u16>,
    /// Its log-probability in nats, the separator included.
    pub log_prob: f64,
}

/// An estimate of the stories' entropy, which no model's cost can be below, with its standard errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entropy {
    /// Nats in a story: the mean of `-log_prob`.
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

/// The tokeniser over [`vocabulary`].
pub fn tokenizer() -> Tokenizer {
    Tokenizer::Words { vocabulary: vocabulary() }
}

fn separator() -> u16 {
    STORIES.words().len() as u16
}

fn tokens(seed: u64, index: u64) -> Vec<u16> {
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

/// The exact log-probability, in nats, of a story with its separator, summed over every way to tell it; minus
/// infinity for anything that is no story.
pub fn log_prob(tokens: &[u16]) -> f64 {
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

/// Writes a corpus folder: stories `0..n_train` of `seed` to train on, the next `n_val` to measure on.
///
/// # Errors
/// [`Error::Field`] when there would be no training story; [`Error::Data`] when `dir` holds a corpus already;
/// [`Error::Io`] when it cannot be written.
pub fn write(dir: &Path, seed: u64, n_train: u64, n_val: u64) -> Result<Meta> {
    if n_train == 0 {
        return Err(Error::field("n_train", "at least 1 document", n_train));
    }
    let tokenizer = tokenizer();
    let mut writer = CorpusWriter::create(dir, &tokenizer, SHARD_TOKENS)?;
    for (split, range) in [(Split::Train, 0..n_train), (Split::Val, n_train..n_train + n_val)] {
        for index in range {
            let tokens = tokens(seed, index);
            let text = &tokens[..tokens.len() - 1];
            writer.push(split, text, tokenizer.decode(text).len() as u64)?;
            writer.end_document(split)?;
        }
    }
    writer.finish(vec![format!("storyworld, seed {seed}")], 0)
}

#[cfg(test)]
mod tests {
    use super::super::shard::Corpus;
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
    fn the_words_round_trip() {
        let tokenizer = tokenizer();
        let tokens = tokens(5, 0);
        let text = tokenizer.decode(&tokens[..tokens.len() - 1]);
        assert_eq!(tokenizer.encode(&text).expect("its own words"), tokens[..tokens.len() - 1]);
        tokenizer.validate().expect("a good list");
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
        // every story shows all of them, but how it is told adds more.
        assert!((25.0..60.0).contains(&more.nats_per_document), "{more:?}");
        assert!(true_entropy(1, 1).is_err());
    }

    #[test]
    fn a_written_corpus_holds_the_drawn_stories() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let meta = write(dir.path(), 9, 5, 2).expect("written");
        assert_eq!(Split::ALL.map(|split| meta.split(split).expect("there").documents), [5, 2]);
        let corpus = Corpus::open(dir.path(), Split::Val, None).expect("opened");
        let expected = [tokens(9, 5), tokens(9, 6)].concat();
        assert_eq!(corpus.tokens(0..corpus.len()).expect("good ids"), expected);
        assert!(write(dir.path(), 9, 0, 2).is_err());
    }
}
