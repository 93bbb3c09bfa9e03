//! `results.jsonl`: one line per finished point, and whether a line still agrees with the sweep's file. Runs nothing.

use std::path::Path;

use ltm_files::write_whole;
use ltm_train::config::Config;
use ltm_train::data::Difference;
use serde_json::{Value, json};

use super::{Point, Sweep, generated};
use crate::{Error, Result};

/// The file of a sweep with its results, one JSON object per point.
pub const RESULTS_FILE: &str = "results.jsonl";

/// The lines of a sweep's results; none where there is no file. A last line that was cut off is ignored.
///
/// # Errors
/// [`Error::File`] when the file cannot be read and for another line that is not an object with a `name`.
pub fn read_results(dir: &Path) -> Result<Vec<Value>> {
    let path = dir.join(RESULTS_FILE);
    let text = match std::fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(Error::io(&path, "read"))?,
    };
    let mut results = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let found: std::result::Result<Value, _> = serde_json::from_str(line);
        match found {
            Ok(value) if value["name"].is_string() => results.push(value),
            _ if !line.ends_with('\n') => break,
            found => {
                let found = found.map_or_else(|e| e.to_string(), |_| "another value".into());
                let expected = "an object with a `name`";
                return Err(Error::content(&path, format!("line {number}"), expected, found));
            }
        }
    }
    Ok(results)
}

/// Replaces the lines of a sweep's results.
pub(super) fn write_results(dir: &Path, results: &[Value]) -> Result<()> {
    let lines: String = results.iter().map(|line| format!("{line}\n")).collect();
    Ok(write_whole(&dir.join(RESULTS_FILE), lines.as_bytes())?)
}

/// What a line records about how its point was run.
pub(super) fn identity(sweep: &Sweep, point: &Point) -> Value {
    let protocols: Vec<String> = sweep.protocols.iter().map(ToString::to_string).collect();
    json!({
        "name": point.name,
        "settings": point.settings,
        "config": comparable(&point.config),
        "protocols": protocols,
        "eval_sequences": sweep.eval_sequences,
    })
}

/// Refuses a line of a point that the sweep's file now describes otherwise.
pub(super) fn check_line(sweep: &Sweep, point: &Point, line: &Value) -> Result<()> {
    let path = sweep.dir.join(RESULTS_FILE);
    let now = identity(sweep, point);
    check(&path, point, differences(&line["config"], &now["config"]), false)?;
    let scoring = ["protocols", "eval_sequences"].map(|key| difference(key, &line[key], &now[key]));
    check(&path, point, scoring.into_iter().flatten().collect(), true)
}

/// Refuses a run's folder of a point that the sweep's file now describes otherwise.
pub(super) fn check_folder(point: &Point) -> Result<()> {
    let path = point.placed.run.dir.join(ltm_train::checkpoint::CONFIG_FILE);
    if !path.exists() {
        return Ok(());
    }
    let before = comparable(&Config::load_resolved(&path, &[])?);
    let mut differences = differences(&before, &comparable(&point.placed));
    if generated(&point.config) {
        // The corpus is in the sweep's folder, which may have been moved; the run compares what it contains.
        differences.retain(|difference| difference.key != "data.path");
    }
    check(&path, point, differences, false)
}

fn check(
    path: &Path,
    point: &Point,
    differences: Vec<Difference>,
    only_scores: bool,
) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    let (path, point) = (path.into(), point.name.clone());
    Err(Error::SweepChanged { path, point, differences, only_scores })
}

/// A configuration without what may change between two runs of a sweep: its folders and its device.
fn comparable(config: &Config) -> Value {
    let mut value = serde_json::to_value(config).expect("a configuration is made of plain values");
    if let Some(run) = value["run"].as_object_mut() {
        run.remove("dir");
        run.remove("device");
    }
    value
}

/// Every `section.key` under which two configurations differ. A key that only one of them has counts as `null`: a later
/// version may know more keys, and omit their defaults.
fn differences(before: &Value, now: &Value) -> Vec<Difference> {
    let mut found = Vec::new();
    for section in ["run", "data", "model", "infer", "train"] {
        let (before, now) = (&before[section], &now[section]);
        let objects = [before, now].into_iter().filter_map(Value::as_object);
        let mut keys: Vec<&String> = objects.flat_map(|object| object.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            found.extend(difference(&format!("{section}.{key}"), &before[key], &now[key]));
        }
    }
    found
}

fn difference(key: &str, old: &Value, new: &Value) -> Option<Difference> {
    let (key, old, new) = (key.to_string(), old.to_string(), new.to_string());
    (old != new).then_some(Difference { key, old, new })
}
