//! The numbers of a trained run: its size, its cost, its scores, and what a report shows next to them. Trains nothing.

use std::collections::BTreeMap;
use std::path::Path;

use ltm_model::DeviceWeights;
use ltm_train::config::Config;
use ltm_train::data::{Batches, Tokenizer, storyworld};
use ltm_train::eval::{Evaluation, KEY_STEP, LatentNumbers};
use ltm_train::json::{nan, null_as_nan, nulls_as_nan};
use ltm_train::metrics::{METRICS_FILE, ProtocolScore, tokens_seen};
use ltm_train::{chain, flops};
use ltm_vi::{InferKey, Inference, Latents, Program, Sequences, SlowGradient};
use serde::{Deserialize, Deserializer, Serialize};

use crate::samples::{Continuation, samples};
use crate::{Error, Result};

/// The numbers of a run, as a line of a sweep's results has them. What an earlier version did not write is missing, and
/// a number that is not finite is `null` in a file and NaN, or `None`, when it is read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Measured {
    /// Weights of the model.
    pub parameters: u64,
    /// Slow steps taken.
    pub steps: u64,
    /// Tokens trained on.
    pub tokens: u64,
    /// Operations of the whole training.
    pub training_flops: Option<f64>,
    /// Operations per trained token, as counted.
    pub flops_per_token: Option<f64>,
    /// Operations per trained token by the paper's formula.
    pub flops_per_token_formula: Option<f64>,
    /// Duration of all steps.
    pub seconds: Option<f64>,
    /// By protocol, as it is written: `elbo:8`.
    pub evaluation: BTreeMap<String, ProtocolScore>,
    /// Why other requested protocols were not used.
    pub left_out: BTreeMap<String, String>,
    /// Nats of every sequence by protocol: of a document, or of a row where rows are windows across documents.
    #[serde(deserialize_with = "lists_by_name")]
    pub nats: BTreeMap<String, Vec<f64>>,
    /// Scored tokens of every sequence.
    pub sequence_tokens: Vec<u64>,
    /// A checksum of every sequence's tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence_digests: Option<Vec<u32>>,
    /// How much the latents carry; `None` without latents.
    pub latents: Option<LatentNumbers>,
    /// A batch's fit, before each fast step and after the last; empty without one.
    pub trace: Vec<TracePoint>,
    /// What the model writes.
    pub samples: ShownSamples,
    /// Of a corpus that has an exact likelihood.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub true_entropy: Option<TrueEntropy>,
}

/// NLL and KL of a batch during its fit, in nats per token.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TracePoint {
    /// Fast steps taken.
    pub step: u64,
    /// At the sample.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub nll: f64,
    /// From the prior.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub kl: f64,
}

/// Texts of a model, or why there are none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ShownSamples {
    /// A text without a prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from_nothing: Option<String>,
    /// The beginning of the first validation text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub given: Option<String>,
    /// What the model writes after it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written: Option<String>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub none: Option<String>,
}

/// The entropy of a corpus, and the exact likelihood of the rows that were scored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrueEntropy {
    /// Entropy per token.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub nats_per_token: f64,
    /// Its standard error over documents.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub standard_error: f64,
    /// Documents that it was estimated from.
    pub documents: u64,
    /// Exact nats of each sequence: not finite for a story that was scored in part.
    #[serde(deserialize_with = "nulls_as_nan")]
    pub nats: Vec<f64>,
}

fn lists_by_name<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<BTreeMap<String, Vec<f64>>, D::Error> {
    #[derive(Deserialize)]
    struct List(#[serde(deserialize_with = "nulls_as_nan")] Vec<f64>);
    let lists = BTreeMap::<String, List>::deserialize(deserializer)?;
    Ok(lists.into_iter().map(|(name, List(numbers))| (name, numbers)).collect())
}

impl Measured {
    /// The size and the cost of a run that has taken `steps` slow steps.
    pub(crate) fn of_training(config: &Config, run_dir: &Path, steps: u64) -> Result<Self> {
        let flops = flops::count(config)?;
        Ok(Self {
            parameters: config.model.param_count() as u64,
            steps,
            tokens: tokens_seen(&run_dir.join(METRICS_FILE))?,
            training_flops: Some(flops.per_slow_step * steps as f64),
            flops_per_token: Some(flops.per_token),
            flops_per_token_formula: Some(flops.formula_per_token),
            ..Self::default()
        })
    }
}

/// Nats of every sequence by protocol, so that two points can be compared sequence by sequence.
pub(crate) fn nats(evaluation: &Evaluation) -> BTreeMap<String, Vec<f64>> {
    let round = |nats: &f64| (nats * 1e6).round() / 1e6;
    let of =
        |e: &ltm_vi::Estimate| (e.protocol.to_string(), e.per_sequence.iter().map(round).collect());
    evaluation.estimates.iter().map(of).collect()
}

/// The targets of each sequence of [`sequences` rows](Batches::sample) (0 for all) of a split: of a row, or of the rows of
/// a document.
fn rows(batches: &Batches, sequences: u64) -> Result<Vec<Vec<i32>>> {
    let batches = batches.sample(sequences)?;
    let mut targets: Vec<Vec<i32>> = Vec::with_capacity(batches.rows() as usize);
    let mut last = None;
    for index in 0..batches.per_epoch() {
        let batch = batches.batch(index)?;
        let rows = batch.targets.chunks(batches.options().seq_len).take(batch.rows);
        for (row, document) in rows.zip(&batch.documents) {
            let scored = row.iter().filter(|id| **id >= 0).copied();
            match targets.last_mut().filter(|_| document.is_some() && *document == last) {
                Some(targets) => targets.extend(scored),
                None => targets.push(scored.collect()),
            }
            last = *document;
        }
    }
    Ok(targets)
}

/// Scored tokens of every sequence, without those of windows that overlap.
pub(crate) fn sequence_tokens(evaluation: &Evaluation) -> Vec<u64> {
    let whole = evaluation.sequences.iter().filter(|sequence| sequence.stride.is_none());
    whole.map(|sequence| sequence.tokens as u64).collect()
}

/// The [`trace`] for a result: empty for an inference method that has no KL.
pub(crate) fn shown_trace(
    config: &Config,
    weights: &DeviceWeights,
    val: &Batches,
) -> Result<Vec<TracePoint>> {
    match trace(config, weights, val) {
        Err(Error::Infer(_)) => Ok(Vec::new()),
        trace => trace,
    }
}

/// NLL and KL per token of the first batch, before each fast step and after the last.
fn trace(config: &Config, weights: &DeviceWeights, val: &Batches) -> Result<Vec<TracePoint>> {
    let mut trace = Vec::new();
    if config.model.n_latents == 0 {
        return Ok(trace);
    }
    let batch = val.batch(0)?;
    let t = val.options().seq_len;
    // Without the rows that are only padding, whose latents mean nothing.
    let b = batch.rows;
    let (device, precision) = config.run.compute_evaluation()?;
    let none = SlowGradient::None;
    let mut program = Program::new(&config.model, b, t, &device, precision, none)?;
    let (tokens, targets) = (&batch.tokens[..b * t], &batch.targets[..b * t]);
    let rows = ltm_vi::Batch::new(&config.model, b, tokens, targets)?;
    let mut problem = program.problem(weights, &rows)?;
    let sequences = Sequences::These(&batch.numbers);
    let key = InferKey { seed: config.run.seed, step: KEY_STEP, sequences };
    let per_token = 1.0 / batch.scored.max(1) as f64;
    let point = |step: usize, nll: f64, kl: f64| TracePoint {
        step: step as u64,
        nll: nll * per_token,
        kl: kl * per_token,
    };
    let inference = Inference::finished(&config.infer)?;
    let latents = inference.infer(&mut problem, key, &mut |step| {
        trace.push(point(step.step, step.nll, step.kl_per_layer.iter().sum()));
        Ok(())
    })?;
    if let Latents::Gaussian(q) = &latents {
        let nll: f64 = problem.token_nll(&latents)?.iter().sum();
        let kl: f64 = problem.kl(q, key)?.iter().sum();
        trace.push(point(config.infer.steps, nll, kl));
    }
    Ok(trace)
}

/// A sample without a prompt and the continuation of a validation text, or why there is none.
pub(crate) fn shown_samples(
    config: &Config,
    weights: &DeviceWeights,
    tokenizer: &dyn Tokenizer,
    val: &Batches,
) -> ShownSamples {
    let found = match samples(config, weights, tokenizer, Some(val), 1) {
        Ok(found) => found,
        Err(error) => return ShownSamples { none: Some(chain(&error)), ..Default::default() },
    };
    let first = found.continuations.into_iter().next();
    let (given, written) = first.map(|Continuation { given, written }| (given, written)).unzip();
    ShownSamples { from_nothing: Some(found.from_nothing), given, written, none: None }
}

/// The corpus's entropy, and the exact nats of the very stories that were scored.
pub(crate) fn true_entropy(seed: u64, val: &Batches, sequences: u64) -> Result<TrueEntropy> {
    let entropy = storyworld::true_entropy(seed, storyworld::ENTROPY_DOCUMENTS)?;
    let exact = |row: &Vec<i32>| {
        let ids: Vec<u32> = row.iter().map(|id| *id as u32).collect();
        -storyworld::log_prob(&ids)
    };
    Ok(TrueEntropy {
        nats_per_token: entropy.nats_per_token,
        standard_error: entropy.nats_per_token_se,
        documents: storyworld::ENTROPY_DOCUMENTS,
        // A part of a story is no story: infinite.
        nats: rows(val, sequences)?.iter().map(exact).collect(),
    })
}
