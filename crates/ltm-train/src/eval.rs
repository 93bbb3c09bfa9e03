//! Scores of a corpus by evaluation protocols. Trains nothing.

mod convergence;
mod latents;
pub mod scores;
mod sequence;

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::ops::ControlFlow;

use ltm_model::{Attention, DeviceWeights, param_table};
use ltm_vi::{
    Estimate, InferKey, Inference, LatentUse, Latents, Method, Problem, Program, Protocol,
    Sequences, SlowGradient, Task, score, suits,
};

use crate::config::Config;
use crate::data::{Batches, Rows};
use crate::metrics::ProtocolScore;
use crate::{Error, Result};

pub use convergence::{FitScore, convergence};
pub use latents::LatentNumbers;
pub use sequence::{Sequence, SequenceScore};

/// The step number of the random keys of evaluations: one that training never reaches, so that every
/// evaluation of a run draws the same noise and differences are due to the model.
pub const KEY_STEP: u64 = u64::MAX;

/// The result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// One estimate per protocol, in the order requested.
    pub estimates: Vec<Estimate>,
    /// How much the latents carry; `None` without latents, without their density, and when no protocol
    /// needs a fit to whole rows.
    pub latents: Option<LatentUse>,
    /// Every scored sequence, a row or a document, those of overlapping windows last.
    pub sequences: Vec<Sequence>,
}

impl Evaluation {
    /// The estimate by the protocol of this name.
    pub fn get(&self, name: &str) -> Option<&Estimate> {
        self.estimates.iter().find(|estimate| estimate.protocol.name() == name)
    }

    /// Bytes of the text that a protocol scored.
    pub fn bytes(&self, protocol: Protocol) -> usize {
        let scored = self.sequences.iter().filter(|one| one.stride == protocol.overlap());
        scored.map(|one| one.bytes).sum()
    }

    /// An estimate in bits per byte of text, comparable between tokenisers; the nats of separators are
    /// included. `None` when only separators were scored.
    pub fn bits_per_byte(&self, estimate: &Estimate) -> Option<f64> {
        let bits = estimate.mean_nats_per_token * estimate.tokens as f64 / LN_2;
        let bytes = self.bytes(estimate.protocol);
        (bytes > 0).then(|| bits / bytes as f64)
    }

    /// The numbers by protocol, as files have them.
    pub fn scores(&self) -> BTreeMap<String, ProtocolScore> {
        let score = |e: &Estimate| ProtocolScore {
            bits_per_byte: self.bits_per_byte(e),
            bytes: self.bytes(e.protocol) as u64,
            mean_sequence_perplexity: e.mean_sequence_perplexity,
            nats_per_token: e.mean_nats_per_token,
            perplexity: e.perplexity(),
            sampling_error: e.sampling_error,
            sequences: e.per_sequence.len() as u64,
            standard_error: e.standard_error,
            tokens: e.tokens as u64,
        };
        self.estimates.iter().map(|e| (e.protocol.to_string(), score(e))).collect()
    }
}

/// The default protocols of a run: those that apply to the model and cost little compared with the fit,
/// with this many samples where any are drawn.
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

/// Scores [`sequences` rows](Batches::sample) (0 for all) of `batches` by each protocol, on the device of
/// `config.run`: at latents fitted to whole rows where a protocol needs that, and as large a share of the
/// [overlapping rows](Batches::overlapping) for protocols whose windows overlap. A row's score does not depend on which
/// others are scored.
///
/// `batches` must be sequential, of the shape of `config.train`. The numbers depend on weights, data,
/// `config.infer` and the seed; `progress(done, all)` counts batches, each once per protocol. `weights` are on the
/// device of `config.run`, as from [`Config::on_device`]. [`evaluate_until`] can be stopped.
///
/// # Errors
/// [`Error::Infer`] for a protocol that does not apply to the model, those of [`Batches::batch`], and
/// [`Error::NonFinite`] when a score is not finite.
pub fn evaluate(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Evaluation> {
    let mut whole = |done, all| {
        progress(done, all);
        ControlFlow::Continue(())
    };
    let evaluation = evaluate_until(config, weights, batches, protocols, sequences, &mut whole)?;
    Ok(evaluation.expect("an evaluation that nothing stops is complete"))
}

/// As [`evaluate`]; `None` when `progress` breaks off before all batches are scored.
///
/// # Errors
/// Those of [`evaluate`].
pub fn evaluate_until(
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Evaluation>> {
    let options = batches.options();
    let (b, t) = (options.batch, options.seq_len);
    for protocol in protocols {
        suits(&config.model, &config.infer, Task::Score(*protocol))?;
        protocol.check(t)?;
        if matches!(protocol, Protocol::PrequentialShuffled { .. }) && options.rows == Rows::Windows
        {
            let expected =
                format!("`documents` for {protocol}: a window's neighbour is the same text");
            return Err(Error::field("data.rows", expected, "windows"));
        }
    }
    let batches = batches.sample(sequences)?;
    let mut passes: BTreeMap<Option<usize>, Vec<Protocol>> = BTreeMap::new();
    for protocol in protocols {
        passes.entry(protocol.overlap()).or_default().push(*protocol);
    }
    let pass = |(stride, protocols): (Option<usize>, Vec<Protocol>)| -> Result<Pass> {
        let batches = match stride {
            None => batches.clone(),
            Some(stride) => batches.overlapping(stride)?,
        };
        Ok(Pass { stride, batches, protocols })
    };
    let passes = passes.into_iter().map(pass).collect::<Result<Vec<_>>>()?;
    let all = passes.iter().map(|p| p.batches.per_epoch() * p.protocols.len() as u64).sum();

    let mut program = program(config, weights, [b, t])?;
    let inference = Inference::finished(&config.infer)?;
    let mut latents: Option<LatentUse> = None;
    let mut fit = |problem: &mut Problem<'_>, key: InferKey<'_>, documents: &[Option<u64>]| {
        if config.infer.method == Method::Langevin {
            return Ok(inference.infer(problem, key, &mut |_| Ok(()))?);
        }
        let latents = latents.get_or_insert_with(|| LatentUse::new(&config.model));
        Ok(latents.fit(problem, &inference, key, documents)?.into())
    };
    let mut sequences = Vec::new();
    let mut done = 0;
    if progress(done, all).is_break() {
        return Ok(None);
    }
    for pass in &passes {
        let mut scored = || {
            done += 1;
            // After the last batch there is nothing to break off.
            progress(done, all).is_continue() || done == all
        };
        let with = (&mut program, weights, &inference);
        if !pass.run(config, with, &mut fit, &mut sequences, &mut scored)? {
            return Ok(None);
        }
    }
    let estimates = protocols.iter().map(|protocol| estimate(&sequences, *protocol));
    let estimates = estimates.collect::<Result<Vec<_>>>()?;
    Ok(Some(Evaluation { estimates, latents, sequences }))
}

/// A program for evaluations, for weights that are finite.
fn program(config: &Config, weights: &DeviceWeights, [b, t]: [usize; 2]) -> Result<Program> {
    let (device, precision) = config.run.compute_evaluation()?;
    weights.check_finite(&param_table(&config.model)).map_err(Error::of_weights)?;
    Ok(Program::new(&config.model, b, t, &device, precision, SlowGradient::None)?)
}

/// The corpus's estimate by a protocol that its sequences were scored by.
fn estimate(sequences: &[Sequence], protocol: Protocol) -> Result<Estimate> {
    let estimate = sequence::scores(sequences, protocol).estimate()?;
    if estimate.mean_nats_per_token.is_finite() {
        return Ok(estimate);
    }
    let tensor = format!("the score by {protocol}");
    Err(Error::NonFinite { step: 0, tensor, last_good: None })
}

/// Infers the latents of a batch, whose rows are of these documents.
type FitBatch<'f> =
    dyn FnMut(&mut Problem<'_>, InferKey<'_>, &[Option<u64>]) -> Result<Latents> + 'f;

/// The protocols that score the same rows.
struct Pass {
    stride: Option<usize>,
    batches: Batches,
    protocols: Vec<Protocol>,
}

impl Pass {
    /// Scores batch by batch, at latents from `fit` where a protocol needs those of whole rows; false when `scored`, which
    /// is called after each by each protocol, returns false.
    fn run(
        &self,
        config: &Config,
        (program, weights, inference): (&mut Program, &DeviceWeights, &Inference),
        fit: &mut FitBatch<'_>,
        found: &mut Vec<Sequence>,
        scored: &mut dyn FnMut() -> bool,
    ) -> Result<bool> {
        let [b, t] = program.shape();
        let tokenizer = &**self.batches.corpus().tokenizer();
        let fitted = config.model.n_latents > 0 && self.protocols.iter().any(Protocol::needs_fit);
        for index in 0..self.batches.per_epoch() {
            let batch = self.batches.batch(index)?;
            let sequences = Sequences::These(&batch.numbers);
            let key = InferKey { seed: config.run.seed, step: KEY_STEP, sequences };
            let rows = ltm_vi::Batch::new(&config.model, b, &batch.tokens, &batch.targets)?
                .with_context(&batch.context)?;
            let mut problem = program.problem(weights, &rows)?;
            let latents = match fitted {
                true => fit(&mut problem, key, &batch.documents)?,
                false => Latents::None,
            };
            let kl = latents.gaussian().map(|gaussian| problem.kl(gaussian, key)).transpose()?;
            let n_layers = config.model.n_layers;
            let row = |row: usize| {
                let kl = kl.as_ref().map(|kl| kl[row * n_layers..][..n_layers].iter().sum());
                Sequence { kl, ..Sequence::of_row(&batch, row, t, self.stride, tokenizer) }
            };
            let mut rows: Vec<Sequence> = (0..batch.rows).map(row).collect();
            for protocol in &self.protocols {
                let scores = score(&mut problem, *protocol, &latents, inference, key)?;
                let numbers = scores.nats.iter().zip(&scores.variance);
                for (row, (&nats, variance)) in rows.iter_mut().zip(numbers) {
                    let (protocol, sampling_error) = (*protocol, variance.sqrt());
                    row.scores.push(SequenceScore { protocol, nats, sampling_error });
                }
                if !scored() {
                    return Ok(false);
                }
            }
            rows.into_iter().for_each(|row| sequence::add(found, row));
        }
        Ok(true)
    }
}
