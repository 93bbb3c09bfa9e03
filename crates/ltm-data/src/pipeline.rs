//! Documents to tokens: assigns them to splits, cuts them into pieces, tokenizes on all cores, in memory that does
//! not grow with the text. Knows nothing of files nor of where tokens go.

use rayon::prelude::*;

use super::source::Source;
use super::tokenizer::Tokenizer;
use crate::{Error, Result, Split};

/// Documents are tokenized in pieces of about this size, so that a long one keeps all cores busy.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A run of text without a place to cut is cut anyway at this size.
pub(super) const LONGEST_PIECE_BYTES: usize = 4 * PIECE_BYTES;

/// Text waiting to be tokenized together.
const QUEUE_BYTES: usize = 4 << 20;

/// How documents are assigned to the splits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Partition {
    /// All to the training split.
    TrainOnly,
    /// Whole documents with this share of the tokens to the validation split, evenly spread.
    Share(f64),
    /// What is past this byte of the text to the validation split.
    Tail { cut: u64 },
}

/// A piece of a document on its way to the tokenizer.
struct Job {
    /// `None` where tokens decide, in the order in which documents reach the sink.
    split: Option<Split>,
    text: String,
    ends_document: bool,
    source: usize,
}

/// Where tokens go.
pub(super) trait Sink {
    /// Appends tokens of the current document, which encode `bytes` bytes of text.
    fn push(&mut self, split: Split, tokens: &[u32], bytes: u64) -> Result<()>;

    /// Ends the current document with the separator.
    fn end_document(&mut self, split: Split) -> Result<()>;
}

/// Documents on their way to a [`Sink`].
pub(super) struct Pipeline<'a> {
    sink: &'a mut dyn Sink,
    sources: &'a [Source],
    tokenizer: &'a dyn Tokenizer,
    partition: Partition,
    /// Where the current document goes, unless tokens decide.
    split: Split,
    /// Documents ended so far.
    pub(super) documents: u64,
    /// Bytes of text pushed so far.
    bytes: u64,
    /// Tokens passed to the sink so far, without separators.
    tokens: u64,
    sharing: Sharing,
    /// The current document's text that is not queued yet.
    text: String,
    /// Documents are cut into pieces of at least this size.
    piece_bytes: usize,
    /// Text shorter than this is not searched for a place to cut.
    try_cut_at: usize,
    /// Whether a piece of the current document has been queued.
    started: bool,
    queue: Vec<Job>,
    queued_bytes: usize,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Pipeline<'a> {
    /// A pipeline that reports to `progress` how many bytes of the whole input are done.
    pub(super) fn new(
        sink: &'a mut dyn Sink,
        sources: &'a [Source],
        tokenizer: &'a dyn Tokenizer,
        partition: Partition,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        let cuts = tokenizer.cuts_at_white_space();
        let piece_bytes = if cuts { PIECE_BYTES } else { LONGEST_PIECE_BYTES };
        Self {
            sink,
            sources,
            tokenizer,
            partition,
            split: Split::Train,
            documents: 0,
            bytes: 0,
            tokens: 0,
            sharing: Sharing::default(),
            text: String::new(),
            piece_bytes,
            try_cut_at: piece_bytes,
            started: false,
            queue: Vec::new(),
            queued_bytes: 0,
            progress,
        }
    }

    /// Takes more text of the current document, read up to byte `position` of the whole input.
    pub(super) fn push(&mut self, text: &str, source: usize, position: u64) -> Result<()> {
        let mut rest = text;
        let before = self.bytes;
        self.bytes += text.len() as u64;
        if let (Partition::Tail { cut }, Split::Train) = (self.partition, self.split)
            && self.bytes > cut
        {
            let (head, tail) = text.split_at(floor_boundary(text, (cut - before) as usize));
            self.append(head, source, position)?;
            self.cut_to_val(source, position)?;
            rest = tail;
        }
        self.append(rest, source, position)
    }

    fn append(&mut self, mut text: &str, source: usize, position: u64) -> Result<()> {
        while !text.is_empty() {
            // In small steps, so that one huge string is cut as finely as many small ones.
            let (now, later) = text.split_at(floor_boundary(text, PIECE_BYTES.min(text.len())));
            self.text.push_str(now);
            text = later;
            if self.text.len() < self.try_cut_at {
                continue;
            }
            match last_cut(&self.text) {
                Some(cut) => self.queue_head(cut, source, position)?,
                None if self.text.len() >= LONGEST_PIECE_BYTES => {
                    self.queue_head(self.text.len(), source, position)?;
                }
                None => self.try_cut_at *= 2,
            }
        }
        Ok(())
    }

    fn queue_head(&mut self, cut: usize, source: usize, position: u64) -> Result<()> {
        let later = self.text.split_off(cut);
        self.try_cut_at = self.piece_bytes;
        self.started = true;
        self.enqueue(later, false, source, position)
    }

    pub(super) fn end_document(&mut self, source: usize, position: u64) -> Result<()> {
        if self.started || !self.text.trim().is_empty() {
            self.started = false;
            self.documents += 1;
            self.enqueue(String::new(), true, source, position)?;
        }
        self.text.clear();
        self.try_cut_at = self.piece_bytes;
        Ok(())
    }

    /// Queues the current text and continues with `later` in its place.
    fn enqueue(
        &mut self,
        later: String,
        ends_document: bool,
        source: usize,
        position: u64,
    ) -> Result<()> {
        let text = std::mem::replace(&mut self.text, later);
        self.queued_bytes += text.len();
        let split = match self.partition {
            Partition::Share(_) => None,
            Partition::TrainOnly | Partition::Tail { .. } => Some(self.split),
        };
        self.queue.push(Job { split, text, ends_document, source });
        // The count of jobs is bounded too: documents may be short.
        if self.queued_bytes >= QUEUE_BYTES || self.queue.len() >= QUEUE_BYTES / 64 {
            self.drain(position)?;
        }
        Ok(())
    }

    /// Ends the training part of the current document at the last place to cut, and turns to validation.
    fn cut_to_val(&mut self, source: usize, position: u64) -> Result<()> {
        let cut = last_cut(&self.text).unwrap_or(self.text.len());
        let later = self.text.split_off(cut);
        self.end_document(source, position)?;
        self.split = Split::Val;
        self.append(&later, source, position)
    }

    /// Whether this number of tokens has reached the sink. What is queued is tokenized first where it may be enough: a token
    /// encodes at least one byte.
    pub(super) fn reached(&mut self, tokens: u64, position: u64) -> Result<bool> {
        if self.tokens + self.queued_bytes as u64 >= tokens {
            self.drain(position)?;
        }
        Ok(self.tokens >= tokens)
    }

    /// Tokenizes what is queued on all cores and writes it in order.
    pub(super) fn drain(&mut self, position: u64) -> Result<()> {
        let jobs = std::mem::take(&mut self.queue);
        self.queued_bytes = 0;
        let encoded: Vec<Result<Vec<u32>>> =
            jobs.par_iter().map(|job| self.tokenizer.encode(&job.text)).collect();
        for (job, tokens) in jobs.iter().zip(encoded) {
            let tokens = tokens.map_err(|error| match error {
                Error::Word { word } => {
                    let path = &self.sources[job.source].path;
                    Error::content(path, "content", "words of the vocabulary", format!("`{word}`"))
                }
                Error::Encode { tokenizer, reason } => {
                    let path = &self.sources[job.source].path;
                    let expected = format!("text that the tokenizer {tokenizer} encodes");
                    Error::content(path, "content", expected, reason)
                }
                error => error,
            })?;
            self.tokens += tokens.len() as u64;
            let split = match (job.split, self.partition) {
                (Some(split), _) => split,
                (None, Partition::Share(share)) => self.sharing.split(share),
                (None, _) => Split::Train,
            };
            self.sink.push(split, &tokens, job.text.len() as u64)?;
            self.sharing.count(split, tokens.len() as u64 + u64::from(job.ends_document));
            if job.ends_document {
                self.sink.end_document(split)?;
                self.sharing.current = None;
                self.sharing.documents += 1;
            }
        }
        (self.progress)(position);
        Ok(())
    }
}

/// How many tokens each split has, and where the current document goes.
#[derive(Default)]
struct Sharing {
    current: Option<Split>,
    documents: u64,
    val_documents: u64,
    tokens: u64,
    val_tokens: u64,
}

impl Sharing {
    /// The split of the current document, which is chosen at its start: whenever the validation split has less than its
    /// share of the tokens so far, after a random part of the interval that a document of mean length is worth. Nothing
    /// depends on the length of the document that is chosen, so long ones are as frequent in both splits.
    fn split(&mut self, share: f64) -> Split {
        if let Some(split) = self.current {
            return split;
        }
        let mean = self.tokens as f64 / self.documents.max(1) as f64;
        // Not of 0, whose hash is 0.
        let wait = hash(self.val_documents + 1) as f64 / 2_f64.powi(64) * mean;
        let behind = share * self.tokens as f64 >= self.val_tokens as f64 + wait;
        let split = if self.documents > 0 && behind { Split::Val } else { Split::Train };
        self.val_documents += u64::from(split == Split::Val);
        self.current = Some(split);
        split
    }

    fn count(&mut self, split: Split, tokens: u64) {
        self.tokens += tokens;
        if split == Split::Val {
            self.val_tokens += tokens;
        }
    }
}

/// The last place where white space follows something else. No GPT-2 pre-token reaches across such a place
/// nor looks past it, and a byte or a word does not either, so cutting there changes no token of these tokenizers.
pub(super) fn last_cut(text: &str) -> Option<usize> {
    let mut next: Option<(usize, char)> = None;
    for (at, c) in text.char_indices().rev() {
        if let Some((cut, _)) = next.filter(|(_, next)| next.is_whitespace())
            && !c.is_whitespace()
        {
            return Some(cut);
        }
        next = Some((at, c));
    }
    None
}

/// The last character boundary at or before `at`.
fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Spreads consecutive numbers over 64 bits (the finaliser of MurmurHash3).
pub(super) fn hash(mut x: u64) -> u64 {
    x = (x ^ (x >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    x = (x ^ (x >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_document_is_for_validation_by_its_place_alone() {
        let mut sharing = Sharing::default();
        for _ in 0..2 {
            assert_eq!(sharing.split(0.05), Split::Train);
            sharing.count(Split::Train, 100);
            (sharing.current, sharing.documents) = (None, sharing.documents + 1);
        }
    }
}
