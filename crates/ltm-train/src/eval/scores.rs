//! The scores of each sequence as lines of a file, kept so that runs can be compared row by row. Scores nothing.

use std::collections::BTreeMap;
use std::path::Path;

use ltm_files::write_whole;
use serde::{Deserialize, Serialize};

use super::{Evaluation, Sequence};
use crate::json::{nan, null_as_nan};
use crate::{Error, Result};

/// The file of a run with the scores of its last evaluation, one [`SequenceLine`] per sequence.
pub const SCORES_FILE: &str = "scores.jsonl";

/// One line: a scored [`Sequence`], a document or a row. What an earlier version did not write is as of a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceLine {
    /// Bytes of the text of the scored tokens.
    pub bytes: u64,
    /// A checksum of the scored tokens.
    pub digest: u32,
    /// The number of its document; `None` for a window across documents.
    #[serde(default)]
    pub document: Option<u64>,
    /// The number of its first row among those of the same stride.
    pub index: u64,
    /// KL of the latents fitted to it, in nats; `None` without a fit, without a density, and where it is not finite.
    pub kl: Option<f64>,
    /// Its rows that were scored.
    #[serde(default = "one")]
    pub rows: u64,
    /// By protocol, as it is written: `elbo:8`.
    pub scores: BTreeMap<String, SequenceNats>,
    /// Slow steps taken before the evaluation, in the file of a run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u64>,
    /// The distance between windows that overlap.
    pub stride: Option<u64>,
    /// Scored tokens.
    pub tokens: u64,
}

/// The score of a sequence by one protocol. Numbers that are not finite are `null` in a file and NaN when they are read.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceNats {
    /// All nats of the sequence.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub nats: f64,
    /// Their standard error from sampling.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub sampling_error: f64,
}

fn one() -> u64 {
    1
}

impl From<&Sequence> for SequenceLine {
    fn from(sequence: &Sequence) -> Self {
        let scores = sequence.scores.iter().map(|score| {
            let numbers = SequenceNats { nats: score.nats, sampling_error: score.sampling_error };
            (score.protocol.to_string(), numbers)
        });
        Self {
            bytes: sequence.bytes as u64,
            digest: sequence.digest,
            document: sequence.document,
            index: sequence.index,
            kl: sequence.kl,
            rows: sequence.rows as u64,
            scores: scores.collect(),
            step: None,
            stride: sequence.stride.map(|stride| stride as u64),
            tokens: sequence.tokens as u64,
        }
    }
}

/// Writes the lines of an evaluation to `path`, of a run's after `step` slow steps.
///
/// # Errors
/// [`Error::File`] when they cannot be written.
pub fn write(path: &Path, step: Option<u64>, evaluation: &Evaluation) -> Result<()> {
    let mut text = String::new();
    for sequence in &evaluation.sequences {
        let line = SequenceLine { step, ..sequence.into() };
        text += &serde_json::to_string(&line).expect("a line is made of plain values");
        text.push('\n');
    }
    Ok(write_whole(path, text.as_bytes())?)
}

/// The lines of a run's [`SCORES_FILE`]; none where it has none, as a run of an earlier version.
///
/// # Errors
/// [`Error::File`] when it cannot be read, and naming the first line that is none.
pub fn read(run_dir: &Path) -> Result<Vec<SequenceLine>> {
    let path = run_dir.join(SCORES_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(Error::io(&path, "read"))?,
    };
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| {
            let expected = "the scores of a sequence";
            Error::content(&path, format!("line {number}"), expected, error.to_string())
        })
    };
    (1..).zip(text.lines()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_as_they_are_written_and_what_is_none_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(SCORES_FILE);
        assert_eq!(read(dir.path()).expect("no file"), []);
        let line = "{\"bytes\":12,\"digest\":7,\"document\":2,\"index\":3,\"kl\":null,\"rows\":2,\"scores\":{\"elbo:1\":\
                    {\"nats\":5.5,\"sampling_error\":null}},\"step\":9,\"stride\":null,\"tokens\":4}\n";
        std::fs::write(&path, line).expect("writable");
        let found = read(dir.path()).expect("a line");
        assert_eq!((found[0].index, found[0].step, found[0].kl), (3, Some(9), None));
        assert!(found[0].scores["elbo:1"].sampling_error.is_nan());
        assert_eq!(serde_json::to_string(&found[0]).expect("JSON") + "\n", line);
        let earlier = line.replace("\"document\":2,", "").replace("\"rows\":2,", "");
        std::fs::write(&path, earlier).expect("writable");
        let found = read(dir.path()).expect("a line of a row");
        assert_eq!((found[0].document, found[0].rows), (None, 1));
        std::fs::write(&path, format!("{line}{{\"index\": 1}}\n")).expect("writable");
        let error = read(dir.path()).expect_err("no line").to_string();
        for part in ["scores.jsonl", "line 2", "scores of a sequence", "missing field"] {
            assert!(error.contains(part), "`{part}` is not in {error}");
        }
    }
}
