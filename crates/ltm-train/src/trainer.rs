//! A run from its first step to its last, in its folder. Prints nothing; an observer reports progress.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ltm_files::{FolderLock, remove_aside, write_whole};
use ltm_model::Weights;

use crate::checkpoint::{self, CONFIG_FILE, Checkpoint, DataRecord, Found, State};
use crate::config::Config;
use crate::data::{Batches, SharedTokenizer, Split, Tokenizer, TokenizerSpec, storyworld};
use crate::eval::{Evaluation, evaluate, protocols, scores};
use crate::metrics::{EvaluationLine, EventWriter, JsonlWriter, StepLine, tokens_seen};
use crate::resume::{self, Changes};
use crate::step::{SlowLearner, StepReport};
use crate::{Error, Result, run_data, run_record};

pub use crate::metrics::METRICS_FILE;
pub use crate::run_data::{corpus_dir, open, open_corpus};

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

/// Reports how a run proceeds. Every method does nothing unless overridden.
pub trait Observer {
    /// Training starts: `done` of `steps` slow steps were taken before.
    fn started(&mut self, _done: u64, _steps: u64) {}
    /// A step was taken, in this many seconds.
    fn stepped(&mut self, _report: &StepReport, _seconds: f64) {}
    /// The device cannot record the fast steps, for this reason: they run more slowly, with the same results.
    fn not_recorded(&mut self, _error: &ltm_vi::Error) {}
    /// Progress of an evaluation: batches done, of all.
    fn evaluating(&mut self, _done: u64, _all: u64) {}
    /// The validation split was scored after this many steps.
    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) {}
    /// A checkpoint was written.
    fn saved(&mut self, _dir: &Path) {}
    /// Called after every step: returns whether to save a checkpoint now and continue.
    fn wants_checkpoint(&mut self) -> bool {
        false
    }
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Total number of slow steps taken.
    pub step: u64,
    /// Whether these are all requested steps: false after a stop.
    pub finished: bool,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// The evaluation at the last step; `None` after a stop, or without a validation split.
    pub evaluation: Option<Evaluation>,
    /// The folder of the corpus.
    pub corpus: PathBuf,
    /// Tokens of its training split.
    pub corpus_tokens: u64,
    /// Total number of tokens trained on, with repetitions.
    pub tokens: u64,
    /// Seconds that this call took.
    pub seconds: f64,
}

/// A run that is ready to go. It holds its folder's lock until it is dropped.
pub struct Trainer {
    config: Config,
    tokenizer: SharedTokenizer,
    learner: SlowLearner,
    train: Batches,
    val: Option<Batches>,
    data: DataRecord,
    changes: Changes,
    ignored: Vec<Error>,
    step: u64,
    /// The newest checkpoint.
    checkpoint: Option<PathBuf>,
    /// The step of that checkpoint.
    saved: Option<u64>,
    /// The newest checkpoint whose weights were scored, with a finite result.
    good: Option<PathBuf>,
    metrics: JsonlWriter,
    /// Created with the first step.
    events: Option<EventWriter>,
    _lock: FolderLock,
}

impl Trainer {
    /// Takes the lock of the run's folder, opens the data, generating it if it is to be generated, and writes the
    /// configuration. What is refused is refused before anything of an earlier run is changed.
    ///
    /// # Errors
    /// [`Error::File`] when another process trains in the folder, the checkpoint is of another run, the data of a resumed
    /// run is not what its sidecar records, or a file cannot be read or written; [`Error::Data`] when the data has no tokens;
    /// [`Error::RunExists`], [`Error::NothingToResume`], [`Error::DataChanged`], [`Error::Device`], [`Error::Field`] and those
    /// of [`Checkpoint::load`].
    pub fn new(config: Config, start: Start) -> Result<Self> {
        config.run.compute()?;
        let dir = &config.run.dir;
        // Twice: a mistyped folder is not to be created, and before the lock another process may start a run.
        find(dir, start)?;
        let lock = FolderLock::acquire(dir)?;
        let Found { newest, ignored } = find(dir, start)?;
        checkpoint::remove_leftovers(dir)?;
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
                let mut learner = SlowLearner::new(&config, &checkpoint.weights)?;
                learner.set_moments(checkpoint.moments()?)?;
                drop(learner);
                JsonlWriter::check(&metrics_path, checkpoint.state.step)?;
                remove_aside(&corpus_dir(&config))?;
            }
        }
        let train = open(&config, Split::Train)?;
        let tokenizer = train.corpus().tokenizer().clone();
        let val = run_data::open_val(&config, &tokenizer)?;
        check_tokenizer(&config, resumed.as_ref(), &*tokenizer)?;
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
        let (learner, step, metrics) = match &resumed {
            None => {
                let weights = Weights::init(&config.model, config.run.seed)?;
                let learner = SlowLearner::new(&config, &weights)?;
                (learner, 0, JsonlWriter::replace(&metrics_path)?)
            }
            Some(checkpoint) => {
                let mut learner = SlowLearner::new(&config, &checkpoint.weights)?;
                learner.set_moments(checkpoint.moments()?)?;
                let step = checkpoint.state.step;
                (learner, step, JsonlWriter::resume(&metrics_path, step)?)
            }
        };
        if step < config.train.steps {
            write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
            run_record::write(&config, step, &data)?;
        }
        Ok(Self {
            config,
            tokenizer,
            learner,
            train,
            val,
            data,
            changes,
            ignored,
            step,
            saved: resumed.as_ref().map(|checkpoint| checkpoint.state.step),
            checkpoint: resumed.map(|checkpoint| checkpoint.dir),
            good: None,
            metrics,
            events: None,
            _lock: lock,
        })
    }

    /// The run's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What token ids mean.
    pub fn tokenizer(&self) -> &SharedTokenizer {
        &self.tokenizer
    }

    /// What has changed since the checkpoint that is resumed.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What has the name of a newer checkpoint than the one resumed, but is incomplete, and why.
    pub fn ignored(&self) -> &[Error] {
        &self.ignored
    }

    /// Trains to the last step, or until `stop` is set: then the step is finished and saved.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming step, tensor and the last good checkpoint, which is unchanged;
    /// [`Error::File`] and [`Error::Model`] when a checkpoint cannot be written; those of
    /// [`SlowLearner::step`].
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Summary> {
        let begun = Instant::now();
        let steps = self.config.train.steps;
        observer.started(self.step.min(steps), steps);
        if self.events.is_none() && self.step < steps {
            self.events = Some(EventWriter::create(&self.config.run.dir, self.step)?);
        }
        let (mut evaluation, mut is_recorded) = (None, true);
        while self.step < steps && !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let report = self.one_step()?;
            let seconds = started.elapsed().as_secs_f64();
            self.record(&report, seconds)?;
            observer.stepped(&report, seconds);
            if is_recorded && let Some(error) = self.learner.recording_failure() {
                is_recorded = false;
                observer.not_recorded(error);
            }
            let every = self.config.train.eval_every;
            evaluation = None;
            if self.step == steps || (every > 0 && self.step.is_multiple_of(every)) {
                evaluation = self.evaluate(observer)?;
                if let Some(evaluation) = &evaluation {
                    self.record_evaluation(evaluation)?;
                    if self.step == steps {
                        scores::write(&self.config.run.dir, self.step, evaluation)?;
                    }
                    observer.evaluated(self.step, evaluation);
                }
            }
            let due = self.step.is_multiple_of(self.config.train.checkpoint_every);
            let asked = observer.wants_checkpoint();
            if due || asked || self.step == steps || stop.load(Ordering::Relaxed) {
                let dir = self.save()?;
                if evaluation.is_some() {
                    self.good = Some(dir.clone());
                }
                self.prune()?;
                observer.saved(&dir);
            }
        }
        let finished = self.step >= steps;
        if finished && evaluation.is_none() {
            // Resumed at its end: metrics.jsonl has the numbers, but not in full.
            evaluation = self.evaluate(observer)?;
        }
        let checkpoint = match &self.checkpoint {
            Some(checkpoint) if self.saved == Some(self.step) => checkpoint.clone(),
            // Stopped before the first step, or between the end of a step and the next.
            _ => self.save()?,
        };
        let dir = &self.config.run.dir;
        Ok(Summary {
            step: self.step,
            finished,
            checkpoint,
            evaluation: evaluation.filter(|_| finished),
            corpus: corpus_dir(&self.config),
            corpus_tokens: self.train.corpus().len(),
            tokens: tokens_seen(&dir.join(METRICS_FILE))?,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }

    fn one_step(&mut self) -> Result<StepReport> {
        let micro_batches = self.config.train.micro_batches as u64;
        let batches = (0..micro_batches)
            .map(|index| self.train.batch(self.step * micro_batches + index))
            .collect::<crate::data::Result<Vec<_>>>()?;
        let report = self.learner.step(&self.config, &batches, self.step);
        let report = report.map_err(|error| self.with_last_good(error))?;
        self.step = report.step;
        if self.good != self.checkpoint {
            // The loss that was just measured is that of the checkpoint's weights.
            self.good = self.checkpoint.clone();
            self.prune()?;
        }
        Ok(report)
    }

    fn with_last_good(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { step, tensor, .. } => {
                let step = if step == 0 { self.step } else { step };
                Error::NonFinite { step, tensor, last_good: self.good.clone() }
            }
            other => other,
        }
    }

    /// Writes a step's numbers. Times go to TensorBoard alone: `metrics.jsonl` is a function of the
    /// configuration.
    fn record(&mut self, report: &StepReport, seconds: f64) -> Result<()> {
        let &StepReport { step, loss, kl, grad_norm, lr, fast_lr, tokens } = report;
        let bound = report.bound();
        self.metrics.append(&StepLine {
            bound_fitted_noise: bound,
            fast_lr,
            grad_norm,
            kl,
            loss,
            lr,
            step,
            tokens: tokens as u64,
        })?;
        let Some(events) = &mut self.events else { return Ok(()) };
        for (tag, value) in [
            ("train/loss", Some(loss)),
            ("train/kl", kl),
            ("train/bound_fitted_noise", bound),
            ("train/grad_norm", Some(grad_norm)),
            ("train/lr", Some(lr)),
            ("train/tokens_per_second", Some(tokens as f64 / seconds)),
        ] {
            if let Some(value) = value {
                events.scalar(tag, step, value)?;
            }
        }
        Ok(())
    }

    fn record_evaluation(&mut self, evaluation: &Evaluation) -> Result<()> {
        self.metrics.append(&EvaluationLine { eval: evaluation.scores(), step: self.step })?;
        let Some(events) = &mut self.events else { return Ok(()) };
        for estimate in &evaluation.estimates {
            let tag = format!("val/{}", estimate.protocol.name());
            events.scalar(&tag, self.step, estimate.mean_nats_per_token)?;
        }
        Ok(())
    }

    fn evaluate(&self, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        let Some(val) = &self.val else { return Ok(None) };
        let weights = self.learner.device_weights();
        let sequences = self.config.train.eval_sequences;
        let protocols = protocols(&self.config, self.config.train.eval_samples);
        let mut progress = |done, all| observer.evaluating(done, all);
        evaluate(&self.config, weights, val, &protocols, sequences, &mut progress)
            .map(Some)
            .map_err(|error| self.with_last_good(error))
    }

    fn save(&mut self) -> Result<PathBuf> {
        let weights = self.learner.weights()?;
        let specs = ltm_model::param_table(&self.config.model);
        for (spec, values) in specs.iter().zip(&weights.params) {
            if !values.iter().all(|value| value.is_finite()) {
                let tensor = format!("`{}`", spec.name);
                return Err(self.with_last_good(Error::NonFinite {
                    step: self.step,
                    tensor,
                    last_good: None,
                }));
            }
        }
        let state = State {
            step: self.step,
            seed: self.config.run.seed,
            batches: self.step * self.config.train.micro_batches as u64,
            tokenizer: self.tokenizer.spec(),
            data: Some(self.data.clone()),
            files: Default::default(),
        };
        if let Some(events) = &mut self.events {
            events.flush()?;
        }
        // A checkpoint whose numbers were lost in a crash could not be resumed.
        self.metrics.sync()?;
        let file = self.tokenizer.file();
        let dir = checkpoint::save(&self.config, &weights, self.learner.moments(), &state, file)?;
        self.checkpoint = Some(dir.clone());
        self.saved = Some(self.step);
        Ok(dir)
    }

    fn prune(&self) -> Result<()> {
        let Config { run, train, .. } = &self.config;
        checkpoint::prune(&run.dir, train.keep_last, self.good.as_deref())
    }
}

/// Refuses a tokenizer that is not that of the model or of the checkpoint that is resumed.
fn check_tokenizer(
    config: &Config,
    resumed: Option<&Checkpoint>,
    tokenizer: &dyn Tokenizer,
) -> Result<()> {
    if tokenizer.vocab_size() != config.model.n_words() {
        let expected = format!(
            "{}, that of the data, plus 1 for the mask with bidirectional attention",
            tokenizer.vocab_size()
        );
        return Err(Error::field("model.vocab_size", expected, config.model.vocab_size));
    }
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
