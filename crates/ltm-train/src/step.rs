//! One dual-rate step: fit the latents of a batch, then update the weights once. Knows no corpus and no
//! files.

mod micro_batch;
mod sums;

use std::sync::Arc;

use ltm_autodiff::AdamWState;
use ltm_collective::{Group, tree};
use ltm_kernels::ops::adamw::AdamW;
use ltm_kernels::ops::reduce;
use ltm_kernels::{Buffer, Device};
use ltm_model::{DeviceWeights, ParamSpec, Weights};
use ltm_vi::{Cut, Inference, Likelihood, Prior, Program, Task, prior_of, suits};
use serde::{Deserialize, Serialize};

use self::micro_batch::{Found, Learning, Shared, key_of};
use self::sums::{Exchange, GradientSums, Gradients, in_tree};

use crate::config::{Config, unsuitable};
use crate::data::Batch;
use crate::posteriors::Posteriors;
use crate::{Error, Result, chain};

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
    sums: GradientSums,
    /// The weights, in the order in which their gradients are computed and exchanged.
    order: Vec<usize>,
    group: Group,
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
        let mut program = Program::of(likelihood, prior, shape, &device, precision, training)?;
        let weights = DeviceWeights::of(program.params(), weights, &device, precision)
            .map_err(ltm_vi::Error::from)?;
        let mut moments = Vec::with_capacity(program.params().len());
        for spec in program.params() {
            moments.push(AdamWState::new(&device, precision.float, spec.len())?);
        }
        let lengths = program.params().iter().map(ParamSpec::len).collect();
        let sums = GradientSums::new(device, precision.float, lengths);
        let order = program.gradient_order()?;
        let (group, posteriors, kl_balance) = (Group::alone(), Posteriors::default(), 1.0);
        Ok(Self { device, program, weights, moments, sums, order, group, kl_balance, posteriors })
    }

    /// The same learner as one of a group of processes, which all have the same weights and state and take the same steps,
    /// each on its [share](Group::share) of the micro-batches.
    pub fn in_group(self, group: Group) -> Self {
        Self { group, ..self }
    }

    /// The processes that take steps together.
    pub fn group(&self) -> &Group {
        &self.group
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
    /// In a [group](Self::in_group) `batches` are this process's share of the step's micro-batches, and the gradients those of
    /// all; with a power of two of processes weights and report are those of one process, to the bit. Every process must
    /// have the same number of micro-batches.
    ///
    /// Under `infer.start = "given"` the fit of a row begins at the posterior that was kept before this step, and the one
    /// that it ends with is kept after the step; of a row that comes twice, the last.
    ///
    /// All random numbers are functions of `config.run.seed`, `step` and a sequence's number.
    ///
    /// # Errors
    /// [`Error::Field`] when the micro-batches have no scored token or a row no number, [`Error::NonFinite`] when loss,
    /// gradient or a posterior to keep is not finite, [`Error::Infer`] for a token outside the vocabulary,
    /// [`Error::Group`] when another process failed or does not answer: weights, optimiser and posteriors are then
    /// unchanged.
    pub fn step(&mut self, config: &Config, batches: &[Batch], step: u64) -> Result<StepReport> {
        self.step_of(config, Ok(batches), step)
    }

    /// As [`step`](Self::step), or tells the other processes that there are no batches here.
    pub(crate) fn step_if(
        &mut self,
        config: &Config,
        batches: Result<Vec<Batch>>,
        step: u64,
    ) -> Result<StepReport> {
        match batches {
            Ok(batches) => self.step_of(config, Ok(&batches), step),
            Err(error) => self.step_of(config, Err(error), step),
        }
    }

    fn step_of(
        &mut self,
        config: &Config,
        batches: Result<&[Batch]>,
        step: u64,
    ) -> Result<StepReport> {
        let own = batches.and_then(|batches| {
            let cuts = self.cuts(config, batches, step)?;
            Ok((batches, cuts))
        });
        let counts = own.as_ref().map(|(batches, cuts)| Counts::of(batches, cuts));
        let all = self.group.agree(counts.as_ref().map_err(|error| chain(*error)), "a step");
        let (batches, cuts) = own?;
        let counts = Counts::sum(&all?);
        if counts.micro_batches != batches.len() * self.group.size() {
            let expected = format!("the same number in each of {} processes", self.group.size());
            return Err(Error::field("batches", expected, batches.len()));
        }
        if counts.tokens == 0 {
            let expected = "micro-batches with at least one scored token";
            let found = format!("{} without", counts.micro_batches);
            return Err(Error::field("batches", expected, found));
        }
        let device = self.device;
        device.run(|| self.take_step(config, batches, &cuts, &counts, step))
    }

    fn take_step(
        &mut self,
        config: &Config,
        batches: &[Batch],
        cuts: &[Cut],
        counts: &Counts,
        step: u64,
    ) -> Result<StepReport> {
        let device = self.device;
        let train = &config.train;
        let progress = train.progress(step);
        let share = 1.0 / counts.tokens as f64;
        let kl_weight = config.infer.kl_weight_at(progress) * f64::from(self.kl_balance);
        let shared = Shared {
            config,
            step,
            inference: Inference::weighted(&config.fast_loop(), progress, kl_weight)?,
            kl_weight,
            share,
            prefix_share: train.prefix_weight / counts.cut_tokens.max(1) as f64,
        };
        let own = self.sum_gradients(&shared, batches, cuts);
        let all = self.group.agree(own.as_ref().map_err(|error| chain(error)), "a step");
        own?;
        let all = all?;
        let loss = in_tree(all.iter().map(|part| part.nll)) * share;
        let kl = all.iter().map(|part| part.kl).collect::<Option<Vec<_>>>();
        let kl = kl.map(|kl| in_tree(kl.into_iter()) * share);
        let fail = |tensor: &str| {
            Err(Error::NonFinite { step: step + 1, tensor: tensor.into(), last_good: None })
        };
        if !loss.is_finite() {
            return fail("the loss");
        }
        if !kl.is_none_or(f64::is_finite) {
            return fail("the KL of the posterior");
        }
        let sums = self.sums.whole();
        let grad_norm = global_norm(sums)?;
        if !grad_norm.is_finite() {
            for (spec, sum) in self.program.params().iter().zip(sums) {
                if reduce::first_non_finite(&device, sum)?.is_some() {
                    return fail(&format!("the gradient of `{}`", spec.name));
                }
            }
            return fail("the gradient's norm");
        }
        if let (Some(target), Some(kl)) = (config.infer.kl_target, kl) {
            let rows = counts.rows.max(1);
            self.balance(kl * counts.tokens as f64 / rows as f64 / target);
        }
        let lr = train.lr_at(step);
        let [beta1, beta2] = train.betas;
        for (i, spec) in self.program.params().iter().enumerate() {
            let weight_decay = if spec.decay { train.weight_decay } else { 0.0 };
            let options = AdamW { lr, beta1, beta2, eps: ADAMW_EPS, weight_decay };
            let weight = self.weights.param_mut(i).map_err(ltm_vi::Error::from)?;
            let scale = clip_scale(grad_norm, train.clip);
            self.moments[i].update(&device, weight, &self.sums.whole()[i], scale, options)?;
        }
        self.posteriors.rows.extend(all.into_iter().flat_map(|part| part.kept.rows));
        let fast_lr = config.fast_loop().lr_at(0, progress);
        let tokens = counts.tokens;
        Ok(StepReport { step: step + 1, loss, kl, grad_norm, lr, fast_lr, tokens })
    }

    /// Fits the micro-batches of this process, at least one, and sums their gradients, over all processes too.
    fn sum_gradients(
        &mut self,
        shared: &Shared<'_>,
        batches: &[Batch],
        cuts: &[Cut],
    ) -> Result<Found> {
        let Self { program, weights, sums, order, group, posteriors, .. } = self;
        let mut learning = Learning { program, weights, posteriors, shared };
        let n = batches.len();
        let first = group.rank() * n;
        let mut found = Vec::with_capacity(n);
        let mut add = |at: usize, to: &mut dyn Gradients| -> Result<()> {
            let cut = cuts.get(at);
            found.push(learning.add_gradients(first + at, &batches[at], cut, to)?);
            Ok(())
        };
        sums.clear();
        let mut added = (0..n - 1).try_for_each(|at| {
            sums.begin()?;
            add(at, sums)?;
            Ok(sums.merge(tree::additions_after(at, n))?)
        });
        added = added.and_then(|()| Ok(sums.begin()?));
        // From here on every process exchanges, whatever happens in it: the others wait for it.
        let mut exchange = Exchange::new(group, sums, order);
        added = added.and_then(|()| add(n - 1, &mut exchange));
        let exchanged = exchange.finish();
        added?;
        exchanged?;
        Ok(Found::sum(found))
    }

    /// Moves the weight of the KL, which was this multiple of its target.
    fn balance(&mut self, ratio: f64) {
        let change = BALANCE_RATE * (ratio - 1.0).clamp(-1.0, 1.0);
        let moved = f64::from(self.kl_balance) * change.exp();
        // In single precision, which a file of decimals keeps exactly.
        self.kl_balance = moved.clamp(LEAST_BALANCE, 1.0) as f32;
    }

    /// The texts cut after prefixes, where the step learns from such; refuses batches that cannot be learned from.
    fn cuts(&self, config: &Config, batches: &[Batch], step: u64) -> Result<Vec<Cut>> {
        if let Some(batch) = batches.iter().find(|batch| batch.numbers.len() < batch.rows) {
            let expected = format!("a number for each of {} rows", batch.rows);
            return Err(Error::field("batches", expected, batch.numbers.len()));
        }
        let train = &config.train;
        if !(train.prefix_weight > 0.0 && train.progress(step) >= train.prefix_from) {
            return Ok(Vec::new());
        }
        let first = self.group.rank() * batches.len();
        let cut = |(at, batch): (usize, &Batch)| {
            let extents = self.program.extents();
            let batch = ltm_vi::Batch::new(extents, train.batch, &batch.tokens, &batch.targets)?;
            Ok(Cut::new(batch, key_of(config, step, first + at), train.prefix_block)?)
        };
        batches.iter().enumerate().map(cut).collect()
    }
}

/// What is counted before a step, in one process or in all.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Counts {
    micro_batches: usize,
    rows: usize,
    /// Scored tokens.
    tokens: usize,
    /// Tokens that are scored after a prefix.
    cut_tokens: usize,
}

impl Counts {
    fn of(batches: &[Batch], cuts: &[Cut]) -> Self {
        let counted = cuts.iter().flat_map(|cut| &cut.counted);
        Self {
            micro_batches: batches.len(),
            rows: batches.iter().map(|batch| batch.rows).sum(),
            tokens: batches.iter().map(|batch| batch.scored).sum(),
            cut_tokens: counted.filter(|counts| **counts).count(),
        }
    }

    fn sum(all: &[Self]) -> Self {
        all.iter().fold(Self::default(), |sum, one| Self {
            micro_batches: sum.micro_batches + one.micro_batches,
            rows: sum.rows + one.rows,
            tokens: sum.tokens + one.tokens,
            cut_tokens: sum.cut_tokens + one.cut_tokens,
        })
    }
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
