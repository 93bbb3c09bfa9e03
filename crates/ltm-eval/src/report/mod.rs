//! Reports on runs and sweeps: one page of charts and tables with the findings in words, and comparisons of runs.
//! Trains nothing; scores only on request.

mod charts;
mod compare;
mod entry;
mod page;
mod words;

use std::path::{Path, PathBuf};

use entry::Entry;
use ltm_files::{as_text, write_whole};
use ltm_train::checkpoint::{CONFIG_FILE, Checkpoint};
use ltm_train::config::Config;
use ltm_train::data::Split;
use ltm_train::eval::{Sequence, evaluate, scores};
use ltm_train::metrics::{METRICS_FILE, tokens_seen};
use ltm_train::run_data::{corpus_dir, open};
use ltm_train::{FolderLock, flops};
use ltm_vi::Protocol;
use serde_json::{Value, json};

use crate::charts::{Curves, curves};
use crate::sweep::{RESULTS_FILE, measure, read_results};
use crate::{Error, Result};

pub use compare::{Comparison, ProtocolTable, Row, RowDifference, Setting};

/// The page's file, in the folder of the report.
pub const PAGE_FILE: &str = "index.html";

/// What one folder holds.
enum Source {
    Sweep { name: String, entries: Vec<Entry>, failed: Vec<(String, String)> },
    Run(Box<Run>),
}

/// A run with its learning curves.
struct Run {
    entry: Entry,
    train: Curves,
    val: Curves,
}

/// Writes the page of runs' and sweeps' folders to `out`, with every chart as a file next to it; returns the page's
/// file. `progress(done, all)` counts the folders. Several runs are compared with the first of them.
///
/// The page is self-contained: charts are part of it, and it loads nothing. A sweep's folder is only read; for a run,
/// the fast loop and samples are computed from the newest checkpoint.
///
/// # Errors
/// [`Error::File`] for a folder that is neither, when another process writes to `out`, or a file cannot be written;
/// [`Error::Plot`]; and those of [`Checkpoint::load`].
pub fn write(
    inputs: &[PathBuf],
    out: &Path,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<PathBuf> {
    let (mut sweeps, mut runs) = (Vec::new(), Vec::new());
    for (idx, input) in inputs.iter().enumerate() {
        progress(idx, inputs.len());
        match read(input, name_of(inputs, idx))? {
            Source::Sweep { name, entries, failed } => sweeps.push((name, entries, failed)),
            Source::Run(run) => runs.push(*run),
        }
    }
    progress(inputs.len(), inputs.len());
    let _lock = FolderLock::acquire(out)?;
    let mut page = page::Page::new(out);
    let several = sweeps.len() + usize::from(!runs.is_empty()) > 1;
    let prefix = |idx: usize| if several { format!("{}-", idx + 1) } else { String::new() };
    for (idx, (name, entries, failed)) in sweeps.iter().enumerate() {
        page.sweep(name, entries, failed, &prefix(idx))?;
    }
    if !runs.is_empty() {
        page.runs(&runs, &prefix(sweeps.len()))?;
    }
    let path = out.join(PAGE_FILE);
    write_whole(&path, page.finish().as_bytes())?;
    Ok(path)
}

/// The name of an input: its folder's, or its path where another input's folder has the same.
fn name_of(inputs: &[PathBuf], idx: usize) -> String {
    let name = |path: &PathBuf| path.file_name().unwrap_or(path.as_os_str()).to_owned();
    let own = name(&inputs[idx]);
    let unique = inputs.iter().filter(|path| name(path) == own).count() == 1;
    let name = if unique { own } else { inputs[idx].clone().into_os_string() };
    name.to_string_lossy().into_owned()
}

fn read(dir: &Path, name: String) -> Result<Source> {
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
            return Err(Error::content(&path, "content", "one line per point", "none"));
        }
        return Ok(Source::Sweep { name, entries, failed });
    }
    if !dir.join(METRICS_FILE).exists() {
        let expected = format!(
            "a sweep's folder with {RESULTS_FILE}, or a run's with {METRICS_FILE} and {CONFIG_FILE}"
        );
        return Err(Error::content(dir, "content", expected, "neither"));
    }
    let mut line = read_run(dir, name)?;
    show_run(dir, &mut line)?;
    let (train, val) = curves(dir)?;
    Ok(Source::Run(Box::new(Run { entry: Entry::new(line), train, val })))
}

/// A run's folder in the form of a line of a sweep's results, with the scores of its last evaluation.
fn read_run(dir: &Path, name: String) -> Result<Value> {
    if !dir.join(METRICS_FILE).exists() {
        let expected = format!("a run's folder with {METRICS_FILE} and {CONFIG_FILE}");
        let is_sweep = dir.join(RESULTS_FILE).exists();
        let found = if is_sweep { "a sweep's; name one of its runs" } else { "none" };
        return Err(Error::content(dir, "content", expected, found));
    }
    let checkpoint = Checkpoint::load(dir)?;
    let config: &Config = &checkpoint.config;
    let flops = flops::count(config)?;
    let steps = checkpoint.state.step;
    let mut shown = config.clone();
    shown.run.dir = as_text(&config.run.dir);
    shown.data.path = config.data.path.as_deref().map(as_text);
    let mut line = json!({
        "name": name,
        "config": shown,
        "parameters": config.model.param_count(),
        "steps": steps,
        "tokens": tokens_seen(&dir.join(METRICS_FILE))?,
        "training_flops": flops.per_slow_step * steps as f64,
        "flops_per_token": flops.per_token,
        "flops_per_token_formula": flops.formula_per_token,
        "evaluation": measure::last_evaluation(dir)?,
    });
    scores::read(dir, &mut line)?;
    Ok(line)
}

/// Replaces the scores of a run's line by those of its newest checkpoint under `protocols`, on the first `sequences`
/// rows (0 for all) of its validation split.
fn rescore(
    dir: &Path,
    line: &mut Value,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let checkpoint = Checkpoint::load(dir)?;
    let config = placed(&checkpoint.config, dir);
    let val = open(&config, Split::Val)?;
    let weights = config.on_device(&checkpoint.weights)?;
    let found = evaluate(&config, &weights, &val, protocols, sequences, progress)?;
    line["evaluation"] = found.to_json();
    scores::put(line, &found.sequences.iter().map(Sequence::to_json).collect::<Vec<_>>());
    Ok(())
}

/// The configuration of a run that may have been moved to `dir`.
fn placed(config: &Config, dir: &Path) -> Config {
    let mut placed = config.clone();
    placed.run.dir = dir.into();
    placed
}

/// Adds the fast loop's trace and samples to a run's line, where its corpus can be opened.
fn show_run(dir: &Path, line: &mut Value) -> Result<()> {
    let checkpoint = Checkpoint::load(dir)?;
    let config = placed(&checkpoint.config, dir);
    if corpus_dir(&config).exists()
        && let Ok(val) = open(&config, Split::Val)
    {
        let weights = config.on_device(&checkpoint.weights)?;
        line["trace"] = measure::shown_trace(&config, &weights, &val)?.into();
        let tokenizer = &*checkpoint.tokenizer;
        line["samples"] = measure::shown_samples(&config, &weights, tokenizer, &val);
    }
    Ok(())
}
