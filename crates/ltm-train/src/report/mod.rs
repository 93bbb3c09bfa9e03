//! One page from runs and sweeps, for a person to read: charts, tables and what the numbers say. Trains and
//! scores nothing.

mod charts;
mod entry;
mod page;
mod words;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::checkpoint::{CONFIG_FILE, Checkpoint};
use crate::config::Config;
use crate::data::Split;
use crate::files::{create_dir, write_whole};
use crate::metrics::{Curves, curves};
use crate::sweep::{RESULTS_FILE, measure, read_results};
use crate::trainer::{METRICS_FILE, open};
use crate::{Error, Result, flops};

use entry::Entry;

/// The page's file, in the folder of the report.
pub const PAGE_FILE: &str = "index.html";

/// What one folder holds.
enum Source {
    Sweep { name: String, entries: Vec<Entry>, failed: Vec<(String, String)> },
    Run { entry: Box<Entry>, train: Curves, val: Curves },
}

/// Writes the page of runs' and sweeps' folders to `out`, with every chart beside it; returns the page's
/// file. `progress(done, all)` counts the folders.
///
/// The page stands alone: charts are part of it, and it asks for nothing from elsewhere. A sweep's folder is
/// read only; a run's has its fast loop and samples computed from the newest checkpoint.
///
/// # Errors
/// [`Error::Data`] for a folder that is neither, [`Error::Io`], [`Error::Plot`], and those of
/// [`Checkpoint::load`].
pub fn write(
    inputs: &[PathBuf],
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PathBuf> {
    let mut sources = Vec::new();
    for (idx, input) in inputs.iter().enumerate() {
        progress(idx, inputs.len());
        sources.push(read(input)?);
    }
    progress(inputs.len(), inputs.len());
    create_dir(out)?;
    let mut page = page::Page::new(out);
    for (idx, source) in sources.iter().enumerate() {
        let prefix = if sources.len() > 1 { format!("{}-", idx + 1) } else { String::new() };
        page.source(source, &prefix)?;
    }
    let path = out.join(PAGE_FILE);
    write_whole(&path, page.finish().as_bytes())?;
    Ok(path)
}

fn read(dir: &Path) -> Result<Source> {
    let name = dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy().into_owned();
    if dir.join(RESULTS_FILE).exists() {
        let (mut entries, mut failed) = (Vec::new(), Vec::new());
        for line in read_results(dir)? {
            match line["error"].as_str() {
                Some(error) => {
                    let name = line["name"].as_str().unwrap_or_default().to_string();
                    failed.push((name, error.to_string()));
                }
                None => entries.push(Entry::new(line)),
            }
        }
        if entries.is_empty() && failed.is_empty() {
            let path = dir.join(RESULTS_FILE);
            return Err(Error::data(&path, "content", "a line a point", "none"));
        }
        return Ok(Source::Sweep { name, entries, failed });
    }
    if !dir.join(METRICS_FILE).exists() {
        let expected = format!(
            "a sweep's folder with {RESULTS_FILE}, or a run's with {METRICS_FILE} and {CONFIG_FILE}"
        );
        return Err(Error::data(dir, "content", expected, "neither"));
    }
    let (train, val) = curves(dir)?;
    let entry = Box::new(Entry::new(line_of_run(dir, name)?));
    Ok(Source::Run { entry, train, val })
}

/// A run's folder, told as a sweep tells a point.
fn line_of_run(dir: &Path, name: String) -> Result<Value> {
    let checkpoint = Checkpoint::load(dir)?;
    let config: &Config = &checkpoint.config;
    let flops = flops::count(config)?;
    let steps = checkpoint.state.step;
    let mut line = json!({
        "name": name,
        "config": config,
        "parameters": config.model.param_count(),
        "steps": steps,
        "tokens": measure::tokens_seen(dir)?,
        "training_flops": flops.per_slow_step * steps as f64,
        "flops_per_token": flops.per_token,
        "flops_per_token_formula": flops.formula_per_token,
        "evaluation": measure::last_evaluation(dir)?,
    });
    // The corpus may be elsewhere by now, or have no split to measure on.
    let mut placed = config.clone();
    placed.run.dir = dir.into();
    if crate::trainer::corpus_dir(&placed).exists()
        && let Ok(val) = open(&placed, Split::Val)
    {
        line["trace"] = measure::shown_trace(&placed, &checkpoint.weights, &val)?.into();
        let tokenizer = &checkpoint.state.tokenizer;
        line["samples"] = measure::samples(&placed, &checkpoint.weights, tokenizer, &val);
    }
    Ok(line)
}
