//! The corpus of a run: where it is, what identifies it, and its splits in batches. Trains nothing.

use std::fs;
use std::path::PathBuf;

use ltm_files::as_text;

use crate::checkpoint::{Checkpoint, DataRecord};
use crate::config::Config;
use crate::data::storyworld::{self, Parameters};
use crate::data::{BatchOptions, Batches, Corpus, Meta, Order, SharedTokenizer, Split};
use crate::{Error, Result};

/// The folder of a run's corpus.
pub fn corpus_dir(config: &Config) -> PathBuf {
    match &config.data.path {
        Some(path) => path.clone(),
        None => config.run.dir.join("data"),
    }
}

/// The folder of a run's corpus. One to be generated is generated first, where it is missing.
///
/// # Errors
/// [`Error::Field`] when the configuration names no data, like that of an imported model; those of
/// [`storyworld::ensure`].
pub fn ensure(config: &Config) -> Result<PathBuf> {
    if config.data.path.is_none() && config.data.corpus.is_none() {
        let expected = "a corpus folder or file named with the command, because this model came without its corpus";
        return Err(Error::field("data.path", expected, "no corpus"));
    }
    config.data.check_source()?;
    let dir = corpus_dir(config);
    if config.data.path.is_none() {
        storyworld::ensure(&dir, &parameters(config))?;
    }
    Ok(dir)
}

/// Opens one split of a run's data in batches: shuffled for [`Split::Train`], in sequence for
/// [`Split::Val`]. A corpus to be generated is generated first, where it is missing.
///
/// # Errors
/// [`Error::Field`] when the configuration names no data; those of [`storyworld::ensure`], [`Corpus::open`] and
/// [`Batches::new`].
pub fn open(config: &Config, split: Split) -> Result<Batches> {
    let named = config.data.named_tokenizer()?;
    open_with(config, split, named.as_ref())
}

fn open_with(
    config: &Config,
    split: Split,
    tokenizer: Option<&SharedTokenizer>,
) -> Result<Batches> {
    let dir = ensure(config)?;
    let order = match split {
        Split::Train => Order::Shuffled { seed: config.run.seed },
        Split::Val => Order::Sequential,
    };
    open_corpus(config, Corpus::open(&dir, split, tokenizer)?, order)
}

/// A corpus in batches of the shape that `config.train` specifies.
///
/// # Errors
/// Those of [`Batches::new`].
pub fn open_corpus(config: &Config, corpus: Corpus, order: Order) -> Result<Batches> {
    let options = BatchOptions {
        batch: config.train.batch,
        seq_len: config.train.seq_len,
        rows: config.data.row_kind(),
        order,
    };
    Ok(Batches::new(corpus, options)?)
}

/// The validation split; `None` for a corpus of one split, which is trained on without measuring. It must be of
/// `tokenizer`, or where none is given of that which the configuration names.
///
/// # Errors
/// Those of [`open`].
pub fn open_val(config: &Config, tokenizer: Option<&SharedTokenizer>) -> Result<Option<Batches>> {
    let named = match tokenizer {
        Some(given) => Some(given.clone()),
        None => config.data.named_tokenizer()?,
    };
    match open_with(config, Split::Val, named.as_ref()) {
        Ok(val) => Ok(Some(val)),
        Err(Error::Data(ltm_data::Error::EmptySplit { .. })) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the folder of a generated corpus holds other stories than those of the configuration.
pub(crate) fn has_other_stories(config: &Config) -> Result<bool> {
    if config.data.path.is_some() {
        return Ok(false);
    }
    let found = Meta::read(&corpus_dir(config))?.as_ref().and_then(Parameters::of);
    Ok(found.is_some_and(|found| !found.differences(&parameters(config)).is_empty()))
}

/// Refuses to resume a run on other generated stories than those that its checkpoint records.
///
/// # Errors
/// [`Error::DataChanged`].
pub(crate) fn check_same_stories(config: &Config, checkpoint: &Checkpoint) -> Result<()> {
    let recorded = checkpoint.state.data.as_ref().and_then(|data| data.train.storyworld.as_ref());
    let Some(recorded) = recorded.filter(|_| config.data.path.is_none()) else { return Ok(()) };
    let differences = recorded.differences(&parameters(config));
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::DataChanged { checkpoint: checkpoint.dir.clone(), differences })
}

/// What a run records about its corpus.
pub(crate) fn record(
    config: &Config,
    train: &Batches,
    val: Option<&Batches>,
) -> Result<DataRecord> {
    let whole = |path: &PathBuf| fs::canonicalize(path).map_err(Error::io(path, "open"));
    let (dir, run_dir) = (whole(&corpus_dir(config))?, whole(&config.run.dir)?);
    Ok(DataRecord {
        from_run: pathdiff::diff_paths(&dir, run_dir).map(|path| as_text(&path)),
        dir: as_text(&dir),
        train: train.corpus().fingerprint()?,
        val: val.map(|val| val.corpus().fingerprint()).transpose()?,
    })
}

fn parameters(config: &Config) -> Parameters {
    Parameters {
        seed: config.run.seed,
        documents: config.data.documents,
        val_documents: config.data.val_documents,
    }
}
