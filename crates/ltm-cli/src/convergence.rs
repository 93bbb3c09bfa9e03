//! `ltm eval --convergence`: bounds after more and fewer fast steps from each start.

use ltm_train::Config;
use ltm_train::data::Batches;
use ltm_train::eval::{FitScore, convergence};
use ltm_vi::{DeviceWeights, Estimate, Protocol};
use serde_json::{Map, Value, json};

use crate::output::{OutputError, plus_minus};

/// Scores `sequences` rows (0 for all) from each start, with a progress bar.
pub fn fits(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    sequences: u64,
) -> anyhow::Result<Vec<FitScore>> {
    let bar = crate::progress_bar(0, "fitted from each start: {pos}/{len} batches, ETA {eta}");
    let samples = Protocol::DEFAULT_SAMPLES;
    let mut progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let found = convergence(config, weights, batches, samples, sequences, &mut progress);
    bar.finish_and_clear();
    Ok(found?)
}

/// The bounds as JSON, one object per fit.
pub fn to_json(fits: &[FitScore]) -> Value {
    fits.iter().map(of_fit).collect()
}

fn of_fit(fit: &FitScore) -> Value {
    let bound = |e: &Estimate| {
        json!({
            "nats_per_token": e.mean_nats_per_token, "standard_error": e.standard_error,
            "sampling_error": e.sampling_error,
        })
    };
    let bounds = [&fit.elbo, &fit.iwae].map(|e| (e.protocol.to_string(), bound(e)));
    let bounds: Map<String, Value> = bounds.into_iter().collect();
    json!({ "start": fit.start, "steps": fit.steps, "scores": bounds })
}

/// The bounds from each start as a table; nothing without any.
pub fn print_table(fits: &[FitScore]) -> Result<(), OutputError> {
    let Some(FitScore { elbo, iwae, .. }) = fits.first() else { return Ok(()) };
    let [elbo, iwae] = [elbo, iwae].map(|e| e.protocol.to_string());
    outln!("\n{:<12}  {:>10}  {elbo:>17}  {iwae:>17}", "fitted from", "fast steps")?;
    for fit in fits {
        let start = format!("{:?}", fit.start).to_lowercase();
        let [elbo, iwae] = [&fit.elbo, &fit.iwae]
            .map(|e| plus_minus((e.mean_nats_per_token, e.standard_error), 4));
        outln!("{start:<12}  {:>10}  {elbo:>17}  {iwae:>17}", fit.steps)?;
    }
    Ok(())
}
