//! A run from its first step to its last, in its folder. Prints nothing: an observer is told.

use std::fs;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ltm_model::Weights;
use serde_json::{Value, json};

use crate::checkpoint::{self, CONFIG_FILE, Checkpoint, State};
use crate::config::{Config, DataConfig};
use crate::data::{BatchOptions, Batches, Corpus, Order, Split, Tokenizer, storyworld};
use crate::eval::{Evaluation, evaluate, protocols};
use crate::files::{create_dir, write_whole};
use crate::metrics::{EventWriter, JsonlWriter, line_chart};
use crate::step::{SlowLearner, StepReport};
use crate::{Error, Result};

/// The file of a run with its numbers, a JSON object a line.
pub const METRICS_FILE: &str = "metrics.jsonl";
/// The folder of a run with its charts.
pub const PLOTS: &str = "plots";

/// Whether a run may find an earlier one in its folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It must not.
    Fresh,
    /// It goes on from the newest checkpoint; without one it starts afresh.
    Resume,
}

/// Is told how a run goes. Every method does nothing unless overridden.
pub trait Observer {
    /// Steps begin: this many are done already, of this many in all.
    fn started(&mut self, _done: u64, _steps: u64) {}
    /// A step was taken, in this many seconds.
    fn stepped(&mut self, _report: &StepReport, _seconds: f64) {}
    /// An evaluation goes on: batches done, of all.
    fn evaluating(&mut self, _done: u64, _all: u64) {}
    /// The validation split was scored after this many steps.
    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) {}
    /// A checkpoint was written.
    fn saved(&mut self, _dir: &Path) {}
}

/// How a run ended.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Steps taken in all.
    pub step: u64,
    /// Whether those are all that were asked for: false after a stop.
    pub finished: bool,
    /// The newest checkpoint.
    pub checkpoint: PathBuf,
    /// The evaluation at the last step; `None` after a stop, or without a validation split.
    pub evaluation: Option<Evaluation>,
    /// The charts.
    pub plots: Vec<PathBuf>,
}

/// A run that is ready to go.
pub struct Trainer {
    config: Config,
    tokenizer: Tokenizer,
    learner: SlowLearner,
    train: Batches,
    val: Option<Batches>,
    step: u64,
    checkpoint: Option<PathBuf>,
    metrics: JsonlWriter,
    events: EventWriter,
}

impl Trainer {
    /// Opens the data, generating it if it is to be generated, and the run's folder; writes the
    /// configuration there.
    ///
    /// # Errors
    /// [`Error::Data`] when the folder holds another run, the data has no tokens, or the checkpoint
    /// to resume is of another model; [`Error::Device`], [`Error::Field`], [`Error::Io`] and those
    /// of [`Checkpoint::load`].
    pub fn new(config: Config, start: Start) -> Result<Self> {
        config.run.compute()?; // before anything is written
        let dir = &config.run.dir;
        let newest = checkpoint::newest(dir)?;
        if let (Start::Fresh, Some(found)) = (start, &newest) {
            let expected = "a folder without a run; add --resume to go on with it, or set another \
                            run.dir";
            return Err(Error::data(dir, "run.dir", expected, found.display().to_string()));
        }
        let resumed = match newest {
            Some(path) => Some(Checkpoint::load(&path)?),
            None => None,
        };
        if let Some(checkpoint) = &resumed {
            check_same_run(&config, checkpoint)?;
        }
        create_dir(dir)?;
        let train = open(&config, Split::Train)?;
        let val = match open(&config, Split::Val) {
            Ok(val) => Some(val),
            // A corpus of one split is trained on without measuring.
            Err(Error::Data { what, .. }) if what == Split::Val.to_string() => None,
            Err(error) => return Err(error),
        };
        let tokenizer = train.corpus().tokenizer().clone();
        if tokenizer.vocab_size() != config.model.n_words() {
            let expected = format!(
                "that of the data, {}, and a mask where one is needed",
                tokenizer.vocab_size()
            );
            return Err(Error::field("model.vocab_size", expected, config.model.vocab_size));
        }
        if let Some(checkpoint) = &resumed
            && checkpoint.state.tokenizer != tokenizer
        {
            let expected = format!("the tokenizer of the data, {tokenizer}");
            let found = checkpoint.state.tokenizer.to_string();
            return Err(Error::data(&checkpoint.dir, "tokenizer", expected, found));
        }
        let metrics_path = dir.join(METRICS_FILE);
        let (learner, step, metrics) = match &resumed {
            None => {
                let weights = Weights::init(&config.model, config.run.seed)?;
                let learner = SlowLearner::new(&config, &weights)?;
                (learner, 0, JsonlWriter::create(&metrics_path)?)
            }
            Some(checkpoint) => {
                let mut learner = SlowLearner::new(&config, &checkpoint.weights)?;
                learner.set_moments(checkpoint.moments()?)?;
                let step = checkpoint.state.step;
                (learner, step, JsonlWriter::resume(&metrics_path, step)?)
            }
        };
        write_whole(&dir.join(CONFIG_FILE), config.to_toml().as_bytes())?;
        let events = EventWriter::create(dir)?;
        let checkpoint = resumed.map(|checkpoint| checkpoint.dir);
        Ok(Self { config, tokenizer, learner, train, val, step, checkpoint, metrics, events })
    }

    /// The run's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What token ids mean.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Trains to the last step, or until `stop` is set: then the step is finished and saved.
    ///
    /// # Errors
    /// [`Error::NonFinite`] naming step, tensor and the last good checkpoint, which stays as it is;
    /// [`Error::Io`] and [`Error::Model`] when a checkpoint cannot be written; those of
    /// [`SlowLearner::step`].
    pub fn run(&mut self, stop: &AtomicBool, observer: &mut dyn Observer) -> Result<Summary> {
        let steps = self.config.train.steps;
        observer.started(self.step.min(steps), steps);
        let mut evaluation = None;
        while self.step < steps && !stop.load(Ordering::Relaxed) {
            let started = Instant::now();
            let report = self.one_step()?;
            let seconds = started.elapsed().as_secs_f64();
            self.record(&report, seconds)?;
            observer.stepped(&report, seconds);
            let every = self.config.train.eval_every;
            if self.step == steps || (every > 0 && self.step.is_multiple_of(every)) {
                evaluation = self.evaluate(observer)?;
                if let Some(evaluation) = &evaluation {
                    self.record_evaluation(evaluation)?;
                    observer.evaluated(self.step, evaluation);
                }
            }
            let due = self.step.is_multiple_of(self.config.train.checkpoint_every);
            if due || self.step == steps || stop.load(Ordering::Relaxed) {
                observer.saved(&self.save()?);
            }
        }
        let finished = self.step >= steps;
        if finished && evaluation.is_none() {
            // Resumed at its end: the numbers are known to metrics.jsonl, but not here.
            evaluation = self.evaluate(observer)?;
        }
        let checkpoint = match &self.checkpoint {
            Some(checkpoint) => checkpoint.clone(),
            None => self.save()?,
        };
        let plots = draw(&self.config.run.dir)?;
        let evaluation = evaluation.filter(|_| finished);
        Ok(Summary { step: self.step, finished, checkpoint, evaluation, plots })
    }

    fn one_step(&mut self) -> Result<StepReport> {
        let micro_batches = self.config.train.micro_batches as u64;
        let first = self.step * micro_batches;
        let batches = (first..first + micro_batches)
            .map(|index| self.train.batch(index))
            .collect::<Result<Vec<_>>>()?;
        let report = self.learner.step(&self.config, &batches, self.step);
        let report = report.map_err(|error| self.with_last_good(error))?;
        self.step = report.step;
        Ok(report)
    }

    fn with_last_good(&self, error: Error) -> Error {
        match error {
            Error::NonFinite { step, tensor, .. } => {
                let step = if step == 0 { self.step } else { step };
                Error::NonFinite { step, tensor, last_good: self.checkpoint.clone() }
            }
            other => other,
        }
    }

    /// Writes a step's numbers. Times go to TensorBoard alone: `metrics.jsonl` is a function of the
    /// configuration.
    fn record(&mut self, report: &StepReport, seconds: f64) -> Result<()> {
        let &StepReport { step, loss, kl, grad_norm, lr, fast_lr, tokens } = report;
        let bound = report.bound();
        self.metrics.append(&json!({
            "step": step, "loss": loss, "kl": kl, "bound_fitted_noise": bound,
            "grad_norm": grad_norm, "lr": lr, "fast_lr": fast_lr, "tokens": tokens,
        }))?;
        for (tag, value) in [
            ("train/loss", Some(loss)),
            ("train/kl", kl),
            ("train/bound_fitted_noise", bound),
            ("train/grad_norm", Some(grad_norm)),
            ("train/lr", Some(lr)),
            ("train/tokens_per_second", Some(tokens as f64 / seconds)),
        ] {
            if let Some(value) = value {
                self.events.scalar(tag, step, value)?;
            }
        }
        Ok(())
    }

    fn record_evaluation(&mut self, evaluation: &Evaluation) -> Result<()> {
        self.metrics.append(&json!({ "step": self.step, "eval": evaluation.to_json() }))?;
        for estimate in &evaluation.estimates {
            let tag = format!("val/{}", estimate.protocol.name());
            self.events.scalar(&tag, self.step, estimate.mean_nats_per_token)?;
        }
        Ok(())
    }

    fn evaluate(&self, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        let Some(val) = &self.val else { return Ok(None) };
        let weights = self.learner.weights()?;
        let sequences = self.config.train.eval_sequences;
        let protocols = protocols(&self.config, self.config.train.eval_samples);
        let mut progress = |done, all| observer.evaluating(done, all);
        evaluate(&self.config, &weights, val, &protocols, sequences, &mut progress)
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
            tokenizer: self.tokenizer.clone(),
        };
        self.events.flush()?;
        let dir = checkpoint::save(&self.config, &weights, self.learner.moments(), &state)?;
        self.checkpoint = Some(dir.clone());
        Ok(dir)
    }
}

/// Refuses to resume what would not be the same run.
fn check_same_run(config: &Config, checkpoint: &Checkpoint) -> Result<()> {
    let (old, path) = (&checkpoint.config, checkpoint.dir.join(CONFIG_FILE));
    if old.model != config.model {
        let found = format!("{:?}", old.model);
        return Err(Error::data(&path, "[model]", format!("{:?}", config.model), found));
    }
    for (what, asked, found) in [
        ("run.seed", config.run.seed, checkpoint.state.seed),
        ("train.batch", config.train.batch as u64, old.train.batch as u64),
        ("train.micro_batches", config.train.micro_batches as u64, old.train.micro_batches as u64),
        ("train.seq_len", config.train.seq_len as u64, old.train.seq_len as u64),
    ] {
        if asked != found {
            let expected = format!("{asked}, as the configuration says; it must not change");
            return Err(Error::data(&path, what, expected, found.to_string()));
        }
    }
    Ok(())
}

/// The folder of a run's corpus.
pub fn corpus_dir(config: &Config) -> PathBuf {
    match &config.data.path {
        Some(path) => path.clone(),
        None => config.run.dir.join("data"),
    }
}

/// Opens one split of a run's data in batches: shuffled for [`Split::Train`], in sequence for
/// [`Split::Val`]. A corpus to be generated is generated first, where it is missing.
///
/// # Errors
/// Those of [`Corpus::open`] and [`Batches::new`].
pub fn open(config: &Config, split: Split) -> Result<Batches> {
    let dir = corpus_dir(config);
    let DataConfig { path, documents, val_documents, .. } = &config.data;
    if path.is_none() {
        let (seed, documents, val_documents) = (config.run.seed, *documents, *val_documents);
        storyworld::ensure(&dir, &storyworld::Parameters { seed, documents, val_documents })?;
    }
    let order = match split {
        Split::Train => Order::Shuffled { seed: config.run.seed },
        Split::Val => Order::Sequential,
    };
    open_corpus(config, Corpus::open(&dir, split, None)?, order)
}

/// A corpus in batches of the shape that `config.train` says.
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
    Batches::new(corpus, options)
}

/// Named points along the steps of a run.
pub(crate) type Curves = Vec<(String, Vec<(f64, f64)>)>;

/// A run's numbers so far, by step: those of its training batches, and those of its evaluations by protocol.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn curves(run_dir: &Path) -> Result<(Curves, Curves)> {
    let path = run_dir.join(METRICS_FILE);
    let file = fs::File::open(&path).map_err(Error::io(&path, "open"))?;
    let mut train: Curves =
        ["loss", "kl", "bound_fitted_noise"].map(|name| (name.into(), Vec::new())).into();
    let mut val: Curves = Vec::new();
    for line in std::io::BufReader::new(file).lines() {
        let line = line.map_err(Error::io(&path, "read"))?;
        let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
        let step = line["step"].as_f64().unwrap_or(f64::NAN);
        for (name, points) in &mut train {
            points.extend(line[name.as_str()].as_f64().map(|y| (step, y)));
        }
        for (protocol, numbers) in line["eval"].as_object().into_iter().flatten() {
            let point = (step, numbers["nats_per_token"].as_f64().unwrap_or(f64::NAN));
            match val.iter_mut().find(|(name, _)| name == protocol) {
                Some((_, points)) => points.push(point),
                None => val.push((protocol.clone(), vec![point])),
            }
        }
    }
    Ok((train, val))
}

/// Draws a run's numbers so far and returns the charts' files.
///
/// # Errors
/// [`Error::Io`], [`Error::Plot`].
pub fn draw(run_dir: &Path) -> Result<Vec<PathBuf>> {
    let (train, val) = curves(run_dir)?;
    let dir = run_dir.join(PLOTS);
    create_dir(&dir)?;
    let mut drawn = Vec::new();
    for (name, title, series) in
        [("train.svg", "Training batches", train), ("val.svg", "Validation split", val)]
    {
        if series.iter().any(|(_, points)| !points.is_empty()) {
            let path = dir.join(name);
            line_chart(&path, title, "step", "nats per token", &series)?;
            drawn.push(path);
        }
    }
    Ok(drawn)
}
