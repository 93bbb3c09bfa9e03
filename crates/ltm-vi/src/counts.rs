//! What training on a batch computes and how much memory that takes, known from the graph alone. Allocates nothing
//! by a model's extents.

use ltm_autodiff::{
    Graph, NodeCount, Precision, UpdateRate, Value, count, plan_bytes, store_bytes,
};
use ltm_kernels::Device;
use ltm_model::ModelConfig;

use crate::program::check_shape;
use crate::{Result, Training, objective, prior_of};

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
    /// The negative log-likelihood at one more sample.
    pub score: Vec<NodeCount>,
    /// The slow gradient after the last; empty for [`SlowGradient::None`](crate::SlowGradient::None).
    pub slow: Vec<NodeCount>,
    /// Bytes of one copy of the weights.
    pub weight_bytes: usize,
    /// Bytes of everything else that a program keeps between steps: batch, posterior, the moments of its optimiser.
    pub batch_bytes: usize,
    /// Bytes of the plans: activations and gradients of the fast loop, of scoring, of the slow gradient and of the
    /// encoder.
    pub plan_bytes: [usize; 4],
}

/// Counts what training on a batch of `b` sequences of `t` tokens computes and how much memory that takes. The updates
/// of the optimisers are not nodes and not counted, and neither is the state of the optimiser of the weights.
///
/// # Errors
/// Those of [`Program::new`](crate::Program::new), except for memory.
pub fn training_counts(
    config: &ModelConfig,
    b: usize,
    t: usize,
    device: &Device,
    precision: Precision,
    training: impl Into<Training>,
) -> Result<TrainingCounts> {
    let training = training.into();
    config.validate()?;
    check_shape(&config.into(), [b, t], training)?;
    let mut graph = Graph::new();
    let nodes = objective::trace(&mut graph, config, &*prior_of(config), [b, t], training)?;
    let fast = match &nodes.latents {
        Some(_) => nodes.fast_outputs(),
        None => Vec::new(),
    };
    let (slow, encoder) = (nodes.slow_outputs(), nodes.encoder_outputs());
    let plan = |outputs: &[Value]| match outputs {
        [] => Ok(0),
        outputs => plan_bytes(&graph, device, precision, outputs),
    };
    let float = precision.float.size_bytes();
    let weights = float * config.param_count();
    // Two moments each for mean, log-variance and each column.
    let moments = (4 + 2 * training.rank) * float * b * config.n_latents * config.dim;
    let trajectory = match &nodes.latents {
        Some(latents) if !latents.dweights.is_empty() => weights,
        _ => 0,
    };
    let count = |outputs: &[Value], since| count(&graph, precision, outputs, since);
    Ok(TrainingCounts {
        encoder: count(&encoder, UpdateRate::Weights)?,
        first_step: count(&fast, UpdateRate::Weights)?,
        later_step: count(&fast, UpdateRate::Step)?,
        score: count(&[nodes.nll], UpdateRate::Step)?,
        slow: count(&slow, UpdateRate::Weights)?,
        weight_bytes: weights,
        batch_bytes: store_bytes(&graph, precision).saturating_sub(weights) + moments + trajectory,
        plan_bytes: [plan(&fast)?, plan(&[nodes.nll])?, plan(&slow)?, plan(&encoder)?],
    })
}
