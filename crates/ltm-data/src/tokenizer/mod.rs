//! Text to token ids and back: the trait, the tokenizers by name, and what they share. Knows no corpora.

mod bytes;
#[cfg(feature = "gpt2")]
mod gpt2;
#[cfg(feature = "gpt2")]
mod gpt2_subset;
#[cfg(feature = "tokenizer-json")]
mod json;
mod open;
mod portable;
mod spec;
mod words;

use std::path::Path;
use std::sync::{Arc, LazyLock};

use crate::{Error, Result, stories};

pub use bytes::Bytes;
#[cfg(feature = "gpt2")]
pub use gpt2::Gpt2;
#[cfg(feature = "gpt2")]
pub use gpt2_subset::Gpt2Subset;
#[cfg(feature = "tokenizer-json")]
pub use json::TokenizerJson;
pub use portable::portable;
pub use spec::{TOKENIZER_FILE, TokenizerSpec};
pub use words::Words;

#[cfg(all(test, feature = "tokenizer-json"))]
pub(crate) use json::tests as json_tests;

/// The text of a document's end: a line of its own in corpora, and what `decode` prints.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// A tokenizer that corpora, checkpoints and threads share.
pub type SharedTokenizer = Arc<dyn Tokenizer>;

/// Text to token ids and back. One's own is a type with the first five methods:
///
/// ```
/// use ltm_data::{Corpus, Result, Tokenizer};
///
/// /// One id per letter; everything else is a space.
/// #[derive(Debug)]
/// struct Letters;
///
/// impl Tokenizer for Letters {
///     fn encode(&self, text: &str) -> Result<Vec<u32>> {
///         let letters = text.bytes().map(|byte| byte.to_ascii_lowercase());
///         Ok(letters.map(|c| if c.is_ascii_lowercase() { u32::from(c - b'a') } else { 26 }).collect())
///     }
///
///     fn decode(&self, tokens: &[u32]) -> String {
///         let letter = |id: &u32| if *id < 26 { char::from(b'a' + *id as u8) } else { ' ' };
///         tokens.iter().map(letter).collect()
///     }
///
///     fn vocab_size(&self) -> usize {
///         28
///     }
///
///     fn separator(&self) -> u32 {
///         27
///     }
///
///     fn fingerprint(&self) -> String {
///         "letters, version 1".into()
///     }
/// }
///
/// let corpus = Corpus::from_documents(std::sync::Arc::new(Letters), ["A cat.", "A dog."])?;
/// assert_eq!(corpus.len(), 14);
/// assert_eq!(corpus.tokens(0..3)?, [0, 26, 2]);
/// # Ok::<(), ltm_data::Error>(())
/// ```
pub trait Tokenizer: std::fmt::Debug + Send + Sync {
    /// Encodes text; never yields the [separator](Self::separator), even where the text contains [`END_OF_TEXT`].
    ///
    /// # Errors
    /// [`Error::Word`] when a closed vocabulary lacks a word, [`Error::Encode`] for other text that has no ids.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// Decodes ids for display: bytes that are not UTF-8 and ids past the vocabulary become U+FFFD, the separator
    /// becomes [`END_OF_TEXT`].
    fn decode(&self, tokens: &[u32]) -> String;

    /// The number of ids that a model over this tokenizer needs: valid ids are `0..vocab_size()`. At most 2^31 - 1.
    fn vocab_size(&self) -> usize;

    /// The id that ends a document.
    fn separator(&self) -> u32;

    /// A line of text that is the same for two tokenizers only when they give the same ids. Runs record it, so it must
    /// be the same in the next run of the program.
    fn fingerprint(&self) -> String;

    /// Bytes that `token` adds to the text of a document whose last token so far is `before`. The separator and ids past
    /// the vocabulary add none. The default compares decoded texts.
    fn text_bytes(&self, before: u32, token: u32) -> usize {
        let separator = self.separator();
        if token == separator || token as usize >= self.vocab_size() {
            return 0;
        }
        if before == separator {
            return self.decode(&[token]).len();
        }
        self.decode(&[before, token]).len().saturating_sub(self.decode(&[before]).len())
    }

    /// Whether the ids of a text are those of its parts, cut where white space follows something else. Documents are
    /// otherwise encoded as a whole, up to 1 MiB.
    fn cuts_at_white_space(&self) -> bool {
        false
    }

    /// How sidecars and checkpoints record this tokenizer. The default is one that must be given again by the program.
    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Other { fingerprint: self.fingerprint() }
    }

    /// The content of [`TOKENIZER_FILE`], for a tokenizer that is read from such a file.
    fn file(&self) -> Option<&[u8]> {
        None
    }
}

/// A tokenizer by its name: `bytes`, `gpt2`, `words` (that of [`storyworld`](crate::storyworld)), or the path of a Hugging Face
/// `tokenizer.json` or of a folder with one.
///
/// # Errors
/// [`Error::Field`] for any other name and for a tokenizer that this build lacks; [`Error::File`] for a file that is not
/// a tokenizer.
pub fn named(name: &str) -> Result<SharedTokenizer> {
    let path = Path::new(name);
    match name {
        "bytes" => Ok(Arc::new(Bytes)),
        "gpt2" => gpt2(),
        "words" => Ok(of_stories()),
        _ if path.is_dir() => json(&path.join(TOKENIZER_FILE), None),
        _ if path.exists() || path.extension().is_some_and(|extension| extension == "json") => {
            json(path, None)
        }
        _ => {
            let expected = "bytes, gpt2, words or the path of a tokenizer.json";
            Err(Error::field("tokenizer", expected, name))
        }
    }
}

/// The tokenizer over the words of the stories.
pub(crate) fn of_stories() -> SharedTokenizer {
    static WORDS: LazyLock<SharedTokenizer> = LazyLock::new(|| {
        Arc::new(Words::new(stories::vocabulary()).expect("the grammar's words differ"))
    });
    Arc::clone(&WORDS)
}

#[cfg(feature = "gpt2")]
fn gpt2() -> Result<SharedTokenizer> {
    Ok(Arc::new(Gpt2))
}

#[cfg(feature = "gpt2")]
fn gpt2_subset(ids: &[u32]) -> Result<SharedTokenizer> {
    Ok(Arc::new(Gpt2Subset::new(ids.to_vec())?))
}

#[cfg(not(feature = "gpt2"))]
fn gpt2() -> Result<SharedTokenizer> {
    Err(Error::field("tokenizer", "one that this build has (feature `gpt2`)", "gpt2"))
}

#[cfg(not(feature = "gpt2"))]
fn gpt2_subset(_ids: &[u32]) -> Result<SharedTokenizer> {
    gpt2()
}

/// A `tokenizer.json`, whose token `separator` ends documents, or the usual one.
///
/// # Errors
/// [`Error::File`] for a file that is not one; [`Error::Field`] in a build without the feature `tokenizer-json`.
#[cfg(feature = "tokenizer-json")]
pub fn json(path: &Path, separator: Option<&str>) -> Result<SharedTokenizer> {
    Ok(Arc::new(TokenizerJson::load(path, separator)?))
}

/// A `tokenizer.json`, whose token `separator` ends documents, or the usual one.
///
/// # Errors
/// [`Error::Field`]: this build has no such tokenizers.
#[cfg(not(feature = "tokenizer-json"))]
pub fn json(path: &Path, _separator: Option<&str>) -> Result<SharedTokenizer> {
    let expected = "one that this build has (feature `tokenizer-json`)";
    Err(Error::field("tokenizer", expected, path.display()))
}

/// Refuses a tokenizer whose ids do not fit into 31 bits or whose separator is not one of them.
pub(crate) fn check(tokenizer: &dyn Tokenizer) -> Result<()> {
    let (vocab_size, separator) = (tokenizer.vocab_size(), tokenizer.separator());
    if vocab_size == 0 || i32::try_from(vocab_size).is_err() {
        return Err(Error::field("vocab_size", format!("1 to {}", i32::MAX), vocab_size));
    }
    if separator as usize >= vocab_size {
        return Err(Error::field("separator", format!("one of 0..{vocab_size}"), separator));
    }
    Ok(())
}

/// The bytes of single tokens as text, with the separator and U+FFFD for what has no bytes.
fn join<'a>(
    tokens: &[u32],
    separator: u32,
    mut bytes_of: impl FnMut(u32) -> Option<std::borrow::Cow<'a, [u8]>>,
) -> String {
    let mut text = Vec::new();
    for &id in tokens {
        if id == separator {
            text.extend_from_slice(END_OF_TEXT.as_bytes());
            continue;
        }
        match bytes_of(id) {
            Some(bytes) => text.extend_from_slice(&bytes),
            None => text.extend_from_slice("\u{FFFD}".as_bytes()),
        }
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> SharedTokenizer {
        let list = ["the", "cat", ",", ".", "sat"].map(String::from);
        Arc::new(Words::new(list.into()).expect("a good list"))
    }

    fn of_any_text() -> Vec<SharedTokenizer> {
        ["bytes", "gpt2"].into_iter().map(|name| named(name).expect("in this build")).collect()
    }

    #[test]
    fn ids_are_the_published_ones() {
        // The ids GPT-2's own vocabulary gives to this text.
        let [bytes, gpt2] = &of_any_text()[..] else { panic!("two") };
        assert_eq!(gpt2.encode("Hello, world!").expect("any text"), [15496, 11, 995, 0]);
        assert_eq!(bytes.encode("hé").expect("any text"), [104, 195, 169]);
        assert_eq!(words().encode("The cat sat.").expect("known words"), [0, 1, 4, 3]);
    }

    #[test]
    fn text_survives_the_round_trip_and_never_becomes_a_separator() {
        let text = "naïve <|endoftext|> 東京\n\n  tabs\tand 12345 'quotes' don't 🙂";
        for tokenizer in of_any_text() {
            let ids = tokenizer.encode(text).expect("any text");
            assert!(!ids.contains(&tokenizer.separator()));
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
            assert_eq!(tokenizer.decode(&ids), text);
        }
        let ids = words().encode("the cat, the cat sat.").expect("known words");
        assert_eq!(words().decode(&ids), "the cat, the cat sat.");
    }

    #[test]
    fn the_bytes_of_a_documents_tokens_are_those_of_its_text() {
        let bytes = |tokenizer: &SharedTokenizer, ids: &[u32]| -> usize {
            let mut before = tokenizer.separator();
            ids.iter().map(|&id| tokenizer.text_bytes(std::mem::replace(&mut before, id), id)).sum()
        };
        let text = "naïve 東京\n\n  tabs\tand 12345 🙂";
        for tokenizer in of_any_text() {
            let ids = tokenizer.encode(text).expect("any text");
            assert_eq!(bytes(&tokenizer, &ids), text.len());
            let end = tokenizer.separator();
            assert_eq!(
                bytes(&tokenizer, &[&ids[..], &[end], &ids, &[end]].concat()),
                2 * text.len()
            );
        }
        let text = "the cat, the cat sat.";
        let ids = words().encode(text).expect("known words");
        let twice = [&ids[..], &[words().separator()], &ids].concat();
        assert_eq!((bytes(&words(), &ids), bytes(&words(), &twice)), (text.len(), 2 * text.len()));
        assert_eq!(words().text_bytes(0, u32::MAX), 0);
    }

    #[test]
    fn separators_and_foreign_ids_can_be_shown() {
        for tokenizer in of_any_text().into_iter().chain([words()]) {
            assert_eq!(tokenizer.decode(&[tokenizer.separator()]), END_OF_TEXT);
            assert_eq!(tokenizer.decode(&[u32::MAX]), "\u{FFFD}");
            assert!((tokenizer.separator() as usize) < tokenizer.vocab_size());
        }
        assert_eq!(Bytes.decode(&[0xC3]), "\u{FFFD}");
    }

    #[test]
    fn unknown_words_and_names_are_refused_by_name() {
        let error = words().encode("the dog").expect_err("no dog");
        assert!(error.to_string().contains("`dog`"), "{error}");
        assert!(named("gpt3").expect_err("no such").to_string().contains("gpt3"));
        assert!(Words::new(vec!["a".into(), "a".into()]).is_err());
        assert!(Words::new(vec![]).is_err());
    }

    /// Has ids of its own and the defaults of the trait.
    #[derive(Debug)]
    struct Own(u32);

    impl Tokenizer for Own {
        fn encode(&self, text: &str) -> Result<Vec<u32>> {
            Ok(text.chars().map(|c| u32::from(c) - 32).collect())
        }

        fn decode(&self, tokens: &[u32]) -> String {
            tokens.iter().filter_map(|id| char::from_u32(id + 32)).collect()
        }

        fn vocab_size(&self) -> usize {
            100_000
        }

        fn separator(&self) -> u32 {
            self.0
        }

        fn fingerprint(&self) -> String {
            "own".into()
        }
    }

    #[test]
    fn the_defaults_of_the_trait_count_bytes_and_record_the_fingerprint() {
        let own = Own(99_999);
        let ids = own.encode("aé").expect("any");
        assert_eq!((own.text_bytes(99_999, ids[0]), own.text_bytes(ids[0], ids[1])), (1, 2));
        assert_eq!((own.text_bytes(0, 99_999), own.text_bytes(0, 100_000)), (0, 0));
        assert_eq!(own.spec(), TokenizerSpec::Other { fingerprint: "own".into() });
        check(&own).expect("a separator in the vocabulary");
        let error = check(&Own(100_000)).expect_err("outside").to_string();
        assert!(error.contains("one of 0..100000, found 100000"), "{error}");
    }
}
