//! A trained model without its training: what leaves a run and what becomes one, a run folder of weights alone. Trains
//! nothing.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_files::{FolderLock, write_whole};
use ltm_model::{Weights, param_table};

use crate::checkpoint::{self, CHECKPOINTS, CONFIG_FILE, Checkpoint, State};
use crate::config::{Config, RowKind};
use crate::data::{Rows, SharedTokenizer};
use crate::{Error, Posteriors, Result};

/// The folder that a configuration of no run names.
const NO_FOLDER: &str = ".";

/// A trained model: everything that evaluation, generation and probes need, and nothing that ties it to a place, a
/// device or a corpus of files.
#[derive(Clone, Debug)]
pub struct Trained {
    /// How it was trained. It computes on the CPU, and names no folder and no file.
    pub config: Config,
    /// The weights.
    pub weights: Weights,
    /// What token ids mean.
    pub tokenizer: SharedTokenizer,
    /// Slow steps taken.
    pub step: u64,
}

impl Trained {
    /// A model with the configuration of its training, from which paths are removed: it has no corpus but one that can be
    /// generated.
    ///
    /// # Errors
    /// [`Error::Field`] when the vocabularies of model and tokenizer differ or the seed and step do; [`Error::Model`] for
    /// weights of another model.
    pub fn new(
        config: Config,
        weights: Weights,
        tokenizer: SharedTokenizer,
        step: u64,
    ) -> Result<Self> {
        let mut config = config;
        if config.data.path.take().is_some() {
            // Of files that were left behind; a generated corpus would be another one.
            config.data.corpus = None;
            config.data.rows.get_or_insert(RowKind::Windows);
        }
        config.data.tokenizer = None;
        config.run.dir = NO_FOLDER.into();
        config.run.device = "cpu".into();
        config.run.precision = None;
        config.validate()?;
        weights.check(&config.model)?;
        let (words, found) = (config.model.n_words(), tokenizer.vocab_size());
        if words != found {
            let expected = format!("one with {words} ids, as in the model");
            return Err(Error::field("tokenizer", expected, format!("{found} ids")));
        }
        Ok(Self { config, weights, tokenizer, step })
    }

    /// Whether the model has a corpus: one that can be generated again.
    pub fn has_corpus(&self) -> bool {
        self.config.data.corpus.is_some()
    }

    /// Numbers in the weights.
    pub fn param_count(&self) -> usize {
        param_table(&self.config.model).iter().map(ltm_model::ParamSpec::len).sum()
    }

    /// Writes a run folder: configuration, and one checkpoint without the optimiser's state. It can be used like any run,
    /// and moved; training cannot go on from it. Returns the checkpoint's folder.
    ///
    /// # Errors
    /// [`Error::File`] when `dir` has files already or cannot be written.
    pub fn write_run(&self, dir: &Path) -> Result<PathBuf> {
        check_empty(dir)?;
        let _lock = FolderLock::acquire(dir)?;
        let mut config = self.config.clone();
        // A name, which is replaced by the folder's own place when the run is read.
        config.run.dir = dir.file_name().map_or_else(|| NO_FOLDER.into(), PathBuf::from);
        let Config { run, train, .. } = &config;
        let batches = self.step.checked_mul(train.micro_batches as u64);
        let batches = batches.ok_or_else(|| {
            Error::field("step", "a number of micro-batches within 64 bits", self.step)
        })?;
        let state = State {
            step: self.step,
            seed: run.seed,
            batches,
            kl_balance: None,
            tokenizer: self.tokenizer.spec(),
            data: None,
            files: Default::default(),
        };
        let (no_posteriors, file) = (Posteriors::default(), self.tokenizer.file());
        let saved =
            checkpoint::save_in(dir, &config, &self.weights, &[], &no_posteriors, &state, file)?;
        write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
        Ok(saved)
    }
}

impl TryFrom<Checkpoint> for Trained {
    type Error = Error;

    fn try_from(checkpoint: Checkpoint) -> Result<Self> {
        let Checkpoint { mut config, weights, tokenizer, state, .. } = checkpoint;
        config.data.rows = Some(match config.data.row_kind() {
            Rows::Documents => RowKind::Documents,
            Rows::Windows => RowKind::Windows,
        });
        Self::new(config, weights, tokenizer, state.step)
    }
}

/// Refuses a folder with files in it, so that nothing is mixed or replaced.
///
/// # Errors
/// [`Error::File`].
pub fn check_empty(dir: &Path) -> Result<()> {
    let first = match fs::read_dir(dir) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(dir, "list"))?.next(),
    };
    match first {
        None => Ok(()),
        Some(entry) => {
            let name = entry.map_err(Error::io(dir, "list"))?.file_name();
            let found = format!("`{}` in it", name.to_string_lossy());
            Err(Error::content(dir, "content", "a new or empty folder", found))
        }
    }
}

/// Whether a folder is that of a run or a checkpoint.
pub fn is_run(dir: &Path) -> bool {
    dir.join(CHECKPOINTS).is_dir() || dir.join(CONFIG_FILE).is_file()
}
