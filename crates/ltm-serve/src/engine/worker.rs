//! The engine's thread: which job comes next, and the round of tokens. A job that fails, or panics, harms no other.

use std::collections::{BTreeMap, VecDeque};
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

use super::{
    Entry, Event, Events, FittedText, Job, Place, ReadJob, ScoreJob, ThinkJob, Token, Waiting,
    WriteJob,
};
use crate::continuation::Continuation;
use crate::error::{ApiError, Error};
use crate::metrics::Metrics;
use crate::models::SAMPLES;

/// How long a round works for jobs that wait, before texts get their next token.
const ADMITTING: Duration = Duration::from_millis(20);
/// How long a prompt waits at most for others to be fitted with it, while texts are written.
const GATHERING: Duration = Duration::from_millis(30);
/// The most prompts that are fitted together, and the most tokens of several: more would hardly be faster, and take memory.
const TOGETHER: usize = 16;
const TOKENS_TOGETHER: usize = 1024;
/// How often an idle engine looks whether it is to end.
const IDLE: Duration = Duration::from_millis(200);
/// How long a busy engine keeps one of the device's threads, before others may have it.
const SHIFT: Duration = Duration::from_millis(100);

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
    /// Prompts that wait for their texts to be begun, and texts that wait to be read, in the order in which they came.
    prompts: Vec<(WriteJob, Place)>,
    reading: VecDeque<(ReadJob, Place)>,
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
        let (prompts, reading) = (Vec::new(), VecDeque::new());
        Ok(Self { models, prompts, reading, texts, most_texts, next_id: 0, metrics })
    }

    /// The weights of every model, shared.
    pub(super) fn weights(&self) -> Vec<DeviceWeights> {
        self.models.iter().map(|served| served.weights.clone()).collect()
    }

    /// Works until the queue is closed and everything in it is done.
    pub(super) fn run(&mut self, mut queue: Receiver<Waiting>) {
        let Some(device) = self.models.first().map(|served| served.weights.device()) else {
            return;
        };
        let mut is_open = true;
        while is_open || self.is_busy() {
            if !self.is_busy() {
                is_open = self.wait(&queue);
            }
            // One way into the device's threads for many rounds.
            let (queue, begun) = (&mut queue, Instant::now());
            device.run(|| {
                while self.is_busy() && begun.elapsed() < SHIFT {
                    is_open &= self.receive(queue);
                    self.admit();
                    (0..self.models.len()).for_each(|model| self.round(model));
                    self.metrics.writing.set(self.writing() as i64);
                }
            });
        }
    }

    /// Whether something is being done or waits.
    fn is_busy(&self) -> bool {
        self.texts() > 0 || !self.reading.is_empty()
    }

    /// Texts that are being written.
    fn writing(&self) -> usize {
        self.texts.iter().map(BTreeMap::len).sum()
    }

    /// Texts that are being written, and those of prompts that wait.
    fn texts(&self) -> usize {
        self.writing() + self.prompts.iter().map(|(job, _)| job.count).sum::<usize>()
    }

    /// Waits a while for a job. Returns whether more may come.
    fn wait(&mut self, queue: &Receiver<Waiting>) -> bool {
        match queue.recv_timeout(IDLE) {
            Ok(waiting) => self.take(waiting),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return false,
        }
        true
    }

    /// Takes jobs from the queue as long as there is room for texts. Returns whether more may come.
    fn receive(&mut self, queue: &mut Receiver<Waiting>) -> bool {
        while self.texts() < self.most_texts {
            match queue.try_recv() {
                Ok(waiting) => self.take(waiting),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
        true
    }

    fn take(&mut self, Waiting { job, place }: Waiting) {
        match job {
            Job::Write(job) => self.prompts.push((job, place)),
            Job::Read(job) => self.reading.push_back((job, place)),
        }
    }

    /// Works for what waits, but not for long. Its places in the queue are free from then on.
    fn admit(&mut self) {
        let begun = Instant::now();
        while let Some((job, place)) = self.reading.pop_front() {
            drop(place);
            self.read(&job);
            if begun.elapsed() > ADMITTING {
                break;
            }
        }
        while let Some(jobs) = self.alike() {
            self.begin(jobs);
            if begun.elapsed() > ADMITTING {
                break;
            }
        }
    }

    /// The first prompts of one model and length, if it is time to fit them: several in hardly more time than one. So while
    /// texts are written prompts wait a little, for as many as a quarter of these.
    fn alike(&mut self) -> Option<Vec<WriteJob>> {
        let (first, _) = self.prompts.first()?;
        let few = 4 * self.prompts.len() < self.writing();
        if few && first.arrived.elapsed() < GATHERING {
            return None;
        }
        let kind = (first.model, first.prompt.len());
        let is_alike = |(job, _): &mut (WriteJob, Place)| (job.model, job.prompt.len()) == kind;
        let most = (TOKENS_TOGETHER / kind.1.max(1)).clamp(1, TOGETHER);
        let jobs = self.prompts.extract_if(.., is_alike).take(most);
        Some(jobs.map(|(job, _)| job).collect())
    }

    /// Begins the texts of prompts of one model and length.
    fn begin(&mut self, mut jobs: Vec<WriteJob>) {
        let all = jobs.len();
        jobs.retain(|job| !job.events.is_closed());
        self.metrics.cancelled.inc_by((all - jobs.len()) as u64);
        let Some(model) = jobs.first().map(|job| job.model) else { return };
        match catch_unwind(AssertUnwindSafe(|| self.write(&jobs))) {
            // Each for itself, so that none fails of another's fault.
            Ok(Err(_)) if jobs.len() > 1 => jobs.into_iter().for_each(|job| self.begin(vec![job])),
            done => {
                let events: Vec<&Events> = jobs.iter().map(|job| &job.events).collect();
                self.end(model, &events, done);
            }
        }
    }

    /// Scores or fits a text.
    fn read(&mut self, job: &ReadJob) {
        let (model, events) = job.of();
        if events.is_closed() {
            self.metrics.cancelled.inc();
            return;
        }
        let done = catch_unwind(AssertUnwindSafe(|| match job {
            ReadJob::Score(job) => self.score(job),
            ReadJob::Think(job) => self.think(job),
        }));
        self.end(model, &[events], done);
    }

    /// Tells requests how it ended.
    fn end(
        &mut self,
        model: usize,
        events: &[&Events],
        done: std::thread::Result<Result<(), ApiError>>,
    ) {
        let has_panicked = done.is_err();
        if let Err(error) = done.unwrap_or_else(|_| Err(ApiError::internal())) {
            for events in events {
                let _ = events.send(Event::Failed(error.clone()));
            }
        }
        if has_panicked {
            self.fail(model);
        }
    }

    /// Ends all texts of a model after a panic.
    fn fail(&mut self, model: usize) {
        for (_, writing) in std::mem::take(&mut self.texts[model]) {
            let _ = writing.events.send(Event::Failed(ApiError::internal()));
        }
        self.models[model].renew();
    }

    /// Fits latents to prompts of one model and length, and begins their texts.
    fn write(&mut self, jobs: &[WriteJob]) -> Result<(), ApiError> {
        let Some(model) = jobs.first().map(|job| job.model) else { return Ok(()) };
        let served = &mut self.models[model];
        let prompts: Vec<(&[i32], u64)> =
            jobs.iter().map(|job| (&job.prompt[..], job.seed)).collect();
        let (of, metrics) = (served.config.infer.steps, &self.metrics);
        // Goes on as long as one of the clients is there.
        let mut observer = |step: &FastStep| {
            metrics.fast_steps.inc_by(jobs.len() as u64);
            let event = || Event::Thinking { step: step.step, of };
            match jobs.iter().filter(|job| job.events.send(event()).is_ok()).count() {
                0 => Err(ltm_eval::ltm_vi::Error::Stopped),
                _ => Ok(()),
            }
        };
        let fitted = match served.pool.fit(&prompts, &mut observer) {
            Err(ltm_eval::ltm_vi::Error::Stopped) => {
                self.metrics.cancelled.inc_by(jobs.len() as u64);
                return Ok(());
            }
            fitted => fitted?,
        };
        let mut id = self.next_id;
        let mut draws = Vec::new();
        let mut writing = Vec::new();
        for (job, fitted) in jobs.iter().zip(&fitted) {
            let given: Vec<u32> = job.prompt[1..].iter().map(|token| *token as u32).collect();
            for number in 0..job.count {
                let seed = job.seed.wrapping_add(number as u64);
                draws.push((fitted, Draw { id, seed, sample: job.sample }));
                let tokenizer = served.tokenizer.clone();
                let text = Writing {
                    choice: job.first + number,
                    continuation: Continuation::new(tokenizer, &given, job.limits.clone()),
                    top: job.top,
                    arrived: job.arrived,
                    begun: false,
                    events: job.events.clone(),
                };
                writing.push((id, text));
                id += 1;
            }
        }
        served.pool.begin(&draws)?;
        self.next_id = id;
        let read: usize = jobs.iter().map(|job| job.prompt.len()).sum();
        self.metrics.prompt_tokens.inc_by(read as u64);
        self.texts[model].extend(writing);
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

impl ReadJob {
    /// Its model and its channel.
    fn of(&self) -> (usize, &Events) {
        match self {
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
