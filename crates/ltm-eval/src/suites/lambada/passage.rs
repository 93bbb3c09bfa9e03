//! Passages of a LAMBADA file in tokens. Scores nothing.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ltm_train::config::Config;
use ltm_train::data::{self, Document, Format, Notice, ReadOptions, Tokenizer, documents};

use crate::{Error, Result};

/// A passage in tokens, no longer than a model's context and one more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The separator that documents begin with, the context, the last word; only their end if they do not all fit.
    pub(super) tokens: Vec<i32>,
    /// How many of the tokens, at their end, are the last word with the white space before it.
    pub(super) word: usize,
    /// Whether tokens were cut off at the beginning.
    pub(super) cut: bool,
}

impl Passage {
    /// A passage for a model that reads `max_seq_len` tokens.
    ///
    /// The white space before the last word is part of the word, as in tokenisers.
    ///
    /// # Errors
    /// [`Error::File`] when there is no context or no word, when the word leaves no room for context, and for a word that
    /// a closed vocabulary lacks.
    pub fn new(
        document: Document<'_>,
        tokenizer: &dyn Tokenizer,
        max_seq_len: usize,
    ) -> data::Result<Self> {
        let Document { path, number, text } = document;
        let refuse = |expected: String, found: String| {
            data::Error::content(path, format!("line {number}"), expected, found)
        };
        let Some((context, word)) = split_last_word(text) else {
            let expected = "a context and a last word";
            return Err(refuse(expected.into(), format!("`{}`", text.trim())));
        };
        let encode = |text: &str| {
            tokenizer.encode(text).map_err(|error| match error {
                data::Error::Word { word } => {
                    refuse("words of the vocabulary".into(), format!("`{word}`"))
                }
                error => error,
            })
        };
        let (context, word) = (encode(context)?, encode(word)?);
        if word.len() >= max_seq_len {
            let expected = format!("a last word of fewer than {max_seq_len} tokens");
            return Err(refuse(expected, format!("{} tokens", word.len())));
        }
        let separator = [tokenizer.separator()];
        let all: Vec<i32> =
            separator.iter().chain(&context).chain(&word).map(|&id| id as i32).collect();
        // The last token is only predicted, never read.
        let first = all.len().saturating_sub(max_seq_len + 1);
        Ok(Self { tokens: all[first..].to_vec(), word: word.len(), cut: first > 0 })
    }

    /// What the model reads.
    pub(super) fn inputs(&self) -> &[i32] {
        &self.tokens[..self.tokens.len() - 1]
    }

    /// What follows each input.
    pub(super) fn targets(&self) -> &[i32] {
        &self.tokens[1..]
    }

    /// Inputs whose targets are context; the target of the next one begins the last word.
    pub(super) fn known(&self) -> usize {
        self.inputs().len() - self.word
    }
}

/// Splits a passage before the white space in front of its last word; `None` for fewer than two words. White space at
/// the end is dropped.
pub fn split_last_word(passage: &str) -> Option<(&str, &str)> {
    let passage = passage.trim_end();
    let (before, _) = passage.rsplit_once(char::is_whitespace)?;
    let context = before.trim_end();
    (!context.is_empty()).then(|| passage.split_at(context.len()))
}

/// Reads passages, one string in each JSON object: the first `limit` of them, or all for 0. Returns them with the number
/// of malformed lines skipped.
///
/// # Errors
/// Those of [`documents`] and [`Passage::new`]; [`Error::File`] when there is no passage.
pub fn read(
    inputs: &[PathBuf],
    config: &Config,
    tokenizer: &dyn Tokenizer,
    options: &ReadOptions,
    limit: u64,
    observer: &mut dyn FnMut(Notice),
) -> Result<(Vec<Passage>, u64)> {
    let options = ReadOptions { format: Some(Format::Json), ..options.clone() };
    let mut passages = Vec::new();
    let mut on_document = |document: Document<'_>| {
        passages.push(Passage::new(document, tokenizer, config.model.max_seq_len)?);
        let enough = passages.len() as u64 == limit;
        Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    };
    let skipped = documents(inputs, &options, &mut on_document, observer)?;
    if passages.is_empty() {
        let path = inputs.first().map_or(Path::new(""), PathBuf::as_path);
        return Err(Error::content(path, "content", "passages", "none"));
    }
    Ok((passages, skipped))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::tiny::MODEL;

    pub(in crate::suites) fn passage(text: &str) -> data::Result<Passage> {
        let document = Document { path: Path::new("a.jsonl"), number: 7, text };
        Passage::new(document, &data::Bytes, MODEL.max_seq_len)
    }

    #[test]
    fn the_last_word_takes_the_white_space_before_it() {
        for (text, parts) in [
            ("one two", Some(("one", " two"))),
            (" a b\tc\n", Some((" a b", "\tc"))),
            ("it said:\n\n \"yes\" ", Some(("it said:", "\n\n \"yes\""))),
            ("a\u{2003}é", Some(("a", "\u{2003}é"))),
            ("word", None),
            ("  word \n", None),
            (" ", None),
            ("", None),
        ] {
            assert_eq!(split_last_word(text), parts, "{text:?}");
        }
    }

    #[test]
    fn passages_keep_their_end() {
        let short = passage("a dog").expect("two words");
        assert_eq!(short.tokens, [256, 97, 32, 100, 111, 103]);
        assert_eq!((short.word, short.known(), short.cut), (4, 1, false));
        // 1 + 20 + 4 tokens, of which the last is not read, fit exactly; one more does not.
        let fits = passage(&format!("{} dog", "x".repeat(20))).expect("two words");
        assert_eq!((fits.inputs().len(), fits.cut), (24, false));
        let long = passage(&format!("{} dog", "x".repeat(21))).expect("two words");
        assert_eq!((long.inputs().len(), long.known(), long.cut), (24, 20, true));
        assert_eq!(long.inputs()[0], i32::from(b'x'));
        for (text, parts) in [
            ("word", ["a.jsonl: line 7", "`word`"]),
            (&format!("a {}", "x".repeat(23)), ["fewer than 24", "found 24 tokens"]),
        ] {
            let error = passage(text).expect_err("refused").to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
    }
}
