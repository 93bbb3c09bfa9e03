//! Scores of a batch, by any protocol: each has a file of its own. Knows no corpus: batches are scored one by one
//! and collected.

mod masked_diffusion;
mod nelbo;
mod predictor;
mod prequential;
mod samples;
mod scores;

pub use masked_diffusion::{Masked, mask_batch};
pub use predictor::Predictor;
pub use scores::{Estimate, Scores};

use crate::error::argument;
use crate::estimators::Sampled;
use crate::{Error, Gaussian, InferKey, Inference, Latents, Problem, Protocol, Result, suits};

/// Scores a problem's batch by one protocol: at `latents`, where the protocol [needs a fit](Protocol::needs_fit), or
/// at fits of its own by `inference`. Targets that a row's [context](crate::Batch::with_context) contains are not
/// scored.
///
/// Fresh samples depend on `key` alone, and are the same for `elbo` and `iwae`.
///
/// # Errors
/// Those of [`Protocol::check`], of [`Inference::infer`] and [`Problem::token_nll`]; [`Error::Unsuitable`] when the
/// protocol does not apply to the model, or needs a density that the latents do not have; [`Error::Argument`]
/// for known targets and a protocol that scores whole rows.
pub fn score(
    problem: &mut Problem<'_>,
    protocol: Protocol,
    latents: &Latents,
    inference: &Inference,
    key: InferKey,
) -> Result<Scores> {
    let extents = problem.extents();
    let [_, t] = problem.batch().shape();
    suits::scores(&extents, protocol)?;
    protocol.check(t)?;
    let mut context = problem.batch().context().iter();
    if let Some(known) = context.find(|known| **known > 0 && protocol.overlap().is_none()) {
        let expected = format!("0, because {protocol} scores whole rows");
        return Err(argument("context", expected, known));
    }
    let density = || density(latents, protocol);
    let sampled = match protocol {
        Protocol::Reconstruction
        | Protocol::Autoregressive
        | Protocol::AutoregressiveOverlap { .. } => exact(problem.row_nll(latents)?),
        Protocol::ElboFittedNoise => exact(nelbo::at_the_fitted_noise(problem, density()?)?),
        Protocol::Elbo { samples } => nelbo::nelbo(problem, density()?, samples, key)?,
        Protocol::Iwae { samples } => nelbo::iwae(problem, density()?, samples, key)?,
        // Without latents there is nothing to fit, and blocks add up to the whole.
        Protocol::Prequential { .. }
        | Protocol::PrequentialShuffled { .. }
        | Protocol::PrequentialOverlap { .. }
            if extents.n_latents == 0 =>
        {
            exact(problem.row_nll(latents)?)
        }
        Protocol::Prequential { stride, samples }
        | Protocol::PrequentialShuffled { stride, samples }
        | Protocol::PrequentialOverlap { stride, samples } => {
            prequential::score(problem, protocol, [stride, samples], inference, key)?
        }
        Protocol::MaskedDiffusion { samples } => masked_diffusion::score(problem, samples, key)?,
    };
    let batch = problem.batch();
    let scored = |(row, known): (&[i32], &usize)| {
        row.iter().skip(*known).filter(|target| **target >= 0).count()
    };
    let tokens = batch.targets().chunks(t).zip(batch.context()).map(scored).collect();
    let (nats, variance) = sampled.iter().map(|sampled| (sampled.nats, sampled.variance)).unzip();
    Ok(Scores { protocol, tokens, nats, variance })
}

/// Numbers without sampling.
fn exact(nats: Vec<f64>) -> Vec<Sampled> {
    nats.into_iter().map(|nats| Sampled { nats, variance: 0.0 }).collect()
}

/// The posterior that a protocol needs.
fn density(latents: &Latents, protocol: Protocol) -> Result<&Gaussian> {
    match latents {
        Latents::Gaussian(gaussian) => Ok(gaussian),
        Latents::Sample(_) => Err(suits::no_density(protocol.name())),
        Latents::None => Err(Error::Argument {
            arg: "latents",
            expected: format!("a posterior for {protocol}"),
            found: "none".into(),
        }),
    }
}
