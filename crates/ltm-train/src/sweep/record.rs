//! `results.jsonl`: a line a finished point, and whether a line is still true of the sweep's file. Runs
//! nothing.

use std::path::Path;

use serde_json::{Value, json};

use super::{Point, Sweep};
use crate::config::Config;
use crate::files::write_whole;
use crate::{Error, Result};

/// The file of a sweep with its results, a JSON object a point.
pub const RESULTS_FILE: &str = "results.jsonl";

/// The lines of a sweep's results; none where there is no file. A last line that was cut off is left out.
///
/// # Errors
/// [`Error::Io`], and [`Error::Data`] for another line that is no object with a `name`.
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
                return Err(Error::data(&path, format!("line {number}"), expected, found));
            }
        }
    }
    Ok(results)
}

/// Replaces the lines of a sweep's results.
pub(super) fn write_results(dir: &Path, results: &[Value]) -> Result<()> {
    let lines: String = results.iter().map(|line| format!("{line}\n")).collect();
    write_whole(&dir.join(RESULTS_FILE), lines.as_bytes())
}

/// What a line says about how its point was run.
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
    if let Some(difference) = difference(&line["config"], &now["config"]) {
        return Err(changed(&path, point, difference, ""));
    }
    for key in ["protocols", "eval_sequences"] {
        if line[key] != now[key] {
            let difference = (key.to_string(), line[key].to_string(), now[key].to_string());
            return Err(changed(&path, point, difference, " (--rescore scores all points anew)"));
        }
    }
    Ok(())
}

/// Refuses a run's folder of a point that the sweep's file now describes otherwise.
pub(super) fn check_folder(point: &Point) -> Result<()> {
    let path = point.placed.run.dir.join(crate::checkpoint::CONFIG_FILE);
    if !path.exists() {
        return Ok(());
    }
    let before = comparable(&Config::load_resolved(&path, &[])?);
    match difference(&before, &comparable(&point.placed)) {
        Some(difference) => Err(changed(&path, point, difference, "")),
        None => Ok(()),
    }
}

fn changed(
    path: &Path,
    point: &Point,
    (key, before, now): (String, String, String),
    more: &str,
) -> Error {
    let what = format!("point `{}`, {key}", point.name);
    let expected = format!(
        "{now}, as the sweep's file says; give the changed sweep another `dir`, or put the file back\
         {more}"
    );
    Error::data(path, what, expected, before)
}

/// A configuration without what may change between two runs of a sweep: where it lies and on which device.
fn comparable(config: &Config) -> Value {
    let mut value = serde_json::to_value(config).expect("a configuration is made of plain values");
    if let Some(run) = value["run"].as_object_mut() {
        run.remove("dir");
        run.remove("device");
    }
    value
}

/// The first `section.key` under which two configurations differ, with both values. A key that only one of
/// them has counts as `null`: a later version may know more keys, and leave out their defaults.
fn difference(before: &Value, now: &Value) -> Option<(String, String, String)> {
    let none = serde_json::Map::new();
    let object = |value: &Value| value.as_object().cloned().unwrap_or_else(|| none.clone());
    for section in ["run", "data", "model", "infer", "train"] {
        let (before, now) = (object(&before[section]), object(&now[section]));
        for key in before.keys().chain(now.keys()) {
            let [old, new] = [&before, &now].map(|map| map.get(key).unwrap_or(&Value::Null));
            if old != new {
                return Some((format!("{section}.{key}"), old.to_string(), new.to_string()));
            }
        }
    }
    None
}
