//! A closed list of words.

use std::collections::HashMap;

use super::{END_OF_TEXT, Tokenizer, TokenizerSpec};
use crate::hash::{sha256, short};
use crate::{Error, Result};

/// Words that have ids of 31 bits with one left for the separator.
const MOST: usize = i32::MAX as usize - 1;

/// A closed list of lower-case words, then the separator.
///
/// Words of a text are split at white space, their trailing punctuation split off, and lower-cased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    vocabulary: Vec<String>,
    ids: HashMap<String, u32>,
}

impl Words {
    /// The words in the order of their ids; punctuation marks are words.
    ///
    /// # Errors
    /// [`Error::Field`] for a list that is empty, too long for 31 bits, or has a word twice.
    pub fn new(vocabulary: Vec<String>) -> Result<Self> {
        if vocabulary.is_empty() || vocabulary.len() > MOST {
            let expected = format!("1 to {MOST} words");
            return Err(Error::field("vocabulary", expected, vocabulary.len()));
        }
        let mut ids = HashMap::with_capacity(vocabulary.len());
        for (word, id) in vocabulary.iter().zip(0..) {
            if ids.insert(word.clone(), id).is_some() {
                let found = format!("{word} twice");
                return Err(Error::field("vocabulary", "words that differ", found));
            }
        }
        Ok(Self { vocabulary, ids })
    }

    fn id(&self, word: &str) -> Result<u32> {
        self.ids.get(word).copied().ok_or_else(|| Error::Word { word: word.into() })
    }

    fn word(&self, id: u32) -> Option<&str> {
        self.vocabulary.get(id as usize).map(String::as_str)
    }
}

impl Tokenizer for Words {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut tokens = Vec::new();
        for word in text.to_lowercase().split_whitespace() {
            let stem = word.trim_end_matches(['.', ',', '!', '?']);
            if !stem.is_empty() {
                tokens.push(self.id(stem)?);
            }
            for (start, mark) in word[stem.len()..].char_indices() {
                let start = stem.len() + start;
                tokens.push(self.id(&word[start..start + mark.len_utf8()])?);
            }
        }
        Ok(tokens)
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let mut text = String::new();
        for &id in tokens {
            if id == self.separator() {
                text += END_OF_TEXT;
                continue;
            }
            let word = self.word(id).unwrap_or("\u{FFFD}");
            if !text.is_empty() && !is_punctuation(word) {
                text.push(' ');
            }
            text += word;
        }
        text
    }

    fn vocab_size(&self) -> usize {
        self.vocabulary.len() + 1
    }

    fn separator(&self) -> u32 {
        self.vocabulary.len() as u32
    }

    fn fingerprint(&self) -> String {
        let spec = serde_json::to_vec(&self.spec()).expect("plain data serialises");
        format!("words {}", short(&sha256(&spec)))
    }

    fn text_bytes(&self, before: u32, token: u32) -> usize {
        self.word(token).map_or(0, |word| {
            let space = before != self.separator() && !is_punctuation(word);
            word.len() + usize::from(space)
        })
    }

    fn cuts_at_white_space(&self) -> bool {
        true
    }

    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Words { vocabulary: self.vocabulary.clone() }
    }
}

fn is_punctuation(word: &str) -> bool {
    matches!(word, "." | "," | "!" | "?")
}
