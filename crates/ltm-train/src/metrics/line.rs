//! The lines of `metrics.jsonl` as types, and their reader. Fields are in the order in which files have them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use crate::json::{nan, null_as_nan};
use crate::step::StepReport;
use crate::{Error, Result};

/// The file of a run with its numbers, one [`Line`] per step and one per evaluation.
pub const METRICS_FILE: &str = "metrics.jsonl";

/// One line: the numbers of a slow step, or those of an evaluation.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Line {
    /// Of a step.
    Step(StepLine),
    /// Of an evaluation.
    Evaluation(EvaluationLine),
}

/// The numbers of a slow step, as of [`StepReport`]; nats are per scored token.
///
/// A number that is not finite is `null` in the file, and NaN when it is read, as is one that an earlier version did not
/// write.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLine {
    /// Loss plus KL: the ELBO at the fitted noise.
    pub bound_fitted_noise: Option<f64>,
    /// Learning rate of the first fast step.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub fast_lr: f64,
    /// Global norm of the gradient, before clipping.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub grad_norm: f64,
    /// KL of the fitted posterior from the prior; `None` where the latents have no density.
    pub kl: Option<f64>,
    /// Cross-entropy at the fitted sample.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub loss: f64,
    /// Learning rate of the weights.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub lr: f64,
    /// Steps taken, including this one.
    pub step: u64,
    /// Tokens scored; 0 in a line of a version that did not count them.
    #[serde(default)]
    pub tokens: u64,
}

/// The scores of the validation split after a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvaluationLine {
    /// By protocol, as it is written: `elbo:8`.
    pub eval: BTreeMap<String, ProtocolScore>,
    /// Steps taken before the evaluation.
    pub step: u64,
}

/// The score of a text by one protocol; see [`Estimate`](ltm_vi::Estimate). Numbers that are not finite are `null` in a
/// file and NaN when they are read, as in [`StepLine`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProtocolScore {
    /// The nats in bits, over the bytes of the text; `None` when only separators were scored.
    pub bits_per_byte: Option<f64>,
    /// Bytes of the text that was scored.
    #[serde(default)]
    pub bytes: u64,
    /// Mean of the sequences' own perplexities.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub mean_sequence_perplexity: f64,
    /// All nats over all tokens.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub nats_per_token: f64,
    /// Corpus perplexity.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub perplexity: f64,
    /// The part of the standard error that more samples would remove.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub sampling_error: f64,
    /// Scored sequences.
    #[serde(default)]
    pub sequences: u64,
    /// Standard error of the nats per token.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub standard_error: f64,
    /// Scored tokens.
    #[serde(default)]
    pub tokens: u64,
}

impl From<&StepReport> for StepLine {
    fn from(report: &StepReport) -> Self {
        let &StepReport { step, loss, kl, grad_norm, lr, fast_lr, tokens } = report;
        let (bound_fitted_noise, tokens) = (report.bound(), tokens as u64);
        Self { bound_fitted_noise, fast_lr, grad_norm, kl, loss, lr, step, tokens }
    }
}

impl Line {
    /// Reads one line. Keys that it does not know are ignored.
    pub(super) fn parse(text: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            eval: Option<IgnoredAny>,
        }
        let Kind { eval } = serde_json::from_slice(text)?;
        match eval {
            None => serde_json::from_slice(text).map(Self::Step),
            Some(_) => serde_json::from_slice(text).map(Self::Evaluation),
        }
    }

    /// Steps taken when the line was written.
    pub fn step(&self) -> u64 {
        match self {
            Self::Step(line) => line.step,
            Self::Evaluation(line) => line.step,
        }
    }
}

/// For `map_err`: line `number` of a file is none.
pub(super) fn no_line(path: &Path, number: u64) -> impl FnOnce(serde_json::Error) -> Error + '_ {
    move |error| {
        let expected = "the numbers of a step or of an evaluation, with a number under `step`";
        Error::content(path, format!("line {number}"), expected, error.to_string())
    }
}

/// Reads the lines of a run's [`METRICS_FILE`] at `path`. A last line without a line break is still being written, and
/// ignored.
///
/// # Errors
/// [`Error::File`] when the file cannot be read, and naming the first line that is none.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read(path).map_err(Error::io(path, "read"))?;
    let lines = text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    (1..).zip(lines).map(|(n, line)| Line::parse(line).map_err(no_line(path, n))).collect()
}

/// Tokens that a run was trained on: the sum of its steps' own counts, from its [`METRICS_FILE`] at `path`.
///
/// # Errors
/// Those of [`read`].
pub fn tokens_seen(path: &Path) -> Result<u64> {
    let tokens = |line: &Line| match line {
        Line::Step(line) => line.tokens,
        Line::Evaluation(_) => 0,
    };
    Ok(read(path)?.iter().map(tokens).fold(0, u64::saturating_add))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: &str = "{\"bound_fitted_noise\":null,\"fast_lr\":0.3,\"grad_norm\":0.5,\"kl\":null,\
                        \"loss\":5.25,\"lr\":0.001,\"step\":1,\"tokens\":313}\n";
    const EVALUATION: &str = "{\"eval\":{\"elbo:2\":{\"bits_per_byte\":1.75,\"bytes\":142,\
                              \"mean_sequence_perplexity\":2.5,\"nats_per_token\":5.5,\
                              \"perplexity\":245.0,\"sampling_error\":null,\"sequences\":1,\
                              \"standard_error\":null,\"tokens\":32}},\"step\":2}\n";

    fn read_text(text: &str) -> Result<Vec<Line>> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(METRICS_FILE);
        std::fs::write(&path, text).expect("written");
        read(&path)
    }

    #[test]
    fn lines_read_back_as_they_are_written() {
        let lines = read_text(&format!("{STEP}{EVALUATION}{{\"step\":3")).expect("two lines");
        let again: String =
            lines.iter().map(|l| serde_json::to_string(l).expect("JSON") + "\n").collect();
        assert_eq!(again, format!("{STEP}{EVALUATION}"));
        let [Line::Step(step), Line::Evaluation(evaluation)] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!((step.step, step.kl, step.loss, step.tokens), (1, None, 5.25, 313));
        let score = &evaluation.eval["elbo:2"];
        assert_eq!((evaluation.step, score.nats_per_token, score.tokens), (2, 5.5, 32));
        assert!(score.standard_error.is_nan());
    }

    #[test]
    fn what_earlier_versions_did_not_write_is_missing_and_what_is_no_line_is_named() {
        let lines = read_text("{\"step\":1,\"loss\":2.0,\"more\":[]}\n").expect("an early line");
        let [Line::Step(line)] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.loss == 2.0 && line.lr.is_nan() && line.kl.is_none() && line.tokens == 0);
        for (text, found) in [
            ("{\"loss\":2.0}\n", "missing field `step`"),
            ("{\"step\":1,\"loss\":\"low\"}\n", "string \"low\""),
            ("{\"step\":1,\"eval\":3}\n", "integer `3`"),
            ("\n", "EOF"),
        ] {
            let error = read_text(&format!("{STEP}{text}")).expect_err(text).to_string();
            for part in ["metrics.jsonl", "line 2", "`step`", found] {
                assert!(error.contains(part), "`{part}` is not in {error}");
            }
        }
        assert_eq!(read_text("").expect("nothing yet"), []);
    }
}
