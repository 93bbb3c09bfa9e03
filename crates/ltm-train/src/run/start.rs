//! The start of a run: what its folder may hold, what is resumed, and what is refused before anything is changed.

use std::path::Path;

use ltm_collective::Group;
use ltm_files::{FolderLock, remove_aside, write_whole};
use ltm_vi::StartKind;
use serde::{Deserialize, Serialize};

use super::{Folder, Run};
use crate::checkpoint::{self, CONFIG_FILE, Checkpoint, Found};
use crate::config::Config;
use crate::data::{Split, Tokenizer, TokenizerSpec, storyworld};
use crate::metrics::{self, JsonlWriter, Line, METRICS_FILE};
use crate::posteriors::Posteriors;
use crate::resume::{self, Changes};
use crate::step::SlowLearner;
use crate::trainer::{Trainer, check_shared, check_vocabulary};
use crate::{Error, Result, chain, run_data, run_record};

/// Whether a run may find an earlier one in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It must not.
    Fresh,
    /// It continues from the newest checkpoint, which must exist, on the same data.
    Resume,
    /// It continues from the newest checkpoint, which must exist, on data that may have changed.
    ResumeOnChangedData,
    /// It continues from the newest checkpoint; without one it starts from step 0.
    FreshOrResume,
}

impl Run {
    /// Takes the lock of the run's folder, opens the data, generating it if it is to be generated, and writes the
    /// configuration. What is refused is refused before anything of an earlier run is changed.
    ///
    /// # Errors
    /// [`Error::File`] when another process trains in the folder, the checkpoint is of another run, the data of a resumed
    /// run is not what its sidecar records, or a file cannot be read or written; [`Error::Data`] when the data has no tokens;
    /// [`Error::RunExists`], [`Error::NothingToResume`], [`Error::DataChanged`], [`Error::Device`], [`Error::Field`] and those
    /// of [`Checkpoint::load`].
    pub fn new(config: Config, start: Start) -> Result<Self> {
        Self::in_group(config, start, Group::alone())
    }

    /// As [`new`](Self::new), as one of the processes of a group: the first does all this, and writes the run; the others
    /// read its folder and the data, which they must see under the same paths. A run may be resumed by any number of
    /// processes.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), [`Error::Group`] when another process failed, [`Error::Diverged`] when the weights are
    /// not the same everywhere, and [`Error::Field`] for micro-batches that cannot be shared equally.
    pub fn in_group(config: Config, start: Start, group: Group) -> Result<Self> {
        // Before anything is written. Every process comes to the same result.
        check_shared(&config, &group)?;
        let of_config = fingerprint(&config);
        let first = group.is_first().then(|| Self::begin(config.clone(), start, &group));
        let said = match &first {
            Some(Ok((_, begun))) => Ok(Some((of_config, *begun))),
            Some(Err(error)) => Err(chain(error)),
            None => Ok(None),
        };
        let heard = group.agree(said.as_ref().map_err(String::clone), "the start of the run");
        let run = match first {
            Some(first) => first.map(|(run, _)| run),
            None => match heard?[0] {
                Some((known, begun)) if known == of_config => Self::join(config, begun, &group),
                _ => Err(Error::field("config", "the configuration of rank 0", "another one")),
            },
        };
        let joined = group
            .agree(run.as_ref().map(|_| &()).map_err(|error| chain(error)), "the start of the run");
        let run = run?;
        joined?;
        run.trainer.verify()?;
        Ok(run)
    }

    /// Joins the run that the first process has begun.
    fn join(config: Config, begun: Begun, group: &Group) -> Result<Self> {
        config.run.compute()?;
        let train = run_data::open(&config, Split::Train)?;
        let tokenizer = train.corpus().tokenizer();
        let val = run_data::open_val(&config, Some(tokenizer))?;
        let Begun { step, drops_posteriors, skips_evaluation } = begun;
        let mut trainer = match step {
            None => Trainer::in_group(config, group.clone(), train, val)?,
            Some(step) => {
                let dir = &config.run.dir;
                let nothing = || Error::NothingToResume { dir: dir.clone() };
                let newest = checkpoint::newest(dir)?.newest.ok_or_else(nothing)?;
                let checkpoint = Checkpoint::load(&newest)?;
                if checkpoint.state.step != step {
                    let expected =
                        format!("{step}, as in rank 0: all processes must see one folder");
                    return Err(Error::content(
                        &newest,
                        "step",
                        expected,
                        checkpoint.state.step.to_string(),
                    ));
                }
                let mut learner = learner_of(&config, &checkpoint)?.in_group(group.clone());
                if drops_posteriors {
                    learner.set_posteriors(Posteriors::default())?;
                }
                Trainer::from_learner(config, learner, step, train, val)?
            }
        };
        if skips_evaluation {
            trainer.skip_evaluation();
        }
        Ok(Self { trainer, folder: None, changes: Changes::default(), ignored: Vec::new() })
    }

    /// Begins a run as its first process.
    fn begin(config: Config, start: Start, group: &Group) -> Result<(Self, Begun)> {
        config.run.compute()?;
        let dir = config.run.dir.clone();
        // Twice: a mistyped folder is not to be created, and before the lock another process may start a run.
        find(&dir, start)?;
        let lock = FolderLock::acquire(&dir)?;
        let Found { newest, ignored } = find(&dir, start)?;
        checkpoint::remove_leftovers(&dir)?;
        let resumed = newest.map(|path| Checkpoint::load(&path)).transpose()?;
        if let Some(checkpoint) = &resumed {
            resume::check_same_run(checkpoint, &config)?;
        }
        let metrics_path = dir.join(METRICS_FILE);
        if let Some(checkpoint) = &resumed {
            if start != Start::ResumeOnChangedData {
                run_data::check_same_stories(&config, checkpoint)?;
            } else if run_data::has_other_stories(&config)? {
                // What may refuse comes before the stories are removed, to be generated again.
                check_tokenizer(&config, Some(checkpoint), &*storyworld::tokenizer())?;
                drop(learner_of(&config, checkpoint)?);
                JsonlWriter::check(&metrics_path, checkpoint.state.step)?;
                remove_aside(&run_data::corpus_dir(&config))?;
            }
        }
        let train = run_data::open(&config, Split::Train)?;
        let tokenizer = train.corpus().tokenizer();
        let val = run_data::open_val(&config, Some(tokenizer))?;
        check_tokenizer(&config, resumed.as_ref(), &**tokenizer)?;
        if resumed.is_some() {
            // What is compared are the sidecar's hashes: they must be those of the files.
            for batches in [Some(&train), val.as_ref()].into_iter().flatten() {
                batches.corpus().verify()?;
            }
        }
        let data = run_data::record(&config, &train, val.as_ref())?;
        let mut changes = Changes::default();
        if let Some(checkpoint) = &resumed {
            let accept_data = start == Start::ResumeOnChangedData;
            changes = resume::changes(checkpoint, &config, &data, accept_data)?;
        }
        let mut begun = Begun {
            step: resumed.as_ref().map(|checkpoint| checkpoint.state.step),
            drops_posteriors: !changes.data.is_empty(),
            skips_evaluation: false,
        };
        let (trainer, metrics) = match &resumed {
            None => {
                let trainer = Trainer::in_group(config, group.clone(), train, val)?;
                (trainer, JsonlWriter::replace(&metrics_path)?)
            }
            Some(checkpoint) => {
                let (mut learner, step) = (learner_of(&config, checkpoint)?, checkpoint.state.step);
                if !changes.data.is_empty() {
                    // A row of the same number may be another text.
                    changes.dropped_posteriors = learner.posteriors().rows.len();
                    learner.set_posteriors(Posteriors::default())?;
                }
                let learner = learner.in_group(group.clone());
                let mut trainer = Trainer::from_learner(config, learner, step, train, val)?;
                let metrics = JsonlWriter::resume(&metrics_path, step)?;
                if !was_stopped_in_evaluation(checkpoint, &metrics_path)? {
                    begun.skips_evaluation = true;
                    trainer.skip_evaluation();
                }
                (trainer, metrics)
            }
        };
        let (config, step) = (trainer.config(), trainer.steps_taken());
        if step < config.train.steps {
            write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
            run_record::write(config, step, &data)?;
        }
        let folder = Folder {
            dir,
            steps: config.train.steps,
            keep_last: config.train.keep_last,
            data,
            saved: resumed.as_ref().map(|checkpoint| checkpoint.state.step),
            checkpoint: resumed.map(|checkpoint| checkpoint.dir),
            good: None,
            evaluated: None,
            metrics,
            events: None,
            _lock: lock,
        };
        Ok((Self { trainer, folder: Some(folder), changes, ignored }, begun))
    }
}

/// What the other processes of a group must know of how the first began.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Begun {
    /// The step that is resumed.
    step: Option<u64>,
    drops_posteriors: bool,
    skips_evaluation: bool,
}

/// A checksum of a configuration but for its device, which each process has for itself.
fn fingerprint(config: &Config) -> u32 {
    let mut config = config.clone();
    config.run.device = String::new();
    crc32c::crc32c(config.to_toml().as_bytes())
}

/// The learner that a checkpoint holds.
fn learner_of(config: &Config, checkpoint: &Checkpoint) -> Result<SlowLearner> {
    let mut learner = SlowLearner::new(config, &checkpoint.weights)?;
    learner.set_moments(checkpoint.moments()?)?;
    if config.infer.start == StartKind::Given {
        learner.set_posteriors(checkpoint.posteriors()?)?;
    }
    if let Some(kl_balance) = checkpoint.state.kl_balance {
        let named = |error| match error {
            Error::Field { expected, found, .. } => {
                Error::content(&checkpoint.dir, "kl_balance", expected, found)
            }
            error => error,
        };
        learner.set_kl_balance(kl_balance).map_err(named)?;
    }
    Ok(learner)
}

/// Whether the run of a checkpoint was to score its weights and did not: its metrics end with the step itself.
fn was_stopped_in_evaluation(checkpoint: &Checkpoint, metrics_path: &Path) -> Result<bool> {
    let due = checkpoint.config.train.evaluates_after(checkpoint.state.step);
    Ok(due && matches!(metrics::read(metrics_path)?.last(), Some(Line::Step(_))))
}

/// Refuses a tokenizer that is not that of the model or of the checkpoint that is resumed.
fn check_tokenizer(
    config: &Config,
    resumed: Option<&Checkpoint>,
    tokenizer: &dyn Tokenizer,
) -> Result<()> {
    check_vocabulary(config, tokenizer)?;
    match resumed {
        Some(checkpoint) if checkpoint.tokenizer.fingerprint() != tokenizer.fingerprint() => {
            let (old, new) = (&checkpoint.state.tokenizer, tokenizer.spec());
            let expected = format!("the tokenizer of the data, {}", describe(&new, old));
            let found = describe(old, &new);
            Err(Error::content(&checkpoint.dir, "tokenizer", expected, found))
        }
        _ => Ok(()),
    }
}

/// A tokenizer as far as it is not like `other`.
fn describe(tokenizer: &TokenizerSpec, other: &TokenizerSpec) -> String {
    let (TokenizerSpec::Words { vocabulary: words }, TokenizerSpec::Words { vocabulary: others }) =
        (tokenizer, other)
    else {
        return tokenizer.to_string();
    };
    match words.iter().zip(others).position(|(word, other)| word != other) {
        Some(id) => format!("{tokenizer} with `{}` as id {id}", words[id]),
        None => format!("{tokenizer}, {} of them", words.len()),
    }
}

/// The checkpoints in a run's folder, if `start` allows what is there.
fn find(dir: &Path, start: Start) -> Result<Found> {
    let found = checkpoint::newest(dir)?;
    match (start, &found.newest) {
        (Start::Fresh, None) if found.ignored.is_empty() => Ok(found),
        (Start::Fresh, Some(_)) => Err(Error::RunExists { dir: dir.into() }),
        (_, Some(_)) => Ok(found),
        (_, None) if !found.ignored.is_empty() => {
            let checkpoints = dir.join(checkpoint::CHECKPOINTS);
            let reason = crate::error::chain(&found.ignored[0]);
            let found = format!(
                "none ({reason}); to start again, remove {} or set another `run.dir`",
                checkpoints.display()
            );
            Err(Error::content(dir, "checkpoints", "a whole one", found))
        }
        (Start::FreshOrResume, None) => Ok(found),
        (_, None) => Err(Error::NothingToResume { dir: dir.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_lists_are_described_by_their_first_difference() {
        let words = |list: &str| TokenizerSpec::Words {
            vocabulary: list.split(' ').map(String::from).collect(),
        };
        let (old, new) = (words("a cat sat"), words("a dog sat"));
        assert_eq!(describe(&old, &new), "words with `cat` as id 1");
        assert_eq!(describe(&words("a"), &old), "words, 1 of them");
        assert_eq!(describe(&TokenizerSpec::Bytes, &old), "bytes");
    }
}
