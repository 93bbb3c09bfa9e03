//! A run's `metrics.jsonl` as curves, and the charts that show them. Trains nothing.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use ltm_files::{create_dir, remove_leftovers};
use ltm_train::metrics::METRICS_FILE;
use serde_json::Value;

use super::line_chart;
use crate::{Error, Result};

/// The folder of a run with its charts.
pub const PLOTS: &str = "plots";

/// Named points along the steps of a run.
pub(crate) type Curves = Vec<(String, Vec<(f64, f64)>)>;

/// A run's numbers so far, by step: those of its training batches, and those of its evaluations by protocol.
///
/// # Errors
/// [`Error::File`].
pub(crate) fn curves(run_dir: &Path) -> Result<(Curves, Curves)> {
    let path = run_dir.join(METRICS_FILE);
    let file = fs::File::open(&path).map_err(Error::io(&path, "open"))?;
    let mut train: Curves =
        ["loss", "kl", "bound_fitted_noise"].map(|name| (name.into(), Vec::new())).into();
    let mut val: Curves = Vec::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(Error::io(&path, "read"))?;
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let step = line["step"].as_f64().unwrap_or(f64::NAN);
        for (name, points) in &mut train {
            points.extend(line[name.as_str()].as_f64().map(|y| (step, y)));
        }
        for (protocol, numbers) in line["eval"].as_object().into_iter().flatten() {
            let point = (step, numbers["nats_per_token"].as_f64().unwrap_or(f64::NAN));
            match val.iter_mut().find(|(name, _)| name == protocol) {
                Some((_, points)) => points.push(point),
                None => val.push((protocol.clone(), vec![point])),
            }
        }
    }
    Ok((train, val))
}

/// Draws a run's numbers so far into its folder `plots` and returns the charts' files. The caller holds the run's
/// lock, as a [`Run`](ltm_train::Run) does: what a killed process left half-written is removed.
///
/// # Errors
/// [`Error::File`], [`Error::Plot`].
pub fn draw(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let (train, val) = curves(run_dir)?;
    let dir = run_dir.join(PLOTS);
    create_dir(&dir)?;
    remove_leftovers(&dir)?;
    let mut drawn = Vec::new();
    for (name, title, series) in
        [("train.svg", "Training batches", train), ("val.svg", "Validation split", val)]
    {
        if series.iter().any(|(_, points)| !points.is_empty()) {
            let path = dir.join(name);
            line_chart(&path, title, "step", "nats per token", &series)?;
            drawn.push(path);
        }
    }
    Ok(drawn)
}
