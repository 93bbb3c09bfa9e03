//! What a line of a sweep's results records about how its point was run, and whether that still agrees with the sweep's
//! file. Runs nothing.

use std::collections::BTreeSet;
use std::path::Path;

use ltm_train::config::Config;
use ltm_train::data::Difference;
use serde_json::{Map, Value, json};

use super::results::{PointSettings, RESULTS_FILE, Settings};
use super::{Point, Sweep, generated};
use crate::{Error, Result};

/// What a point is run with.
pub(super) fn settings(sweep: &Sweep, point: &Point) -> PointSettings {
    let settings: Map<String, Value> =
        point.settings.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    PointSettings {
        name: point.name.clone(),
        settings,
        config: comparable(&point.config),
        protocols: sweep.protocols.iter().map(ToString::to_string).collect(),
        eval_sequences: sweep.eval_sequences,
    }
}

/// Refuses a line of a point that the sweep's file now describes otherwise.
pub(super) fn check_line(sweep: &Sweep, point: &Point, line: &PointSettings) -> Result<()> {
    let path = sweep.dir.join(RESULTS_FILE);
    let now = settings(sweep, point);
    check(&path, point, differences(&line.config, &now.config), false)?;
    let scoring = [
        difference("protocols", &json!(line.protocols), &json!(now.protocols)),
        difference("eval_sequences", &json!(line.eval_sequences), &json!(now.eval_sequences)),
    ];
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
fn comparable(config: &Config) -> Settings {
    let value = serde_json::to_value(config).expect("a configuration is made of plain values");
    let mut settings: Settings = serde_json::from_value(value).expect("its keys are in sections");
    if let Some(run) = settings.get_mut("run") {
        run.retain(|key, _| key != "dir" && key != "device");
    }
    settings
}

/// Every `section.key` under which two configurations differ. A key that only one of them has counts as `null`: a later
/// version may know more keys, and omit their defaults.
fn differences(before: &Settings, now: &Settings) -> Vec<Difference> {
    let mut found = Vec::new();
    for section in ["run", "data", "model", "infer", "train"] {
        let [before, now] = [before, now].map(|settings| settings.get(section));
        let keys: BTreeSet<&String> =
            [before, now].into_iter().flatten().flat_map(|keys| keys.keys()).collect();
        for key in keys {
            let [before, now] = [before, now]
                .map(|keys| keys.and_then(|keys| keys.get(key)).unwrap_or(&Value::Null));
            found.extend(difference(&format!("{section}.{key}"), before, now));
        }
    }
    found
}

fn difference(key: &str, old: &Value, new: &Value) -> Option<Difference> {
    let (key, old, new) = (key.to_string(), old.to_string(), new.to_string());
    (old != new).then_some(Difference { key, old, new })
}
