//! Corpora in memory, from documents or token ids that any iterator gives. Reads and writes no files.

use super::layout::Width;
use super::meta::SplitMeta;
use super::pipeline::Sink;
use super::shard::Corpus;
use super::tokenizer::{SharedTokenizer, check};
use crate::{Error, Result, Split};

impl Corpus {
    /// A corpus in memory of documents that an iterator gives, each followed by the separator; those of white space alone
    /// are omitted. It takes two bytes per token, or four for a vocabulary of more than 65,536 ids.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use ltm_data::{BatchOptions, Batches, Bytes, Corpus, Order, Rows};
    ///
    /// let corpus = Corpus::from_documents(Arc::new(Bytes), ["one", "two"])?;
    /// let options = BatchOptions { batch: 2, seq_len: 4, rows: Rows::Documents, order: Order::Sequential };
    /// let batch = Batches::new(corpus, options)?.batch(0)?;
    /// assert_eq!(batch.targets[..4], [b'o', b'n', b'e'].map(i32::from).into_iter().chain([256]).collect::<Vec<_>>());
    /// # Ok::<(), ltm_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of the tokenizer; [`Error::Field`] when there is no text, or the tokenizer's separator is not an id of it.
    pub fn from_documents<T: AsRef<str>>(
        tokenizer: SharedTokenizer,
        documents: impl IntoIterator<Item = T>,
    ) -> Result<Self> {
        let mut memory = Memory::new(&tokenizer)?;
        for document in documents {
            let text = document.as_ref();
            if text.trim().is_empty() {
                continue;
            }
            memory.push(Split::Train, &tokenizer.encode(text)?, text.len() as u64)?;
            memory.end_document(Split::Train)?;
        }
        memory.finish().ok_or_else(|| Error::field("documents", "some text", "none"))
    }

    /// A corpus in memory of token ids that an iterator gives. The tokenizer's separator among them ends a document.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use ltm_data::{Bytes, Corpus};
    ///
    /// let corpus = Corpus::from_tokens(Arc::new(Bytes), (0..1000).map(|i| i % 10))?;
    /// assert_eq!(corpus.tokens(8..12)?, [8, 9, 0, 1]);
    /// # Ok::<(), ltm_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Field`] naming the first id outside the vocabulary, and when there are none.
    pub fn from_tokens(
        tokenizer: SharedTokenizer,
        tokens: impl IntoIterator<Item = u32>,
    ) -> Result<Self> {
        let mut memory = Memory::new(&tokenizer)?;
        let (separator, vocab_size) = (tokenizer.separator(), tokenizer.vocab_size());
        let mut before = separator;
        for (position, id) in tokens.into_iter().enumerate() {
            if id as usize >= vocab_size {
                let expected = format!("ids in 0..{vocab_size}");
                return Err(Error::field("tokens", expected, format!("{id} at {position}")));
            }
            if id == separator {
                memory.end_document(Split::Train)?;
            } else {
                let bytes = tokenizer.text_bytes(before, id) as u64;
                memory.push(Split::Train, &[id], bytes)?;
            }
            before = id;
        }
        memory.finish().ok_or_else(|| Error::field("tokens", "at least one", "none"))
    }
}

/// A corpus on its way into memory.
pub(crate) struct Memory<'a> {
    tokenizer: &'a SharedTokenizer,
    width: Width,
    ids: Vec<u8>,
    meta: SplitMeta,
}

impl<'a> Memory<'a> {
    pub(crate) fn new(tokenizer: &'a SharedTokenizer) -> Result<Self> {
        check(&**tokenizer)?;
        let width = Width::of(tokenizer.vocab_size());
        Ok(Self { tokenizer, width, ids: Vec::new(), meta: SplitMeta::default() })
    }

    /// The corpus; `None` without tokens.
    pub(crate) fn finish(self) -> Option<Corpus> {
        Corpus::in_memory(self.tokenizer, self.width, self.ids, self.meta)
    }
}

impl Sink for Memory<'_> {
    fn push(&mut self, _: Split, tokens: &[u32], bytes: u64) -> Result<()> {
        self.width.pack(tokens, &mut self.ids);
        self.meta.tokens += tokens.len() as u64;
        self.meta.bytes += bytes;
        Ok(())
    }

    fn end_document(&mut self, split: Split) -> Result<()> {
        self.meta.documents += 1;
        self.push(split, &[self.tokenizer.separator()], 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tokenizer::{Bytes, Tokenizer, Words};
    use super::*;

    #[test]
    fn documents_and_tokens_give_the_same_corpus() {
        let bytes: SharedTokenizer = Arc::new(Bytes);
        let texts = ["one", " \n", "two, threé"].map(String::from);
        let of_text = Corpus::from_documents(bytes.clone(), &texts).expect("some text");
        let ids = of_text.tokens(0..of_text.len()).expect("good ids");
        assert_eq!((ids[3], ids.len()), (256, 16));
        let of_ids = Corpus::from_tokens(bytes, ids.iter().copied()).expect("good ids");
        let same = |a: &Corpus, b: &Corpus| {
            assert_eq!(a.meta(), b.meta());
            assert_eq!(a.fingerprint().expect("read"), b.fingerprint().expect("read"));
        };
        same(&of_text, &of_ids);
        let meta = of_text.meta().expect("counted");
        assert_eq!((meta.documents, meta.tokens, meta.bytes), (2, 16, 14));
    }

    #[test]
    fn ids_beyond_16_bits_are_held() {
        let words = Words::new((0..70_000).map(|i| format!("w{i}")).collect()).expect("differ");
        let end = words.separator();
        let corpus =
            Corpus::from_documents(Arc::new(words), ["w1 w65536", "w69999"]).expect("good");
        assert_eq!(corpus.tokens(0..5).expect("good ids"), [1, 65_536, end, 69_999, end]);
        assert_eq!(corpus.tokens(3..4).expect("good ids"), [69_999]);
    }

    #[test]
    fn what_is_no_corpus_is_refused_by_name() {
        let bytes: SharedTokenizer = Arc::new(Bytes);
        let none = Corpus::from_documents(bytes.clone(), [""; 3]).expect_err("no text");
        assert!(none.to_string().contains("`documents`"), "{none}");
        let none = Corpus::from_tokens(bytes.clone(), []).expect_err("no tokens");
        assert!(none.to_string().contains("`tokens`"), "{none}");
        let bad = Corpus::from_tokens(bytes, [1, 2, 257]).expect_err("outside").to_string();
        assert!(bad.contains("expected ids in 0..257, found 257 at 2"), "{bad}");
    }
}
