//! The lines of `results.jsonl` as types, and their reader. Runs nothing.

use std::collections::BTreeMap;
use std::path::Path;

use ltm_files::write_whole;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::measured::Measured;
use crate::{Error, Result};

/// The file of a sweep with its results, one JSON object per point.
pub const RESULTS_FILE: &str = "results.jsonl";

/// A configuration by section and key. Its values are as they are written: another version may know other keys.
pub type Settings = BTreeMap<String, BTreeMap<String, Value>>;

/// What a point was run with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PointSettings {
    /// The point's name.
    pub name: String,
    /// What the grid sets, by `section.key`.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The whole configuration, without folders and device.
    #[serde(default)]
    pub config: Settings,
    /// The protocols that it was to be scored by.
    #[serde(default)]
    pub protocols: Vec<String>,
    /// Validation sequences that were to be scored; 0 for all.
    #[serde(default)]
    pub eval_sequences: u64,
}

/// One line: what a point was run with, and what came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PointResult {
    /// What it was run with.
    pub point: PointSettings,
    /// Its numbers, or why it failed.
    pub outcome: std::result::Result<Measured, String>,
    /// The line, which may have keys of another version.
    json: String,
}

impl PointResult {
    pub(super) fn new(
        point: PointSettings,
        outcome: std::result::Result<Measured, String>,
    ) -> Self {
        let mut line = object(&point);
        match &outcome {
            Ok(measured) => line.extend(object(measured)),
            Err(error) => line.extend([("error".into(), Value::from(error.as_str()))]),
        }
        Self { point, outcome, json: Value::Object(line).to_string() }
    }

    /// Reads one line. Keys that it does not know are kept in [`json`](Self::json) only.
    pub(crate) fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Failed {
            error: Option<String>,
        }
        let point = serde_json::from_str(text)?;
        let outcome = match serde_json::from_str(text)? {
            Failed { error: Some(error) } => Err(error),
            Failed { error: None } => Ok(serde_json::from_str(text)?),
        };
        Ok(Self { point, outcome, json: text.trim_end().into() })
    }

    /// The line as a JSON object, keys in alphabetical order.
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// The keys and values of a structure.
fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        other => unreachable!("a line is made of plain values: {other:?}"),
    }
}

/// The lines of a sweep's results; none where there is no file. A last line that was cut off is ignored.
///
/// # Errors
/// [`Error::File`] when the file cannot be read, and naming the first other line that is no result.
pub fn read_results(dir: &Path) -> Result<Vec<PointResult>> {
    let path = dir.join(RESULTS_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(Error::io(&path, "read"))?,
    };
    let mut results = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        match PointResult::parse(line) {
            Ok(result) => results.push(result),
            Err(_) if !line.ends_with('\n') => break,
            Err(error) => {
                let expected = "the result of a point, with its `name`";
                let found = error.to_string();
                return Err(Error::content(&path, format!("line {number}"), expected, found));
            }
        }
    }
    Ok(results)
}

/// Replaces the lines of a sweep's results.
pub(super) fn write_results<'a>(
    dir: &Path,
    results: impl IntoIterator<Item = &'a PointResult>,
) -> Result<()> {
    let lines: String = results.into_iter().map(|result| format!("{}\n", result.json)).collect();
    Ok(write_whole(&dir.join(RESULTS_FILE), lines.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two points of a sweep of an earlier version, one of which failed.
    const EARLIER: &str = concat!(
        r#"{"config":{"infer":{"steps":4},"model":{"n_latents":6}},"eval_sequences":2,"evaluation":{"elbo:8":"#,
        r#"{"nats_per_token":2.5,"perplexity":12.18,"standard_error":null,"tokens":7}},"latents":{"units":384},"#,
        r#""name":"a","nats":{"elbo:8":[10.0,null]},"parameters":84544,"protocols":["elbo:8"],"#,
        r#""samples":{"none":"no text"},"sequence_tokens":[4,3],"settings":{"infer.steps":4},"steps":10}"#,
        "\n",
        r#"{"error":"diverged","name":"b"}"#,
        "\n",
    );

    #[test]
    fn what_an_earlier_version_wrote_is_read_and_kept() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(RESULTS_FILE);
        std::fs::write(&path, format!("{EARLIER}{{\"name\":\"c")).expect("writable");
        let results = read_results(dir.path()).expect("two lines, and one that was cut off");
        let [a, b] = &results[..] else { panic!("{results:?}") };
        let measured = a.outcome.as_ref().expect("numbers");
        assert_eq!((a.point.name.as_str(), measured.parameters), ("a", 84544));
        assert_eq!(a.point.config["infer"]["steps"], 4);
        assert!(measured.evaluation["elbo:8"].standard_error.is_nan());
        assert!(measured.nats["elbo:8"][1].is_nan() && measured.seconds.is_none());
        let latents = measured.latents.as_ref().expect("some numbers");
        assert!(latents.kl_per_layer_nats_per_sequence.is_empty());
        assert_eq!(b.outcome, Err("diverged".into()));
        write_results(dir.path(), &results).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), EARLIER);
    }

    #[test]
    fn a_line_that_is_no_result_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        for (line, found) in [
            ("[]", "invalid"),
            ("{\"nam\":\"c\"}", "missing field `name`"),
            ("{\"name\":\"c\",\"steps\":\"many\"}", "many"),
        ] {
            let path = dir.path().join(RESULTS_FILE);
            std::fs::write(path, format!("{EARLIER}{line}\n")).expect("writable");
            let error = read_results(dir.path()).expect_err(line).to_string();
            for part in ["results.jsonl", "line 3", "`name`", found] {
                assert!(error.contains(part), "`{part}` is not in {error}");
            }
        }
    }
}
