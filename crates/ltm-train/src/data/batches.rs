//! Rows of a corpus, in random or in their own order, a batch at a time. A batch is a pure function of its
//! number, so a run that resumes reads what it would have read. Knows nothing of text or of models.

use std::ops::Range;
use std::sync::Arc;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};

use super::shard::Corpus;
use crate::{Error, Result};

/// The random stream of this module: "data" in ASCII.
const STREAM: u64 = 0x6461_7461;

/// Tokens looked at together when documents are searched for.
const SCAN_TOKENS: u64 = 1 << 20;

/// The target of a position that is not to be scored.
pub const IGNORED: i32 = -1;

/// What a row holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// `seq_len` tokens that follow each other, across documents.
    Windows,
    /// One document, or one part of a document longer than `seq_len`; the rest is padding.
    Documents,
}

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Each epoch in a new random order (and windows from a new random offset), without end: for training.
    Shuffled {
        /// The experiment's seed.
        seed: u64,
    },
    /// From first to last, each token a target once; then only padding: for measuring.
    Sequential,
}

/// The shape and order of batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Rows in a batch.
    pub batch: usize,
    /// Tokens in a row.
    pub seq_len: usize,
    /// What a row holds.
    pub rows: Rows,
    /// In which order rows come.
    pub order: Order,
}

/// Inputs and what should follow them, both `(batch, seq_len)`, row-major.
///
/// The input at a position is the token before its target: the separator where the target is the corpus' or a
/// document's first token, so that first tokens are scored too. Padding has the separator as input and
/// [`IGNORED`] as target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// What the model reads.
    pub tokens: Vec<i32>,
    /// What it should say next, [`IGNORED`] on padding.
    pub targets: Vec<i32>,
    /// Rows that are not padding alone; they come first.
    pub rows: usize,
    /// Targets that are not padding.
    pub scored: usize,
}

/// The batches of one corpus.
#[derive(Clone, Debug)]
pub struct Batches {
    corpus: Corpus,
    options: BatchOptions,
    /// First target and length of each row of documents; unused for windows.
    documents: Arc<[(u64, u32)]>,
    rows: u64,
}

impl Batches {
    /// Looks up the rows of `corpus`; [`Rows::Documents`] reads it once to find the separators.
    ///
    /// A corpus shorter than one row gives one padded row.
    ///
    /// # Errors
    /// [`Error::Field`] for an empty shape; those of [`Corpus::tokens`].
    pub fn new(corpus: Corpus, options: BatchOptions) -> Result<Self> {
        for (field, extent) in [("batch", options.batch), ("seq_len", options.seq_len)] {
            if extent == 0 || extent > u32::MAX as usize {
                return Err(Error::field(field, "at least 1, within 32 bits", extent));
            }
        }
        let seq_len = options.seq_len as u64;
        let documents: Arc<[_]> = match options.rows {
            Rows::Windows => Arc::default(),
            Rows::Documents => find_documents(&corpus, seq_len)?.into(),
        };
        let rows = match (options.rows, options.order) {
            (Rows::Documents, _) => documents.len() as u64,
            (Rows::Windows, Order::Sequential) => corpus.len().div_ceil(seq_len),
            // As many as fit whatever the epoch's offset in 0..seq_len.
            (Rows::Windows, Order::Shuffled { .. }) => {
                ((corpus.len() + 1).saturating_sub(seq_len) / seq_len).max(1)
            }
        };
        Ok(Self { corpus, options, documents, rows })
    }

    /// The corpus behind the batches.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The shape and order asked for.
    pub fn options(&self) -> BatchOptions {
        self.options
    }

    /// Rows in one pass over the corpus.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Batches that cover the corpus once; the last may be partly padding or reach into the next epoch.
    pub fn per_epoch(&self) -> u64 {
        self.rows.div_ceil(self.options.batch as u64)
    }

    /// Batch number `index`. Shuffled batches go on for ever, epoch after epoch.
    ///
    /// # Errors
    /// Those of [`Corpus::tokens`].
    pub fn batch(&self, index: u64) -> Result<Batch> {
        let BatchOptions { batch, seq_len, .. } = self.options;
        let padding = i32::from(self.corpus.tokenizer().separator());
        let mut tokens = vec![padding; batch * seq_len];
        let mut targets = vec![IGNORED; batch * seq_len];
        let (mut rows, mut scored) = (0, 0);
        let slots = tokens.chunks_exact_mut(seq_len).zip(targets.chunks_exact_mut(seq_len));
        for (row, (tokens, targets)) in (0_u64..).zip(slots) {
            let Some(range) = self.row(index.saturating_mul(batch as u64).saturating_add(row))
            else {
                break;
            };
            // One read: the inputs are the targets moved by one.
            let read = self.corpus.tokens(range.start.saturating_sub(1)..range.end)?;
            let first = usize::from(range.start > 0);
            let len = read.len() - first;
            targets.iter_mut().zip(&read[first..]).for_each(|(target, &id)| *target = id.into());
            tokens[1 - first..len]
                .iter_mut()
                .zip(&read)
                .for_each(|(token, &id)| *token = id.into());
            rows += 1;
            scored += len;
        }
        Ok(Batch { tokens, targets, rows, scored })
    }

    /// Which tokens row number `sample` has as targets.
    fn row(&self, sample: u64) -> Option<Range<u64>> {
        let seq_len = self.options.seq_len as u64;
        let (row, offset) = match self.options.order {
            Order::Sequential if sample >= self.rows => return None,
            Order::Sequential => (sample, 0),
            Order::Shuffled { seed } => {
                let epoch = sample / self.rows;
                let philox = Philox::new(PhiloxKey { seed, stream: STREAM, step: epoch });
                let slack = seq_len.min(self.corpus.len().saturating_sub(seq_len) + 1);
                let offset = philox.below(u64::MAX, slack);
                (permuted(&philox, sample % self.rows, self.rows), offset)
            }
        };
        Some(match self.options.rows {
            Rows::Windows => {
                let start = offset + row * seq_len;
                start..(start + seq_len).min(self.corpus.len())
            }
            Rows::Documents => {
                let (start, len) = self.documents[row as usize];
                start..start + u64::from(len)
            }
        })
    }
}

/// Where `index` of `0..n` goes in a random permutation, in constant memory: a Feistel network over the
/// next power of four, walked until it lands inside (Black and Rogaway 2002, "Ciphers with arbitrary
/// finite domains"). A list to shuffle would take gigabytes for a corpus of hundreds.
fn permuted(philox: &Philox, index: u64, n: u64) -> u64 {
    let half_bits = (u64::BITS - (n - 1).leading_zeros()).div_ceil(2).max(1);
    let mask = (1_u64 << half_bits) - 1;
    let mut x = index;
    loop {
        let (mut left, mut right) = (x >> half_bits, x & mask);
        for round in 0..8 {
            let [word, ..] = philox.u32x4((round << 32) | right);
            (left, right) = (right, left ^ (u64::from(word) & mask));
        }
        x = (left << half_bits) | right;
        if x < n {
            return x;
        }
    }
}

/// First target and length of every row: documents with their separators, in parts of at most `seq_len`.
fn find_documents(corpus: &Corpus, seq_len: u64) -> Result<Vec<(u64, u32)>> {
    let separator = corpus.tokenizer().separator();
    let mut rows = Vec::new();
    let mut start = 0;
    for chunk in (0..corpus.len()).step_by(SCAN_TOKENS as usize) {
        let tokens = corpus.tokens(chunk..(chunk + SCAN_TOKENS).min(corpus.len()))?;
        for (end, id) in (chunk + 1..).zip(tokens) {
            if id == separator || end - start == seq_len || end == corpus.len() {
                rows.push((start, (end - start) as u32));
                start = end;
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::Sink;
    use super::super::shard::Split;
    use super::super::tokenizer::Tokenizer;
    use super::super::writer::CorpusWriter;
    use super::*;

    /// A corpus of documents of these lengths, whose tokens count up, in shards of 5 tokens.
    fn corpus(lengths: &[usize]) -> (tempfile::TempDir, Corpus) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &Tokenizer::Bytes, 5).expect("new");
        let mut next = 0;
        for &length in lengths {
            let ids: Vec<u16> = (next..next + length as u16).map(|id| id % 256).collect();
            next += length as u16;
            writer.push(Split::Train, &ids, length as u64).expect("written");
            writer.end_document(Split::Train).expect("written");
        }
        writer.finish(vec![], 0).expect("finished");
        let corpus = Corpus::open(dir.path(), Split::Train, None).expect("opened");
        (dir, corpus)
    }

    fn batches(corpus: &Corpus, batch: usize, seq_len: usize, rows: Rows, order: Order) -> Batches {
        Batches::new(corpus.clone(), BatchOptions { batch, seq_len, rows, order })
            .expect("a good shape")
    }

    #[test]
    fn targets_follow_their_inputs_and_the_first_token_is_scored() {
        let (_dir, corpus) = corpus(&[4, 3]);
        let found = batches(&corpus, 1, 6, Rows::Windows, Order::Sequential);
        assert_eq!(found.per_epoch(), 2);
        let first = found.batch(0).expect("good ids");
        assert_eq!(first.tokens, [256, 0, 1, 2, 3, 256]);
        assert_eq!(first.targets, [0, 1, 2, 3, 256, 4]);
        let last = found.batch(1).expect("good ids");
        assert_eq!(last.tokens, [4, 5, 6, 256, 256, 256]);
        assert_eq!(last.targets, [5, 6, 256, -1, -1, -1]);
        assert_eq!((last.rows, last.scored), (1, 3));
        assert_eq!(found.batch(2).expect("padding").rows, 0);
    }

    #[test]
    fn documents_have_rows_of_their_own() {
        let (_dir, corpus) = corpus(&[2, 5, 0, 3]);
        let found = batches(&corpus, 3, 4, Rows::Documents, Order::Sequential);
        assert_eq!((found.rows(), found.per_epoch()), (5, 2));
        let first = found.batch(0).expect("good ids");
        assert_eq!(first.tokens, [256, 0, 1, 256, 256, 2, 3, 4, 5, 6, 256, 256]);
        assert_eq!(first.targets, [0, 1, 256, -1, 2, 3, 4, 5, 6, 256, -1, -1]);
        let last = found.batch(1).expect("good ids");
        assert_eq!(last.targets, [256, -1, -1, -1, 7, 8, 9, 256, -1, -1, -1, -1]);
        assert_eq!((last.rows, last.scored), (2, 5));
    }

    #[test]
    fn sequential_batches_score_each_token_once() {
        let (_dir, corpus) = corpus(&[17, 1, 30, 8]);
        let all = corpus.tokens(0..corpus.len()).expect("good ids");
        for rows in [Rows::Windows, Rows::Documents] {
            for (batch, seq_len) in [(1, 1), (2, 7), (3, 60), (4, 100)] {
                let found = batches(&corpus, batch, seq_len, rows, Order::Sequential);
                let mut scored = Vec::new();
                for i in 0..found.per_epoch() {
                    let one = found.batch(i).expect("good ids");
                    let before = scored.len();
                    scored.extend(
                        one.targets.iter().filter(|&&id| id != IGNORED).map(|&id| id as u16),
                    );
                    assert_eq!(scored.len() - before, one.scored);
                }
                assert_eq!(scored, all);
            }
        }
    }

    #[test]
    fn an_epoch_visits_each_row_once_in_an_order_of_its_own() {
        let (_dir, corpus) = corpus(&[100, 103]);
        let found = batches(&corpus, 1, 4, Rows::Windows, Order::Shuffled { seed: 5 });
        let n = found.rows();
        assert_eq!(n, 50);
        let epoch = |e: u64| -> Vec<_> {
            (e * n..(e + 1) * n).map(|i| found.row(i).expect("endless")).collect()
        };
        let mut offsets = std::collections::BTreeSet::new();
        for e in 0..20 {
            let mut starts: Vec<u64> = epoch(e).iter().map(|range| range.start).collect();
            assert!(!starts.is_sorted());
            starts.sort();
            offsets.insert(starts[0]);
            assert!(starts.windows(2).all(|pair| pair[1] == pair[0] + 4));
            assert!(starts[0] < 4 && starts[49] + 4 <= corpus.len());
        }
        assert_eq!(offsets.len(), 4, "every offset occurs");
        assert_ne!(epoch(0), epoch(1));
    }

    #[test]
    fn a_batch_depends_on_its_number_and_the_seed_alone() {
        let (_dir, corpus) = corpus(&[200, 50]);
        for rows in [Rows::Windows, Rows::Documents] {
            let run = |seed| batches(&corpus, 3, 16, rows, Order::Shuffled { seed });
            let (one, resumed, other) = (run(1), run(1), run(2));
            let straight: Vec<_> = (0..40).map(|i| one.batch(i).expect("good ids")).collect();
            assert_eq!(resumed.batch(33).expect("good ids"), straight[33]);
            assert_ne!(other.batch(33).expect("good ids"), straight[33]);
            assert!(straight.iter().all(|batch| batch.rows == 3), "no padding rows in training");
        }
    }

    #[test]
    fn corpora_of_about_one_row_are_padded() {
        for (length, scored) in [(0, 1), (6, 7), (7, 8), (8, 8), (14, 8)] {
            let (_dir, corpus) = corpus(&[length]);
            let found = batches(&corpus, 2, 8, Rows::Windows, Order::Shuffled { seed: 0 });
            assert_eq!(found.rows(), 1);
            for i in 0..10 {
                assert_eq!(found.batch(i).expect("good ids").scored, 2 * scored);
            }
        }
    }

    #[test]
    fn permutations_are_one_to_one_and_even() {
        for n in [1, 2, 3, 5, 16, 17, 1000] {
            let philox = Philox::new(PhiloxKey { seed: 3, stream: STREAM, step: n });
            let mut seen: Vec<u64> = (0..n).map(|i| permuted(&philox, i, n)).collect();
            seen.sort();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
        }
        // Where 0 goes among 5 places, over 5000 keys: mean 1000, standard deviation 28.
        let mut counts = [0_i32; 5];
        for seed in 0..5000 {
            let philox = Philox::new(PhiloxKey { seed, stream: STREAM, step: 0 });
            counts[permuted(&philox, 0, 5) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (count - 1000).abs() < 150), "{counts:?}");
        let philox = Philox::new(PhiloxKey { seed: 0, stream: STREAM, step: 0 });
        let far = u64::from(u32::MAX) * 100;
        assert!(permuted(&philox, far - 1, far) < far);
    }

    #[test]
    fn empty_shapes_are_refused() {
        let (_dir, corpus) = corpus(&[9]);
        for (batch, seq_len, field) in [(0, 1, "batch"), (1, 0, "seq_len")] {
            let options =
                BatchOptions { batch, seq_len, rows: Rows::Windows, order: Order::Sequential };
            let error = Batches::new(corpus.clone(), options).expect_err("refused").to_string();
            assert!(error.contains(field), "{error}");
        }
    }
}
