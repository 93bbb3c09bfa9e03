//! Reports on runs and sweeps: one page of charts and tables with the findings in words, and comparisons of runs.
//! Trains nothing; scores only on request.

mod charts;
mod claims;
mod compare;
mod difference;
mod entry;
mod page;
mod seeds;
mod words;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use entry::Entry;
use ltm_files::{as_text, write_whole};
use ltm_train::FolderLock;
use ltm_train::checkpoint::{CONFIG_FILE, Checkpoint};
use ltm_train::config::Config;
use ltm_train::data::Split;
use ltm_train::eval::evaluate;
use ltm_train::eval::scores::{self, SequenceLine};
use ltm_train::metrics::{self, METRICS_FILE, ProtocolScore};
use ltm_train::run_data::{corpus_dir, open};
use ltm_vi::Protocol;

use crate::charts::{Curves, curves};
use crate::measured::{Measured, shown_samples, shown_trace};
use crate::sweep::{PointResult, RESULTS_FILE, Settings, read_results};
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
        for PointResult { point, outcome, .. } in read_results(dir)? {
            match outcome {
                Ok(measured) => entries.push(Entry::new(point.name, point.config, measured)),
                Err(error) => failed.push((point.name, error)),
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
    let (settings, mut measured) = read_run(dir)?;
    show_run(dir, &mut measured)?;
    let (train, val) = curves(dir)?;
    Ok(Source::Run(Box::new(Run { entry: Entry::new(name, settings, measured), train, val })))
}

/// A run's configuration, and its numbers with the scores of its last evaluation. Those of each row are omitted where
/// they are of another step: a run that is still training has those of an earlier one.
fn read_run(dir: &Path) -> Result<(Settings, Measured)> {
    if !dir.join(METRICS_FILE).exists() {
        let expected = format!("a run's folder with {METRICS_FILE} and {CONFIG_FILE}");
        let is_sweep = dir.join(RESULTS_FILE).exists();
        let found = if is_sweep { "a sweep's; name one of its runs" } else { "none" };
        return Err(Error::content(dir, "content", expected, found));
    }
    let checkpoint = Checkpoint::load(dir)?;
    let config: &Config = &checkpoint.config;
    let mut shown = config.clone();
    shown.run.dir = as_text(&config.run.dir);
    shown.data.path = config.data.path.as_deref().map(as_text);
    let settings = serde_json::to_value(shown).and_then(serde_json::from_value);
    let settings = settings.expect("a configuration has sections of plain values");
    let mut measured = Measured::of_training(config, dir, checkpoint.state.step)?;
    measured.evaluation = last_evaluation(dir)?;
    let rows = scores::read(dir)?;
    if !rows.is_empty() && rows.iter().all(|row| row.step == Some(measured.steps)) {
        set_rows(&mut measured, &rows);
    }
    Ok((settings, measured))
}

/// The scores of a run's last evaluation, as its metrics have them; none before the first.
fn last_evaluation(run_dir: &Path) -> Result<BTreeMap<String, ProtocolScore>> {
    let lines = metrics::read(&run_dir.join(METRICS_FILE))?;
    let evaluation = |line| match line {
        metrics::Line::Evaluation(line) => Some(line.eval),
        metrics::Line::Step(_) => None,
    };
    Ok(lines.into_iter().rev().find_map(evaluation).unwrap_or_default())
}

/// Takes tokens, digests and nats of every row from the lines of an evaluation. Those of rows that overlap belong to
/// other rows and are omitted.
fn set_rows(measured: &mut Measured, lines: &[SequenceLine]) {
    let rows: Vec<&SequenceLine> = lines.iter().filter(|line| line.stride.is_none()).collect();
    measured.sequence_tokens = rows.iter().map(|row| row.tokens).collect();
    measured.sequence_digests = Some(rows.iter().map(|row| row.digest).collect());
    let protocols = rows.first().into_iter().flat_map(|row| row.scores.keys());
    let nats = |row: &&SequenceLine, protocol| {
        row.scores.get(protocol).map_or(f64::NAN, |score| score.nats)
    };
    measured.nats = protocols
        .map(|name| (name.clone(), rows.iter().map(|row| nats(row, name)).collect()))
        .collect();
}

/// Replaces the scores of a run by those of its newest checkpoint under `protocols`, on `sequences` rows (0 for all) of
/// its validation split.
fn rescore(
    dir: &Path,
    measured: &mut Measured,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<()> {
    let checkpoint = Checkpoint::load(dir)?;
    let config = placed(&checkpoint.config, dir);
    let val = open(&config, Split::Val)?;
    let weights = config.on_device(&checkpoint.weights)?;
    let found = evaluate(&config, &weights, &val, protocols, sequences, progress)?;
    measured.evaluation = found.scores();
    set_rows(measured, &found.sequences.iter().map(SequenceLine::from).collect::<Vec<_>>());
    Ok(())
}

/// The configuration of a run that may have been moved to `dir`.
fn placed(config: &Config, dir: &Path) -> Config {
    let mut placed = config.clone();
    placed.run.dir = dir.into();
    placed
}

/// Adds the fast loop's trace and samples to a run's numbers, where its corpus can be opened.
fn show_run(dir: &Path, measured: &mut Measured) -> Result<()> {
    let checkpoint = Checkpoint::load(dir)?;
    let config = placed(&checkpoint.config, dir);
    if corpus_dir(&config).exists()
        && let Ok(val) = open(&config, Split::Val)
    {
        let weights = config.on_device(&checkpoint.weights)?;
        measured.trace = shown_trace(&config, &weights, &val)?;
        let tokenizer = &*checkpoint.tokenizer;
        measured.samples = shown_samples(&config, &weights, tokenizer, &val);
    }
    Ok(())
}
