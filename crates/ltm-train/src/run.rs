//! A run: a trainer in its folder, with checkpoints, metrics and the lock. Prints and draws nothing.

mod start;

use std::path::PathBuf;
use std::time::Instant;

use ltm_files::FolderLock;

use crate::checkpoint::{self, DataRecord, State};
use crate::config::Config;
use crate::data::SharedTokenizer;
use crate::eval::{Evaluation, scores};
use crate::metrics::{
    EvaluationLine, EventWriter, JsonlWriter, METRICS_FILE, StepLine, tokens_seen,
};
use crate::observer::{Next, Observer};
use crate::resume::Changes;
use crate::run_data::corpus_dir;
use crate::step::StepReport;
use crate::trainer::{Recorder, Trainer};
use crate::{Error, Result};

pub use start::Start;

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Total number of slow steps taken.
    pub step: u64,
    /// Whether all requested steps were taken and the last weights scored: false after a stop.
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
pub struct Run {
    trainer: Trainer,
    /// What the first process of a group writes.
    folder: Option<Folder>,
    changes: Changes,
    ignored: Vec<Error>,
}

impl Run {
    /// The run's configuration.
    pub fn config(&self) -> &Config {
        self.trainer.config()
    }

    /// What token ids mean.
    pub fn tokenizer(&self) -> &SharedTokenizer {
        self.trainer.train_batches().corpus().tokenizer()
    }

    /// What has changed since the checkpoint that is resumed.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// What has the name of a newer checkpoint than the one resumed, but is incomplete, and why.
    pub fn ignored(&self) -> &[Error] {
        &self.ignored
    }

    /// Trains to the last step and scores the weights, or until the observer stops it: then a checkpoint of the steps
    /// taken is saved. An evaluation that was stopped is made when the run is resumed.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming step, tensor and the last good checkpoint, which is unchanged;
    /// [`Error::File`] and [`Error::Model`] when a checkpoint cannot be written; those of
    /// [`Trainer::run`].
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Summary> {
        let begun = Instant::now();
        let Self { trainer, folder, .. } = self;
        let config = trainer.config().clone();
        let dir = &config.run.dir;
        let found = match folder {
            Some(folder) => folder.follow(trainer, observer),
            None => trainer.record(&mut (), observer),
        };
        let folder = folder.as_ref();
        let with_last_good = |error| match folder {
            Some(folder) => folder.with_last_good(error),
            None => error,
        };
        let mut evaluation = found.map_err(with_last_good)?;
        let mut finished = trainer.is_finished();
        if finished && evaluation.is_none() && trainer.val_batches().is_some() {
            // Resumed at its end: metrics.jsonl has the numbers, but not in full.
            let found = trainer.evaluate(observer);
            evaluation = found.map_err(with_last_good)?;
            finished = evaluation.is_some();
        }
        let checkpoint = match folder {
            Some(folder) => folder.checkpoint.clone(),
            None => checkpoint::newest(dir)?.newest,
        };
        let checkpoint = checkpoint.ok_or_else(|| Error::NothingToResume { dir: dir.clone() })?;
        Ok(Summary {
            step: trainer.steps_taken(),
            finished,
            checkpoint,
            evaluation,
            corpus: corpus_dir(&config),
            corpus_tokens: trainer.train_batches().corpus().len(),
            tokens: tokens_seen(&dir.join(METRICS_FILE))?,
            seconds: begun.elapsed().as_secs_f64(),
        })
    }
}

/// What a run writes, and where.
struct Folder {
    dir: PathBuf,
    /// The configured last step, whose scores are kept row by row.
    steps: u64,
    /// Checkpoints to keep.
    keep_last: usize,
    data: DataRecord,
    /// The newest checkpoint.
    checkpoint: Option<PathBuf>,
    /// The step of that checkpoint.
    saved: Option<u64>,
    /// The newest checkpoint whose weights were scored, with a finite result.
    good: Option<PathBuf>,
    /// The step of the newest evaluation.
    evaluated: Option<u64>,
    metrics: JsonlWriter,
    /// Created when there is something to write.
    events: Option<EventWriter>,
    _lock: FolderLock,
}

impl Recorder for Folder {
    /// Writes a step's numbers. Times go to TensorBoard alone: `metrics.jsonl` is a function of the configuration.
    fn stepped(&mut self, report: &StepReport, seconds: f64) -> Result<()> {
        if self.good != self.checkpoint {
            // The loss that was just measured is that of the checkpoint's weights.
            self.good = self.checkpoint.clone();
            self.prune()?;
        }
        let line = StepLine::from(report);
        self.metrics.append(&line)?;
        let Some(events) = &mut self.events else { return Ok(()) };
        for (tag, value) in [
            ("train/loss", Some(line.loss)),
            ("train/kl", line.kl),
            ("train/bound_fitted_noise", line.bound_fitted_noise),
            ("train/grad_norm", Some(line.grad_norm)),
            ("train/lr", Some(line.lr)),
            ("train/tokens_per_second", Some(line.tokens as f64 / seconds)),
        ] {
            if let Some(value) = value {
                events.scalar(tag, line.step, value)?;
            }
        }
        Ok(())
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Result<()> {
        self.metrics.append(&EvaluationLine { eval: evaluation.scores(), step })?;
        if let Some(events) = &mut self.events {
            for estimate in &evaluation.estimates {
                let tag = format!("val/{}", estimate.protocol.name());
                events.scalar(&tag, step, estimate.mean_nats_per_token)?;
            }
        }
        if step == self.steps {
            scores::write(&self.dir.join(scores::SCORES_FILE), Some(step), evaluation)?;
        }
        self.evaluated = Some(step);
        Ok(())
    }

    /// Saves a checkpoint where one is due, was asked for, or is the last one.
    fn settled(
        &mut self,
        trainer: &Trainer,
        next: Next,
        observer: &mut dyn Observer,
    ) -> Result<bool> {
        let step = trainer.steps_taken();
        let train = &trainer.config().train;
        let due = step > 0 && step.is_multiple_of(train.checkpoint_every);
        let wanted = due || next > Next::Continue || step >= train.steps;
        if !wanted || self.saved == Some(step) {
            return Ok(false);
        }
        let dir = self.save(trainer)?;
        if self.evaluated == Some(step) {
            self.good = Some(dir.clone());
        }
        self.prune()?;
        observer.saved(&dir);
        Ok(true)
    }
}

impl Folder {
    /// Trains, and keeps what comes of it.
    fn follow(
        &mut self,
        trainer: &mut Trainer,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>> {
        if self.events.is_none() && !trainer.is_finished() {
            self.events = Some(EventWriter::create(&self.dir, trainer.steps_taken())?);
        }
        trainer.record(self, observer)
    }

    fn save(&mut self, trainer: &Trainer) -> Result<PathBuf> {
        let (config, step) = (trainer.config(), trainer.steps_taken());
        let weights = trainer.weights()?;
        let specs = ltm_model::param_table(&config.model);
        for (spec, values) in specs.iter().zip(&weights.params) {
            if !values.iter().all(|value| value.is_finite()) {
                let tensor = format!("`{}`", spec.name);
                return Err(Error::NonFinite { step, tensor, last_good: None });
            }
        }
        let tokenizer = trainer.train_batches().corpus().tokenizer();
        let state = State {
            step,
            seed: config.run.seed,
            batches: step * config.train.micro_batches as u64,
            kl_balance: config.infer.kl_target.map(|_| trainer.learner().kl_balance()),
            tokenizer: tokenizer.spec(),
            data: Some(self.data.clone()),
            files: Default::default(),
        };
        if let Some(events) = &mut self.events {
            events.flush()?;
        }
        // A checkpoint whose numbers were lost in a crash could not be resumed.
        self.metrics.sync()?;
        let learner = trainer.learner();
        let (moments, posteriors) = (learner.moments(), learner.posteriors());
        let tokenizer = tokenizer.file();
        let dir = checkpoint::save(config, &weights, moments, posteriors, &state, tokenizer)?;
        self.checkpoint = Some(dir.clone());
        self.saved = Some(step);
        Ok(dir)
    }

    fn prune(&self) -> Result<()> {
        checkpoint::prune(&self.dir, self.keep_last, self.good.as_deref())
    }

    fn with_last_good(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { step, tensor, .. } => {
                Error::NonFinite { step, tensor, last_good: self.good.clone() }
            }
            other => other,
        }
    }
}
