//! A model traced for one batch shape, with the memory to run it. Knows no weights, no batch and no posterior: a call
//! is given them, and what it leaves in the memory changes no later call's result.

use std::sync::Arc;

use ltm_autodiff::{AdamWState, Graph, NodeCount, Plan, Precision, Store, UpdateRate, Value};
use ltm_kernels::{Buffer, Cost, Device};
use ltm_model::{ModelConfig, ParamSpec};

use crate::error::argument;
use crate::objective::{self, Objective};
use crate::own_units::OwnUnits;
use crate::tables::Tables;
use crate::{Batch, Error, Extents, Likelihood, Prior, Result, SlowGradient, Training, prior_of};

/// A model for batches of `B` sequences of `T` tokens: its graph, and memory for a batch, a posterior and plans.
///
/// Plans are made when first needed, so that a program for evaluation has no memory for weight gradients, and one for
/// training none for scores. Weights and batch are put together with it as a [`Problem`](crate::Problem).
pub struct Program {
    likelihood: Arc<dyn Likelihood>,
    pub(crate) prior: Arc<dyn Prior>,
    pub(crate) extents: Extents,
    pub(crate) params: Vec<ParamSpec>,
    shape: [usize; 2],
    pub(crate) device: Device,
    pub(crate) precision: Precision,
    pub(crate) training: Training,
    pub(crate) graph: Graph,
    pub(crate) store: Store,
    pub(crate) nodes: Objective,
    pub(crate) plans: Plans,
    /// The moments of what a fit by AdamW moves: means, log-variances and columns.
    pub(crate) moments: Vec<AdamWState>,
    /// Of fits by AdamW in the posterior's own units, once there was one.
    pub(crate) own_units: Option<OwnUnits>,
    /// Sums of the last fit's weight gradients.
    pub(crate) trajectory: Vec<Buffer>,
    /// On CUDA, what a fit without the host needs.
    pub(crate) tables: Option<Tables>,
    pub(crate) loaded: Loaded,
}

/// One plan for each kind of run, once it has been made.
#[derive(Default)]
pub(crate) struct Plans {
    pub(crate) fast: Option<Plan>,
    pub(crate) score: Option<Plan>,
    pub(crate) slow: Option<Plan>,
    pub(crate) encoder: Option<Plan>,
    pub(crate) kl: Option<Plan>,
}

/// What the store holds, so that equal values are not written again and nothing is computed again for them.
#[derive(Default)]
pub(crate) struct Loaded {
    /// The batch's number; 0 for none.
    pub(crate) batch: u64,
    pub(crate) kl_weight: Option<f32>,
    pub(crate) token_weight: Vec<f32>,
    pub(crate) encoder_token_weight: Vec<f32>,
    pub(crate) encoder_kl_weight: Vec<f32>,
    pub(crate) prior_kl_weight: Vec<f32>,
}

impl Program {
    /// Traces a Latent Thought Model, or one of its baselines, for `b` sequences of `t` tokens.
    ///
    /// # Errors
    /// [`Error::Model`] for an invalid configuration, [`Error::Argument`] when `b` is 0 or `t` is not in
    /// `1..=max_seq_len`, [`Error::Unsuitable`] for a trajectory with an encoder, [`Error::Kernel`] when memory runs
    /// out.
    pub fn new(
        config: &ModelConfig,
        b: usize,
        t: usize,
        device: &Device,
        precision: Precision,
        training: impl Into<Training>,
    ) -> Result<Self> {
        config.validate()?;
        let likelihood: Arc<dyn Likelihood> = Arc::new(*config);
        let shape = [b, t];
        Self::of(likelihood, prior_of(config), shape, device, precision, training)
    }

    /// As [`new`](Self::new) for any likelihood and prior, and `[b, t]`.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error::Autodiff`] when likelihood or prior cannot be traced.
    pub fn of(
        likelihood: Arc<dyn Likelihood>,
        prior: Arc<dyn Prior>,
        shape: [usize; 2],
        device: &Device,
        precision: Precision,
        training: impl Into<Training>,
    ) -> Result<Self> {
        let extents = likelihood.extents();
        let training = training.into();
        check_shape(&extents, shape, training)?;
        let mut graph = Graph::new();
        let nodes = objective::trace(&mut graph, &*likelihood, &*prior, shape, training)?;
        let store = Store::with_parameters(&graph, device, precision, &nodes.weights)?;
        let params = likelihood.params();
        let mut trajectory = Vec::new();
        if nodes.latents.as_ref().is_some_and(|latents| !latents.dweights.is_empty()) {
            for spec in &params {
                trajectory.push(Buffer::zeros(device, precision.float, spec.len())?);
            }
        }
        let moved = nodes.latents.iter().flat_map(|latents| latents.parameters());
        let moments = moved.map(|input| {
            let len = graph.shape(input).iter().product();
            AdamWState::new(device, precision.float, len)
        });
        let moments = moments.collect::<ltm_autodiff::Result<_>>()?;
        Ok(Self {
            likelihood,
            prior,
            extents,
            params,
            shape,
            device: *device,
            precision,
            training,
            store,
            nodes,
            plans: Plans::default(),
            moments,
            own_units: None,
            trajectory,
            tables: None,
            loaded: Loaded::default(),
            graph,
        })
    }

    /// Traces the model again for posteriors of another rank.
    pub(crate) fn serve_rank(&mut self, rank: usize) -> Result<()> {
        if self.training.rank != rank {
            let (likelihood, prior) = (self.likelihood.clone(), self.prior.clone());
            let training = Training { rank, ..self.training };
            *self =
                Self::of(likelihood, prior, self.shape, &self.device, self.precision, training)?;
        }
        Ok(())
    }

    pub(crate) fn check_batch(&self, batch: &Batch) -> Result<()> {
        let ([b, t], found) = (self.shape, batch.shape());
        if found != [b, t] {
            let expected = format!("{b} sequences of {t} tokens");
            return Err(argument("batch", expected, format!("{found:?}")));
        }
        let vocab_size = self.extents.vocab_size;
        if batch.vocab_size() > vocab_size {
            let expected = format!("of a vocabulary of {vocab_size}");
            return Err(argument("batch", expected, batch.vocab_size()));
        }
        Ok(())
    }

    /// The model's extents.
    pub fn extents(&self) -> Extents {
        self.extents
    }

    /// The model's parameters.
    pub fn params(&self) -> &[ParamSpec] {
        &self.params
    }

    /// Sequences `B` and tokens `T` of a batch.
    pub fn shape(&self) -> [usize; 2] {
        self.shape
    }

    /// Why the device could not record a fast step, if it could not: then the host queues each step's
    /// kernels, which gives the same numbers in more time.
    pub fn recording_failure(&self) -> Option<&Error> {
        self.tables.as_ref()?.recording_failure()
    }

    /// Weight gradients of the bound, summed over batch and tokens and over the steps of the program's last fit by
    /// AdamW, in the order of [`params`](Self::params); empty unless the program was made for
    /// [`SlowGradient::Trajectory`] and the model has latents. The published code adds them to those of the slow step.
    pub fn trajectory_gradients(&self) -> &[Buffer] {
        &self.trajectory
    }

    /// Bytes of memory of the plans made so far.
    pub fn plan_bytes(&self) -> usize {
        let Plans { fast, score, slow, encoder, kl } = &self.plans;
        [fast, score, slow, encoder, kl].into_iter().flatten().map(Plan::size_bytes).sum()
    }

    /// Arithmetic and memory traffic of the plans made so far: of one fast step, and of a slow gradient
    /// after an update of the weights.
    pub fn plan_costs(&self) -> [Option<Cost>; 2] {
        let fast = self.plans.fast.as_ref().map(|plan| plan.cost(UpdateRate::Step));
        [fast, self.plans.slow.as_ref().map(|plan| plan.cost(UpdateRate::Weights))]
    }

    /// What the plans made so far have run: of fast steps, and of slow gradients.
    pub fn plan_counts(&self) -> [Vec<NodeCount>; 2] {
        let of = |plan: &Option<Plan>| plan.as_ref().map(Plan::counts).unwrap_or_default();
        [of(&self.plans.fast), of(&self.plans.slow)]
    }

    /// The plan in `plan`, made on first use for the outputs that `outputs` names.
    pub(crate) fn plan<'p>(
        plan: &'p mut Option<Plan>,
        graph: &Graph,
        device: &Device,
        precision: Precision,
        outputs: impl FnOnce() -> Vec<Value>,
    ) -> Result<&'p mut Plan> {
        Ok(match plan {
            Some(plan) => plan,
            empty => empty.insert(Plan::new(graph, device, precision, &outputs())?),
        })
    }
}

/// Refuses a shape that the model does not compute.
pub(crate) fn check_shape(extents: &Extents, [b, t]: [usize; 2], training: Training) -> Result<()> {
    if extents.has_encoder && training.gradient == SlowGradient::Trajectory {
        return Err(crate::suits::no_trajectory());
    }
    if training.rank > 0 && training.gradient == SlowGradient::Joint {
        let expected = "0 for a joint slow gradient, whose posterior is the encoder's";
        return Err(argument("rank", expected, training.rank));
    }
    if b == 0 {
        return Err(argument("b", "at least 1", b));
    }
    if !(1..=extents.max_seq_len).contains(&t) {
        return Err(argument("t", format!("in 1..={}", extents.max_seq_len), t));
    }
    Ok(())
}

/// Programs of one model by batch shape, each traced when it is first needed. The ones used least recently are
/// dropped.
///
/// Shapes are exact. Padding a batch to a longer `T` would change no number in exact arithmetic, but sums over
/// positions would be taken in another order, and numbers would depend on which shapes exist.
pub struct Programs {
    likelihood: Arc<dyn Likelihood>,
    prior: Arc<dyn Prior>,
    device: Device,
    precision: Precision,
    training: Training,
    /// The last one was used last.
    programs: Vec<Program>,
}

impl Programs {
    /// The most programs that are kept.
    pub const CAPACITY: usize = 4;

    /// Programs of a Latent Thought Model or one of its baselines.
    ///
    /// # Errors
    /// [`Error::Model`] for an invalid configuration.
    pub fn new(
        config: &ModelConfig,
        device: &Device,
        precision: Precision,
        training: impl Into<Training>,
    ) -> Result<Self> {
        config.validate()?;
        let likelihood: Arc<dyn Likelihood> = Arc::new(*config);
        Ok(Self::of(likelihood, prior_of(config), device, precision, training))
    }

    /// Programs of any likelihood and prior.
    pub fn of(
        likelihood: Arc<dyn Likelihood>,
        prior: Arc<dyn Prior>,
        device: &Device,
        precision: Precision,
        training: impl Into<Training>,
    ) -> Self {
        let (device, training, programs) = (*device, training.into(), Vec::new());
        Self { likelihood, prior, device, precision, training, programs }
    }

    /// The prior of the latents.
    pub fn prior(&self) -> &dyn Prior {
        &*self.prior
    }

    /// The program for `b` sequences of `t` tokens.
    ///
    /// # Errors
    /// Those of [`Program::of`].
    pub fn get(&mut self, b: usize, t: usize) -> Result<&mut Program> {
        let found = self.programs.iter().position(|program| program.shape == [b, t]);
        let program = match found {
            Some(i) => self.programs.remove(i),
            None => {
                // Before the new one takes memory.
                let excess = (self.programs.len() + 1).saturating_sub(Self::CAPACITY);
                self.programs.drain(..excess);
                let Self { likelihood, prior, device, precision, training, .. } = self;
                let (likelihood, prior) = (likelihood.clone(), prior.clone());
                Program::of(likelihood, prior, [b, t], device, *precision, *training)?
            }
        };
        self.programs.push(program);
        Ok(self.programs.last_mut().expect("one was just added"))
    }
}
