//! The sequences of an evaluation: rows, and documents of several rows. Scores nothing.

use ltm_vi::{Protocol, Scores};

use crate::data::{Batch, Tokenizer};

/// One scored sequence: a document where rows are documents, otherwise a row of the batches, which is a window across
/// documents. Of a document that is longer than a row, it holds the sums over its rows that were scored, because these are
/// not independent.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The distance between windows, for a protocol whose windows overlap.
    pub stride: Option<usize>,
    /// The number of its document in the corpus; `None` for a window across documents.
    pub document: Option<u64>,
    /// The number of its first row among all of the corpus that have the same stride.
    pub index: u64,
    /// Its rows that were scored.
    pub rows: usize,
    /// Scored tokens.
    pub tokens: usize,
    /// Bytes of the text of these tokens; separators have none.
    pub bytes: usize,
    /// A checksum of these tokens: equal for the same text in the same vocabulary, in the same rows.
    pub digest: u32,
    /// KL of the latents fitted to it, in nats; `None` without a fit or without a density.
    pub kl: Option<f64>,
    /// Its score by each protocol.
    pub scores: Vec<SequenceScore>,
}

/// The score of one sequence by one protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceScore {
    /// The protocol of the number.
    pub protocol: Protocol,
    /// All nats of the sequence.
    pub nats: f64,
    /// Their standard error from sampling: 0 where nothing is sampled, NaN for one sample.
    pub sampling_error: f64,
}

impl Sequence {
    /// Row `row`, of `t` positions, of a batch; without scores.
    pub(super) fn of_row(
        batch: &Batch,
        row: usize,
        t: usize,
        stride: Option<usize>,
        tokenizer: &dyn Tokenizer,
    ) -> Self {
        let (mut tokens, mut bytes, mut digest) = (0, 0, 0);
        for at in row * t + batch.context[row]..(row + 1) * t {
            // Ignored targets are negative.
            if let (Ok(before), Ok(token)) =
                (u32::try_from(batch.tokens[at]), u32::try_from(batch.targets[at]))
            {
                tokens += 1;
                // As two bytes where they are enough: the checksums of earlier versions.
                let bytes_of_id = token.to_le_bytes();
                let used = if token <= u32::from(u16::MAX) { 2 } else { 4 };
                digest = crc32c::crc32c_append(digest, &bytes_of_id[..used]);
                bytes += tokenizer.text_bytes(before, token);
            }
        }
        let (document, index) = (batch.documents[row], batch.numbers[row]);
        let (rows, kl, scores) = (1, None, Vec::new());
        Self { stride, document, index, rows, tokens, bytes, digest, kl, scores }
    }

    /// Adds a later row of the same document.
    fn append(&mut self, row: Sequence) {
        self.rows += row.rows;
        self.tokens += row.tokens;
        self.bytes += row.bytes;
        self.digest = crc32c::crc32c_append(self.digest, &row.digest.to_le_bytes());
        self.kl = self.kl.zip(row.kl).map(|(own, more)| own + more);
        for (own, more) in self.scores.iter_mut().zip(row.scores) {
            own.nats += more.nats;
            own.sampling_error = own.sampling_error.hypot(more.sampling_error);
        }
    }
}

/// Adds a row to the sequences: to its document, if the row before was of it, otherwise as a sequence of its own. Rows
/// without scored tokens, which only fill a batch, are ignored.
pub(super) fn add(sequences: &mut Vec<Sequence>, row: Sequence) {
    let same = |last: &&mut Sequence| {
        row.document.is_some() && (last.stride, last.document) == (row.stride, row.document)
    };
    match sequences.last_mut().filter(same) {
        _ if row.tokens == 0 => {}
        Some(last) => last.append(row),
        None => sequences.push(row),
    }
}

/// The scores of all sequences by one protocol.
pub(super) fn scores(sequences: &[Sequence], protocol: Protocol) -> Scores {
    let mut all = Scores::new(protocol);
    for sequence in sequences.iter().filter(|one| one.stride == protocol.overlap()) {
        let found = sequence.scores.iter().filter(|score| score.protocol == protocol);
        for SequenceScore { nats, sampling_error, .. } in found {
            all.tokens.push(sequence.tokens);
            all.nats.push(*nats);
            all.variance.push(sampling_error.powi(2));
        }
    }
    all
}
