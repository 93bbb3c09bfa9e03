//! A grid of runs from one TOML file: its points and their names. Trains nothing; the module `run` does.

mod grid;
mod record;
mod results;
mod run;
mod seeds;

use std::path::{Path, PathBuf};

use ltm_train::config::{Config, GeneratedCorpus, RowKind, read_text};
use ltm_train::data::{Rows, Split, storyworld};
use ltm_train::flops;
use ltm_vi::Protocol;
use serde::Deserialize;

use crate::{Error, Result};

pub use results::{PointResult, PointSettings, RESULTS_FILE, Settings, read_results};
pub use run::{SweepObserver, SweepSummary};
pub use seeds::Seeds;

/// The folder of a sweep that holds one run's folder per point.
pub const POINTS: &str = "points";
/// Stories that the length of one is estimated from.
const LENGTH_DOCUMENTS: u64 = 1000;

/// A sweep, ready to run: every point is resolved and checked.
#[derive(Clone, Debug)]
pub struct Sweep {
    /// The sweep's folder.
    pub dir: PathBuf,
    /// The points in the order of the file.
    pub points: Vec<Point>,
    /// The protocols that a point is scored by, where they apply to it.
    pub protocols: Vec<Protocol>,
    /// Validation sequences that are scored; 0 for all.
    pub eval_sequences: u64,
    /// The seed of the stories that all points share, where they are generated.
    corpus_seed: u64,
}

/// One run of a sweep.
#[derive(Clone, Debug)]
pub struct Point {
    /// Built from the grid's values; also the name of the run's folder.
    pub name: String,
    /// What the grid sets, by `section.key`.
    pub settings: toml::Table,
    /// The run as its files describe it, with the budget's steps.
    pub config: Config,
    /// The run as it is trained: in the sweep's folder, on the sweep's corpus.
    pub placed: Config,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    base: Option<toml::Value>,
    dir: PathBuf,
    #[serde(default = "default_protocols")]
    protocols: Vec<String>,
    #[serde(default = "default_eval_sequences")]
    eval_sequences: u64,
    seeds: Option<Seeds>,
    #[serde(default)]
    budget: Budget,
    #[serde(default)]
    set: toml::Table,
    #[serde(default)]
    grid: Vec<toml::Table>,
}

fn default_protocols() -> Vec<String> {
    ["reconstruction", "elbo-fitted-noise", "elbo:8", "iwae:8"].map(String::from).into()
}

fn default_eval_sequences() -> u64 {
    256
}

/// What every point may spend on training; empty for the `train.steps` of its own configuration.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    steps: Option<u64>,
    tokens: Option<f64>,
    flops: Option<f64>,
}

impl Sweep {
    /// Reads a sweep's file, with `section.key=value` overrides for every point and `seeds` in place of the file's, and
    /// checks all of it.
    ///
    /// With seeds, every point is a run of each: all points with the first seed, then all with the next. A run with the
    /// seed of its configuration has the name that it has without seeds, so that an existing sweep can be extended by more.
    ///
    /// The path of a base file is relative to the sweep's file, all others to the working directory. A point is not
    /// evaluated during training unless it sets `train.eval_every`, since it is scored at the end.
    ///
    /// # Errors
    /// [`Error::File`] for a file that cannot be read, [`Error::Config`] naming what cannot work, and those
    /// of opening a corpus whose rows a budget must know.
    pub fn load(path: &Path, overrides: &[String], seeds: Option<&Seeds>) -> Result<Self> {
        let text = read_text(path)?;
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        let file: File =
            toml::from_str(&text).map_err(|error| fail(error.to_string().trim().into()))?;
        let protocols = file
            .protocols
            .iter()
            .map(|name| name.parse().map_err(|error| fail(format!("protocols: {error}"))))
            .collect::<Result<Vec<Protocol>>>()?;
        file.budget.check().map_err(fail)?;

        let mut points: Vec<Point> = Vec::new();
        // No grid is a sweep of one point, the base.
        let no_grid = [toml::Table::new()];
        let grids = if file.grid.is_empty() { &no_grid[..] } else { &file.grid };
        let common = grid::flatten(&file.set).map_err(fail)?;
        for table in grids {
            let grid = grid::Grid::new(table, file.base.as_ref(), path)?;
            for (name, settings) in grid.points() {
                // Such a folder would be another point's parent.
                if name.chars().all(|c| c == '.') {
                    let expected = "expected a name with a character other than `.`";
                    return Err(fail(format!("grid.name: {expected}, found `{name}`")));
                }
                let mut set = Vec::new();
                if !common.contains_key("train.eval_every") {
                    set.push("train.eval_every=0".into());
                }
                let all = common.iter().chain(&settings);
                set.extend(all.map(|(key, value)| format!("{key}={value}")));
                set.extend_from_slice(overrides);
                let mut config = Config::parse(&grid.text, &grid.path, &set)?;
                file.budget.apply(&mut config)?;
                if points.iter().any(|point| point.name == name) {
                    let reason =
                        format!("two points are called `{name}`; give a [[grid]] a `name`");
                    return Err(fail(reason));
                }
                let placed = config.clone();
                points.push(Point { name, settings, config, placed });
            }
        }
        let dir = file.dir;
        // One corpus for all points: where the seed varies, it changes only weights and noise.
        let corpus_seed = points.first().map_or(0, |point| point.config.run.seed);
        if let Some(seeds) = seeds.or(file.seeds.as_ref()) {
            points = seeded(&points, seeds).map_err(fail)?;
        }
        for Point { name, config, placed, .. } in &mut points {
            place(&dir, corpus_seed, name, config, placed);
        }
        Ok(Self { dir, points, protocols, eval_sequences: file.eval_sequences, corpus_seed })
    }
}

/// Every point with each of its seeds.
fn seeded(points: &[Point], seeds: &Seeds) -> std::result::Result<Vec<Point>, String> {
    const KEY: &str = "run.seed";
    if let Some(point) = points.iter().find(|point| point.settings.contains_key(KEY)) {
        let expected = "expected no `run.seed` in a [[grid]] of a sweep with `seeds`";
        return Err(format!("grid: {expected}, found the point `{}`", point.name));
    }
    let of = |point: &Point| seeds.of(point.config.run.seed);
    let lists = points.iter().map(of).collect::<std::result::Result<Vec<_>, _>>()?;
    let mut all = Vec::new();
    for idx in 0..lists.first().map_or(0, Vec::len) {
        for (point, seeds) in points.iter().zip(&lists) {
            let (seed, mut point) = (seeds[idx], point.clone());
            if seed != point.config.run.seed {
                let value =
                    i64::try_from(seed).map_err(|_| format!("seeds: {seed} is too large"))?;
                point.name = format!("{},seed={seed}", point.name);
                point.settings.insert(KEY.into(), value.into());
                (point.config.run.seed, point.placed.run.seed) = (seed, seed);
            }
            all.push(point);
        }
    }
    Ok(all)
}

/// Puts a point's run into the sweep's folder.
fn place(dir: &Path, seed: u64, name: &str, config: &Config, placed: &mut Config) {
    placed.run.dir = dir.join(POINTS).join(name);
    if generated(config) {
        let (documents, val_documents) = (config.data.documents, config.data.val_documents);
        let corpus = format!("storyworld-{documents}-{val_documents}-seed{seed}");
        placed.data.path = Some(dir.join("data").join(corpus));
        placed.data.rows = Some(config.data.rows.unwrap_or(RowKind::Documents));
    }
    if placed.train.eval_every == 0 {
        // The scores that count are computed after training; the run's own evaluation takes one batch.
        placed.train.eval_sequences = placed.train.batch as u64;
    }
}

/// Whether a run makes its own corpus.
fn generated(config: &Config) -> bool {
    config.data.path.is_none() && config.data.corpus == Some(GeneratedCorpus::Storyworld)
}

impl Budget {
    fn check(self) -> std::result::Result<(), String> {
        let given = [self.steps.map(|steps| steps as f64), self.tokens, self.flops];
        match given.iter().flatten().collect::<Vec<_>>().as_slice() {
            [] => Ok(()),
            [amount] if **amount >= 1.0 && amount.is_finite() => Ok(()),
            [amount] => Err(format!("[budget]: expected at least 1, found {amount}")),
            _ => Err("[budget]: expected one of steps, tokens and flops, found more".into()),
        }
    }

    /// Sets the slow steps that the budget allows, rounded up.
    fn apply(self, config: &mut Config) -> Result<()> {
        let train = &config.train;
        if let Some(steps) = self.steps {
            config.train.steps = steps;
        } else if let Some(tokens) = self.tokens {
            let rows = (train.batch * train.micro_batches) as f64;
            config.train.steps = (tokens / (rows * tokens_per_row(config)?)).ceil() as u64;
        } else if let Some(flops) = self.flops {
            config.train.steps = (flops / flops::count(config)?.per_slow_step).ceil() as u64;
        }
        Ok(())
    }
}

/// Tokens of a row on average, without padding.
fn tokens_per_row(config: &Config) -> Result<f64> {
    match config.data.row_kind() {
        Rows::Windows => Ok(config.train.seq_len as f64),
        Rows::Documents if generated(config) => {
            let n = LENGTH_DOCUMENTS.min(config.data.documents);
            let length = |index| storyworld::sample(config.run.seed, index).tokens.len() as f64;
            let cut = |length: f64| length.min(config.train.seq_len as f64);
            Ok((0..n).map(length).map(cut).sum::<f64>() / n as f64)
        }
        Rows::Documents => {
            let batches = ltm_train::run_data::open(config, Split::Train)?;
            Ok(batches.corpus().len() as f64 / batches.rows() as f64)
        }
    }
}
