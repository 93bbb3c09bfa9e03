//! Scores of a corpus by evaluation protocols. Trains nothing.

mod latents;
pub mod scores;

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::ops::ControlFlow;

use ltm_model::{Attention, DeviceWeights, param_table};
use ltm_vi::{
    Estimate, InferKey, Inference, LatentUse, Latents, Method, Program, Protocol, Scores,
    Sequences, SlowGradient, Task, score, suits,
};

use crate::config::Config;
use crate::data::{Batch, Batches, Tokenizer};
use crate::metrics::ProtocolScore;
use crate::{Error, Result};

pub use latents::LatentNumbers;

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
    /// Every scored sequence, those of overlapping windows last.
    pub sequences: Vec<Sequence>,
}

/// One scored sequence: a row of the batches, which is a window, a document, or a part of a long one.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// The distance between windows, for a protocol whose windows overlap.
    pub stride: Option<usize>,
    /// The number of its row among all of the corpus that have the same stride.
    pub index: u64,
    /// Scored tokens.
    pub tokens: usize,
    /// Bytes of the text of these tokens; separators have none.
    pub bytes: usize,
    /// A checksum of these tokens: equal for the same text in the same vocabulary.
    pub digest: u32,
    /// KL of the latents fitted to it, in nats; `None` without a fit or without a density.
    pub kl: Option<f64>,
    /// Its score by each protocol.
    pub scores: Vec<SequenceScore>,
}

/// The score of one sequence by one protocol.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequenceScore {
    /// The protocol of the number.
    pub protocol: Protocol,
    /// All nats of the sequence.
    pub nats: f64,
    /// Their standard error from sampling: 0 where nothing is sampled, NaN for one sample.
    pub sampling_error: f64,
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

    let (device, precision) = config.run.compute()?;
    weights.check_finite(&param_table(&config.model)).map_err(Error::of_weights)?;
    let none = SlowGradient::None;
    let mut program = Program::new(&config.model, b, t, &device, precision, none)?;
    let inference = Inference::finished(&config.infer)?;
    let mut found = Found {
        scores: protocols.iter().map(|protocol| Scores::new(*protocol)).collect(),
        latents: None,
        sequences: Vec::new(),
    };
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
        if !pass.run(config, &inference, (&mut program, weights), &mut found, &mut scored)? {
            return Ok(None);
        }
    }
    let estimates =
        found.scores.iter().map(Scores::estimate).collect::<ltm_vi::Result<Vec<_>>>()?;
    match estimates.iter().find(|e| !e.mean_nats_per_token.is_finite()) {
        Some(e) => {
            let tensor = format!("the score by {}", e.protocol);
            Err(Error::NonFinite { step: 0, tensor, last_good: None })
        }
        None => {
            let Found { latents, sequences, .. } = found;
            Ok(Some(Evaluation { estimates, latents, sequences }))
        }
    }
}

/// The results of an evaluation so far.
struct Found {
    scores: Vec<Scores>,
    latents: Option<LatentUse>,
    sequences: Vec<Sequence>,
}

/// The protocols that score the same rows.
struct Pass {
    stride: Option<usize>,
    batches: Batches,
    protocols: Vec<Protocol>,
}

impl Pass {
    /// Scores batch by batch; false when `scored`, which is called after each by each protocol, returns false.
    fn run(
        &self,
        config: &Config,
        inference: &Inference,
        (program, weights): (&mut Program, &DeviceWeights),
        found: &mut Found,
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
            let latents = if !fitted {
                Latents::None
            } else if config.infer.method == Method::Langevin {
                inference.infer(&mut problem, key, &mut |_| Ok(()))?
            } else {
                let latents = found.latents.get_or_insert_with(|| LatentUse::new(&config.model));
                latents.fit(&mut problem, inference, key)?.into()
            };
            let posterior = latents.gaussian().map(|gaussian| gaussian.to_host()).transpose()?;
            let kl = posterior.map(|posterior| posterior.kl(b)).transpose()?;
            let row = |row: usize| {
                let (index, kl) = (batch.numbers[row], kl.as_ref().map(|kl| kl[row]));
                let (tokens, bytes, digest) = extent(&batch, row, t, tokenizer);
                let stride = self.stride;
                Sequence { stride, index, tokens, bytes, digest, kl, scores: Vec::new() }
            };
            let mut rows: Vec<Sequence> = (0..batch.rows).map(row).collect();
            for all in found.scores.iter_mut().filter(|s| self.protocols.contains(&s.protocol)) {
                let protocol = all.protocol;
                let scores = score(&mut problem, protocol, &latents, inference, key)?;
                let numbers = scores.nats.iter().zip(&scores.variance);
                for (row, (&nats, variance)) in rows.iter_mut().zip(numbers) {
                    let sampling_error = variance.sqrt();
                    row.scores.push(SequenceScore { protocol, nats, sampling_error });
                }
                all.extend(scores)?;
                if !scored() {
                    return Ok(false);
                }
            }
            found.sequences.extend(rows.into_iter().filter(|row| row.tokens > 0));
        }
        Ok(true)
    }
}

/// Scored tokens of a row of `t`, bytes of the text that they stand for, and a checksum of the tokens.
fn extent(batch: &Batch, row: usize, t: usize, tokenizer: &dyn Tokenizer) -> (usize, usize, u32) {
    let (mut tokens, mut bytes, mut digest) = (0, 0, 0);
    for at in row * t + batch.context[row]..(row + 1) * t {
        // Ignored targets are negative.
        if let (Ok(before), Ok(token)) =
            (u32::try_from(batch.tokens[at]), u32::try_from(batch.targets[at]))
        {
            tokens += 1;
            // As two bytes where they are enough: the checksums of earlier versions.
            let bytes_of_id = token.to_le_bytes();
            let used = if token <= u32::from(u16::MAX) { 2 } else { 4 };
            digest = crc32c::crc32c_append(digest, &bytes_of_id[..used]);
            bytes += tokenizer.text_bytes(before, token);
        }
    }
    (tokens, bytes, digest)
}
