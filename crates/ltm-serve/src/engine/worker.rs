//! The engine's thread: which job comes next, and the round of tokens. A job that fails, or panics, harms no other.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use ltm_eval::ltm_model::{Decoder, DeviceWeights};
use ltm_eval::ltm_train::data::SharedTokenizer;
use ltm_eval::ltm_train::eval::KEY_STEP;
use ltm_eval::ltm_train::{Checkpoint, Config};
use ltm_eval::ltm_vi::probe::decode_greedily;
use ltm_eval::ltm_vi::{Draw, FastStep, InferKey, Inference, Next, Pool, Predictor, Sequences};
use ltm_eval::text::decode;
use ltm_eval::think::{SAMPLES as BOUND_SAMPLES, think};

use super::{Entry, Event, Events, FittedText, Job, ScoreJob, ThinkJob, Token, Waiting, WriteJob};
use crate::continuation::Continuation;
use crate::error::{ApiError, Error};
use crate::metrics::Metrics;
use crate::models::SAMPLES;

/// How long a round takes new jobs, before texts get their next token.
const ADMITTING: Duration = Duration::from_millis(20);
/// How often an idle engine looks whether it is to end.
const IDLE: Duration = Duration::from_millis(200);

/// What the engine computes with.
struct Served {
    config: Config,
    tokenizer: SharedTokenizer,
    weights: DeviceWeights,
    pool: Pool,
    predictor: Predictor,
}

/// A text that is being written.
struct Writing {
    choice: usize,
    continuation: Continuation,
    top: Option<usize>,
    arrived: Instant,
    begun: bool,
    events: Events,
}

pub(super) struct Worker {
    models: Vec<Served>,
    /// By model, the texts of its pool.
    texts: Vec<BTreeMap<u64, Writing>>,
    most_texts: usize,
    next_id: u64,
    metrics: Arc<Metrics>,
}

impl Served {
    fn new(checkpoint: Checkpoint) -> ltm_eval::Result<Self> {
        let Checkpoint { config, weights, tokenizer, .. } = checkpoint;
        let weights = config.on_device(&weights)?;
        let (pool, predictor) = Self::parts(&config, &weights)?;
        Ok(Self { config, tokenizer, weights, pool, predictor })
    }

    fn parts(config: &Config, weights: &DeviceWeights) -> ltm_eval::Result<(Pool, Predictor)> {
        let (_, precision) = config.run.compute_evaluation()?;
        let inference = Inference::finished(&config.infer)?;
        // A model that does not write token by token is refused here, and not at the first request.
        Decoder::with_weights(config.model, weights.clone(), 1)
            .map_err(ltm_eval::ltm_vi::Error::from)?;
        Ok((
            Pool::new(&config.model, weights, &inference, precision)?,
            Predictor::new(&config.model, weights, &inference, precision)?,
        ))
    }

    /// Forgets what a panic may have left half done.
    fn renew(&mut self) {
        if let Ok((pool, predictor)) = Self::parts(&self.config, &self.weights) {
            (self.pool, self.predictor) = (pool, predictor);
        }
    }
}

impl Worker {
    pub(super) fn new(
        models: Vec<(String, Checkpoint)>,
        most_texts: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, Error> {
        let served = models.into_iter().map(|(id, checkpoint)| {
            Served::new(checkpoint).map_err(|source| Error::Model { id, source: source.into() })
        });
        let models: Vec<Served> = served.collect::<Result<_, _>>()?;
        let texts = models.iter().map(|_| BTreeMap::new()).collect();
        Ok(Self { models, texts, most_texts, next_id: 0, metrics })
    }

    /// The weights of every model, shared.
    pub(super) fn weights(&self) -> Vec<DeviceWeights> {
        self.models.iter().map(|served| served.weights.clone()).collect()
    }

    /// Works until the queue is closed and everything in it is done.
    pub(super) fn run(&mut self, queue: &Receiver<Waiting>) {
        let mut is_open = true;
        while is_open || self.writing() > 0 {
            is_open = self.admit(queue);
            for model in 0..self.models.len() {
                self.round(model);
            }
            self.metrics.writing.set(self.writing() as i64);
        }
    }

    /// Texts that are being written.
    fn writing(&self) -> usize {
        self.texts.iter().map(BTreeMap::len).sum()
    }

    /// Takes jobs for a while, at least one where one waits and there is room for its texts. Returns whether more may come.
    fn admit(&mut self, queue: &Receiver<Waiting>) -> bool {
        let begun = Instant::now();
        while self.writing() < self.most_texts {
            let waiting = match self.writing() {
                0 => match queue.recv_timeout(IDLE) {
                    Ok(waiting) => waiting,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => return false,
                },
                _ => match queue.try_recv() {
                    Ok(waiting) => waiting,
                    Err(TryRecvError::Empty) => return true,
                    Err(TryRecvError::Disconnected) => return false,
                },
            };
            self.start(waiting);
            if begun.elapsed() > ADMITTING {
                break;
            }
        }
        true
    }

    /// Does a job, or begins its texts. The place in the queue is free from here on.
    fn start(&mut self, Waiting { job, place }: Waiting) {
        drop(place);
        let (model, events) = job.of();
        let events = events.clone();
        if events.is_closed() {
            self.metrics.cancelled.inc();
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| match job {
            Job::Write(job) => self.write(job),
            Job::Score(job) => self.score(&job),
            Job::Think(job) => self.think(&job),
        }));
        match done {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let _ = events.send(Event::Failed(error));
            }
            Err(_) => {
                let _ = events.send(Event::Failed(ApiError::internal()));
                self.fail(model);
            }
        }
    }

    /// Ends all texts of a model after a panic.
    fn fail(&mut self, model: usize) {
        for (_, writing) in std::mem::take(&mut self.texts[model]) {
            let _ = writing.events.send(Event::Failed(ApiError::internal()));
        }
        self.models[model].renew();
    }

    /// Fits latents to a prompt and begins its texts.
    fn write(&mut self, job: WriteJob) -> Result<(), ApiError> {
        let WriteJob { model, prompt, first, count, seed, sample, limits, top, arrived, events } =
            job;
        let served = &mut self.models[model];
        let mut observer = observer(&served.config, &events, &self.metrics);
        let fitted = match served.pool.fit(&prompt, seed, &mut observer) {
            Err(ltm_eval::ltm_vi::Error::Stopped) => {
                self.metrics.cancelled.inc();
                return Ok(());
            }
            fitted => fitted?,
        };
        let ids = self.next_id..self.next_id + count as u64;
        let draw = |(id, seed)| Draw { id, seed, sample };
        let draws: Vec<Draw> =
            ids.clone().zip((0..count as u64).map(|i| seed.wrapping_add(i))).map(draw).collect();
        served.pool.begin(&fitted, &draws)?;
        self.next_id = ids.end;
        self.metrics.prompt_tokens.inc_by(prompt.len() as u64);
        let given: Vec<u32> = prompt[1..].iter().map(|token| *token as u32).collect();
        for (choice, id) in (first..).zip(ids) {
            let continuation = Continuation::new(served.tokenizer.clone(), &given, limits.clone());
            let events = events.clone();
            let writing = Writing { choice, continuation, top, arrived, begun: false, events };
            self.texts[model].insert(id, writing);
        }
        Ok(())
    }

    /// The probabilities of a prompt's own tokens.
    fn score(&mut self, job: &ScoreJob) -> Result<(), ApiError> {
        let ScoreJob { named, prompt, number, top, events } = job;
        let mut entries = Vec::with_capacity(prompt.len());
        // That of the first text in `ltm eval`, whose score the entries add up to.
        let seed = self.models[named.model].config.run.seed;
        let key = InferKey { seed, step: KEY_STEP, sequences: Sequences::From(0) };
        let mut targets = prompt[1..].iter();
        let predictor = &mut self.models[named.model].predictor;
        let mut on_token = |log_probs: &[f64]| {
            if let Some(target) = targets.next() {
                entries.push(Entry::new(*target, log_probs, *top));
            }
            match events.is_closed() {
                true => Err(ltm_eval::ltm_vi::Error::Stopped),
                false => Ok(()),
            }
        };
        match predictor.predict(prompt, [named.stride, SAMPLES], key, &mut on_token) {
            Err(ltm_eval::ltm_vi::Error::Stopped) => {
                self.metrics.cancelled.inc();
                return Ok(());
            }
            done => done?,
        }
        self.metrics.prompt_tokens.inc_by(prompt.len() as u64);
        let _ = events.send(Event::Scored { number: *number, entries });
        Ok(())
    }

    /// The posterior of a text, and the text that its latents give.
    fn think(&mut self, job: &ThinkJob) -> Result<(), ApiError> {
        let served = &mut self.models[job.model];
        let mut config = served.config.clone();
        config.infer.steps = job.steps.unwrap_or(config.infer.steps);
        let mut observer = observer(&config, &job.events, &self.metrics);
        let fitted = match think(&config, &served.weights, &job.text, job.seed, &mut observer) {
            Err(ltm_eval::Error::Infer(ltm_eval::ltm_vi::Error::Stopped)) => {
                self.metrics.cancelled.inc();
                return Ok(());
            }
            fitted => fitted?,
        };
        let model = &config.model;
        let mut z = fitted.posterior.mu.clone();
        for (numbers, scale) in z.chunks_mut(model.dim).zip(&job.scales) {
            numbers.iter_mut().for_each(|x| *x *= scale);
        }
        let decoder = Decoder::with_weights(*model, served.weights.clone(), 1);
        let mut decoder = decoder.map_err(ltm_eval::ltm_vi::Error::from)?;
        let separator = served.tokenizer.separator() as i32;
        let (context, most) = (model.max_seq_len, job.max_tokens);
        let tokens = decode_greedily(&mut decoder, context, &z, &[separator], most, separator)?;
        let kl_per_layer = fitted.steps.last().map(|step| step.kl_per_layer.clone());
        let _ = job.events.send(Event::Fitted(Box::new(FittedText {
            kl: fitted.kl,
            kl_per_layer: kl_per_layer.unwrap_or_default(),
            bound: fitted.bound.nats,
            bound_variance: fitted.bound.variance,
            prior_bound: fitted.prior_bound.nats,
            prior_bound_variance: fitted.prior_bound.variance,
            samples: BOUND_SAMPLES,
            mu: fitted.posterior.mu,
            log_var: fitted.posterior.log_var,
            shape: [model.n_latents, model.dim],
            decoded: decode(&*served.tokenizer, &tokens),
        })));
        Ok(())
    }

    /// Gives each text of a model its next token.
    fn round(&mut self, model: usize) {
        let (texts, metrics) = (&mut self.texts[model], &self.metrics);
        let pool = &mut self.models[model].pool;
        let mut on_token = |next: Next<'_>| {
            let Some(writing) = texts.get_mut(&next.id) else { return false };
            let id = next.id;
            let goes_on = writing.take(next, metrics);
            if !goes_on {
                texts.remove(&id);
            }
            goes_on
        };
        let done = catch_unwind(AssertUnwindSafe(|| pool.next(&mut on_token)));
        if !matches!(done, Ok(Ok(()))) {
            self.fail(model);
        }
    }
}

impl Writing {
    /// Sends a token to the client; returns whether the text goes on.
    fn take(&mut self, next: Next<'_>, metrics: &Metrics) -> bool {
        let token = match next.token {
            Ok(token) => token,
            Err(_) => {
                let _ = self.events.send(Event::Failed(ApiError::internal()));
                return false;
            }
        };
        metrics.written_tokens.inc();
        if !self.begun {
            self.begun = true;
            metrics.first_token(self.arrived.elapsed());
        }
        let piece = self.continuation.push(token as u32);
        let entry = self.top.map(|top| Entry::new(token, &log_softmax(next.logits), top));
        let is_last = piece.finish.is_some();
        let token = Box::new(Token { text: piece.text, entry, finish: piece.finish });
        let sent = self.events.send(Event::Token { choice: self.choice, token }).is_ok();
        if !sent {
            metrics.cancelled.inc();
        }
        sent && !is_last
    }
}

/// Sends the steps of a fit to a request, and ends the fit when its client has gone away.
fn observer<'a>(
    config: &Config,
    events: &'a Events,
    metrics: &'a Metrics,
) -> impl FnMut(&FastStep) -> ltm_eval::ltm_vi::Result<()> + 'a {
    let steps = config.infer.steps;
    move |step| {
        metrics.fast_steps.inc();
        let sent = events.send(Event::Step(step.clone(), steps));
        sent.map_err(|_| ltm_eval::ltm_vi::Error::Stopped)
    }
}

/// Log-probabilities of logits, in nats.
fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| (f64::from(*x) - f64::from(max)).exp()).sum();
    let norm = f64::from(max) + sum.ln();
    logits.iter().map(|x| f64::from(*x) - norm).collect()
}

impl Job {
    /// Its model and its channel.
    fn of(&self) -> (usize, &Events) {
        match self {
            Self::Write(job) => (job.model, &job.events),
            Self::Score(job) => (job.named.model, &job.events),
            Self::Think(job) => (job.model, &job.events),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let found = log_softmax(&[1000.0, 999.0, -1000.0]);
        let mass: f64 = found.iter().map(|x| x.exp()).sum();
        assert!(
            (mass - 1.0).abs() < 1e-12 && (found[0] - found[1] - 1.0).abs() < 1e-12,
            "{found:?}"
        );
    }
}
