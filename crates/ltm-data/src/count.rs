//! How often token ids occur in files. Keeps no tokens.

use std::path::PathBuf;

use super::pipeline::{Partition, Sink};
use super::prepare::{Limit, Notice, no_text, tokenize};
use super::source::{ReadOptions, find};
use super::tokenizer::{Tokenizer, check};
use crate::{Result, Split};

/// How often each id of the tokenizer occurs in `inputs`, by id. Reports progress and what is skipped to `observer`.
///
/// # Errors
/// As those of [`prepare`](super::prepare()); [`Error::File`](crate::Error::File) when the files contain no text.
pub fn count_tokens(
    inputs: &[PathBuf],
    tokenizer: &dyn Tokenizer,
    options: &ReadOptions,
    observer: &mut dyn FnMut(Notice),
) -> Result<Vec<u64>> {
    check(tokenizer)?;
    let sources = find(inputs, options.format, &mut |found| observer(found.into()))?;
    let mut counts = Counts(vec![0; tokenizer.vocab_size()]);
    let partition = Partition::TrainOnly;
    let skipped =
        tokenize(&sources, options, tokenizer, partition, Limit::None, &mut counts, observer)?;
    if counts.0.iter().all(|count| *count == 0) {
        return Err(no_text(&sources, skipped));
    }
    Ok(counts.0)
}

/// Counts the ids of texts, without separators.
struct Counts(Vec<u64>);

impl Sink for Counts {
    fn push(&mut self, _: Split, tokens: &[u32], _: u64) -> Result<()> {
        for id in tokens {
            self.0[*id as usize] += 1;
        }
        Ok(())
    }

    fn end_document(&mut self, _: Split) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Bytes;

    #[test]
    fn ids_are_counted_over_all_files() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let inputs = ["a.txt", "b.txt"].map(|name| dir.path().join(name));
        fs::write(&inputs[0], "aab\n<|endoftext|>\na").expect("writable");
        fs::write(&inputs[1], "b").expect("writable");
        let count =
            |inputs: &[PathBuf]| count_tokens(inputs, &Bytes, &ReadOptions::default(), &mut |_| ());
        let counts = count(&inputs).expect("some text");
        assert_eq!(counts.len(), 257);
        assert_eq!((counts[97], counts[98], counts.iter().sum::<u64>()), (3, 2, 5));
        fs::write(&inputs[0], "<|endoftext|>\n").expect("writable");
        assert!(count(&inputs[..1]).expect_err("none").to_string().contains("some text"));
    }
}
