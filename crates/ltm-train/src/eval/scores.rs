//! The scores of each sequence of a run's last evaluation, kept so that runs can be compared row by row.

use std::path::Path;

use ltm_files::write_whole;
use serde_json::{Map, Value, json};

use super::Evaluation;
use crate::{Error, Result};

/// The file of a run with the scores of its last evaluation: one JSON object per sequence, with the slow step.
pub const SCORES_FILE: &str = "scores.jsonl";

/// Writes the scores of an evaluation after slow step `step`.
pub(crate) fn write(run_dir: &Path, step: u64, evaluation: &Evaluation) -> Result<()> {
    let mut text = String::new();
    for sequence in &evaluation.sequences {
        let mut line = sequence.to_json();
        line["step"] = step.into();
        text += &format!("{line}\n");
    }
    Ok(write_whole(&run_dir.join(SCORES_FILE), text.as_bytes())?)
}

/// Adds the scores of a run to its line, if there are any of the line's step: a run of an earlier version has none,
/// and one that is still training has those of an earlier step.
///
/// # Errors
/// [`Error::File`] when they cannot be read, or a line is not JSON.
pub fn read(run_dir: &Path, line: &mut Value) -> Result<()> {
    let path = run_dir.join(SCORES_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(Error::io(&path, "read"))?,
    };
    let mut sequences: Vec<Value> = Vec::new();
    for (number, text) in (1..).zip(text.lines()) {
        let sequence = serde_json::from_str(text).map_err(|error| {
            Error::content(&path, format!("line {number}"), "a JSON object", error.to_string())
        })?;
        sequences.push(sequence);
    }
    if sequences.iter().all(|sequence| sequence["step"] == line["steps"]) {
        put(line, &sequences);
    }
    Ok(())
}

/// Puts scores into a line as a sweep's results have them: tokens, digests and nats by protocol. Those of rows that
/// overlap belong to other rows and are omitted.
pub fn put(line: &mut Value, sequences: &[Value]) {
    let rows: Vec<&Value> = sequences.iter().filter(|one| one["stride"].is_null()).collect();
    let column = |key: &str| rows.iter().map(|row| row[key].clone()).collect::<Vec<_>>();
    line["sequence_tokens"] = column("tokens").into();
    line["sequence_digests"] = column("digest").into();
    let mut nats = Map::new();
    for (protocol, _) in
        rows.first().and_then(|row| row["scores"].as_object()).into_iter().flatten()
    {
        let of = |row: &&Value| row["scores"][protocol]["nats"].clone();
        nats.insert(protocol.clone(), rows.iter().map(of).collect::<Vec<_>>().into());
    }
    line["nats"] = json!(nats);
}
