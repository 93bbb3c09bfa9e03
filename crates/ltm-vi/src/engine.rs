//! One model at one batch shape, traced once: the fast loop over the posterior, scores, and the
//! weight gradients of the slow step. Knows no corpus, no estimator and no weight optimiser.

mod amortised;
mod langevin;
mod traced;

use ltm_autodiff::{AdamWState, Graph, NodeCount, Plan, Precision, Store, UpdateRate, Value};
use ltm_kernels::cuda::{Context, Recording};
use ltm_kernels::ops::adamw::{self, AdamW};
use ltm_kernels::ops::elementwise;
use ltm_kernels::{Buffer, Cost, Device};
use ltm_model::{ModelConfig, Weights, param_table};

use amortised::Encoder;
pub use traced::training_counts;
use traced::{Traced, fast_outputs, slow_outputs};

use crate::fast_loop::FastLoop;
use crate::posterior::Purpose;
use crate::{Error, InferConfig, InferKey, Method, Noise, Posterior, Result};

/// Which weight gradients an [`Engine`] can compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowGradient {
    /// None, for evaluation.
    None,
    /// At the final sample only: Algorithm 1 of the paper.
    Final,
    /// At the final sample, and summed over all fast steps: what the published code does, which
    /// never clears the decoder's gradients inside the loop.
    Trajectory,
}

/// One fast step, measured before its update.
#[derive(Clone, Debug, PartialEq)]
pub struct FastStep {
    /// Index of the step, from 0.
    pub step: usize,
    /// Its learning rate.
    pub lr: f64,
    /// Negative log-likelihood of the batch's targets at the current sample, in nats.
    pub nll: f64,
    /// KL from the prior of each layer's latents, summed over the batch, in nats.
    pub kl_per_layer: Vec<f64>,
    /// `nll` plus all KL, at full weight whatever `kl_warmup` is: the negative ELBO by one sample.
    pub bound: f64,
}

impl FastStep {
    /// From the likelihood's sum and the divergences `(B·L)` of a step.
    pub(crate) fn new(step: usize, lr: f64, nll: f64, kl: &[f64], n_layers: usize) -> Self {
        let kl_per_layer: Vec<f64> =
            (0..n_layers).map(|layer| kl.iter().skip(layer).step_by(n_layers).sum()).collect();
        let bound = nll + kl_per_layer.iter().sum::<f64>();
        Self { step, lr, nll, kl_per_layer, bound }
    }
}

/// The latents of a traced model, with the gradients of the objective.
struct Latents {
    mu: Value,
    log_var: Value,
    noise: Value,
    /// `(B·L)`: one entry a layer of a sequence.
    kl: Value,
    /// `(B·L)`: what each of them counts in the objective.
    kl_weight: Value,
    dmu: Value,
    dlog_var: Value,
    /// Gradients of the objective for each weight; none unless asked for.
    dweights: Vec<Value>,
}

/// A model for batches of `B` sequences of `T` tokens.
///
/// It holds the weights, one batch and its posterior. Plans are made when first needed, so that an
/// engine for evaluation has no memory for weight gradients, and one for training none for scores.
pub struct Engine {
    config: ModelConfig,
    b: usize,
    t: usize,
    device: Device,
    precision: Precision,
    slow_gradient: SlowGradient,
    graph: Graph,
    store: Store,
    weights: Vec<Value>,
    tokens: Value,
    targets: Value,
    token_weight: Value,
    /// `(B·T)`.
    nll: Value,
    latents: Option<Latents>,
    encoder: Option<Encoder>,
    /// Gradients of the weighted likelihood, or of the encoder's bound, for each weight; none unless
    /// asked for.
    slow: Vec<Value>,
    /// `nll` as the slow gradient sees it: with an encoder, at its sample.
    slow_nll: Value,
    fast_plan: Option<Plan>,
    /// On CUDA, the tables of the fast loop.
    fast_loop: Option<FastLoop>,
    score_plan: Option<Plan>,
    slow_plan: Option<Plan>,
    adam_mu: AdamWState,
    adam_log_var: AdamWState,
    trajectory: Vec<Buffer>,
    /// The batch's targets; those of the graph may be on a device.
    host_targets: Vec<i32>,
    scored_tokens: Vec<usize>,
    /// How the current latents were found.
    method: Method,
    /// The weight of the KL in the objective.
    kl_weight: f32,
}

impl Engine {
    /// Traces the model for `b` sequences of `t` tokens, computing in `precision`.
    ///
    /// # Errors
    /// [`Error::Model`] for an invalid configuration, [`Error::Argument`] when `b` is 0, `t` is not in
    /// `1..=max_seq_len` or a trajectory is asked for with an encoder, [`Error::Kernel`] when memory
    /// runs out.
    pub fn new(
        config: &ModelConfig,
        b: usize,
        t: usize,
        device: &Device,
        precision: Precision,
        slow_gradient: SlowGradient,
    ) -> Result<Self> {
        let traced = Traced::new(config, b, t, slow_gradient)?;
        let store = Store::new(&traced.graph, device, precision)?;
        let len = b * config.n_latents * config.dim;
        let mut trajectory = Vec::new();
        if traced.latents.as_ref().is_some_and(|latents| !latents.dweights.is_empty()) {
            for spec in param_table(config) {
                trajectory.push(Buffer::zeros(device, precision.float, spec.len())?);
            }
        }
        let Traced { graph, weights, tokens, targets, token_weight, .. } = traced;
        let Traced { nll, latents, encoder, slow, slow_nll, .. } = traced;
        let mut engine = Self {
            config: *config,
            b,
            t,
            device: *device,
            precision,
            slow_gradient,
            store,
            weights,
            tokens,
            targets,
            token_weight,
            nll,
            latents,
            encoder,
            slow,
            slow_nll,
            fast_plan: None,
            fast_loop: None,
            score_plan: None,
            slow_plan: None,
            adam_mu: AdamWState::new(device, precision.float, len)?,
            adam_log_var: AdamWState::new(device, precision.float, len)?,
            trajectory,
            host_targets: vec![-1; b * t],
            scored_tokens: vec![0; b],
            method: Method::Variational,
            kl_weight: 1.0,
            graph,
        };
        engine.set_warmup_kl_weight(1.0)?;
        engine.name_latents()?;
        Ok(engine)
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Sequences `B` and tokens `T` of a batch.
    pub fn batch_shape(&self) -> (usize, usize) {
        (self.b, self.t)
    }

    /// Copies a model's weights in.
    ///
    /// # Errors
    /// [`Error::Model`] when they are another model's.
    pub fn set_weights(&mut self, weights: &Weights) -> Result<()> {
        weights.check(&self.config)?;
        for (value, param) in self.weights.iter().zip(&weights.params) {
            self.store.write_f32(*value, param)?;
        }
        Ok(())
    }

    /// A copy of the weights, rounded to single precision.
    ///
    /// # Errors
    /// [`Error::Autodiff`] before they are set.
    pub fn weights(&self) -> Result<Weights> {
        let read = |value: &Value| Ok(self.store.get(*value)?.to_f32()?);
        Ok(Weights { params: self.weights.iter().map(read).collect::<Result<_>>()? })
    }

    /// Number of weights: entries of [`param_table`], whose order all methods follow.
    pub fn n_weights(&self) -> usize {
        self.weights.len()
    }

    /// Weight `i`, for an optimiser to update; values that depend on it are recomputed.
    ///
    /// # Errors
    /// [`Error::Argument`] when there are `i` weights or fewer.
    pub fn weight_mut(&mut self, i: usize) -> Result<&mut Buffer> {
        let n = self.weights.len();
        let value = *self.weights.get(i).ok_or_else(|| argument("i", format!("below {n}"), i))?;
        Ok(self.store.get_mut(value)?)
    }

    /// Copies a batch in: `tokens (B,T)` and the `targets (B,T)` to predict; -1 marks a position that is
    /// not scored.
    ///
    /// # Errors
    /// [`Error::Argument`] when a length differs. Tokens and targets are checked when they are used,
    /// or here when a device is to use them.
    pub fn set_batch(&mut self, tokens: &[i32], targets: &[i32]) -> Result<()> {
        self.check_length("tokens", tokens)?;
        self.check_length("targets", targets)?;
        self.check_indices("embedding", tokens)?;
        self.set_targets(targets)?;
        Ok(self.store.write_i32(self.tokens, tokens)?)
    }

    /// Replaces the batch's `targets (B,T)` and keeps its tokens and the posterior.
    ///
    /// # Errors
    /// Those of [`set_batch`](Self::set_batch).
    pub fn set_targets(&mut self, targets: &[i32]) -> Result<()> {
        self.check_length("targets", targets)?;
        self.check_indices("cross_entropy", targets)?;
        self.store.write_i32(self.targets, targets)?;
        self.set_text(targets)?;
        let scored = |targets: &[i32]| targets.iter().filter(|target| **target >= 0).count();
        self.scored_tokens = targets.chunks(self.t).map(scored).collect();
        self.host_targets.copy_from_slice(targets);
        Ok(())
    }

    /// The batch's targets `(B,T)`; all -1 before [`set_batch`](Self::set_batch).
    pub fn targets(&self) -> &[i32] {
        &self.host_targets
    }

    fn check_length(&self, arg: &'static str, entries: &[i32]) -> Result<()> {
        let len = self.b * self.t;
        if entries.len() == len {
            return Ok(());
        }
        Err(argument(arg, format!("{len} entries, B·T"), entries.len()))
    }

    /// Refuses what a device would turn into NaN: tokens, and targets other than -1, outside the
    /// vocabulary.
    fn check_indices(&self, op: &'static str, indices: &[i32]) -> Result<()> {
        let limit = self.config.vocab_size;
        let ignored = op == "cross_entropy";
        let outside =
            |x: &i32| !(*x == -1 && ignored || usize::try_from(*x).is_ok_and(|x| x < limit));
        if self.device == Device::Cpu {
            return Ok(());
        }
        match indices.iter().position(outside) {
            Some(position) => {
                let got = i64::from(indices[position]);
                Err(ltm_kernels::Error::Index { op, position, got, limit }.into())
            }
            None => Ok(()),
        }
    }

    /// A copy of the batch's tokens and targets.
    pub(crate) fn batch(&self) -> Result<(Vec<i32>, Vec<i32>)> {
        Ok((self.store.get(self.tokens)?.to_i32()?, self.host_targets.clone()))
    }

    /// Number of scored targets of each sequence of the batch.
    pub fn scored_tokens(&self) -> &[usize] {
        &self.scored_tokens
    }

    /// Copies a posterior in and starts a fit there: the moments of the optimiser and the sums of
    /// [`SlowGradient::Trajectory`] are zero again. Does nothing for a model without latents.
    ///
    /// # Errors
    /// [`Error::Argument`] when a length differs or a number is not finite; the engine's posterior is
    /// then unchanged.
    pub fn set_posterior(&mut self, posterior: &Posterior) -> Result<()> {
        let Some(latents) = &self.latents else { return Ok(()) };
        let Posterior { mu, log_var, noise } = posterior;
        let values = [
            ("mu", latents.mu, mu),
            ("log_var", latents.log_var, log_var),
            ("noise", latents.noise, noise),
        ];
        for (arg, _, numbers) in values {
            self.check_latents(arg, numbers)?;
        }
        for (_, value, numbers) in values {
            self.store.write_f32(value, numbers)?;
        }
        self.method = Method::Variational;
        self.adam_mu.reset(&self.device)?;
        self.adam_log_var.reset(&self.device)?;
        for sum in &mut self.trajectory {
            elementwise::fill(&self.device, sum, 0.0)?;
        }
        Ok(())
    }

    /// Replaces the sample's noise `(B,L·Z,C)` and leaves the fit unchanged. Does nothing for a model
    /// without latents.
    ///
    /// # Errors
    /// [`Error::Argument`] when the length differs or a number is not finite.
    pub fn set_noise(&mut self, noise: &[f32]) -> Result<()> {
        let Some(latents) = &self.latents else { return Ok(()) };
        self.check_latents("noise", noise)?;
        Ok(self.store.write_f32(latents.noise, noise)?)
    }

    /// Refuses numbers that are not the finite `(B,L·Z,C)` of a batch's latents.
    fn check_latents(&self, arg: &'static str, numbers: &[f32]) -> Result<()> {
        let len = self.b * self.config.n_latents * self.config.dim;
        if numbers.len() != len {
            return Err(argument(arg, format!("{len} numbers, B·L·Z·C"), numbers.len()));
        }
        check_finite(arg, numbers)
    }

    /// Whether the latents have the Gaussian density that [`posterior`](Self::posterior) describes.
    /// After [`Method::Langevin`] they are a single sample.
    pub fn has_density(&self) -> bool {
        self.method != Method::Langevin
    }

    /// A copy of the posterior, with the noise of the current sample; empty without latents. Without a
    /// [density](Self::has_density) the mean is the sample, and noise and log-variance are 0.
    ///
    /// # Errors
    /// [`Error::Autodiff`] before a first fit.
    pub fn posterior(&self) -> Result<Posterior> {
        let Some(latents) = &self.latents else {
            return Ok(Posterior { mu: Vec::new(), log_var: Vec::new(), noise: Vec::new() });
        };
        let read = |value| Ok::<_, Error>(self.store.get(value)?.to_f32()?);
        Ok(Posterior {
            mu: read(latents.mu)?,
            log_var: read(latents.log_var)?,
            noise: read(latents.noise)?,
        })
    }

    /// Fits the posterior of the batch by `infer.method`: for a variational fit, from its start under
    /// `key`, by `infer.steps` calls of [`fast_step`](Self::fast_step), each reported to `observer`. The
    /// result does not depend on earlier fits. `progress` of training, from 0 to 1, moves the rate from
    /// `lr` to `lr_end` and the weight of the KL over `kl_warmup`. Does nothing for a model without
    /// latents.
    ///
    /// # Errors
    /// [`Error::Config`] and [`Error::Argument`] for a method that this engine cannot use, before
    /// anything has changed; those of [`fast_step`](Self::fast_step), and whatever the observer returns, such as
    /// [`Error::Stopped`].
    pub fn infer(
        &mut self,
        infer: &InferConfig,
        progress: f64,
        key: InferKey,
        observer: &mut dyn FnMut(&FastStep) -> Result<()>,
    ) -> Result<()> {
        infer.validate()?;
        if self.latents.is_none() {
            return Ok(());
        }
        self.check_method(infer.method)?;
        let start = Posterior::initial(&self.config, infer, self.b, key)?;
        self.set_warmup_kl_weight(infer.kl_weight_at(progress) as f32)?;
        match infer.method {
            Method::Variational => {}
            Method::Langevin => return self.langevin(start, infer, progress, key, observer),
            Method::Amortised => return self.encode(start),
        }
        self.set_posterior(&start)?;
        if let Device::Cuda(context) = self.device {
            return self.infer_on_device(context, infer, progress, key, observer);
        }
        for step in 0..infer.steps {
            observer(&self.fast_step(infer.lr_at(step, progress), infer)?)?;
            if infer.noise == Noise::Fresh {
                let draw = step + 1; // draw 0 is the start's
                let (purpose, b) = (Purpose::FitNoise, self.b);
                self.set_noise(&key.normal(&self.config, b, purpose, draw, 0.0, 1.0)?)?;
            }
        }
        Ok(())
    }

    /// Refuses a method that this engine cannot use, before anything has changed.
    fn check_method(&self, method: Method) -> Result<()> {
        if method == Method::Langevin && self.slow_gradient == SlowGradient::Trajectory {
            let expected = "`final` for `infer.method = \"langevin\"`, which minimises no bound";
            return Err(argument("slow_gradient", expected, "trajectory"));
        }
        if method == Method::Amortised && self.encoder.is_none() {
            let expected = "`variational` or `langevin` for a model with `encoder_layers = 0`";
            return Err(argument("infer.method", expected, "amortised"));
        }
        Ok(())
    }

    /// Gives every KL this weight in the objective from here on.
    fn set_warmup_kl_weight(&mut self, weight: f32) -> Result<()> {
        let Some(latents) = &self.latents else { return Ok(()) };
        self.kl_weight = weight;
        let weights = vec![weight; self.b * self.config.n_layers];
        Ok(self.store.write_f32(latents.kl_weight, &weights)?)
    }

    /// The fit of [`infer`](Self::infer) without the host: rates and noise are in tables on the device,
    /// one step is recorded once and replayed, and the steps' measurements are read and reported to the
    /// observer after the last one.
    fn infer_on_device(
        &mut self,
        context: &'static Context,
        infer: &InferConfig,
        progress: f64,
        key: InferKey,
        observer: &mut dyn FnMut(&FastStep) -> Result<()>,
    ) -> Result<()> {
        if infer.steps == 0 {
            return Ok(());
        }
        let n_layers = self.config.n_layers;
        let mut tables = match self.fast_loop.take() {
            Some(tables) if tables.serves(infer) => tables,
            _ => {
                let widths = [self.b * self.t, self.b * n_layers];
                let n = self.config.n_latents * self.config.dim;
                FastLoop::new(&self.device, infer, self.b, n, widths)?
            }
        };
        tables.begin(infer, progress, key)?;
        self.make_fast_plan()?;
        let plan = self.fast_plan.as_mut().expect("made above");
        plan.prepare(&self.store)?;
        for _ in 0..infer.steps {
            if let Some(Ok(recording)) = &tables.recording {
                recording.replay()?;
                continue;
            }
            // The first step runs without recording, so that all kernels are compiled by then.
            self.enqueue_step(&mut tables)?;
            if tables.recording.is_none() {
                let recorded = Recording::capture(context, || self.enqueue_step(&mut tables));
                tables.recording = Some(recorded);
            }
        }
        let latents = self.latents.as_ref().expect("`infer` returns early without latents");
        for value in [latents.mu, latents.log_var, latents.noise] {
            self.store.get_mut(value)?; // written by the device
        }
        for state in [&mut self.adam_mu, &mut self.adam_log_var] {
            state.step = infer.steps as u64;
        }
        let steps = tables.steps(infer, progress, n_layers)?;
        self.fast_loop = Some(tables);
        steps.iter().try_for_each(observer)
    }

    /// Why the device could not record a fast step, if it could not: then the host queues each step's
    /// kernels, which gives the same numbers in more time.
    pub fn recording_failure(&self) -> Option<&Error> {
        self.fast_loop.as_ref()?.recording.as_ref()?.as_ref().err()
    }

    /// Enqueues one whole fast step, which reads only the tables on the device.
    fn enqueue_step(&mut self, tables: &mut FastLoop) -> Result<()> {
        let latents = self.latents.as_ref().expect("`infer` returns early without latents");
        let plan = self.fast_plan.as_mut().expect("`infer_on_device` has made it");
        let device = &self.device;
        plan.run_step(&self.store)?;
        tables.record(device, plan.output(self.nll)?, plan.output(latents.kl)?)?;
        for (sum, gradient) in self.trajectory.iter_mut().zip(&latents.dweights) {
            elementwise::add_assign(device, sum, plan.output(*gradient)?)?;
        }
        for (state, param, gradient) in [
            (&mut self.adam_mu, latents.mu, latents.dmu),
            (&mut self.adam_log_var, latents.log_var, latents.dlog_var),
        ] {
            let (param, gradient) = (self.store.get_mut(param)?, plan.output(gradient)?);
            let AdamWState { m, v, .. } = state;
            adamw::scheduled(device, param, m, v, gradient, &tables.factors, &tables.step)?;
        }
        tables.advance(device, self.store.get_mut(latents.noise)?)
    }

    /// Makes the plan of the fast loop on first use.
    fn make_fast_plan(&mut self) -> Result<()> {
        if self.fast_plan.is_none() {
            let outputs = fast_outputs(self.nll, self.latents.as_ref());
            let plan = Plan::new(&self.graph, &self.device, self.precision, &outputs)?;
            self.fast_plan = Some(plan);
        }
        Ok(())
    }

    /// One step of AdamW on the current mean and log-variance, at the sample of the current noise, with
    /// rate `lr`. The KL has the weight of the last [`infer`](Self::infer), 1 before the first. A model
    /// without latents is only scored.
    ///
    /// # Errors
    /// [`Error::Autodiff`] when weights, batch or posterior were never set, or when a token or
    /// target is outside the vocabulary.
    pub fn fast_step(&mut self, lr: f64, infer: &InferConfig) -> Result<FastStep> {
        let step = self.adam_mu.step as usize;
        self.make_fast_plan()?;
        let Some(latents) = &self.latents else {
            let nll = self.token_nll()?.iter().sum();
            return Ok(FastStep { step, lr, nll, kl_per_layer: Vec::new(), bound: nll });
        };
        let plan = self.fast_plan.as_mut().expect("made above");
        plan.run(&self.store)?;
        let nll = plan.output(self.nll)?.to_f64()?.iter().sum();
        let kl = plan.output(latents.kl)?.to_f64()?;
        for (sum, gradient) in self.trajectory.iter_mut().zip(&latents.dweights) {
            elementwise::add_assign(&self.device, sum, plan.output(*gradient)?)?;
        }
        let InferConfig { beta1, beta2, eps, weight_decay, .. } = *infer;
        let options = AdamW { lr, beta1, beta2, eps, weight_decay };
        for (state, param, gradient) in [
            (&mut self.adam_mu, latents.mu, latents.dmu),
            (&mut self.adam_log_var, latents.log_var, latents.dlog_var),
        ] {
            let param = self.store.get_mut(param)?;
            state.update(&self.device, param, plan.output(gradient)?, 1.0, options)?;
        }
        Ok(FastStep::new(step, lr, nll, &kl, self.config.n_layers))
    }

    /// Negative log-likelihood `(B·T)` of each target at the current sample, in nats; 0 where nothing is
    /// scored.
    ///
    /// # Errors
    /// Those of [`fast_step`](Self::fast_step).
    pub fn token_nll(&mut self) -> Result<Vec<f64>> {
        let plan = match &mut self.score_plan {
            Some(plan) => plan,
            empty => {
                empty.insert(Plan::new(&self.graph, &self.device, self.precision, &[self.nll])?)
            }
        };
        plan.run(&self.store)?;
        Ok(plan.output(self.nll)?.to_f64()?)
    }

    /// As [`token_nll`](Self::token_nll) at given latents `z (B,L·Z,C)`; the posterior is unchanged.
    ///
    /// # Errors
    /// Those of [`token_nll`](Self::token_nll), and [`Error::Argument`] when `z` has another length or a
    /// number that is not finite.
    pub fn token_nll_at(&mut self, z: &[f32]) -> Result<Vec<f64>> {
        self.check_latents("z", z)?;
        let len = z.len();
        let Some(Latents { mu, log_var, noise, .. }) = self.latents else {
            return self.token_nll();
        };
        let mut before = Vec::new();
        for value in [mu, log_var, noise] {
            // A posterior that was never set has nothing to go back to.
            before.push(self.store.get(value).ok().map(Buffer::try_clone).transpose()?);
        }
        let zeros = vec![0.0; len];
        for (value, data) in [(mu, z), (log_var, &zeros), (noise, &zeros)] {
            self.store.write_f32(value, data)?;
        }
        let result = self.token_nll();
        for (value, before) in [mu, log_var, noise].into_iter().zip(before) {
            if let Some(before) = before {
                self.store.get_mut(value)?.copy_from(&before)?;
            }
        }
        result
    }

    /// Gradients of `sum(token_weight · nll)` for each weight at the current sample, in the order of
    /// [`param_table`]. With `token_weight (B·T)` of one over the number of scored tokens they are those
    /// of the mean.
    ///
    /// With an encoder they are those of the bound at the encoder's sample, for the encoder's weights
    /// too: `sum(token_weight · nll) + k·sum_b w_b·KL_b`, where `w_b` is the mean weight of the
    /// sequence's scored tokens and `k` the weight of the KL in the last [`infer`](Self::infer).
    ///
    /// # Errors
    /// [`Error::NoSlowGradient`] for [`SlowGradient::None`], [`Error::Argument`] when the length
    /// differs, and those of [`fast_step`](Self::fast_step).
    pub fn slow_gradients(&mut self, token_weight: &[f32]) -> Result<Vec<&Buffer>> {
        if self.slow_gradient == SlowGradient::None {
            return Err(Error::NoSlowGradient);
        }
        let len = self.b * self.t;
        if token_weight.len() != len {
            return Err(argument(
                "token_weight",
                format!("{len} numbers, B·T"),
                token_weight.len(),
            ));
        }
        self.store.write_f32(self.token_weight, token_weight)?;
        self.set_encoder_kl_weight(token_weight)?;
        if self.slow_plan.is_none() {
            let outputs = slow_outputs(&self.slow, self.slow_nll);
            let plan = Plan::new(&self.graph, &self.device, self.precision, &outputs)?;
            self.slow_plan = Some(plan);
        }
        let plan = self.slow_plan.as_mut().expect("made above");
        plan.run(&self.store)?;
        self.slow.iter().map(|value| Ok(plan.output(*value)?)).collect()
    }

    /// Negative log-likelihood `(B·T)` of each target, as computed by the last
    /// [`slow_gradients`](Self::slow_gradients).
    ///
    /// # Errors
    /// [`Error::NoSlowGradient`] before the first one.
    pub fn slow_token_nll(&self) -> Result<Vec<f64>> {
        let plan = self.slow_plan.as_ref().ok_or(Error::NoSlowGradient)?;
        Ok(plan.output(self.slow_nll)?.to_f64()?)
    }

    /// Weight gradients of the bound, summed over batch and tokens and over the fast steps since
    /// the fit began; empty unless the engine was made for [`SlowGradient::Trajectory`] and the
    /// model has latents. The published code adds them to those of the slow step.
    pub fn trajectory_gradients(&self) -> &[Buffer] {
        &self.trajectory
    }

    /// Adds this batch's part of a slow step's gradient to `sums`:
    /// [`slow_gradients`](Self::slow_gradients) and, for [`SlowGradient::Trajectory`],
    /// [`trajectory_gradients`](Self::trajectory_gradients).
    ///
    /// # Errors
    /// Those of [`slow_gradients`](Self::slow_gradients), and [`Error::Argument`] when `sums` is
    /// not one buffer of each weight's length.
    pub fn add_slow_gradients(&mut self, token_weight: &[f32], sums: &mut [Buffer]) -> Result<()> {
        let table = param_table(&self.config);
        if sums.len() != table.len() {
            let expected = format!("{} buffers, one per weight", table.len());
            return Err(argument("sums", expected, sums.len()));
        }
        for (sum, spec) in sums.iter().zip(&table) {
            if sum.len() != spec.len() {
                let expected = format!("{} numbers for `{}`", spec.len(), spec.name);
                return Err(argument("sums", expected, sum.len()));
            }
        }
        let device = self.device;
        for (sum, gradient) in sums.iter_mut().zip(self.slow_gradients(token_weight)?) {
            elementwise::add_assign(&device, sum, gradient)?;
        }
        for (sum, gradient) in sums.iter_mut().zip(&self.trajectory) {
            elementwise::add_assign(&device, sum, gradient)?;
        }
        Ok(())
    }

    /// Bytes of memory of the plans made so far.
    pub fn plan_bytes(&self) -> usize {
        let encoder = self.encoder.as_ref().and_then(Encoder::plan);
        let plans = [self.fast_plan.as_ref(), self.score_plan.as_ref(), self.slow_plan.as_ref()];
        plans.into_iter().chain([encoder]).flatten().map(Plan::size_bytes).sum()
    }

    /// Arithmetic and memory traffic of the plans made so far: of one fast step, and of a slow gradient
    /// after an update of the weights.
    pub fn plan_costs(&self) -> [Option<Cost>; 2] {
        let fast = self.fast_plan.as_ref().map(|plan| plan.cost(UpdateRate::Step));
        [fast, self.slow_plan.as_ref().map(|plan| plan.cost(UpdateRate::Weights))]
    }
}

/// What training on one batch computes, by kind of node and each node once, and the memory that this takes; see
/// [`training_counts`].
#[derive(Clone, Debug)]
pub struct TrainingCounts {
    /// The encoder's pass, which takes the place of fast steps; empty without one.
    pub encoder: Vec<NodeCount>,
    /// The first fast step after the weights were moved; empty without latents.
    pub first_step: Vec<NodeCount>,
    /// Every later fast step of the batch; empty without latents.
    pub later_step: Vec<NodeCount>,
    /// The slow gradient after the last; empty for [`SlowGradient::None`].
    pub slow: Vec<NodeCount>,
    /// Bytes of one copy of the weights, and of everything else that the engine keeps between steps: batch,
    /// posterior, the moments of its optimiser.
    pub weight_bytes: usize,
    /// See [`weight_bytes`](Self::weight_bytes).
    pub batch_bytes: usize,
    /// Bytes of the plans: activations and gradients of the fast loop, of scoring, of the slow gradient and of the
    /// encoder.
    pub plan_bytes: [usize; 4],
}

/// Refuses NaN and infinities.
pub(crate) fn check_finite(arg: &'static str, numbers: &[f32]) -> Result<()> {
    match numbers.iter().position(|number| !number.is_finite()) {
        Some(index) => Err(argument(arg, "finite", format!("{} at index {index}", numbers[index]))),
        None => Ok(()),
    }
}

pub(crate) fn argument(
    arg: &'static str,
    expected: impl Into<String>,
    found: impl ToString,
) -> Error {
    Error::Argument { arg, expected: expected.into(), found: found.to_string() }
}
