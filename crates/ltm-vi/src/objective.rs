//! The objective of a fit and of a slow step as a graph: the one place where it is traced. Knows no device, no
//! batch and no optimiser.

use ltm_autodiff::{Graph, Kind, Result, UpdateRate, Value, grad, ops};

use crate::prior::TracedGaussian;
use crate::{Likelihood, Prior};

/// Which weight gradients are traced.
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

/// A traced model for `B` sequences of `T` tokens.
#[derive(Debug)]
pub struct Objective {
    /// One input per parameter.
    pub weights: Vec<Value>,
    /// Input `(B,T)`.
    pub tokens: Value,
    /// Input `(B·T)`.
    pub targets: Value,
    /// Negative log-likelihood of each target at the sample, `(B·T)`.
    pub nll: Value,
    /// The posterior and what is minimised over it; `None` for a model without latents.
    pub latents: Option<LatentObjective>,
    /// The encoder, of a model that has one.
    pub encoder: Option<Encoder>,
    /// What the weights' gradients are of; `None` without any.
    pub slow: Option<Slow>,
}

/// What a fit minimises, `bound = sum(nll) + sum(kl_weight · kl)`, and its gradient.
#[derive(Debug)]
pub struct LatentObjective {
    /// Input `(B,L·Z,C)`: means.
    pub mu: Value,
    /// Input `(B,L·Z,C)`: logarithms of the variances.
    pub log_var: Value,
    /// Input `(B,L·Z,C)`: standard normal noise of the sample.
    pub noise: Value,
    /// KL from the prior of each layer of a sequence, `(B·L)`.
    pub kl: Value,
    /// Input `(B·L)`: the weight of each KL.
    pub kl_weight: Value,
    /// The negative bound by one sample, one number.
    pub bound: Value,
    /// Gradient of the bound by `mu`.
    pub dmu: Value,
    /// Gradient of the bound by `log_var`.
    pub dlog_var: Value,
    /// Gradients of the bound by each weight, for [`SlowGradient::Trajectory`].
    pub dweights: Vec<Value>,
}

/// The encoder in the graph.
#[derive(Debug)]
pub struct Encoder {
    /// Input `(B,T)`: the batch's targets, and `V` where a position is not scored.
    pub text: Value,
    /// Input `(B,L·Z)`: the index of each latent.
    pub index: Value,
    /// Input `(B·L)`: the weight of each KL in the bound that trains the encoder.
    pub kl_weight: Value,
    /// Predicted means.
    pub mu: Value,
    /// Predicted log-variances.
    pub log_var: Value,
}

/// The loss of a slow step and its gradients: `sum(token_weight · nll)`, and for a model with an encoder the bound at
/// the encoder's sample.
#[derive(Debug)]
pub struct Slow {
    /// Input `(B·T)`: the weight of each target.
    pub token_weight: Value,
    /// Negative log-likelihood of each target, `(B·T)`.
    pub nll: Value,
    /// KL of each layer of a sequence, `(B·L)`; `None` without latents.
    pub kl: Option<Value>,
    /// One gradient per weight.
    pub gradients: Vec<Value>,
}

/// Traces the objective for `b` sequences of `t` tokens.
///
/// # Errors
/// Those of the operations, such as for a configuration that is not valid.
pub fn trace(
    g: &mut Graph,
    likelihood: &dyn Likelihood,
    prior: &dyn Prior,
    [b, t]: [usize; 2],
    slow_gradient: SlowGradient,
) -> Result<Objective> {
    let extents = likelihood.extents();
    let rows = b * extents.n_layers;
    let input = |spec: &ltm_model::ParamSpec, g: &mut Graph| {
        g.input(&spec.name, &spec.shape, Kind::Float, UpdateRate::Weights)
    };
    let weights: Vec<Value> = likelihood.params().iter().map(|spec| input(spec, g)).collect();
    let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
    let targets = g.input("targets", &[b * t], Kind::Int, UpdateRate::Batch);
    let shape = [b, extents.n_latents, extents.dim];
    let posterior = (extents.n_latents > 0).then(|| {
        ["mu", "log_var", "noise"].map(|name| g.input(name, &shape, Kind::Float, UpdateRate::Step))
    });
    let z = match posterior {
        Some([mu, log_var, noise]) => Some(ops::reparam(g, mu, log_var, noise)?),
        None => None,
    };
    let nll = likelihood.nll(g, &weights, tokens, targets, z)?;

    let latents = match (posterior, z) {
        (Some([mu, log_var, noise]), Some(z)) => {
            let kl = prior.kl(g, TracedGaussian { mu, log_var, z }, rows)?;
            let kl_weight = g.input("kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
            let ones = ops::fill(g, &[b * t], 1.0);
            let sum_nll = ops::dot(g, nll, ones)?;
            let sum_kl = ops::dot(g, kl, kl_weight)?;
            let bound = ops::add(g, sum_nll, sum_kl)?;
            let mut wrt = vec![mu, log_var];
            if slow_gradient == SlowGradient::Trajectory {
                wrt.extend(&weights);
            }
            let mut gradients = grad(g, bound, &wrt)?;
            let dweights = gradients.split_off(2);
            let (dmu, dlog_var) = (gradients[0], gradients[1]);
            let all = LatentObjective {
                mu,
                log_var,
                noise,
                kl,
                kl_weight,
                bound,
                dmu,
                dlog_var,
                dweights,
            };
            Some(all)
        }
        _ => None,
    };
    let encoder = match extents.has_encoder {
        true => Encoder::trace(g, likelihood, &weights, [b, t])?,
        false => None,
    };
    let slow = match slow_gradient {
        SlowGradient::None => None,
        _ => {
            let token_weight = g.input("token_weight", &[b * t], Kind::Float, UpdateRate::Batch);
            let (nll, kl, loss) = match (&encoder, &latents) {
                (Some(Encoder { mu, log_var, kl_weight, .. }), Some(latents)) => {
                    let (mu, log_var) = (*mu, *log_var);
                    let z = ops::reparam(g, mu, log_var, latents.noise)?;
                    let kl = prior.kl(g, TracedGaussian { mu, log_var, z }, rows)?;
                    let nll = likelihood.nll(g, &weights, tokens, targets, Some(z))?;
                    let sum_nll = ops::dot(g, nll, token_weight)?;
                    let sum_kl = ops::dot(g, kl, *kl_weight)?;
                    (nll, Some(kl), ops::add(g, sum_nll, sum_kl)?)
                }
                (_, latents) => {
                    let kl = latents.as_ref().map(|latents| latents.kl);
                    (nll, kl, ops::dot(g, nll, token_weight)?)
                }
            };
            Some(Slow { token_weight, nll, kl, gradients: grad(g, loss, &weights)? })
        }
    };
    Ok(Objective { weights, tokens, targets, nll, latents, encoder, slow })
}

impl Encoder {
    fn trace(
        g: &mut Graph,
        likelihood: &dyn Likelihood,
        weights: &[Value],
        [b, t]: [usize; 2],
    ) -> Result<Option<Self>> {
        let extents = likelihood.extents();
        let rows = b * extents.n_layers;
        let text = g.input("text", &[b, t], Kind::Int, UpdateRate::Batch);
        let index = g.input("latents", &[b, extents.n_latents], Kind::Int, UpdateRate::Batch);
        let kl_weight = g.input("encoder_kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
        let predicted = likelihood.encode(g, weights, text, index)?;
        Ok(predicted.map(|[mu, log_var]| Self { text, index, kl_weight, mu, log_var }))
    }
}

impl Objective {
    /// What a fast step computes.
    pub(crate) fn fast_outputs(&self) -> Vec<Value> {
        let mut outputs = vec![self.nll];
        if let Some(latents) = &self.latents {
            outputs.extend([latents.kl, latents.dmu, latents.dlog_var]);
            outputs.extend(&latents.dweights);
        }
        outputs
    }

    /// What a slow step computes; nothing without weight gradients.
    pub(crate) fn slow_outputs(&self) -> Vec<Value> {
        let Some(slow) = &self.slow else { return Vec::new() };
        slow.gradients.iter().copied().chain([slow.nll]).chain(slow.kl).collect()
    }

    /// What the encoder computes; nothing without one.
    pub(crate) fn encoder_outputs(&self) -> Vec<Value> {
        self.encoder.iter().flat_map(|encoder| [encoder.mu, encoder.log_var]).collect()
    }
}
