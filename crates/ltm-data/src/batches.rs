//! Rows of a corpus, in random or in their own order, one batch at a time. A batch is a pure function of its
//! number, so a resumed run reads what it would have read without the interruption. Knows nothing of text or of models.

use std::ops::Range;
use std::sync::Arc;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};

use super::permutation::{chosen, permuted};
use super::shard::Corpus;
use crate::{Error, Result};

/// The random stream of this module: "data" in ASCII.
const STREAM: u64 = 0x6461_7461;

/// Tokens per read when the corpus is searched for documents.
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
    /// From first to last, each token a target once, or scored once; then only padding: for measuring.
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
    /// The inputs of the model.
    pub tokens: Vec<i32>,
    /// The token to predict at each position, [`IGNORED`] on padding.
    pub targets: Vec<i32>,
    /// First targets of each row that an earlier row has had: 0 unless rows overlap.
    pub context: Vec<usize>,
    /// The number of each row among all rows of the corpus, of its epoch where they are shuffled. Rows that are padding
    /// alone have some number too.
    pub numbers: Vec<u64>,
    /// The number of the document that each row belongs to; `None` where rows are windows across documents, and of padding.
    pub documents: Vec<Option<u64>>,
    /// Rows that are not padding alone; they come first.
    pub rows: usize,
    /// Targets that are neither padding nor an earlier row's.
    pub scored: usize,
}

/// A row: which tokens are its targets, and how many of the first an earlier row has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    start: u64,
    len: u32,
    context: u32,
    /// The number of its document; 0 for windows.
    document: u32,
}

impl Row {
    fn end(&self) -> u64 {
        self.start + u64::from(self.len)
    }
}

/// The batches of one corpus.
#[derive(Clone, Debug)]
pub struct Batches {
    corpus: Corpus,
    options: BatchOptions,
    /// Tokens between the starts of two consecutive rows: `seq_len` unless rows overlap.
    stride: usize,
    /// The rows of documents; unused for windows.
    documents: Arc<[Row]>,
    /// Rows of the whole corpus.
    all: u64,
    /// The numbers of those that these batches hold, in their order; `None` for all.
    sample: Option<Arc<[u64]>>,
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
        let stride = options.seq_len;
        Self::with_stride(corpus, options, stride)
    }

    /// `rows` of these rows, all of them for 0 and where there are no more. They are drawn by a fixed permutation of the
    /// row numbers and come in their own order: spread over the corpus, the same whenever its rows are the same, and fewer
    /// rows are a part of more.
    ///
    /// # Errors
    /// [`Error::Field`] for shuffled rows.
    pub fn sample(&self, rows: u64) -> Result<Self> {
        self.check_sequential("to be sampled")?;
        let sample = (1..self.all).contains(&rows).then(|| chosen(rows, self.all).into());
        Ok(Self { sample, ..self.clone() })
    }

    /// The tokens of the corpus in rows that overlap: each starts `stride` tokens after the one before, and has the targets
    /// that both have as [context](Batch::context). No row reaches over the end of a document if those of these batches do
    /// not. Of a [sample](Self::sample), as large a share of the rows that overlap, drawn in the same way.
    ///
    /// # Errors
    /// [`Error::Field`] for a stride that is not in `1..=seq_len`, and for shuffled rows; those of [`Corpus::tokens`].
    pub fn overlapping(&self, stride: usize) -> Result<Self> {
        let seq_len = self.options.seq_len;
        if !(1..=seq_len).contains(&stride) {
            let expected = format!("in 1..={seq_len}, the tokens of a row");
            return Err(Error::field("stride", expected, stride));
        }
        self.check_sequential("that overlap")?;
        let found = Self::with_stride(self.corpus.clone(), self.options, stride)?;
        let Some(sample) = &self.sample else { return Ok(found) };
        let rows = (sample.len() as u128 * u128::from(found.all)).div_ceil(u128::from(self.all));
        found.sample(rows as u64)
    }

    fn check_sequential(&self, rows: &str) -> Result<()> {
        match self.options.order {
            Order::Sequential => Ok(()),
            Order::Shuffled { .. } => {
                Err(Error::field("order", format!("sequential for rows {rows}"), "shuffled"))
            }
        }
    }

    fn with_stride(corpus: Corpus, options: BatchOptions, stride: usize) -> Result<Self> {
        let seq_len = options.seq_len as u64;
        let documents: Arc<[_]> = match options.rows {
            Rows::Windows => Arc::default(),
            Rows::Documents => find_documents(&corpus, seq_len, stride as u64)?.into(),
        };
        let all = match (options.rows, options.order) {
            (Rows::Documents, _) => documents.len() as u64,
            (Rows::Windows, Order::Sequential) => windows(corpus.len(), seq_len, stride as u64),
            // As many as fit whatever the epoch's offset in 0..seq_len.
            (Rows::Windows, Order::Shuffled { .. }) => {
                ((corpus.len() + 1).saturating_sub(seq_len) / seq_len).max(1)
            }
        };
        Ok(Self { corpus, options, stride, documents, all, sample: None })
    }

    /// The corpus that the batches are read from.
    pub fn corpus(&self) -> &Corpus {
        &self.corpus
    }

    /// The shape and order asked for.
    pub fn options(&self) -> BatchOptions {
        self.options
    }

    /// Rows in one pass: of the corpus, or of the sample.
    pub fn rows(&self) -> u64 {
        self.sample.as_ref().map_or(self.all, |sample| sample.len() as u64)
    }

    /// Batches that cover these rows once; the last may be partly padding or reach into the next epoch.
    pub fn per_epoch(&self) -> u64 {
        self.rows().div_ceil(self.options.batch as u64)
    }

    /// Batch number `index`. Shuffled batches never end, epoch after epoch.
    ///
    /// # Errors
    /// Those of [`Corpus::tokens`].
    pub fn batch(&self, index: u64) -> Result<Batch> {
        let BatchOptions { batch, seq_len, .. } = self.options;
        // Ids have 31 bits: a corpus is opened with no larger vocabulary.
        let padding = self.corpus.tokenizer().separator() as i32;
        let mut tokens = vec![padding; batch * seq_len];
        let mut targets = vec![IGNORED; batch * seq_len];
        let mut context = vec![0; batch];
        let first = index.saturating_mul(batch as u64);
        let mut numbers: Vec<u64> =
            (0..batch as u64).map(|row| first.saturating_add(row)).collect();
        let mut documents = vec![None; batch];
        let (mut rows, mut scored) = (0, 0);
        let slots = tokens.chunks_exact_mut(seq_len).zip(targets.chunks_exact_mut(seq_len));
        for (tokens, targets) in slots {
            let Some((number, found)) = self.row(numbers[rows]) else { break };
            // One read: the inputs are the targets moved by one.
            let read = self.corpus.tokens(found.start.saturating_sub(1)..found.end())?;
            let first = usize::from(found.start > 0);
            let len = read.len() - first;
            targets.iter_mut().zip(&read[first..]).for_each(|(target, &id)| *target = id as i32);
            tokens[1 - first..len]
                .iter_mut()
                .zip(&read)
                .for_each(|(token, &id)| *token = id as i32);
            context[rows] = found.context as usize;
            numbers[rows] = number;
            documents[rows] =
                (self.options.rows == Rows::Documents).then_some(u64::from(found.document));
            scored += len - context[rows];
            rows += 1;
        }
        Ok(Batch { tokens, targets, context, numbers, documents, rows, scored })
    }

    /// The number of the row at place `at` in the order of the batches, and the row.
    fn row(&self, at: u64) -> Option<(u64, Row)> {
        let (seq_len, stride) = (self.options.seq_len as u64, self.stride as u64);
        let (number, offset) = match (self.options.order, &self.sample) {
            (Order::Sequential, None) => ((at < self.all).then_some(at)?, 0),
            (Order::Sequential, Some(sample)) => (*sample.get(usize::try_from(at).ok()?)?, 0),
            (Order::Shuffled { seed }, _) => {
                let epoch = at / self.all;
                let philox = Philox::new(PhiloxKey { seed, stream: STREAM, step: epoch });
                let slack = seq_len.min(self.corpus.len().saturating_sub(seq_len) + 1);
                let offset = philox.below(u64::MAX, slack);
                (permuted(&philox, at % self.all, self.all), offset)
            }
        };
        let row = match self.options.rows {
            Rows::Windows => window(offset..self.corpus.len(), seq_len, stride, number),
            Rows::Documents => self.documents[number as usize],
        };
        Some((number, row))
    }
}

/// Number of windows of `seq_len` tokens, each starting `stride` tokens after the one before, that cover `len` tokens.
fn windows(len: u64, seq_len: u64, stride: u64) -> u64 {
    1 + len.saturating_sub(seq_len).div_ceil(stride)
}

/// Window number `index` of `tokens`.
fn window(tokens: Range<u64>, seq_len: u64, stride: u64, index: u64) -> Row {
    let start = tokens.start + index * stride;
    let len = seq_len.min(tokens.end - start) as u32;
    let context = if index == 0 { 0 } else { (seq_len - stride) as u32 };
    Row { start, len, context, document: 0 }
}

/// The rows of the documents of `corpus`, separators included.
fn find_documents(corpus: &Corpus, seq_len: u64, stride: u64) -> Result<Vec<Row>> {
    let (separator, end) = (corpus.tokenizer().separator(), corpus.len());
    let mut rows = Vec::new();
    let (mut start, mut document) = (0, 0_u32);
    for chunk in (0..end).step_by(SCAN_TOKENS as usize) {
        let tokens = corpus.tokens(chunk..(chunk + SCAN_TOKENS).min(end))?;
        for (behind, id) in (chunk + 1..).zip(tokens) {
            if id == separator || behind == end {
                let count = windows(behind - start, seq_len, stride);
                let row = |i| Row { document, ..window(start..behind, seq_len, stride, i) };
                rows.extend((0..count).map(row));
                (start, document) = (behind, document.saturating_add(1));
            }
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::pipeline::Sink;
    use super::super::tokenizer::{Bytes, SharedTokenizer};
    use super::super::writer::CorpusWriter;
    use super::*;
    use crate::Split;

    fn bytes() -> SharedTokenizer {
        Arc::new(Bytes)
    }

    /// A corpus of documents of these lengths, whose tokens count up, in shards of 5 tokens.
    fn corpus(lengths: &[usize]) -> (tempfile::TempDir, Corpus) {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let mut writer = CorpusWriter::create(dir.path(), &bytes(), 5).expect("new");
        let mut next = 0;
        for &length in lengths {
            let ids: Vec<u32> = (next..next + length as u32).map(|id| id % 256).collect();
            next += length as u32;
            writer.push(Split::Train, &ids, length as u64).expect("written");
            writer.end_document(Split::Train).expect("written");
        }
        writer.finish(vec![], 0, None).expect("finished");
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
                        one.targets.iter().filter(|&&id| id != IGNORED).map(|&id| id as u32),
                    );
                    assert_eq!(scored.len() - before, one.scored);
                }
                assert_eq!(scored, all);
            }
        }
    }

    #[test]
    fn overlapping_rows_score_each_token_once_after_their_context() {
        let (_dir, corpus) = corpus(&[17, 1, 30, 8]);
        let all = corpus.tokens(0..corpus.len()).expect("good ids");
        for rows in [Rows::Windows, Rows::Documents] {
            for (batch, seq_len, stride) in
                [(1, 1, 1), (2, 7, 3), (3, 10, 10), (3, 16, 1), (2, 99, 40)]
            {
                let plain = batches(&corpus, batch, seq_len, rows, Order::Sequential);
                let found = plain.overlapping(stride).expect("a good stride");
                let mut scored = Vec::new();
                for i in 0..found.per_epoch() {
                    let one = found.batch(i).expect("good ids");
                    let before = scored.len();
                    for (row, context) in one.targets.chunks(seq_len).zip(&one.context) {
                        // The context is what was scored last, so that only it can overlap.
                        let known = row[..*context].iter().map(|id| *id as u32);
                        assert!(scored[scored.len() - context..].iter().copied().eq(known));
                        let row = row[*context..].iter().filter(|id| **id != IGNORED);
                        scored.extend(row.map(|id| *id as u32));
                    }
                    assert_eq!(scored.len() - before, one.scored);
                    if stride == seq_len {
                        assert_eq!(one, plain.batch(i).expect("good ids"));
                    }
                }
                assert_eq!(scored, all);
            }
        }
        let plain = batches(&corpus, 1, 8, Rows::Documents, Order::Sequential);
        let found = plain.overlapping(3).expect("a good stride");
        // 18 tokens with the separator, then 2.
        let starts = (0..5).map(|i| found.row(i).map(|(_, row)| (row.start, row.len, row.context)));
        let expected = [(0, 8, 0), (3, 8, 5), (6, 8, 5), (9, 8, 5), (12, 6, 5)];
        assert!(starts.eq(expected.map(Some)));
        assert_eq!(found.row(5), Some((5, Row { start: 18, len: 2, context: 0, document: 1 })));
        for stride in [0, 9] {
            let error = plain.overlapping(stride).expect_err("refused").to_string();
            assert!(error.contains("1..=8"), "{error}");
        }
        let shuffled = batches(&corpus, 1, 8, Rows::Windows, Order::Shuffled { seed: 0 });
        assert!(shuffled.overlapping(3).is_err() && shuffled.sample(1).is_err());
    }

    #[test]
    fn a_sample_is_spread_over_the_corpus_and_a_part_of_a_larger_one() {
        let (_dir, corpus) = corpus(&[300; 20]);
        for rows in [Rows::Windows, Rows::Documents] {
            let all = batches(&corpus, 3, 8, rows, Order::Sequential);
            let numbers = |batches: &Batches| -> Vec<u64> {
                let batch = |i| batches.batch(i).expect("good ids");
                let real = |batch: Batch| batch.numbers[..batch.rows].to_vec();
                (0..batches.per_epoch()).flat_map(|i| real(batch(i))).collect()
            };
            let [few, more] = [10, 200].map(|n| all.sample(n).expect("in sequence"));
            let (chosen, larger) = (numbers(&few), numbers(&more));
            assert_eq!((chosen.len(), larger.len(), few.per_epoch()), (10, 200, 4));
            assert!(chosen.is_sorted() && chosen.iter().all(|number| larger.contains(number)));
            // The first rows are the first document's; those of the sample come from most of the 20.
            let document = |number: &u64| number * 20 / all.rows();
            let of: std::collections::BTreeSet<u64> = larger.iter().map(document).collect();
            assert!(of.len() > 15, "{of:?}");
            // A row is what it is in the whole.
            let (one, number) = (few.batch(1).expect("good ids"), chosen[4]);
            let whole = all.batch(number / 3).expect("good ids");
            let slot = (number % 3) as usize;
            assert_eq!(one.targets[8..16], whole.targets[slot * 8..(slot + 1) * 8]);
            assert_eq!(one.documents[1], whole.documents[slot]);
            assert_eq!(one.documents[1].is_some(), rows == Rows::Documents);
            for n in [0, all.rows(), u64::MAX] {
                let same = all.sample(n).expect("in sequence");
                assert_eq!(same.rows(), all.rows());
                assert_eq!(same.batch(2).expect("good ids"), all.batch(2).expect("good ids"));
            }
            // Rows that overlap are sampled in the same share.
            let overlapping = few.overlapping(4).expect("a good stride");
            let every = all.overlapping(4).expect("a good stride").rows();
            assert_eq!(overlapping.rows(), (10 * every).div_ceil(all.rows()));
        }
    }

    #[test]
    fn an_epoch_visits_each_row_once_in_an_order_of_its_own() {
        let (_dir, corpus) = corpus(&[100, 103]);
        let found = batches(&corpus, 1, 4, Rows::Windows, Order::Shuffled { seed: 5 });
        let n = found.rows();
        assert_eq!(n, 50);
        let epoch = |e: u64| -> Vec<_> {
            (e * n..(e + 1) * n).map(|i| found.row(i).expect("endless").1).collect()
        };
        let mut offsets = std::collections::BTreeSet::new();
        for e in 0..20 {
            let mut starts: Vec<u64> = epoch(e).iter().map(|row| row.start).collect();
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
