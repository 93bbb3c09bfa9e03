//! How far each recorded quantity may be off, derived from the precision. Runs nothing.

use std::f64::consts::{PI, SQRT_2};

use ltm_vi::Precision;

use super::Fixture;
use crate::Result;

/// In single precision: twice what f32 and f64 differ by on such files.
const F32: f64 = 2e-5;

/// The largest relative change of a number that is rounded to bf16, which keeps 8 binary digits.
const BF16_ROUNDING: f64 = 1.0 / 256.0;

/// Roundings within a sublayer, at most: the norm, a weight, a product, its rotation, attention's
/// probabilities and result, the projection, and the residual sum.
const ROUNDINGS_PER_SUBLAYER: usize = 8;
/// Roundings outside the layers: the embedding, the last norm, the logits.
const ROUNDINGS_OUTSIDE: usize = 3;

/// The largest relative Frobenius errors that pass.
pub(super) enum Limits {
    /// One for everything.
    F32,
    /// One for each class of quantities.
    Mixed(Mixed),
}

/// With bf16 activations.
///
/// Roundings are independent of each other, so their errors add in quadrature: `N` of them give
/// `sqrt(N)` times one. Logits have one way of `N` roundings behind them, and gradients two.
pub(super) struct Mixed {
    logits: f64,
    gradient: f64,
    /// Of the log-variance and its gradient, which is the divergence's, exact, but for
    /// `noise · exp(log_var / 2) / 2` times the mean's, where the deviation is at most the prior's, 1.
    log_var: f64,
    /// Nats per token: a loss is a difference of logits from their average.
    nats: f64,
    /// The recorded loss in nats per token.
    loss: f64,
    slow_lr: f64,
}

impl Limits {
    pub(super) fn new(fixture: &Fixture, precision: Precision) -> Result<Self> {
        if precision == Precision::F32 {
            return Ok(Self::F32);
        }
        let n = ROUNDINGS_PER_SUBLAYER * 3 * fixture.model.n_layers + ROUNDINGS_OUTSIDE;
        let logits = (n as f64).sqrt() * BF16_ROUNDING;
        let gradient = SQRT_2 * logits;
        let mean_part = rms(fixture.recorded("grad_mu0")?) / 2.0;
        Ok(Self::Mixed(Mixed {
            logits,
            gradient,
            log_var: gradient * mean_part / rms(fixture.recorded("grad_log_var0")?),
            nats: SQRT_2 * logits * rms(fixture.recorded("logits")?),
            loss: f64::from(*fixture.recorded("slow_loss")?.first().unwrap_or(&f32::NAN)),
            slow_lr: fixture.hyperparameters.slow_lr,
        }))
    }

    /// The limit of the quantity `name`, whose recorded numbers are `expected`.
    pub(super) fn of(&self, name: &str, expected: &[f32]) -> f64 {
        let Self::Mixed(limits) = self else { return F32 };
        let is = |prefix: &str| name.starts_with(prefix);
        // AdamW moves by about the sign of a gradient. Where gradient and error are normal, a sign is
        // wrong with probability `error / PI`, and then by two rates; of `n` signs no more are wrong
        // than three standard deviations above the mean.
        let wrong = limits.gradient / PI;
        let moved = 2.0 * (wrong + 3.0 * (wrong / expected.len() as f64).sqrt()).sqrt();
        if name == "logits" {
            limits.logits
        } else if is("grad_mu") || is("slow_grad") || is("fast_leak_grad") {
            limits.gradient
        } else if is("grad_log_var") || is("log_var") {
            limits.log_var
        } else if is("mu_step") || is("z_final") {
            moved
        } else if is("param_after") {
            moved * limits.slow_lr / rms(expected)
        } else if is("final_ppl") {
            limits.nats
        } else {
            // Losses, and the divergence, which is nearer still.
            limits.nats / limits.loss
        }
    }
}

fn rms(x: &[f32]) -> f64 {
    let squares: f64 = x.iter().map(|x| f64::from(*x).powi(2)).sum();
    (squares / x.len() as f64).sqrt()
}
