//! Training as a library: weights that learn from batches, and a count of their steps. Prints nothing and touches no
//! file; an observer follows it and may stop it. The module `run` keeps it in a folder.

use std::ops::ControlFlow;
use std::time::Instant;

use ltm_collective::Group;
use ltm_model::Weights;
use ltm_vi::{Program, SlowGradient, StartKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::data::{Batch, BatchOptions, Batches, Order, Rows, Tokenizer};
use crate::eval::{Evaluation, evaluate_in, protocols};
use crate::observer::{Next, Observer};
use crate::step::{SlowLearner, StepReport};
use crate::{Error, Result, chain};

/// A model in training: a learner, the batches that it learns from, those that it is scored on, and its step.
///
/// Its parts are values, from memory as well as from files: batches are of any corpus and any tokenizer, and
/// [`open_corpus`](crate::run_data::open_corpus) makes those of a corpus in the configured shape. Step `s` reads
/// micro-batches `s · micro_batches` and those after it; all random numbers are functions of the seed and the step.
/// So a trainer at step `s` with the same weights, moments and kept posteriors continues bit for bit as if it had never
/// stopped.
pub struct Trainer {
    config: Config,
    learner: SlowLearner,
    train: Batches,
    val: Option<Batches>,
    step: u64,
    /// The step whose weights were scored, or need not be.
    scored: Option<u64>,
}

/// Keeps what training produces. Called before the observer is.
pub(crate) trait Recorder {
    /// A step was taken.
    fn stepped(&mut self, report: &StepReport, seconds: f64) -> Result<()>;
    /// The validation split was scored.
    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Result<()>;
    /// Nothing is left to do for the present step; `next` is what was asked for meanwhile. Returns whether the trainer's
    /// state was saved.
    fn settled(
        &mut self,
        trainer: &Trainer,
        next: Next,
        observer: &mut dyn Observer,
    ) -> Result<bool>;
}

/// Keeps nothing.
impl Recorder for () {
    fn stepped(&mut self, _report: &StepReport, _seconds: f64) -> Result<()> {
        Ok(())
    }
    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) -> Result<()> {
        Ok(())
    }
    fn settled(&mut self, _: &Trainer, _: Next, _: &mut dyn Observer) -> Result<bool> {
        Ok(false)
    }
}

impl Trainer {
    /// A trainer at step 0, with [initial weights](initial_weights).
    ///
    /// Nothing is read from or written to `config.run.dir` and `config.data`.
    ///
    /// # Errors
    /// Those of [`from_learner`](Self::from_learner), [`initial_weights`] and [`SlowLearner::new`].
    pub fn new(config: Config, train: Batches, val: Option<Batches>) -> Result<Self> {
        Self::in_group(config, Group::alone(), train, val)
    }

    /// As [`new`](Self::new), as one of the processes of a group. All of them have the same configuration and corpora; each
    /// reads its share of a step's micro-batches and of an evaluation's batches, and all know the results. With a power of
    /// two of processes these are those of one process, to the bit.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn in_group(
        config: Config,
        group: Group,
        train: Batches,
        val: Option<Batches>,
    ) -> Result<Self> {
        config.validate()?;
        check_batches(&config, &train, val.as_ref())?;
        let weights = initial_weights(&config, &train)?;
        let learner = SlowLearner::new(&config, &weights)?.in_group(group);
        Self::from_learner(config, learner, 0, train, val)
    }

    /// A trainer whose learner has taken `step` steps: one of given weights, that of an earlier trainer, or one of a
    /// checkpoint's [moments](SlowLearner::set_moments) and [posteriors](SlowLearner::set_posteriors), which are of rows of
    /// the same numbers in `train`. A learner of a likelihood or a prior of one's own is given without
    /// `val`: evaluations are of `config.model` under the standard normal.
    ///
    /// # Errors
    /// [`Error::Field`] for a configuration that [`Config::validate`] refuses, and for batches of another shape or
    /// vocabulary than the configured ones, windows whose posteriors are to be kept, validation batches that are not
    /// sequential, or micro-batches that the learner's group cannot share equally.
    pub fn from_learner(
        config: Config,
        learner: SlowLearner,
        step: u64,
        train: Batches,
        val: Option<Batches>,
    ) -> Result<Self> {
        config.validate()?;
        check_batches(&config, &train, val.as_ref())?;
        check_shared(&config, learner.group())?;
        Ok(Self { config, learner, train, val, step, scored: None })
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The weights on their device with the state of their optimiser.
    pub fn learner(&self) -> &SlowLearner {
        &self.learner
    }

    /// The learner, which another trainer continues from [`steps_taken`](Self::steps_taken) on.
    pub fn into_learner(self) -> SlowLearner {
        self.learner
    }

    /// A copy of the weights.
    ///
    /// # Errors
    /// Those of [`SlowLearner::weights`].
    pub fn weights(&self) -> Result<Weights> {
        self.learner.weights()
    }

    /// The batches that it learns from.
    pub fn train_batches(&self) -> &Batches {
        &self.train
    }

    /// The batches that it is scored on.
    pub fn val_batches(&self) -> Option<&Batches> {
        self.val.as_ref()
    }

    /// Slow steps taken.
    pub fn steps_taken(&self) -> u64 {
        self.step
    }

    /// Whether all configured steps were taken and the weights after the last one were scored.
    pub fn is_finished(&self) -> bool {
        self.step >= self.config.train.steps && !self.is_evaluation_due()
    }

    /// Takes the next slow step. It may be one after the configured last, at the last learning rate.
    ///
    /// # Errors
    /// Those of [`Batches::batch`] and [`SlowLearner::step`]; the trainer is then unchanged.
    pub fn step(&mut self) -> Result<StepReport> {
        let micro_batches = self.config.train.micro_batches;
        let first = self.step * micro_batches as u64;
        let own = self.learner.group().share(micro_batches);
        let batches = own.map(|index| self.train.batch(first + index as u64));
        let batches = batches.collect::<crate::data::Result<Vec<Batch>>>().map_err(Error::from);
        let report = self.learner.step_if(&self.config, batches, self.step)?;
        self.step = report.step;
        Ok(report)
    }

    /// Scores the present weights on the validation batches, by the protocols that suit the model. `None` without such
    /// batches, or when the observer stops it. Changes nothing.
    ///
    /// # Errors
    /// Those of [`evaluate`](crate::evaluate); [`Error::NonFinite`] names the present step.
    pub fn evaluate(&self, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        Ok(self.score(observer)?.0)
    }

    /// As [`evaluate`](Self::evaluate), with what the observer asked for.
    fn score(&self, observer: &mut dyn Observer) -> Result<(Option<Evaluation>, Next)> {
        let mut next = Next::Continue;
        let Some(val) = &self.val else { return Ok((None, next)) };
        let protocols = protocols(&self.config, self.config.train.eval_samples);
        let mut progress = |done, all| {
            next = next.max(observer.evaluating(done, all));
            if next == Next::Stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let weights = self.learner.device_weights();
        let sequences = self.config.train.eval_sequences;
        let group = self.learner.group();
        let evaluation =
            evaluate_in(group, &self.config, weights, val, &protocols, sequences, &mut progress);
        let evaluation = evaluation.map_err(|error| match error {
            Error::NonFinite { step: 0, tensor, last_good } => {
                Error::NonFinite { step: self.step, tensor, last_good }
            }
            other => other,
        })?;
        Ok((evaluation, next))
    }

    /// Whether the present weights are to be scored and were not.
    pub(crate) fn is_evaluation_due(&self) -> bool {
        let due = self.val.is_some() && self.config.train.evaluates_after(self.step);
        due && self.scored != Some(self.step)
    }

    /// Takes the present weights as scored: an evaluation of them is known.
    pub(crate) fn skip_evaluation(&mut self) {
        self.scored = Some(self.step);
    }

    /// Trains to the last step, with an evaluation after every `train.eval_every` steps and after the last one, or until
    /// the observer stops it; a later call goes on from there. Returns the evaluation after the last step: `None` when
    /// it was stopped, and without validation batches.
    ///
    /// # Errors
    /// Those of [`step`](Self::step) and [`evaluate`](Self::evaluate).
    pub fn run(&mut self, observer: &mut dyn Observer) -> Result<Option<Evaluation>> {
        self.record(&mut (), observer)
    }

    /// As [`run`](Self::run), with what keeps the results.
    pub(crate) fn record(
        &mut self,
        recorder: &mut dyn Recorder,
        observer: &mut dyn Observer,
    ) -> Result<Option<Evaluation>> {
        let steps = self.config.train.steps;
        let asked = observer.started(self.step.min(steps), steps);
        let mut next = self.together(Ok(asked))?;
        let (mut evaluation, mut is_recorded) = (None, true);
        loop {
            if next < Next::Stop && self.is_evaluation_due() {
                let (found, asked) = self.score(observer)?;
                next = next.max(asked);
                if let Some(found) = &found {
                    self.scored = Some(self.step);
                    let kept = recorder.evaluated(self.step, found);
                    next = next.max(observer.evaluated(self.step, found));
                    next = self.together(kept.map(|()| next))?;
                } else {
                    next = self.together(Ok(next))?;
                }
                evaluation = found;
            }
            let saved = recorder.settled(self, next, observer);
            if self.together(saved)? {
                self.verify()?;
            }
            if next == Next::Stop || self.step >= steps {
                return Ok(evaluation.filter(|_| self.step >= steps));
            }
            evaluation = None;
            let started = Instant::now();
            let report = self.step()?;
            let seconds = started.elapsed().as_secs_f64();
            let kept = recorder.stepped(&report, seconds);
            let asked = observer.stepped(&report, seconds);
            next = self.together(kept.map(|()| asked))?;
            if is_recorded && let Some(error) = self.learner.recording_failure() {
                is_recorded = false;
                observer.not_recorded(error);
            }
        }
    }

    /// The most that any process of the group says, if none has failed.
    fn together<T: Serialize + DeserializeOwned + Clone + Ord>(&self, own: Result<T>) -> Result<T> {
        let all = self.learner.group().agree(own.as_ref().map_err(|error| chain(error)), "a step");
        let (own, all) = (own?, all?);
        Ok(all.into_iter().fold(own, T::max))
    }

    /// Makes sure that all processes of the group have the same weights.
    ///
    /// # Errors
    /// [`Error::Diverged`], and those of [`weights`](Self::weights).
    pub(crate) fn verify(&self) -> Result<()> {
        let group = self.learner.group();
        if group.size() == 1 {
            return Ok(());
        }
        let sum = self.weights().map(|weights| {
            let bytes =
                weights.params.iter().flatten().flat_map(|weight| weight.to_bits().to_le_bytes());
            crc32c::crc32c(&bytes.collect::<Vec<u8>>())
        });
        let all = group.agree(sum.as_ref().map_err(|error| chain(error)), "a checkpoint");
        sum?;
        let all = all?;
        match all.iter().position(|other| *other != all[0]) {
            None => Ok(()),
            Some(rank) => Err(Error::Diverged { rank, step: self.step }),
        }
    }
}

/// Texts that calibrate an encoder.
const CALIBRATION_TEXTS: usize = 256;

/// The weights before the first step: drawn under `config.run.seed`, and an encoder
/// [calibrated](ltm_vi::Program::calibrated) by the first texts of `train`.
///
/// # Errors
/// Those of [`Weights::init`], [`Batches::batch`] and
/// [`RunConfig::compute`](crate::config::RunConfig::compute); [`Error::Infer`] when memory runs out.
pub fn initial_weights(config: &Config, train: &Batches) -> Result<Weights> {
    let weights = Weights::init(&config.model, config.run.seed)?;
    if config.model.encoder_width == 0 {
        return Ok(weights);
    }
    let (b, t) = (config.train.batch, config.train.seq_len);
    let (device, precision) = config.run.compute()?;
    let batches = (0..CALIBRATION_TEXTS.div_ceil(b) as u64).map(|index| {
        let batch = train.batch(index)?;
        Ok(ltm_vi::Batch::new(&config.model, b, &batch.tokens, &batch.targets)?)
    });
    let batches = batches.collect::<Result<Vec<_>>>()?;
    let mut program = Program::new(&config.model, b, t, &device, precision, SlowGradient::None)?;
    Ok(program.calibrated(&weights, &batches)?)
}

/// Refuses micro-batches that the processes of a group cannot share equally.
pub(crate) fn check_shared(config: &Config, group: &Group) -> Result<()> {
    let (micro_batches, processes) = (config.train.micro_batches, group.size());
    if micro_batches.is_multiple_of(processes) {
        return Ok(());
    }
    let expected = format!("a multiple of {processes}, the number of processes");
    Err(Error::field("train.micro_batches", expected, micro_batches))
}

/// Refuses batches that are not of the configured shape, or not of one vocabulary with the model.
fn check_batches(config: &Config, train: &Batches, val: Option<&Batches>) -> Result<()> {
    let shape = [config.train.batch, config.train.seq_len];
    for (name, batches) in [("train", Some(train)), ("val", val)] {
        let Some(batches) = batches else { continue };
        let BatchOptions { batch, seq_len, .. } = batches.options();
        if [batch, seq_len] != shape {
            let expected = format!("{shape:?}, train.batch and train.seq_len, as the shape");
            return Err(Error::field(name, expected, format!("{:?}", [batch, seq_len])));
        }
        check_vocabulary(config, &**batches.corpus().tokenizer())?;
    }
    let moves = matches!(
        train.options(),
        BatchOptions { rows: Rows::Windows, order: Order::Shuffled { .. }, .. }
    );
    if moves && config.infer.start == StartKind::Given {
        let expected = "documents for `infer.start = \"given\"`, because windows begin at other tokens in every epoch";
        return Err(Error::field("data.rows", expected, "windows"));
    }
    let Some(val) = val else { return Ok(()) };
    if val.options().order != Order::Sequential {
        return Err(Error::field("val", "sequential batches", "shuffled ones"));
    }
    let [tokenizer, other] = [train, val].map(|batches| batches.corpus().tokenizer());
    if tokenizer.fingerprint() != other.fingerprint() {
        let expected = format!("batches of the training tokenizer, {}", tokenizer.spec());
        return Err(Error::field("val", expected, other.spec()));
    }
    Ok(())
}

/// Refuses a tokenizer that is not of the model's size.
pub(crate) fn check_vocabulary(config: &Config, tokenizer: &dyn Tokenizer) -> Result<()> {
    if tokenizer.vocab_size() == config.model.n_words() {
        return Ok(());
    }
    let expected = format!(
        "{}, that of the data, plus 1 for the mask with bidirectional attention",
        tokenizer.vocab_size()
    );
    Err(Error::field("model.vocab_size", expected, config.model.vocab_size))
}
