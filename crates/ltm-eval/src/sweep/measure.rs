//! What a report shows of a trained run next to its scores: nats per sequence, the fast loop's trace, samples, the exact
//! likelihood. Trains nothing.

use std::collections::BTreeMap;
use std::path::Path;

use ltm_model::DeviceWeights;
use ltm_train::chain;
use ltm_train::config::Config;
use ltm_train::data::{Batches, Tokenizer, storyworld};
use ltm_train::eval::{Evaluation, KEY_STEP};
use ltm_train::metrics::{Line, METRICS_FILE, ProtocolScore, read};
use ltm_vi::{InferKey, Inference, Latents, Program, Protocol, SlowGradient, Task, suits};
use serde_json::{Map, Value, json};

use crate::samples::{Continuation, samples};
use crate::{Error, Result};

/// The requested protocols that apply to a point, and why the others do not. The protocols of the point's own
/// evaluations are added where it has no latents or none of the requested ones applies.
pub(crate) fn suitable(
    asked: &[Protocol],
    config: &Config,
    val: &Batches,
) -> (Vec<Protocol>, Map<String, Value>) {
    let t = val.options().seq_len;
    let (mut suitable, mut left_out) = (Vec::new(), Map::new());
    for protocol in asked {
        let applies = suits(&config.model, config.infer.method, Task::Score(*protocol));
        match applies.and_then(|()| protocol.check(t)) {
            Err(error) => {
                left_out.insert(protocol.to_string(), chain(&error).into());
            }
            Ok(()) => suitable.push(*protocol),
        }
    }
    if suitable.is_empty() || config.model.n_latents == 0 {
        let own = ltm_train::eval::protocols(config, config.train.eval_samples);
        suitable.extend(own.into_iter().filter(|protocol| !asked.contains(protocol)));
    }
    (suitable, left_out)
}

/// The scores of a run's last evaluation, by protocol, as its metrics have them; none before the first.
pub(crate) fn last_evaluation(run_dir: &Path) -> Result<Option<BTreeMap<String, ProtocolScore>>> {
    let lines = read(&run_dir.join(METRICS_FILE))?;
    Ok(lines.into_iter().rev().find_map(|line| match line {
        Line::Evaluation(line) => Some(line.eval),
        Line::Step(_) => None,
    }))
}

/// Nats of every sequence by protocol, so that two points can be compared sequence by sequence.
pub(crate) fn nats(evaluation: &Evaluation) -> Value {
    let round = |nats: &f64| (nats * 1e6).round() / 1e6;
    let of =
        |e: &ltm_vi::Estimate| (e.protocol.to_string(), e.per_sequence.iter().map(round).collect());
    Value::Object(evaluation.estimates.iter().map(of).collect::<Map<_, _>>())
}

/// The first `sequences` rows (0 for all) of a split: the targets of each.
fn rows(batches: &Batches, sequences: u64) -> Result<Vec<Vec<i32>>> {
    let options = batches.options();
    let rows = if sequences == 0 { batches.rows() } else { sequences.min(batches.rows()) };
    let mut targets = Vec::with_capacity(rows as usize);
    for index in 0..rows.div_ceil(options.batch as u64) {
        let batch = batches.batch(index)?;
        let scored = |row: &[i32]| row.iter().filter(|id| **id >= 0).copied().collect::<Vec<_>>();
        targets.extend(batch.targets.chunks(options.seq_len).map(scored));
    }
    targets.truncate(rows as usize);
    Ok(targets)
}

pub(crate) fn sequence_tokens(batches: &Batches, sequences: u64) -> Result<Vec<usize>> {
    Ok(rows(batches, sequences)?.iter().map(Vec::len).collect())
}

/// The [`trace`] for a result: empty for an inference method that has no KL.
pub(crate) fn shown_trace(
    config: &Config,
    weights: &DeviceWeights,
    val: &Batches,
) -> Result<Vec<Value>> {
    match trace(config, weights, val) {
        Err(Error::Infer(_)) => Ok(Vec::new()),
        trace => trace,
    }
}

/// NLL and KL per token of the first validation batch, before each fast step and after the last.
fn trace(config: &Config, weights: &DeviceWeights, val: &Batches) -> Result<Vec<Value>> {
    let mut trace = Vec::new();
    if config.model.n_latents == 0 {
        return Ok(trace);
    }
    let batch = val.batch(0)?;
    let t = val.options().seq_len;
    // Without the rows that are only padding, whose latents mean nothing.
    let b = batch.rows;
    let (device, precision) = config.run.compute()?;
    let none = SlowGradient::None;
    let mut program = Program::new(&config.model, b, t, &device, precision, none)?;
    let (tokens, targets) = (&batch.tokens[..b * t], &batch.targets[..b * t]);
    let rows = ltm_vi::Batch::new(&config.model, b, tokens, targets)?;
    let mut problem = program.problem(weights, &rows)?;
    let key = InferKey { seed: config.run.seed, step: KEY_STEP, first_sequence: 0 };
    let per_token = 1.0 / batch.scored.max(1) as f64;
    let entry = |step: usize, nll: f64, kl: f64| json!({ "step": step, "nll": nll * per_token, "kl": kl * per_token });
    let inference = Inference::finished(&config.infer)?;
    let latents = inference.infer(&mut problem, key, &mut |step| {
        trace.push(entry(step.step, step.nll, step.kl_per_layer.iter().sum()));
        Ok(())
    })?;
    if let Latents::Gaussian(q) = &latents {
        let nll: f64 = problem.token_nll(&latents)?.iter().sum();
        let kl: f64 = q.to_host()?.kl(b)?.iter().sum();
        trace.push(entry(config.infer.steps, nll, kl));
    }
    Ok(trace)
}

/// A sample without a prompt and the continuation of a validation text, or why there is none.
pub(crate) fn shown_samples(
    config: &Config,
    weights: &DeviceWeights,
    tokenizer: &dyn Tokenizer,
    val: &Batches,
) -> Value {
    let found = match samples(config, weights, tokenizer, Some(val), 1) {
        Ok(found) => found,
        Err(error) => return json!({ "none": chain(&error) }),
    };
    let mut line = json!({ "from_nothing": found.from_nothing });
    for Continuation { given, written } in found.continuations {
        (line["given"], line["written"]) = (given.into(), written.into());
    }
    line
}

/// The corpus's entropy, and the exact nats of the very stories that were scored.
pub(crate) fn true_entropy(seed: u64, val: &Batches, sequences: u64) -> Result<Value> {
    let entropy = storyworld::true_entropy(seed, storyworld::ENTROPY_DOCUMENTS)?;
    let exact = |row: &Vec<i32>| {
        let ids: Vec<u32> = row.iter().map(|id| *id as u32).collect();
        -storyworld::log_prob(&ids)
    };
    // A story longer than a row is cut, and no story then: infinite, which JSON has as null.
    let nats: Vec<f64> = rows(val, sequences)?.iter().map(exact).collect();
    Ok(json!({
        "nats_per_token": entropy.nats_per_token,
        "standard_error": entropy.nats_per_token_se,
        "documents": storyworld::ENTROPY_DOCUMENTS,
        "nats": nats,
    }))
}
