//! Scores of a corpus by named protocols. Trains nothing.

use ltm_model::{Attention, Weights};
use ltm_vi::{
    Engine, Estimate, InferKey, LatentUse, Method, Protocol, Scores, SlowGradient, score_batch,
};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::data::Batches;
use crate::{Error, Result};

/// The training step under which evaluations draw: one that training never reaches, so that every
/// evaluation of a run sees the same noise and differences are the model's.
pub(crate) const KEY_STEP: u64 = u64::MAX;

/// What was measured, by protocol.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// One estimate a protocol, in the order asked for.
    pub estimates: Vec<Estimate>,
    /// What the latents carry; `None` without latents, or without their density.
    pub latents: Option<LatentUse>,
}

impl Evaluation {
    /// The estimate by the protocol of this name.
    pub fn get(&self, name: &str) -> Option<&Estimate> {
        self.estimates.iter().find(|estimate| estimate.protocol.name() == name)
    }

    /// The bound that may be compared: with fresh noise or masks, or exact without latents.
    pub fn honest(&self) -> Option<&Estimate> {
        ["elbo", "autoregressive", "masked-diffusion"].iter().find_map(|name| self.get(name))
    }

    /// The numbers as JSON, by protocol.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for e in &self.estimates {
            let value = json!({
                "nats_per_token": e.mean_nats_per_token,
                "standard_error": e.standard_error,
                "sampling_error": e.sampling_error,
                "perplexity": e.perplexity(),
                "tokens": e.tokens,
                "sequences": e.per_sequence.len(),
            });
            map.insert(e.protocol.to_string(), value);
        }
        Value::Object(map)
    }
}

/// The protocols that suit a run and cost little beside the fit, with this many samples where any are
/// drawn.
pub fn protocols(config: &Config, samples: usize) -> Vec<Protocol> {
    match (config.model.n_latents, config.infer.method) {
        _ if config.model.attention == Attention::Bidirectional => {
            vec![Protocol::MaskedDiffusion { samples }]
        }
        (0, _) => vec![Protocol::Autoregressive],
        (_, Method::Langevin) => vec![Protocol::Reconstruction],
        _ => vec![Protocol::Reconstruction, Protocol::ElboFittedNoise, Protocol::Elbo { samples }],
    }
}

/// Fits the first `sequences` rows of `batches` (0 for all) and scores them by each protocol, on the
/// device that `config.run` names.
///
/// `batches` must come in sequence, in batches of the shape that `config.train` says. The numbers depend
/// on weights, data, `config.infer` and the seed; `progress(done, all)` counts batches.
///
/// # Errors
/// [`Error::Infer`] for a protocol that does not suit the model, those of [`Batches::batch`], and
/// [`Error::NonFinite`] when a score is not finite.
pub fn evaluate(
    config: &Config,
    weights: &Weights,
    batches: &Batches,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation> {
    let options = batches.options();
    let (b, t) = (options.batch, options.seq_len);
    for protocol in protocols {
        protocol.check(&config.model, t)?;
        if protocol.overlap().is_some() {
            let expected = "one of rows that do not overlap, as those of this corpus";
            return Err(Error::field("protocol", expected, protocol));
        }
    }
    let (device, precision) = config.run.compute()?;
    let mut engine = Engine::new(&config.model, b, t, &device, precision, SlowGradient::None)?;
    engine.set_weights(weights)?;
    let mut scores: Vec<Scores> = protocols.iter().map(|p| Scores::new(*p)).collect();
    let has_density = config.model.n_latents > 0 && config.infer.method != Method::Langevin;
    let mut latents = has_density.then(|| LatentUse::new(&config.model));
    let rows = if sequences == 0 { batches.rows() } else { sequences.min(batches.rows()) };
    let count = rows.div_ceil(b as u64);
    for index in 0..count {
        progress(index, count);
        let mut batch = batches.batch(index)?;
        let first_sequence = index * b as u64;
        // The last batch may reach past the rows asked for.
        let kept = (rows - first_sequence).min(b as u64) as usize * t;
        batch.targets[kept..].fill(crate::data::batches::IGNORED);
        let key = InferKey { seed: config.run.seed, step: KEY_STEP, first_sequence };
        engine.set_batch(&batch.tokens, &batch.targets)?;
        engine.infer(&config.infer, 1.0, key, &mut |_| Ok(()))?;
        if let Some(latents) = &mut latents {
            latents.add(&engine.posterior()?, engine.scored_tokens())?;
        }
        for scores in &mut scores {
            scores.extend(score_batch(&mut engine, scores.protocol, &config.infer, key)?)?;
        }
    }
    progress(count, count);
    let estimates = scores.iter().map(Scores::estimate).collect::<ltm_vi::Result<Vec<_>>>()?;
    match estimates.iter().find(|e| !e.mean_nats_per_token.is_finite()) {
        Some(e) => {
            let tensor = format!("the score by {}", e.protocol);
            Err(Error::NonFinite { step: 0, tensor, last_good: None })
        }
        None => Ok(Evaluation { estimates, latents }),
    }
}
