//! The checkpoints of a run, a folder each: their names, writing, finding and removing them. Knows no file of a
//! checkpoint.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_autodiff::AdamWState;
use ltm_files::{
    TEMPORARY_SUFFIX, create_dir, create_temporary_dir, remove_aside, sync_dir, write_whole,
};
use ltm_model::Weights;

use super::{STATE_FILE, State, check_whole, write_files};
use crate::config::Config;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::posteriors::Posteriors;
use crate::{Error, Result};

/// The folder of a run that holds its checkpoints.
pub const CHECKPOINTS: &str = "checkpoints";
/// The file of a run that names its newest checkpoint.
pub const LATEST_FILE: &str = "latest";
const PREFIX: &str = "step-";

/// Writes checkpoint `step-N` of the run in `config.run.dir`, with `tokenizer` as its [`TOKENIZER_FILE`]. It is written
/// under a temporary name, synced and renamed, so that a reader never sees half of one. Without `moments` it has weights
/// alone: it can be used, but not trained further.
///
/// # Errors
/// [`Error::File`], such as for a full disk, or [`Error::Model`]: earlier checkpoints are unchanged.
pub fn save(
    config: &Config,
    weights: &Weights,
    moments: &[AdamWState],
    posteriors: &Posteriors,
    state: &State,
    tokenizer: Option<&[u8]>,
) -> Result<PathBuf> {
    save_in(&config.run.dir, config, weights, moments, posteriors, state, tokenizer)
}

/// As [`save`], of the run in `run_dir`, whatever `config` says: a configuration without a place.
pub(crate) fn save_in(
    run_dir: &Path,
    config: &Config,
    weights: &Weights,
    moments: &[AdamWState],
    posteriors: &Posteriors,
    state: &State,
    tokenizer: Option<&[u8]>,
) -> Result<PathBuf> {
    let parent = run_dir.join(CHECKPOINTS);
    create_dir(&parent)?;
    let name = format!("{PREFIX}{}", state.step);
    let dir = parent.join(&name);
    let aside = create_temporary_dir(&dir)?;
    if let Some(content) = tokenizer {
        write_whole(&aside.path().join(TOKENIZER_FILE), content)?;
    }
    write_files(aside.path(), config, weights, moments, posteriors, state)?;
    // A half folder, or a file of this name: a whole checkpoint is not written twice.
    remove_aside(&dir)?;
    fs::rename(aside.path(), &dir).map_err(Error::io(&dir, "rename to"))?;
    // It has another name now, which is not to be removed.
    let _ = aside.keep();
    sync_dir(&parent)?;
    write_whole(&run_dir.join(LATEST_FILE), format!("{CHECKPOINTS}/{name}\n").as_bytes())?;
    Ok(dir)
}

/// Removes the whole checkpoints of a run other than the newest `keep_last` and `good`, and what an interrupted save or
/// removal has left. Folders and files that are no checkpoints stay.
///
/// # Errors
/// [`Error::File`].
pub fn prune(run_dir: &Path, keep_last: usize, good: Option<&Path>) -> Result<()> {
    let parent = run_dir.join(CHECKPOINTS);
    let mut whole: Vec<PathBuf> = Vec::new();
    for step in steps(&parent)?.into_iter().rev() {
        let dir = parent.join(format!("{PREFIX}{step}"));
        if check_whole(&dir).is_ok() {
            whole.push(dir);
        }
    }
    for dir in whole.iter().skip(keep_last).filter(|dir| good != Some(dir.as_path())) {
        remove_aside(dir)?;
    }
    Ok(())
}

/// Removes what interrupted saves have left, of earlier versions too. Called under the run's lock.
pub(crate) fn remove_leftovers(run_dir: &Path) -> Result<()> {
    let parent = run_dir.join(CHECKPOINTS);
    for entry in list(&parent)? {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ours = name.strip_prefix('.').is_some_and(|name| name.starts_with(PREFIX));
        if ours && [TEMPORARY_SUFFIX, ".tmp", ".old"].iter().any(|end| name.ends_with(end)) {
            ltm_files::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// The step in a checkpoint's name, which has one spelling: `step-7`, and neither `step-007` nor `step-+7`.
pub(super) fn step_of(name: &str) -> Option<u64> {
    let step = name.strip_prefix(PREFIX)?.parse().ok()?;
    (name == format!("{PREFIX}{step}")).then_some(step)
}

/// The entries of a folder; none when it does not exist.
fn list(parent: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(parent) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.collect::<std::io::Result<_>>())
            .map_err(Error::io(parent, "list")),
    }
}

/// The steps of what has a checkpoint's name, ascending; none when the folder does not exist.
fn steps(parent: &Path) -> Result<Vec<u64>> {
    let entries = list(parent)?;
    let mut steps: Vec<u64> =
        entries.iter().filter_map(|entry| step_of(&entry.file_name().to_string_lossy())).collect();
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoints of a run, as far as it matters which is the newest.
#[derive(Debug, Default)]
pub struct Found {
    /// The newest whole checkpoint; `None` when the run has none.
    pub newest: Option<PathBuf>,
    /// What has the name of a newer one, but is no whole checkpoint: why not.
    pub ignored: Vec<Error>,
}

/// Looks for the newest checkpoint of a run that is whole: has all its files, of the recorded sizes, the step of its
/// name, and a configuration that is not damaged.
///
/// # Errors
/// [`Error::File`] when the folder cannot be listed.
pub fn newest(run_dir: &Path) -> Result<Found> {
    let parent = run_dir.join(CHECKPOINTS);
    let mut found = Found::default();
    for step in steps(&parent)?.into_iter().rev() {
        let dir = parent.join(format!("{PREFIX}{step}"));
        match check_whole(&dir) {
            Ok(()) => {
                found.newest = Some(dir);
                break;
            }
            Err(error) => found.ignored.push(error),
        }
    }
    Ok(found)
}

/// A checkpoint's folder: `path` itself, or the newest whole one of the run in it.
///
/// # Errors
/// [`Error::File`] when it is neither or cannot be read.
pub fn locate(path: &Path) -> Result<PathBuf> {
    fs::metadata(path).map_err(Error::io(path, "open"))?;
    if path.join(STATE_FILE).exists() {
        return Ok(path.into());
    }
    let Found { newest, ignored } = newest(path)?;
    match (newest, ignored.into_iter().next()) {
        (Some(dir), _) => Ok(dir),
        (None, Some(error)) => Err(error),
        (None, None) => {
            let expected = "a checkpoint, or a run's folder with checkpoints";
            Err(Error::content(path, "content", expected, "neither"))
        }
    }
}

/// The folder of the run that a checkpoint's folder belongs to, if it is in one.
pub(super) fn run_of(dir: &Path) -> Option<PathBuf> {
    let dir = fs::canonicalize(dir).ok()?;
    let parent = dir.parent()?;
    (parent.file_name()? == CHECKPOINTS).then(|| parent.parent().map(Path::to_path_buf))?
}
