//! A run's state on disk: a folder that is whole or absent. Trains nothing.

mod folders;
mod posteriors_file;
mod tensors;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use ltm_autodiff::AdamWState;
use ltm_files::write_whole;
use ltm_kernels::Buffer;
use ltm_model::{Weights, param_table};
use ltm_vi::StartKind;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::data::{Fingerprint, SharedTokenizer, TokenizerSpec};
use crate::posteriors::Posteriors;
use crate::{Error, Result};

pub use folders::{CHECKPOINTS, Found, LATEST_FILE, locate, newest, prune, save};
pub(crate) use folders::{remove_leftovers, save_in};
use folders::{run_of, step_of};
use tensors::{Tensor, TensorFile};

/// The file of a run, and of a checkpoint, that holds its configuration.
pub const CONFIG_FILE: &str = "config.toml";
const MODEL_FILE: &str = "model.safetensors";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const POSTERIORS_FILE: &str = "posteriors.safetensors";
const STATE_FILE: &str = "state.json";
/// What every checkpoint has; which others one has is in its [`State::files`].
const FILES: [&str; 3] = [CONFIG_FILE, MODEL_FILE, STATE_FILE];

/// Counters of a run, what it learns from, and checksums of the checkpoint's files. There is no state of a random
/// number generator: all random numbers are functions of seed and step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Slow steps taken.
    pub step: u64,
    /// The run's seed.
    pub seed: u64,
    /// Position in the data: micro-batches read.
    pub batches: u64,
    /// The factor of the KL's weight that follows `infer.kl_target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_balance: Option<f32>,
    /// What token ids mean.
    pub tokenizer: TokenizerSpec,
    /// The corpus. Checkpoints of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataRecord>,
    /// Size and checksum of each other file, filled in by [`save`]. Checkpoints of earlier versions lack that of
    /// [`CONFIG_FILE`] or all.
    #[serde(default)]
    pub files: BTreeMap<String, Checksum>,
}

impl State {
    /// Whether the checkpoint was saved without the optimiser's state.
    fn has_weights_alone(&self) -> bool {
        self.files.contains_key(MODEL_FILE) && !self.files.contains_key(OPTIMIZER_FILE)
    }
}

/// Which corpus a run is trained on, and where it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataRecord {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// Its folder, relative to the run's; `None` where there is no such path.
    pub from_run: Option<PathBuf>,
    /// What the training split consists of.
    pub train: Fingerprint,
    /// What the validation split consists of, where there is one.
    pub val: Option<Fingerprint>,
}

/// What a file must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checksum {
    /// Its size.
    pub bytes: u64,
    /// The CRC-32C of its content.
    pub crc32c: u32,
}

impl Checksum {
    fn of(path: &Path) -> Result<Self> {
        let mut file = fs::File::open(path).map_err(Error::io(path, "open"))?;
        let (mut bytes, mut crc32c) = (0, 0);
        let mut piece = vec![0; 1 << 20];
        loop {
            match file.read(&mut piece).map_err(Error::io(path, "read"))? {
                0 => return Ok(Self { bytes, crc32c }),
                n => {
                    bytes += n as u64;
                    crc32c = crc32c::crc32c_append(crc32c, &piece[..n]);
                }
            }
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes with CRC-32C {:08x}", self.bytes, self.crc32c)
    }
}

/// A checkpoint, read for use: everything but the optimiser and the posteriors of rows.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Its folder.
    pub dir: PathBuf,
    /// The run's configuration when it was written. `run.dir` and `data.path` are where the run and its corpus are now.
    pub config: Config,
    /// The weights.
    pub weights: Weights,
    /// What token ids mean.
    pub tokenizer: SharedTokenizer,
    /// The counters.
    pub state: State,
}

impl Checkpoint {
    /// Reads a checkpoint: its folder, or a run's for the newest whole one.
    ///
    /// # Errors
    /// [`Error::File`] when there is none, or naming the file that cannot be read or is damaged: by its checksum, by a
    /// weight that is not finite, or by a step that is not its folder's; [`Error::Config`], [`Error::Model`] for weights of
    /// another model.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_with(path, None)
    }

    /// As [`Checkpoint::load`], for a model over a tokenizer of the program's own.
    ///
    /// # Errors
    /// Those of [`Checkpoint::load`]; [`Error::File`] when the model is over another tokenizer.
    pub fn load_with(path: &Path, tokenizer: Option<&SharedTokenizer>) -> Result<Self> {
        let dir = locate(path)?;
        let state = read_state(&dir)?;
        verify(&dir, &state, CONFIG_FILE)?;
        let config = Config::load_resolved(&dir.join(CONFIG_FILE), &[])?;
        let given = tokenizer.filter(|given| given.spec() == state.tokenizer);
        let tokenizer = match given {
            Some(own) => own.clone(),
            None => open_tokenizer(&dir, &state)?,
        };
        check_counters(&dir, &state, &config, tokenizer.vocab_size())?;
        let model = dir.join(MODEL_FILE);
        verify(&dir, &state, MODEL_FILE)?;
        let weights =
            Weights::load(&model, &config.model).map_err(|error| damaged(&model, error))?;
        let mut checkpoint = Self { dir, config, weights, tokenizer, state };
        let mut config = checkpoint.config.clone();
        checkpoint.place(&mut config, path);
        checkpoint.config = config;
        Ok(checkpoint)
    }

    /// The configuration with `section.key=value` overrides.
    ///
    /// # Errors
    /// Those of [`Config::load_resolved`].
    pub fn configured(&self, overrides: &[String]) -> Result<Config> {
        let file = self.dir.join(CONFIG_FILE);
        let written = Config::load_resolved(&file, &[])?;
        let mut config = Config::load_resolved(&file, overrides)?;
        // What no override has changed is where it is now.
        if config.run.dir == written.run.dir {
            config.run.dir = self.config.run.dir.clone();
        }
        if config.data.path == written.data.path {
            config.data.path = self.config.data.path.clone();
        }
        if config.data.tokenizer == written.data.tokenizer {
            config.data.tokenizer = self.config.data.tokenizer.clone();
        }
        Ok(config)
    }

    /// Sets the run's folder to the one that the checkpoint is in, reached by `path`, and the corpus to the first of
    /// its recorded places that exists: relative to the run's folder, absolute, as it was configured.
    ///
    /// A tokenizer's file that is gone is replaced by the checkpoint's copy of it.
    fn place(&self, config: &mut Config, path: &Path) {
        let copy = self.dir.join(TOKENIZER_FILE);
        if let (Some(named), TokenizerSpec::Json { .. }) =
            (&mut config.data.tokenizer, &self.state.tokenizer)
            && !Path::new(named).exists()
            && copy.exists()
        {
            *named = copy.to_string_lossy().into_owned();
        }
        let run_dir = if self.dir != path { Some(path.to_path_buf()) } else { run_of(path) };
        let Some(run_dir) = run_dir else { return };
        if let (Some(configured), Some(data)) = (&config.data.path, &self.state.data) {
            let from_run = data.from_run.iter().map(|from_run| run_dir.join(from_run));
            let place = from_run.chain([data.dir.clone()]).find(|dir| dir.exists());
            let same =
                |dir: &PathBuf| fs::canonicalize(dir).ok() == fs::canonicalize(configured).ok();
            config.data.path = place.filter(|dir| !same(dir)).or(config.data.path.take());
        }
        config.run.dir = run_dir;
    }

    /// Reads the optimiser's state, in the order of [`param_table`].
    ///
    /// # Errors
    /// [`Error::File`] when the checkpoint has weights alone, or the file cannot be read, is damaged, of another model or
    /// holds a number that is not finite.
    pub fn moments(&self) -> Result<Vec<AdamWState>> {
        let path = self.dir.join(OPTIMIZER_FILE);
        if self.state.has_weights_alone() {
            let found = "a checkpoint of weights alone, which can be used but not trained further";
            return Err(Error::content(&path, "content", "the optimiser's state", found));
        }
        verify(&self.dir, &self.state, OPTIMIZER_FILE)?;
        let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
        let file = TensorFile::parse(&path, &bytes)?;
        let read = |name: String, shape: &[usize]| {
            Ok::<_, Error>(Buffer::from_vec(file.floats(&name, shape)?))
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

    /// Reads the posteriors of rows; none of a run that keeps none, under another `infer.start`.
    ///
    /// # Errors
    /// Those of [`moments`](Self::moments).
    pub fn posteriors(&self) -> Result<Posteriors> {
        if !keeps_posteriors(&self.config) {
            return Ok(Posteriors::default());
        }
        verify(&self.dir, &self.state, POSTERIORS_FILE)?;
        posteriors_file::load(&self.dir.join(POSTERIORS_FILE), &self.config.model)
    }
}

/// Whether a run's checkpoints have the posteriors of rows.
fn keeps_posteriors(config: &Config) -> bool {
    config.infer.start == StartKind::Given
}

fn write_files(
    dir: &Path,
    config: &Config,
    weights: &Weights,
    moments: &[AdamWState],
    posteriors: &Posteriors,
    state: &State,
) -> Result<()> {
    weights.save(&dir.join(MODEL_FILE), &config.model).map_err(|error| match error {
        ltm_model::Error::Io { path, source } => Error::io(&path, "write")(source),
        other => Error::Model(other),
    })?;
    let specs = param_table(&config.model);
    let mut tensors = Vec::with_capacity(2 * specs.len());
    for (spec, moment) in specs.iter().zip(moments) {
        for (name, buffer) in [("m", &moment.m), ("v", &moment.v)] {
            let numbers = buffer.to_f32().map_err(ltm_vi::Error::from)?;
            tensors.push(Tensor::floats(format!("{name}.{}", spec.name), &spec.shape, &numbers));
        }
    }
    let optimizer = (!tensors.is_empty()).then_some(OPTIMIZER_FILE);
    if let Some(name) = optimizer {
        tensors::write(&dir.join(name), &tensors)?;
    }
    if keeps_posteriors(config) {
        posteriors_file::save(&dir.join(POSTERIORS_FILE), &config.model, posteriors)?;
    }
    write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
    let mut state = state.clone();
    let tokenizer = dir.join(TOKENIZER_FILE).exists().then_some(TOKENIZER_FILE);
    let posteriors = keeps_posteriors(config).then_some(POSTERIORS_FILE);
    let others = optimizer.into_iter().chain(tokenizer).chain(posteriors);
    for name in [CONFIG_FILE, MODEL_FILE].into_iter().chain(others) {
        state.files.insert(name.into(), Checksum::of(&dir.join(name))?);
    }
    let json = serde_json::to_string_pretty(&state).expect("counters serialise");
    Ok(write_whole(&dir.join(STATE_FILE), json.as_bytes())?)
}

/// Checks what can be checked without reading the large files.
fn check_whole(dir: &Path) -> Result<()> {
    let is_file = |name: &str| {
        let path = dir.join(name);
        match fs::metadata(&path).map_err(Error::io(&path, "open"))?.is_file() {
            true => Ok(()),
            false => Err(Error::content(&path, "kind", "a file", "a folder")),
        }
    };
    FILES.into_iter().try_for_each(is_file)?;
    let state = read_state(dir)?;
    if !state.has_weights_alone() {
        is_file(OPTIMIZER_FILE)?;
    }
    for (name, expected) in &state.files {
        let path = dir.join(name);
        let bytes = fs::metadata(&path).map_err(Error::io(&path, "open"))?.len();
        if bytes != expected.bytes {
            let expected = format!("{} bytes, as recorded in {STATE_FILE}", expected.bytes);
            return Err(Error::content(&path, "size", expected, format!("{bytes} bytes")));
        }
    }
    verify(dir, &state, CONFIG_FILE)?;
    let config = Config::load_resolved(&dir.join(CONFIG_FILE), &[])?;
    // A list of words is in the state itself, which has no checksum.
    let vocab_size = match &state.tokenizer {
        TokenizerSpec::Words { .. } => open_tokenizer(dir, &state)?.vocab_size(),
        _ => config.model.n_words(),
    };
    check_counters(dir, &state, &config, vocab_size)
}

/// Checks a file against its recorded checksum. Checkpoints of earlier versions have none.
fn verify(dir: &Path, state: &State, name: &str) -> Result<()> {
    let Some(expected) = state.files.get(name) else { return Ok(()) };
    let path = dir.join(name);
    let found = Checksum::of(&path)?;
    if found != *expected {
        let expected = format!("{expected}, as recorded in {STATE_FILE}");
        let found =
            format!("{found}; the file is damaged: remove this checkpoint to use an earlier one");
        return Err(Error::content(&path, "content", expected, found));
    }
    Ok(())
}

fn open_tokenizer(dir: &Path, state: &State) -> Result<SharedTokenizer> {
    state.tokenizer.open(dir).map_err(|error| match error {
        ltm_data::Error::Field { field, expected, found } => {
            let what = format!("tokenizer, `{field}`");
            Error::content(&dir.join(STATE_FILE), what, expected, found)
        }
        other => other.into(),
    })
}

/// Checks what a checkpoint's counters and its configuration both determine.
fn check_counters(dir: &Path, state: &State, config: &Config, vocab_size: usize) -> Result<()> {
    let path = dir.join(STATE_FILE);
    let words = config.model.n_words();
    if vocab_size != words {
        let expected = format!("a tokenizer with {words} ids, as in the model");
        return Err(Error::content(&path, "tokenizer", expected, state.tokenizer.to_string()));
    }
    let batches = state.step.checked_mul(config.train.micro_batches as u64);
    for (what, found, expected) in
        [("seed", state.seed, Some(config.run.seed)), ("batches", state.batches, batches)]
    {
        if Some(found) != expected {
            let expected = expected.map_or("a number of 64 bits".into(), |n| n.to_string());
            let expected = format!("{expected}, as in {CONFIG_FILE}");
            return Err(Error::content(&path, what, expected, found.to_string()));
        }
    }
    Ok(())
}

/// Weights that are not finite are damage to the file, as in the optimiser's state.
fn damaged(path: &Path, error: ltm_model::Error) -> Error {
    match error {
        ltm_model::Error::File { name: file, source } => match *source {
            ltm_model::Error::NotFinite { name, index, value } => {
                let found = format!("{value} at index {index}");
                Error::content(path, format!("tensor `{name}`"), "finite numbers", found)
            }
            other => ltm_model::Error::File { name: file, source: other.into() }.into(),
        },
        other => other.into(),
    }
}

/// Reads a checkpoint's counters, which must be of the step in its folder's name.
fn read_state(dir: &Path) -> Result<State> {
    let path = dir.join(STATE_FILE);
    let bytes = fs::read(&path).map_err(Error::io(&path, "read"))?;
    let state: State = serde_json::from_slice(&bytes)
        .map_err(|error| Error::content(&path, "content", "a run's counters", error.to_string()))?;
    let in_name = |dir: &Path| step_of(&dir.file_name()?.to_string_lossy());
    // A link named like a checkpoint is that checkpoint, or none; `.` has its name from where it is.
    let named = in_name(dir).or_else(|| in_name(&fs::canonicalize(dir).ok()?));
    match named {
        Some(step) if step != state.step => {
            let expected = format!("{step}, the step of its folder's name");
            Err(Error::content(&path, "step", expected, state.step.to_string()))
        }
        _ => Ok(state),
    }
}
