//! Scores of an engine's batch, by any protocol. Knows no corpus: batches are scored one by one and
//! collected.

use crate::engine::argument;
use crate::estimators::{self, Sampled};
use crate::posterior::Purpose;
use crate::{
    Engine, InferConfig, InferKey, Protocol, Result, Scores, masked_diffusion, prequential,
};

/// Scores the engine's batch by one protocol: at the engine's posterior, where the protocol
/// [needs a fit](Protocol::needs_fit), or at fits of its own by `infer`.
///
/// Fresh samples depend on `key` alone, and are the same for `elbo` and `iwae`. Batch, posterior and
/// noise are unchanged afterwards; the optimiser's state is reset by [`Protocol::Prequential`].
///
/// # Errors
/// Those of [`Protocol::check`], [`Engine::infer`] and [`Engine::token_nll`], and
/// [`Error::NoDensity`](crate::Error::NoDensity) when the protocol needs the latents' density and they
/// have none.
pub fn score_batch(
    engine: &mut Engine,
    protocol: Protocol,
    infer: &InferConfig,
    key: InferKey,
) -> Result<Scores> {
    let context = vec![0; engine.batch_shape().0];
    score_batch_after(engine, protocol, infer, &context, key)
}

/// As [`score_batch`], for rows whose first `context` targets are already known: these are not scored,
/// but latents may be fitted to them. For protocols whose windows overlap.
///
/// # Errors
/// Those of [`score_batch`], and [`Error::Argument`](crate::Error::Argument) when `context` is not
/// one number per row, exceeds a row, or is not 0 for a protocol that scores whole rows.
pub fn score_batch_after(
    engine: &mut Engine,
    protocol: Protocol,
    infer: &InferConfig,
    context: &[usize],
    key: InferKey,
) -> Result<Scores> {
    let (b, t) = engine.batch_shape();
    protocol.check(engine.config(), t)?;
    if protocol != Protocol::Reconstruction {
        engine.need_density(protocol.name())?;
    }
    if context.len() != b {
        return Err(argument("context", format!("{b} numbers, one per row"), context.len()));
    }
    if let Some(known) = context.iter().find(|known| **known > t) {
        return Err(argument("context", format!("at most {t}, the targets of a row"), known));
    }
    if let Some(known) = context.iter().find(|known| **known > 0 && protocol.overlap().is_none()) {
        let expected = format!("0, because {protocol} scores whole rows");
        return Err(argument("context", expected, known));
    }
    let n_latents = engine.config().n_latents;
    let whole = |engine: &mut Engine| sum_rows(engine, context);
    let exact = |nats: Vec<f64>| -> Vec<Sampled> {
        nats.into_iter().map(|nats| Sampled { nats, variance: 0.0 }).collect()
    };
    let sampled = match protocol {
        Protocol::Reconstruction
        | Protocol::Autoregressive
        | Protocol::AutoregressiveOverlap { .. } => exact(whole(engine)?),
        Protocol::ElboFittedNoise => {
            let kl = engine.posterior()?.kl(b)?;
            exact(whole(engine)?.iter().zip(kl).map(|(nll, kl)| nll + kl).collect())
        }
        Protocol::Elbo { samples } => {
            let kl = engine.posterior()?.kl(b)?;
            let draws = draw(engine, key, 0, samples, whole)?;
            draws.iter().zip(kl).map(|(draws, kl)| estimators::elbo(&draws.nll, kl)).collect()
        }
        Protocol::Iwae { samples } => {
            let draws = draw(engine, key, 0, samples, whole)?;
            let iwae = |draws: &Draws| estimators::iwae(&draws.nll, &draws.log_ratio);
            draws.iter().map(iwae).collect::<Result<_>>()?
        }
        // Without latents there is nothing to fit, and blocks add up to the whole.
        Protocol::Prequential { .. } | Protocol::PrequentialOverlap { .. } if n_latents == 0 => {
            exact(whole(engine)?)
        }
        Protocol::Prequential { stride, samples }
        | Protocol::PrequentialOverlap { stride, samples } => {
            prequential::score(engine, stride, samples, infer, context, key)?
        }
        Protocol::MaskedDiffusion { samples } => masked_diffusion::score(engine, samples, key)?,
    };
    let scored = |(row, known): (&[i32], &usize)| {
        row.iter().skip(*known).filter(|target| **target >= 0).count()
    };
    let tokens = engine.targets().chunks(t).zip(context).map(scored).collect();
    let (nats, variance) = sampled.iter().map(|sampled| (sampled.nats, sampled.variance)).unzip();
    Ok(Scores { protocol, tokens, nats, variance })
}

/// `-log p(x|z)` of each row at the current sample, without its first `context` targets.
fn sum_rows(engine: &mut Engine, context: &[usize]) -> Result<Vec<f64>> {
    let t = engine.batch_shape().1;
    let nll = engine.token_nll()?;
    Ok(nll.chunks(t).zip(context).map(|(row, known)| row.iter().skip(*known).sum()).collect())
}

/// Fresh samples of one row's latents.
#[derive(Clone, Default)]
pub(crate) struct Draws {
    /// The result of `nll` for each.
    pub(crate) nll: Vec<f64>,
    /// `log p(z) - log q(z)` of each.
    pub(crate) log_ratio: Vec<f64>,
}

/// Draws `samples` samples of each row's latents, from number `first` of the stream on, scores each by
/// `nll`, and restores the fit's noise.
pub(crate) fn draw(
    engine: &mut Engine,
    key: InferKey,
    first: usize,
    samples: usize,
    nll: impl Fn(&mut Engine) -> Result<Vec<f64>>,
) -> Result<Vec<Draws>> {
    let (config, b) = (*engine.config(), engine.batch_shape().0);
    let posterior = engine.posterior()?;
    let n = config.n_latents * config.dim;
    let mut draws = vec![Draws::default(); b];
    let mut draw_one = |sample| -> Result<()> {
        let noise = key.normal(&config, b, Purpose::ScoreNoise, sample, 0.0, 1.0)?;
        engine.set_noise(&noise)?;
        for (row, (draws, nll)) in draws.iter_mut().zip(nll(engine)?).enumerate() {
            let [mu, log_var, noise] = [&posterior.mu, &posterior.log_var, &noise]
                .map(|numbers| &numbers[row * n..(row + 1) * n]);
            draws.nll.push(nll);
            draws.log_ratio.push(estimators::log_ratio(mu, log_var, noise)?);
        }
        Ok(())
    };
    let result = (first..first + samples).try_for_each(&mut draw_one);
    engine.set_noise(&posterior.noise)?;
    result.map(|()| draws)
}
