//! A synthetic corpus of short stories whose exact likelihood is known, to compare a model's bound with.
//!
//! Each story draws a cast, a place with its trade, the weather, a mood, an animal and its colour, a treat
//! and a small sum, and mentions them repeatedly; sentences and synonyms are drawn as the
//! story goes. A few hundred words; 50 to 90 tokens per story. Knows nothing of models.

mod grammar;
mod story;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use self::grammar::Grammar;
use super::fingerprint::Difference;
use super::pipeline::Sink;
use super::shard::{Meta, Split};
use super::tokenizer::{SharedTokenizer, Words};
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

/// The tokeniser over [`vocabulary`].
pub fn tokenizer() -> SharedTokenizer {
    static WORDS: LazyLock<SharedTokenizer> =
        LazyLock::new(|| Arc::new(Words::new(vocabulary()).expect("the grammar's words differ")));
    Arc::clone(&WORDS)
}

fn separator() -> u32 {
    STORIES.words().len() as u32
}

fn tokens(seed: u64, index: u64) -> Vec<u32> {
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
    /// The parameters of the corpus in a folder with this sidecar; `None` when it holds other data.
    pub fn of(meta: &Meta) -> Option<Self> {
        if meta.storyworld.is_some() {
            return meta.storyworld.clone();
        }
        // Before parameters were recorded, the sidecar named the seed among its sources.
        let [source] = &meta.sources[..] else { return None };
        let seed = source.strip_prefix("storyworld, seed ")?.parse().ok()?;
        let [documents, val_documents] =
            [&meta.train, &meta.val].map(|split| split.as_ref().map_or(0, |split| split.documents));
        Some(Self { seed, documents, val_documents })
    }

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

/// Writes a corpus folder.
///
/// # Errors
/// [`Error::Field`] when there would be no training story; [`Error::File`] when `dir` holds a corpus already
/// or cannot be written.
pub fn write(dir: &Path, parameters: &Parameters) -> Result<Meta> {
    let &Parameters { seed, documents, val_documents } = parameters;
    if documents == 0 {
        return Err(Error::field("documents", "at least 1", documents));
    }
    let Some(end) = documents.checked_add(val_documents) else {
        return Err(Error::field("documents", "a number of stories within 64 bits", documents));
    };
    let tokenizer = tokenizer();
    let mut writer = CorpusWriter::create(dir, &tokenizer, SHARD_TOKENS)?;
    for (split, range) in [(Split::Train, 0..documents), (Split::Val, documents..end)] {
        for index in range {
            let tokens = tokens(seed, index);
            let text = &tokens[..tokens.len() - 1];
            writer.push(split, text, tokenizer.decode(text).len() as u64)?;
            writer.end_document(split)?;
        }
    }
    writer.finish(vec![format!("storyworld, seed {seed}")], 0, Some(parameters.clone()))
}

/// Writes a corpus folder where there is none, and otherwise checks that it holds these stories.
///
/// # Errors
/// [`Error::File`] when `dir` holds another corpus; those of [`write()`] and [`Meta::read`].
pub fn ensure(dir: &Path, parameters: &Parameters) -> Result<()> {
    let Some(meta) = Meta::read(dir)? else { return write(dir, parameters).map(|_| ()) };
    let remedy = "delete the folder to generate the corpus again";
    let Some(found) = Parameters::of(&meta) else {
        let found = format!("a corpus of {} source files; {remedy}", meta.sources.len());
        return Err(Error::content(dir, "corpus", "generated stories", found));
    };
    let differences = found.differences(parameters);
    let list = |value: fn(&Difference) -> &str| -> String {
        let values = differences.iter().map(|d| format!("{} = {}", d.key, value(d)));
        values.collect::<Vec<_>>().join(", ")
    };
    if differences.is_empty() {
        return Ok(());
    }
    let found = format!("{}; {remedy}", list(|d| &d.old));
    Err(Error::content(dir, "corpus", list(|d| &d.new), found))
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
    fn a_written_corpus_holds_the_drawn_stories() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let parameters = Parameters { seed: 9, documents: 5, val_documents: 2 };
        let meta = write(dir.path(), &parameters).expect("written");
        assert_eq!(Split::ALL.map(|split| meta.split(split).expect("there").documents), [5, 2]);
        let corpus = Corpus::open(dir.path(), Split::Val, None).expect("opened");
        let expected = [tokens(9, 5), tokens(9, 6)].concat();
        assert_eq!(corpus.tokens(0..corpus.len()).expect("good ids"), expected);
        let none = Parameters { documents: 0, ..parameters };
        assert!(write(&dir.path().join("none"), &none).is_err());
    }

    #[test]
    fn a_corpus_of_other_stories_is_refused_by_what_differs() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let first = Parameters { seed: 9, documents: 5, val_documents: 2 };
        ensure(dir.path(), &first).expect("written");
        ensure(dir.path(), &first).expect("the same");
        for (other, expected) in [
            (
                Parameters { seed: 1, ..first.clone() },
                "expected storyworld.seed = 1, found storyworld.seed = 9;",
            ),
            (Parameters { documents: 6, ..first.clone() }, "documents = 5;"),
            (Parameters { val_documents: 3, ..first.clone() }, "val_documents = 2;"),
        ] {
            let error = ensure(dir.path(), &other).expect_err("another").to_string();
            assert!(error.contains(expected) && error.contains("delete"), "{error}");
        }
        // A sidecar from before parameters were recorded.
        let path = dir.path().join(crate::shard::META_FILE);
        let mut meta = Meta::read(dir.path()).expect("readable").expect("there");
        meta.storyworld = None;
        std::fs::write(&path, serde_json::to_vec(&meta).expect("plain data")).expect("writable");
        ensure(dir.path(), &first).expect("the same");
        assert!(ensure(dir.path(), &Parameters { seed: 1, ..first.clone() }).is_err());
        meta.sources = vec!["a.txt".into()];
        std::fs::write(&path, serde_json::to_vec(&meta).expect("plain data")).expect("writable");
        let error = ensure(dir.path(), &first).expect_err("other data").to_string();
        assert!(error.contains("generated stories"), "{error}");
    }
}
