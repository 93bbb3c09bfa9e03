//! One dual-rate step: fit the latents of a batch, then update the weights once. Knows no corpus and no
//! files.

use std::sync::Arc;

use ltm_autodiff::AdamWState;
use ltm_kernels::ops::adamw::AdamW;
use ltm_kernels::ops::{elementwise, reduce};
use ltm_kernels::{Buffer, Device};
use ltm_model::{DeviceWeights, ParamSpec, Weights};
use ltm_vi::{
    Cut, InferKey, Inference, Latents, Likelihood, Prior, Program, Sequences, StartKind, Task,
    mask_batch, prior_of, suits,
};

use crate::config::{Config, unsuitable};
use crate::data::Batch;
use crate::posteriors::{Posteriors, ended};
use crate::{Error, Result};

/// The constant that AdamW adds to the root of the squared gradient's mean.
const ADAMW_EPS: f64 = 1e-8;

/// The measurements of a step; nats are per scored token.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepReport {
    /// Steps taken, including this one.
    pub step: u64,
    /// Cross-entropy at the fitted sample, which the slow gradient lowers; the bound for masked diffusion.
    pub loss: f64,
    /// KL of the fitted posterior from the prior, in full whatever `infer.kl_warmup` is; `None` where the
    /// latents have no density.
    pub kl: Option<f64>,
    /// Global norm of the gradient, before clipping.
    pub grad_norm: f64,
    /// Learning rate of the weights.
    pub lr: f64,
    /// Learning rate of the first fast step.
    pub fast_lr: f64,
    /// Tokens scored.
    pub tokens: usize,
}

impl StepReport {
    /// Loss plus KL: the ELBO at the fitted noise, which is not a valid bound where the noise is fixed.
    pub fn bound(&self) -> Option<f64> {
        self.kl.map(|kl| self.loss + kl)
    }
}

/// The weights, the state of their optimiser, and under `infer.start = "given"` the posteriors of the rows.
pub struct SlowLearner {
    device: Device,
    program: Program,
    weights: DeviceWeights,
    moments: Vec<AdamWState>,
    /// The gradient, summed over micro-batches.
    sums: Vec<Buffer>,
    kl_balance: f32,
    /// Where the rows' next fits begin, if `infer.start` asks for it.
    posteriors: Posteriors,
}

/// How fast the weight of the KL follows `infer.kl_target`: by at most this share of itself in one step.
const BALANCE_RATE: f64 = 0.01;

/// The least weight of the KL under `infer.kl_target`.
const LEAST_BALANCE: f64 = 1e-4;

impl SlowLearner {
    /// A learner for `config` that starts from `weights` with a new optimiser state.
    ///
    /// # Errors
    /// Those of [`RunConfig::compute`](crate::config::RunConfig::compute), [`Error::Field`] for a method
    /// that cannot train the model, and [`Error::Infer`] when the weights are another model's or memory
    /// runs out.
    pub fn new(config: &Config, weights: &Weights) -> Result<Self> {
        config.model.validate()?;
        Self::of(config, Arc::new(config.model), prior_of(&config.model), weights)
    }

    /// As [`new`](Self::new) for any likelihood and prior, in place of those of `config.model`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn of(
        config: &Config,
        likelihood: Arc<dyn Likelihood>,
        prior: Arc<dyn Prior>,
        weights: &Weights,
    ) -> Result<Self> {
        let training = config.training();
        let task = Task::Train(training.gradient);
        suits(likelihood.extents(), &config.fast_loop(), task).map_err(unsuitable)?;
        let (device, precision) = config.run.compute()?;
        let shape = [config.train.batch, config.train.seq_len];
        let program = Program::of(likelihood, prior, shape, &device, precision, training)?;
        let weights = DeviceWeights::of(program.params(), weights, &device, precision)
            .map_err(ltm_vi::Error::from)?;
        let mut moments = Vec::with_capacity(program.params().len());
        let mut sums = Vec::with_capacity(program.params().len());
        for spec in program.params() {
            moments.push(AdamWState::new(&device, precision.float, spec.len())?);
            sums.push(Buffer::zeros(&device, precision.float, spec.len())?);
        }
        let posteriors = Posteriors::default();
        Ok(Self { device, program, weights, moments, sums, kl_balance: 1.0, posteriors })
    }

    /// The weights on their device, to be shared with programs and decoders.
    pub fn device_weights(&self) -> &DeviceWeights {
        &self.weights
    }

    /// A copy of the weights.
    ///
    /// # Errors
    /// [`Error::Infer`] when the device fails.
    pub fn weights(&self) -> Result<Weights> {
        Ok(self.weights.to_host().map_err(ltm_vi::Error::from)?)
    }

    /// Why the device could not record a fast step, if it could not; see [`Program::recording_failure`].
    pub fn recording_failure(&self) -> Option<&ltm_vi::Error> {
        self.program.recording_failure()
    }

    /// The optimiser's state of each weight, in the order of [`param_table`](ltm_model::param_table).
    pub fn moments(&self) -> &[AdamWState] {
        &self.moments
    }

    /// The factor of the KL's weight that follows `infer.kl_target`; 1 without a target.
    pub fn kl_balance(&self) -> f32 {
        self.kl_balance
    }

    /// Replaces that factor.
    ///
    /// # Errors
    /// [`Error::Field`] when it is not above 0 and at most 1.
    pub fn set_kl_balance(&mut self, kl_balance: f32) -> Result<()> {
        if !(kl_balance > 0.0 && kl_balance <= 1.0) {
            return Err(Error::field("kl_balance", "above 0 and at most 1", kl_balance));
        }
        self.kl_balance = kl_balance;
        Ok(())
    }

    /// The posteriors that the rows' last fits ended with, if `infer.start` is `given`.
    pub fn posteriors(&self) -> &Posteriors {
        &self.posteriors
    }

    /// Replaces these posteriors: the next fits of these rows begin at them.
    ///
    /// # Errors
    /// [`Error::Field`] when one is not of the model's size; they are then unchanged.
    pub fn set_posteriors(&mut self, posteriors: Posteriors) -> Result<()> {
        posteriors.check(self.program.extents().latent_len())?;
        self.posteriors = posteriors;
        Ok(())
    }

    /// Replaces the optimiser's state.
    ///
    /// # Errors
    /// [`Error::Field`] when there is not one entry of each weight's length, [`Error::Infer`] when
    /// memory runs out; the state is then unchanged.
    pub fn set_moments(&mut self, moments: Vec<AdamWState>) -> Result<()> {
        let specs: &[ParamSpec] = self.program.params();
        if moments.len() != specs.len() {
            let expected = format!("{} entries", specs.len());
            return Err(Error::field("optimizer", expected, moments.len()));
        }
        for (spec, AdamWState { m, v, .. }) in specs.iter().zip(&moments) {
            if let Some(found) = [m.len(), v.len()].into_iter().find(|len| *len != spec.len()) {
                let expected = format!("{} numbers for `{}`", spec.len(), spec.name);
                return Err(Error::field("optimizer", expected, found));
            }
        }
        let on_device = |AdamWState { m, v, step }: AdamWState| -> Result<AdamWState> {
            Ok(AdamWState { m: m.to_device(&self.device)?, v: v.to_device(&self.device)?, step })
        };
        self.moments = moments.into_iter().map(on_device).collect::<Result<_>>()?;
        Ok(())
    }

    /// Takes slow step number `step`, counted from 0, on these micro-batches: fits each, sums the
    /// gradients of the mean cross-entropy over the tokens of all of them, clips, and updates the weights.
    /// With an encoder the gradients are those of the bound; a masked diffusion model is not fitted.
    ///
    /// Under `infer.start = "given"` the fit of a row begins at the posterior that was kept before this step, and the one
    /// that it ends with is kept after the step; of a row that comes twice, the last.
    ///
    /// All random numbers are functions of `config.run.seed`, `step` and a sequence's number.
    ///
    /// # Errors
    /// [`Error::Field`] when the micro-batches have no scored token or a row no number, [`Error::NonFinite`] when loss,
    /// gradient or a posterior to keep is not finite, [`Error::Infer`] for a token outside the vocabulary: weights,
    /// optimiser and posteriors are then unchanged.
    pub fn step(&mut self, config: &Config, batches: &[Batch], step: u64) -> Result<StepReport> {
        if batches.iter().all(|batch| batch.scored == 0) {
            let expected = "micro-batches with at least one scored token";
            return Err(Error::field("batches", expected, format!("{} without", batches.len())));
        }
        if let Some(batch) = batches.iter().find(|batch| batch.numbers.len() < batch.rows) {
            let expected = format!("a number for each of {} rows", batch.rows);
            return Err(Error::field("batches", expected, batch.numbers.len()));
        }
        let device = self.device;
        device.run(|| self.take_step(config, batches, step))
    }

    fn take_step(&mut self, config: &Config, batches: &[Batch], step: u64) -> Result<StepReport> {
        let device = self.device;
        let train = &config.train;
        let progress = train.progress(step);
        let tokens: usize = batches.iter().map(|batch| batch.scored).sum();
        let share = 1.0 / tokens as f64;
        let token_weight = vec![share as f32; train.batch * train.seq_len];
        for sum in &mut self.sums {
            elementwise::fill(&device, sum, 0.0)?;
        }
        let kl_weight = config.infer.kl_weight_at(progress) * f64::from(self.kl_balance);
        let inference = Inference::weighted(&config.fast_loop(), progress, kl_weight)?;
        let keeps = config.infer.start == StartKind::Given;
        let mut kept = Posteriors::default();
        let (mut nll, mut kl) = (0.0, Some(0.0));
        for (idx, batch) in batches.iter().enumerate() {
            let key = key_of(config, step, idx);
            let extents = self.program.extents();
            if extents.mask_id.is_some() {
                nll += self.unmask(config, batch, key, share)?;
                continue;
            }
            let numbers = &batch.numbers[..batch.rows];
            let batch = ltm_vi::Batch::new(extents, train.batch, &batch.tokens, &batch.targets)?;
            let mut problem = self.program.problem(&self.weights, &batch)?;
            let start = match keeps {
                true => self.posteriors.start(&mut problem, inference.start(), key, numbers)?,
                false => inference.start().clone(),
            };
            let latents = inference.from(start).infer(&mut problem, key, &mut |_| Ok(()))?;
            if let (true, Some(q)) = (keeps, latents.gaussian()) {
                kept.rows.extend(ended(q, extents.latent_len(), numbers, step)?.rows);
            }
            let samples = train.samples_at(progress);
            let (found_nll, found_kl) = match &latents {
                Latents::Gaussian(q) if samples > 1 => {
                    let sums = &mut self.sums;
                    let weighted = problem.add_importance_gradients(
                        q,
                        samples,
                        key,
                        &token_weight,
                        kl_weight,
                        sums,
                    )?;
                    (weighted.nll, Some(weighted.kl))
                }
                latents => {
                    let slow = problem.weight_gradients(latents, &token_weight, kl_weight)?;
                    slow.add_to(&mut self.sums)?;
                    (slow.nll, slow.kl)
                }
            };
            nll += found_nll.iter().sum::<f64>();
            kl = match (&latents, found_kl) {
                (Latents::Sample(_), _) => None,
                (_, None) => kl,
                (_, Some(found)) => kl.map(|kl| kl + found.iter().take(numbers.len()).sum::<f64>()),
            };
            for (sum, gradient) in self.sums.iter_mut().zip(self.program.trajectory_gradients()) {
                elementwise::add_assign(&device, sum, gradient)?;
            }
        }
        if train.prefix_weight > 0.0 && progress >= train.prefix_from {
            self.read_on(config, batches, step, kl_weight)?;
        }
        let loss = nll * share;
        let kl = kl.map(|kl| kl * share);
        let fail = |tensor: &str| {
            Err(Error::NonFinite { step: step + 1, tensor: tensor.into(), last_good: None })
        };
        if !loss.is_finite() {
            return fail("the loss");
        }
        if !kl.is_none_or(f64::is_finite) {
            return fail("the KL of the posterior");
        }
        let grad_norm = global_norm(&self.sums)?;
        if !grad_norm.is_finite() {
            for (spec, sum) in self.program.params().iter().zip(&self.sums) {
                if reduce::first_non_finite(&device, sum)?.is_some() {
                    return fail(&format!("the gradient of `{}`", spec.name));
                }
            }
            return fail("the gradient's norm");
        }
        if let (Some(target), Some(kl)) = (config.infer.kl_target, kl) {
            let rows = batches.iter().map(|batch| batch.rows).sum::<usize>().max(1);
            self.balance(kl * tokens as f64 / rows as f64 / target);
        }
        let lr = train.lr_at(step);
        let [beta1, beta2] = train.betas;
        for (i, spec) in self.program.params().iter().enumerate() {
            let weight_decay = if spec.decay { train.weight_decay } else { 0.0 };
            let options = AdamW { lr, beta1, beta2, eps: ADAMW_EPS, weight_decay };
            let weight = self.weights.param_mut(i).map_err(ltm_vi::Error::from)?;
            let scale = clip_scale(grad_norm, train.clip);
            self.moments[i].update(&device, weight, &self.sums[i], scale, options)?;
        }
        self.posteriors.rows.extend(kept.rows);
        let fast_lr = config.fast_loop().lr_at(0, progress);
        Ok(StepReport { step: step + 1, loss, kl, grad_norm, lr, fast_lr, tokens })
    }

    /// Moves the weight of the KL, which was this multiple of its target.
    fn balance(&mut self, ratio: f64) {
        let change = BALANCE_RATE * (ratio - 1.0).clamp(-1.0, 1.0);
        let moved = f64::from(self.kl_balance) * change.exp();
        // In single precision, which a file of decimals keeps exactly.
        self.kl_balance = moved.clamp(LEAST_BALANCE, 1.0) as f32;
    }

    /// Adds the gradients of a bound on a random prefix of each text with what follows it, whose posterior has read the
    /// prefix alone, times `train.prefix_weight`.
    fn read_on(
        &mut self,
        config: &Config,
        batches: &[Batch],
        step: u64,
        kl_weight: f64,
    ) -> Result<()> {
        let train = &config.train;
        let extents = self.program.extents();
        let cuts = batches.iter().enumerate().map(|(idx, batch)| {
            let batch = ltm_vi::Batch::new(extents, train.batch, &batch.tokens, &batch.targets)?;
            Ok(Cut::new(batch, key_of(config, step, idx), train.prefix_block)?)
        });
        let cuts = cuts.collect::<Result<Vec<_>>>()?;
        let tokens = cuts.iter().flat_map(|cut| &cut.counted).filter(|counts| **counts).count();
        let share = (train.prefix_weight / tokens.max(1) as f64) as f32;
        let inference = Inference::weighted(&config.fast_loop(), train.progress(step), kl_weight)?;
        for (idx, Cut { known, rest, counted }) in cuts.iter().enumerate() {
            let token_weight: Vec<f32> =
                counted.iter().map(|counts| if *counts { share } else { 0.0 }).collect();
            let mut problem = self.program.problem(&self.weights, known)?;
            let latents =
                inference.infer(&mut problem, key_of(config, step, idx), &mut |_| Ok(()))?;
            let mut problem = problem.with_batch(rest)?;
            let slow = problem.weight_gradients(&latents, &token_weight, kl_weight)?;
            slow.add_to(&mut self.sums)?;
        }
        Ok(())
    }

    /// Adds the gradient of a batch's masked-diffusion bound, times `share`, under masks drawn for this
    /// step, and returns the bound in nats.
    fn unmask(&mut self, config: &Config, batch: &Batch, key: InferKey, share: f64) -> Result<f64> {
        let t = config.train.seq_len;
        let extents = self.program.extents();
        let masked = mask_batch(extents, key, &batch.tokens, &batch.targets, t)?;
        let batch =
            ltm_vi::Batch::new(extents, config.train.batch, &masked.tokens, &masked.targets)?;
        let weight: Vec<f32> = masked.weight.iter().map(|w| w * share as f32).collect();
        let mut problem = self.program.problem(&self.weights, &batch)?;
        let slow = problem.weight_gradients(&Latents::None, &weight, 1.0)?;
        slow.add_to(&mut self.sums)?;
        let nll = slow.nll.iter().zip(&masked.weight);
        Ok(nll.map(|(nll, w)| nll * f64::from(*w)).sum())
    }
}

/// What the random numbers of a step's micro-batch are a function of.
fn key_of(config: &Config, step: u64, micro_batch: usize) -> InferKey<'static> {
    let first = (micro_batch * config.train.batch) as u64;
    InferKey { seed: config.run.seed, step, sequences: Sequences::From(first) }
}

/// Euclidean norm of all gradients together.
///
/// # Errors
/// [`Error::Infer`] when a buffer holds no floats.
pub fn global_norm(gradients: &[Buffer]) -> Result<f64> {
    let device = gradients.first().map_or(Device::Cpu, Buffer::device);
    let gradients: Vec<_> = gradients.iter().collect();
    Ok(reduce::sum_squares_all(&device, &gradients)?.sqrt())
}

/// The factor that scales a gradient of norm `norm` down to at most `clip`.
pub fn clip_scale(norm: f64, clip: f64) -> f64 {
    // The constant is that of PyTorch's clip_grad_norm_, so that trajectories agree.
    (clip / (norm + 1e-6)).min(1.0)
}
