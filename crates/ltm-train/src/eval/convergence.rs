//! Whether fits have converged: bounds after as many fast steps as the configuration has and four times as many, from
//! each start. Trains nothing.

use ltm_model::DeviceWeights;
use ltm_vi::{Estimate, InferConfig, Inference, Protocol, StartKind, Task, suits};

use super::{Measure, Pass, estimate, program, sequence};
use crate::Result;
use crate::config::Config;
use crate::data::Batches;

/// Bounds at posteriors that were fitted from one start by a number of fast steps.
#[derive(Clone, Debug, PartialEq)]
pub struct FitScore {
    /// Where the fit began.
    pub start: StartKind,
    /// Its fast steps.
    pub steps: usize,
    /// The corpus by [`Protocol::Elbo`].
    pub elbo: Estimate,
    /// The corpus by [`Protocol::Iwae`].
    pub iwae: Estimate,
}

/// Scores [`sequences` rows](Batches::sample) (0 for all) of `batches` by `elbo` and `iwae` with this many samples, at
/// posteriors fitted by AdamW from each start that the model has: from the prior by `infer.steps` and by four times as
/// many, and where there is an encoder from what it predicts, by none, `infer.steps` and four times as many.
///
/// What more steps gain shows how far a fit is from its end; an encoder's bound without steps, against the lowest with
/// them, is the amortisation gap. Rates are those of `infer` at the end of training, spread over the steps.
/// `progress(done, all)` counts batches of both protocols.
///
/// # Errors
/// Those of [`evaluate`](super::evaluate); [`Error::Infer`](crate::Error::Infer) for a model without latents, and for
/// Langevin dynamics, whose sample has no density.
pub fn convergence(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    samples: usize,
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Vec<FitScore>> {
    let protocols = [Protocol::Elbo { samples }, Protocol::Iwae { samples }];
    let options = batches.options();
    for protocol in protocols {
        suits(&config.model, &config.infer, Task::Score(protocol))?;
        protocol.check(options.seq_len)?;
    }
    let steps = config.infer.steps.max(1);
    let mut fits = vec![(StartKind::Prior, steps), (StartKind::Prior, 4 * steps)];
    if config.model.encoder_width > 0 {
        fits.extend([0, steps, 4 * steps].map(|steps| (StartKind::Encoder, steps)));
    }
    let batches = batches.sample(sequences)?;
    let all = batches.per_epoch() * (fits.len() * protocols.len()) as u64;
    let pass = Pass { stride: None, batches, protocols: protocols.to_vec() };
    let mut program = program(config, weights, [options.batch, options.seq_len])?;
    let mut done = 0;
    progress(done, all);
    let mut scores = Vec::with_capacity(fits.len());
    for (start, steps) in fits {
        let inference = Inference::finished(&InferConfig { start, steps, ..config.infer })?;
        let mut scored = || {
            done += 1;
            progress(done, all);
            true
        };
        let mut found = Vec::new();
        for index in 0..pass.batches.per_epoch() {
            let with = (&mut program, weights, &inference);
            let scored = pass.score(config, with, index, Measure::Nothing, &mut scored)?;
            let rows = pass.rows(index, scored.expect("nothing breaks off"))?;
            rows.into_iter().for_each(|row| sequence::add(&mut found, row));
        }
        let [elbo, iwae] = protocols.map(|protocol| estimate(&found, protocol));
        scores.push(FitScore { start, steps, elbo: elbo?, iwae: iwae? });
    }
    Ok(scores)
}
