//! How much arithmetic training takes: counted from the graphs, and by the paper's closed formula. Runs
//! nothing.
//!
//! A multiply-add counts two. "Per token" is per position of a row, padding included, since padding is
//! computed too.

use ltm_autodiff::{NodeCount, Precision};
use ltm_kernels::Device;
use ltm_model::ModelConfig;
use ltm_vi::{Engine, SlowGradient};

use crate::Result;
use crate::config::{Config, SlowGradientKind};

/// Floating-point operations of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// Of one slow step with its fast steps, over all micro-batches, counted from the graphs. Left out is
    /// what the optimisers do, some dozen operations a number that they move.
    pub per_slow_step: f64,
    /// The same for one position of a row.
    pub per_token: f64,
    /// By the paper's formula, see [`formula`].
    pub formula_per_token: f64,
}

/// Counts what training by `config` takes.
///
/// The fast loop's graph has no weight gradients, and what lies below the first cross-attention runs once a
/// batch: counted numbers are lower than the formula's. With `train.slow_gradient = "trajectory"` the loop
/// has them.
///
/// # Errors
/// [`Error::Infer`](crate::Error::Infer) for a configuration that cannot be traced.
pub fn count(config: &Config) -> Result<Flops> {
    let slow_gradient = match config.train.slow_gradient {
        SlowGradientKind::Final => SlowGradient::Final,
        SlowGradientKind::Trajectory => SlowGradient::Trajectory,
    };
    let train = &config.train;
    let (b, t) = (train.batch, train.seq_len);
    // Any device and precision have the same nodes but for casts, which compute nothing.
    let engine = Engine::new(&config.model, b, t, &Device::Cpu, Precision::F32, slow_gradient)?;
    let counts = engine.training_counts();
    let sum =
        |counts: &[NodeCount]| counts.iter().map(|count| count.cost.flops as f64).sum::<f64>();
    let fast = match config.infer.steps {
        0 => 0.0,
        steps => sum(&counts.first_step) + (steps - 1) as f64 * sum(&counts.later_step),
    };
    let micro_batch = fast + sum(&counts.slow);
    Ok(Flops {
        per_slow_step: micro_batch * train.micro_batches as f64,
        per_token: micro_batch / (b * t) as f64,
        formula_per_token: formula(&config.model, config.infer.steps, t),
    })
}

/// The paper's operations per token, `(S+1)·(6P + 6·L·C·T)` for `S` fast steps, `P` parameters with the
/// embedding once, and contexts of `T` tokens; `S` is 0 without latents.
///
/// `6P` is two operations a weight forward and four backward. Attention is counted over half the context,
/// as if there were no window: `2·L·C·T` forward and twice that backward. Every fast step counts as a whole
/// forward and backward pass, weight gradients included.
pub fn formula(model: &ModelConfig, fast_steps: usize, context: usize) -> f64 {
    let passes = if model.n_latents == 0 { 1 } else { fast_steps + 1 };
    let attention = 6.0 * (model.n_layers * model.dim) as f64 * context as f64;
    passes as f64 * (6.0 * model.param_count() as f64 + attention)
}
