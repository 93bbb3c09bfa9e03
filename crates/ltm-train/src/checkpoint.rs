//! A run's state on disk: a folder that is whole or absent. Trains nothing.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_autodiff::AdamWState;
use ltm_kernels::Buffer;
use ltm_model::{Weights, param_table};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::data::Tokenizer;
use crate::files::{create_dir, sync_dir, write_whole};
use crate::{Error, Result};

/// The folder of a run that holds its checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The file of a run, and of a checkpoint, that holds its configuration.
pub const CONFIG_FILE: &str = "config.toml";
/// The file of a run that names its newest checkpoint.
pub const LATEST_FILE: &str = "latest";
const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const STATE_FILE: &str = "state.json";
const PREFIX: &str = "step-";

/// Counters of a run. Random numbers have no state beside them: all are functions of seed and step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Slow steps taken.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// Position in the data: micro-batches read.
    pub batches: u64,
    /// What token ids mean.
    pub tokenizer: Tokenizer,
}

/// A checkpoint, read for use: everything but the optimiser.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// The run's configuration when it was written.
    pub config: Config,
    /// The weights.
    pub weights: Weights,
    /// The counters.
    pub state: State,
}

impl Checkpoint {
    /// Reads a checkpoint: its folder, or a run's for the newest.
    ///
    /// # Errors
    /// [`Error::Data`] when there is none, [`Error::Config`], [`Error::Model`] for a truncated file
    /// or weights of another shape, [`Error::Io`].
    pub fn load(path: &Path) -> Result<Self> {
        let dir = locate(path)?;
        let config = Config::load_resolved(&dir.join(CONFIG_FILE), &[])?;
        let state = read_state(&dir)?;
        let weights = Weights::load(&dir.join(MODEL_FILE), &config.model)?;
        Ok(Self { dir, config, weights, state })
    }

    /// Reads the optimiser's state, in the order of [`param_table`].
    ///
    /// # Errors
    /// [`Error::Data`] when the file is truncated or of another model, [`Error::Io`].
    pub fn moments(&self) -> Result<Vec<AdamWState>> {
        let path = self.dir.join(OPTIMIZER_FILE);
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let bad =
            |what: &str, expected: &str, found: String| Error::data(&path, what, expected, found);
        let file = SafeTensors::deserialize(&bytes)
            .map_err(|error| bad("content", "a whole safetensors file", error.to_string()))?;
        let read = |name: String, shape: &[usize]| {
            let view = file
                .tensor(&name)
                .map_err(|error| bad(&name, "a tensor of this name", error.to_string()))?;
            if view.dtype() != Dtype::F32 || view.shape() != shape {
                let found = format!("{:?} {:?}", view.dtype(), view.shape());
                return Err(bad(&name, &format!("F32 {shape:?}"), found));
            }
            let (numbers, _) = view.data().as_chunks::<4>();
            let numbers: Vec<f32> = numbers.iter().map(|b| f32::from_le_bytes(*b)).collect();
            Ok(Buffer::from_vec(numbers))
        };
        param_table(&self.config.model)
            .iter()
            .map(|spec| {
                let m = read(format!("m.{}", spec.name), &spec.shape)?;
                let v = read(format!("v.{}", spec.name), &spec.shape)?;
                Ok(AdamWState { m, v, step: self.state.step })
            })
            .collect()
    }
}

/// Writes checkpoint `step-N` of the run in `config.run.dir`, then removes all but the newest
/// `keep_last`. It is written aside, synced and renamed, so that a reader never sees half of one.
///
/// # Errors
/// [`Error::Io`] or [`Error::Model`], such as for a full disk: earlier checkpoints are as they were.
pub fn save(
    config: &Config,
    weights: &Weights,
    moments: &[AdamWState],
    state: &State,
) -> Result<PathBuf> {
    let parent = config.run.dir.join(CHECKPOINTS);
    create_dir(&parent)?;
    let name = format!("{PREFIX}{}", state.step);
    let (aside, dir) = (parent.join(format!(".{name}.tmp")), parent.join(&name));
    remove(&aside)?;
    let written = write_files(&aside, config, weights, moments, state);
    if written.is_err() {
        // Best effort: the first error is the one worth reporting.
        let _ = fs::remove_dir_all(&aside);
    }
    written?;
    if dir.exists() {
        // A resumed run comes by again: put the old one out of the way by a rename too.
        let old = parent.join(format!(".{name}.old"));
        remove(&old)?;
        fs::rename(&dir, &old).map_err(Error::io(&dir, "rename"))?;
    }
    fs::rename(&aside, &dir).map_err(Error::io(&dir, "rename to"))?;
    sync_dir(&parent)?;
    write_whole(&config.run.dir.join(LATEST_FILE), format!("{CHECKPOINTS}/{name}\n").as_bytes())?;
    prune(&parent, config.train.keep_last, state.step)?;
    Ok(dir)
}

fn write_files(
    dir: &Path,
    config: &Config,
    weights: &Weights,
    moments: &[AdamWState],
    state: &State,
) -> Result<()> {
    create_dir(dir)?;
    weights.save(&dir.join(MODEL_FILE), &config.model)?;
    let specs = param_table(&config.model);
    let bytes = |buffer: &Buffer| -> Result<Vec<u8>> {
        let values = buffer.to_f32().map_err(ltm_vi::Error::from)?;
        Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect())
    };
    let mut tensors = Vec::with_capacity(2 * specs.len());
    for (spec, moment) in specs.iter().zip(moments) {
        tensors.push((format!("m.{}", spec.name), &spec.shape, bytes(&moment.m)?));
        tensors.push((format!("v.{}", spec.name), &spec.shape, bytes(&moment.v)?));
    }
    let path = dir.join(OPTIMIZER_FILE);
    let refused = |error: safetensors::SafeTensorError| {
        Error::data(&path, "content", "tensors that serialise", error.to_string())
    };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((name.as_str(), TensorView::new(Dtype::F32, (*shape).clone(), bytes)?))
        })
        .collect::<std::result::Result<Vec<_>, _>>()
        .map_err(refused)?;
    write_whole(&path, &safetensors::serialize(views, None).map_err(refused)?)?;
    write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
    let json = serde_json::to_string_pretty(state).expect("counters serialise");
    write_whole(&dir.join(STATE_FILE), json.as_bytes())
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(dir, "remove")(error))
        }
        _ => Ok(()),
    }
}

/// Removes old checkpoints and what an interrupted save has left; what lies past `newest` belongs to
/// a future that a resumed run has not reached, and goes too.
fn prune(parent: &Path, keep_last: usize, newest: u64) -> Result<()> {
    let mut steps = steps(parent)?;
    steps.retain(|step| *step <= newest);
    let kept: Vec<u64> = steps.iter().rev().take(keep_last).copied().collect();
    for entry in fs::read_dir(parent).map_err(Error::io(parent, "list"))? {
        let path = entry.map_err(Error::io(parent, "list"))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let goes = match step_of(&name) {
            Some(step) => !kept.contains(&step),
            None => name.starts_with(&format!(".{PREFIX}")),
        };
        if goes {
            remove(&path)?;
        }
    }
    Ok(())
}

fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The steps of all checkpoints in a folder, ascending; none when it does not exist.
fn steps(parent: &Path) -> Result<Vec<u64>> {
    let entries = match fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(Error::io(parent, "list"))?,
    };
    let mut steps = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::io(parent, "list"))?;
        steps.extend(step_of(&entry.file_name().to_string_lossy()));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// The newest checkpoint of a run; `None` when it has none.
///
/// # Errors
/// [`Error::Io`] when the folder cannot be listed.
pub fn newest(run_dir: &Path) -> Result<Option<PathBuf>> {
    let parent = run_dir.join(CHECKPOINTS);
    Ok(steps(&parent)?.last().map(|step| parent.join(format!("{PREFIX}{step}"))))
}

/// A checkpoint's folder: `path` itself, or the newest of the run in it.
///
/// # Errors
/// [`Error::Data`] when it is neither, [`Error::Io`].
pub fn locate(path: &Path) -> Result<PathBuf> {
    fs::metadata(path).map_err(Error::io(path, "open"))?;
    if path.join(STATE_FILE).exists() {
        return Ok(path.into());
    }
    newest(path)?.ok_or_else(|| {
        Error::data(path, "content", "a checkpoint, or a run's folder with checkpoints", "neither")
    })
}

fn read_state(dir: &Path) -> Result<State> {
    let path = dir.join(STATE_FILE);
    let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::data(&path, "content", "a run's counters", error.to_string()))
}
