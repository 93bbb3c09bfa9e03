//! A synthetic corpus of short stories whose exact likelihood is known, to compare a model's bound with.
//!
//! Each story draws a cast, a place with its trade, the weather, a mood, an animal and its colour, a treat
//! and a small sum, and mentions them repeatedly; sentences and synonyms are drawn as the
//! story goes. A few hundred words; 50 to 90 tokens per story. Knows nothing of models.

use std::path::Path;

use super::difference::Difference;
use super::meta::Meta;
use super::pipeline::Sink;
use super::stories::tokens;
use super::tokenizer::{self, SharedTokenizer};
use super::writer::CorpusWriter;
use crate::{Error, Result, Split};

pub use super::stories::{
    Check, Document, ENTROPY_DOCUMENTS, Entropy, MAX_TOKENS, Parameters, Repeat, Stated, check,
    log_prob, sample, true_entropy, vocabulary,
};

const SHARD_TOKENS: u64 = 100_000_000;

/// The tokenizer over [`vocabulary`].
pub fn tokenizer() -> SharedTokenizer {
    tokenizer::of_stories()
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
    use super::*;
    use crate::Corpus;

    #[test]
    fn the_words_round_trip() {
        let tokenizer = tokenizer();
        let tokens = tokens(5, 0);
        let text = tokenizer.decode(&tokens[..tokens.len() - 1]);
        assert_eq!(tokenizer.encode(&text).expect("its own words"), tokens[..tokens.len() - 1]);
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
        let path = dir.path().join(crate::meta::META_FILE);
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
