//! A run's `metrics.jsonl` as curves, and the charts that show them. Trains nothing.

use std::path::{Path, PathBuf};

use ltm_files::{create_dir, remove_leftovers};
use ltm_train::metrics::{Line, METRICS_FILE, read};

use super::line_chart;
use crate::Result;

/// The folder of a run with its charts.
pub const PLOTS: &str = "plots";

/// Named points along the steps of a run.
pub(crate) type Curves = Vec<(String, Vec<(f64, f64)>)>;

/// A run's numbers so far, by step: those of its training batches, and those of its evaluations by protocol.
///
/// # Errors
/// Those of [`read`].
pub(crate) fn curves(run_dir: &Path) -> Result<(Curves, Curves)> {
    let mut train: Curves =
        ["loss", "kl", "bound_fitted_noise"].map(|name| (name.into(), Vec::new())).into();
    let mut val: Curves = Vec::new();
    for line in read(&run_dir.join(METRICS_FILE))? {
        let step = line.step() as f64;
        match line {
            Line::Step(line) => {
                let numbers = [Some(line.loss), line.kl, line.bound_fitted_noise];
                for ((_, points), y) in train.iter_mut().zip(numbers) {
                    points.extend(y.map(|y| (step, y)));
                }
            }
            Line::Evaluation(line) => {
                for (protocol, score) in line.eval {
                    let point = (step, score.nats_per_token);
                    match val.iter_mut().find(|(name, _)| *name == protocol) {
                        Some((_, points)) => points.push(point),
                        None => val.push((protocol, vec![point])),
                    }
                }
            }
        }
    }
    Ok((train, val))
}

/// Draws a run's numbers so far into its folder `plots` and returns the charts' files. The caller holds the run's
/// lock, as a [`Run`](ltm_train::Run) does: what a killed process left half-written is removed.
///
/// # Errors
/// [`Error::File`](crate::Error::File), [`Error::Plot`](crate::Error::Plot).
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
