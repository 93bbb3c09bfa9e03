//! Text to token ids and back. Knows vocabularies, never files.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::storyworld;
use crate::{Error, Result};

/// The text of a document's end: a line of its own in corpora, and what `decode` prints.
pub const END_OF_TEXT: &str = "<|endoftext|>";

/// Longer runs of white space are split off before GPT-2's pre-tokenizer sees them: it backtracks over a run, which takes
/// stack for each character.
const WHITE_SPACE_RUN: usize = 1 << 10;

/// GPT-2's id of the end of a document.
const GPT2_SEPARATOR: u16 = 50256;

/// A tokenizer. Serialised, it is the spec kept in sidecars and checkpoints: `{"name": "gpt2"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum Tokenizer {
    /// One id per byte, then the separator: 257 ids.
    Bytes,
    /// GPT-2's byte-pair encoding: 50257 ids, and an unused one that the published models have.
    Gpt2,
    /// A closed list of lower-case words, then the separator.
    Words {
        /// The words in the order of their ids; punctuation marks are words.
        vocabulary: Vec<String>,
    },
}

impl std::str::FromStr for Tokenizer {
    type Err = Error;

    /// Parses `bytes`, `gpt2` or `words`; the last is [`storyworld`]'s vocabulary.
    ///
    /// # Errors
    /// [`Error::Field`] for any other name.
    fn from_str(name: &str) -> Result<Self> {
        match name {
            "bytes" => Ok(Self::Bytes),
            "gpt2" => Ok(Self::Gpt2),
            "words" => Ok(storyworld::tokenizer()),
            _ => Err(Error::field("tokenizer", "bytes, gpt2 or words", name)),
        }
    }
}

impl std::fmt::Display for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Bytes => "bytes",
            Self::Gpt2 => "gpt2",
            Self::Words { .. } => "words",
        })
    }
}

impl Tokenizer {
    /// Refuses a word list that is empty, too long for 16 bits, or ambiguous.
    ///
    /// # Errors
    /// [`Error::Field`] naming what is wrong with the list.
    pub fn validate(&self) -> Result<()> {
        let Self::Words { vocabulary } = self else { return Ok(()) };
        let limit = usize::from(u16::MAX);
        if vocabulary.is_empty() || vocabulary.len() > limit {
            let expected = format!("1 to {limit} words");
            return Err(Error::field("vocabulary", expected, vocabulary.len()));
        }
        let mut seen = std::collections::HashSet::new();
        match vocabulary.iter().find(|word| !seen.insert(*word)) {
            Some(word) => {
                Err(Error::field("vocabulary", "words that differ", format!("{word} twice")))
            }
            None => Ok(()),
        }
    }

    /// The number of ids that a model over this tokenizer needs: valid ids are `0..vocab_size()`.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bytes => 257,
            Self::Gpt2 => 50258,
            Self::Words { vocabulary } => vocabulary.len() + 1,
        }
    }

    /// The id that ends a document.
    pub fn separator(&self) -> u16 {
        match self {
            Self::Bytes => 256,
            Self::Gpt2 => GPT2_SEPARATOR,
            Self::Words { vocabulary } => {
                vocabulary.len().try_into().expect("validate() bounds the word list")
            }
        }
    }

    /// Encodes text; never yields the separator, even where the text contains [`END_OF_TEXT`].
    ///
    /// Words are split at white space, their trailing punctuation split off, and lower-cased.
    ///
    /// # Errors
    /// [`Error::Word`] when a closed vocabulary lacks a word; the others take any text.
    pub fn encode(&self, text: &str) -> Result<Vec<u16>> {
        match self {
            Self::Bytes => Ok(text.bytes().map(u16::from).collect()),
            Self::Gpt2 => Ok(encode_gpt2(text)),
            Self::Words { vocabulary } => encode_words(vocabulary, text),
        }
    }

    /// Bytes that `token` adds to the text of a document whose last token so far is `before`. The
    /// separator and ids past the vocabulary add none.
    pub fn text_bytes(&self, before: u16, token: u16) -> usize {
        if token == self.separator() {
            return 0;
        }
        match self {
            Self::Bytes => usize::from(u8::try_from(token).is_ok()),
            Self::Gpt2 => {
                let bytes = tiktoken_rs::r50k_base_singleton().decode_bytes(&[token.into()]);
                bytes.map_or(0, |bytes| bytes.len())
            }
            Self::Words { vocabulary } => vocabulary.get(usize::from(token)).map_or(0, |word| {
                let space = before != self.separator() && !is_punctuation(word);
                word.len() + usize::from(space)
            }),
        }
    }

    /// Decodes ids for display: bytes that are not UTF-8 and ids past the vocabulary become U+FFFD, the
    /// separator becomes [`END_OF_TEXT`].
    pub fn decode(&self, tokens: &[u16]) -> String {
        let mut text = Vec::new();
        for &id in tokens {
            if id == self.separator() {
                text.extend_from_slice(END_OF_TEXT.as_bytes());
                continue;
            }
            match self {
                Self::Bytes => match u8::try_from(id) {
                    Ok(byte) => text.push(byte),
                    Err(_) => text.extend_from_slice("\u{FFFD}".as_bytes()),
                },
                Self::Gpt2 => match tiktoken_rs::r50k_base_singleton().decode_bytes(&[id.into()]) {
                    Ok(bytes) => text.extend_from_slice(&bytes),
                    Err(_) => text.extend_from_slice("\u{FFFD}".as_bytes()),
                },
                Self::Words { vocabulary } => {
                    let word = vocabulary.get(usize::from(id)).map_or("\u{FFFD}", String::as_str);
                    if !text.is_empty() && !is_punctuation(word) {
                        text.push(b' ');
                    }
                    text.extend_from_slice(word.as_bytes());
                }
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    }
}

fn encode_gpt2(text: &str) -> Vec<u16> {
    let gpt2 = tiktoken_rs::r50k_base_singleton();
    let mut ids = Vec::new();
    let mut encode = |text: &str| {
        let more = gpt2.encode_ordinary(text).into_iter();
        ids.extend(more.map(|id| u16::try_from(id).expect("GPT-2 ids have 16 bits")));
    };
    let mut start = 0; // of the text that is not encoded yet
    let mut run = 0; // where the white space before `at` starts
    let mut last = 0; // the start of the character before `at`
    for (at, c) in text.char_indices() {
        if !c.is_whitespace() {
            if at - run > WHITE_SPACE_RUN {
                // GPT-2 takes a run of white space up to its last character, which goes with what follows.
                encode(&text[start..last]);
                start = last;
            }
            run = at + c.len_utf8();
        }
        last = at;
    }
    encode(&text[start..]);
    ids
}

fn is_punctuation(word: &str) -> bool {
    matches!(word, "." | "," | "!" | "?")
}

fn encode_words(vocabulary: &[String], text: &str) -> Result<Vec<u16>> {
    let ids: HashMap<&str, u16> = vocabulary.iter().map(String::as_str).zip(0..).collect();
    let id = |word: &str| ids.get(word).copied().ok_or_else(|| Error::Word { word: word.into() });
    let mut tokens = Vec::new();
    for word in text.to_lowercase().split_whitespace() {
        let stem = word.trim_end_matches(['.', ',', '!', '?']);
        if !stem.is_empty() {
            tokens.push(id(stem)?);
        }
        for (start, mark) in word[stem.len()..].char_indices() {
            let start = stem.len() + start;
            tokens.push(id(&word[start..start + mark.len_utf8()])?);
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words() -> Tokenizer {
        Tokenizer::Words { vocabulary: ["the", "cat", ",", ".", "sat"].map(String::from).into() }
    }

    #[test]
    fn ids_are_the_published_ones() {
        // The ids GPT-2's own vocabulary gives to this text.
        let gpt2 = Tokenizer::Gpt2;
        assert_eq!(gpt2.encode("Hello, world!").expect("any text"), [15496, 11, 995, 0]);
        assert_eq!(Tokenizer::Bytes.encode("hé").expect("any text"), [104, 195, 169]);
        assert_eq!(words().encode("The cat sat.").expect("known words"), [0, 1, 4, 3]);
    }

    #[test]
    fn text_survives_the_round_trip_and_never_becomes_a_separator() {
        let text = "naïve <|endoftext|> 東京\n\n  tabs\tand 12345 'quotes' don't 🙂";
        for tokenizer in [Tokenizer::Bytes, Tokenizer::Gpt2] {
            let ids = tokenizer.encode(text).expect("any text");
            assert!(!ids.contains(&tokenizer.separator()));
            assert!(ids.iter().all(|&id| usize::from(id) < tokenizer.vocab_size()));
            assert_eq!(tokenizer.decode(&ids), text);
        }
        let ids = words().encode("the cat, the cat sat.").expect("known words");
        assert_eq!(words().decode(&ids), "the cat, the cat sat.");
    }

    #[test]
    fn long_runs_of_white_space_give_the_ids_of_the_whole_text() {
        let whole = |text: &str| -> Vec<u16> {
            let ids = tiktoken_rs::r50k_base_singleton().encode_ordinary(text);
            ids.into_iter().map(|id| id as u16).collect()
        };
        for run in [" ", "\n", "\r\n", "\t ", "\u{2003}", " \u{85}"] {
            for around in ["x_y", "_y", "x_", "'s_'s 1_2", "x_\u{301}y_ "] {
                // Longer than is split off, shorter than what the pre-tokenizer can take.
                for length in [WHITE_SPACE_RUN - 1, WHITE_SPACE_RUN, WHITE_SPACE_RUN + 7] {
                    let text = around.replace('_', &run.repeat(length));
                    assert_eq!(encode_gpt2(&text), whole(&text), "{around} {run:?} {length}");
                }
            }
        }
    }

    #[test]
    fn a_million_blanks_are_encoded() {
        for run in [" ", "\n"] {
            let text = format!("x{}y", run.repeat(1_000_000));
            let ids = Tokenizer::Gpt2.encode(&text).expect("any text");
            assert_eq!(Tokenizer::Gpt2.decode(&ids), text);
        }
    }

    #[test]
    fn the_bytes_of_a_documents_tokens_are_those_of_its_text() {
        let bytes = |tokenizer: &Tokenizer, ids: &[u16]| -> usize {
            let mut before = tokenizer.separator();
            ids.iter().map(|&id| tokenizer.text_bytes(std::mem::replace(&mut before, id), id)).sum()
        };
        let text = "naïve 東京\n\n  tabs\tand 12345 🙂";
        for tokenizer in [Tokenizer::Bytes, Tokenizer::Gpt2] {
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
        assert_eq!(words().text_bytes(0, u16::MAX), 0);
    }

    #[test]
    fn separators_and_foreign_ids_can_be_shown() {
        for tokenizer in [Tokenizer::Bytes, Tokenizer::Gpt2, words()] {
            assert_eq!(tokenizer.decode(&[tokenizer.separator()]), END_OF_TEXT);
            assert_eq!(tokenizer.decode(&[u16::MAX]), "\u{FFFD}");
            assert!(usize::from(tokenizer.separator()) < tokenizer.vocab_size());
        }
        assert_eq!(Tokenizer::Bytes.decode(&[0xC3]), "\u{FFFD}");
    }

    #[test]
    fn unknown_words_and_names_are_refused_by_name() {
        let error = words().encode("the dog").expect_err("no dog");
        assert!(error.to_string().contains("`dog`"), "{error}");
        assert!("gpt3".parse::<Tokenizer>().expect_err("no such").to_string().contains("gpt3"));
        let twice = Tokenizer::Words { vocabulary: vec!["a".into(), "a".into()] };
        assert!(twice.validate().is_err());
        assert!(Tokenizer::Words { vocabulary: vec![] }.validate().is_err());
    }

    #[test]
    fn the_spec_is_stable() {
        for (tokenizer, spec) in [
            (Tokenizer::Bytes, r#"{"name":"bytes"}"#),
            (Tokenizer::Gpt2, r#"{"name":"gpt2"}"#),
            (words(), r#"{"name":"words","vocabulary":["the","cat",",",".","sat"]}"#),
        ] {
            assert_eq!(serde_json::to_string(&tokenizer).expect("serialises"), spec);
            let read: Tokenizer = serde_json::from_str(spec).expect("parses");
            assert_eq!(read, tokenizer);
        }
        assert!(serde_json::from_str::<Tokenizer>(r#"{"name":"gpt3"}"#).is_err());
    }
}
