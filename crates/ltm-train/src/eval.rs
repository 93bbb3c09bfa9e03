//! Scores of a corpus by evaluation protocols. Trains nothing.

mod convergence;
mod latents;
pub mod scores;
mod sequence;

use std::collections::BTreeMap;
use std::f64::consts::LN_2;
use std::ops::ControlFlow;

use ltm_collective::Group;
use ltm_model::{Attention, DeviceWeights, param_table};
use ltm_vi::{
    BatchUse, Estimate, InferKey, Inference, LatentUse, Latents, Method, Program, Protocol,
    Sequences, SlowGradient, Task, score, suits,
};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::data::{Batches, Rows};
use crate::metrics::ProtocolScore;
use crate::{Error, Result, chain};

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
    let group = Group::alone();
    evaluate_in(&group, config, weights, batches, protocols, sequences, progress)
}

/// As [`evaluate_until`], as one of the processes of a group, each of which scores its share of the batches and knows all
/// results: those of one process, to the bit. `progress` counts the own share; `None` when that of any process breaks off.
///
/// # Errors
/// Those of [`evaluate`], and [`Error::Group`] when another process failed.
pub fn evaluate_in(
    group: &Group,
    config: &Config,
    weights: &DeviceWeights,
    batches: &Batches,
    protocols: &[Protocol],
    sequences: u64,
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Evaluation>> {
    let own = Pass::of(config, batches, protocols, sequences).and_then(|passes| {
        let found = score_share(group, config, weights, &passes, progress)?;
        Ok((passes, found))
    });
    let said = own.as_ref().map(|(_, found)| found).map_err(|error| chain(error));
    let all = group.agree(said, "an evaluation");
    let (passes, _) = own?;
    let Some(all) = all?.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };

    let mut latents: Option<LatentUse> = None;
    let mut found = Vec::new();
    let mut scored = all.into_iter().map(Vec::into_iter).collect::<Vec<_>>();
    for pass in &passes {
        for (rank, share) in group.shares(pass.batches.per_epoch() as usize).enumerate() {
            for index in share {
                let scored = scored[rank].next().expect("each process scored its share");
                if let Some(used) = &scored.latents {
                    latents.get_or_insert_with(|| LatentUse::new(&config.model)).add(used)?;
                }
                pass.rows(index as u64, scored)?
                    .into_iter()
                    .for_each(|row| sequence::add(&mut found, row));
            }
        }
    }
    let estimates = protocols.iter().map(|protocol| estimate(&found, *protocol));
    let estimates = estimates.collect::<Result<Vec<_>>>()?;
    Ok(Some(Evaluation { estimates, latents, sequences: found }))
}

/// Scores this process's share of the batches of each pass; `None` when `progress` breaks off.
fn score_share(
    group: &Group,
    config: &Config,
    weights: &DeviceWeights,
    passes: &[Pass],
    progress: &mut dyn FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<Option<Vec<ScoredBatch>>> {
    let share = |pass: &Pass| group.share(pass.batches.per_epoch() as usize);
    let all = passes.iter().map(|p| share(p).len() as u64 * p.protocols.len() as u64).sum();
    let [b, t] = [config.train.batch, config.train.seq_len];
    let mut program = program(config, weights, [b, t])?;
    let inference = Inference::finished(&config.infer)?;
    let (mut found, mut done) = (Vec::new(), 0);
    if progress(done, all).is_break() {
        return Ok(None);
    }
    let mut fitted_twice = 0;
    for pass in passes {
        let twice = pass.fitted_twice(config, &mut fitted_twice)?;
        for index in share(pass) {
            let mut scored = || {
                done += 1;
                // After the last batch there is nothing to break off.
                progress(done, all).is_continue() || done == all
            };
            let with = (&mut program, weights, &inference);
            let measure = match config.infer.method {
                Method::Langevin => Measure::Nothing,
                _ if (index as u64) < twice => Measure::Twice,
                _ => Measure::Once,
            };
            match pass.score(config, with, index as u64, measure, &mut scored)? {
                Some(batch) => found.push(batch),
                None => return Ok(None),
            }
        }
    }
    Ok(Some(found))
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

/// What is measured of fitted latents besides their scores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Measure {
    Nothing,
    /// What the latents carry.
    Once,
    /// That, with a second fit.
    Twice,
}

/// What was found of one batch of a pass.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ScoredBatch {
    /// KL of each row's latents, in nats.
    kl: Option<Vec<f64>>,
    /// Nats and their sampling error, by protocol and row.
    scores: Vec<Vec<[f64; 2]>>,
    latents: Option<BatchUse>,
}

/// The protocols that score the same rows.
struct Pass {
    stride: Option<usize>,
    batches: Batches,
    protocols: Vec<Protocol>,
}

impl Pass {
    /// The passes of an evaluation, once it is known that all protocols apply.
    fn of(
        config: &Config,
        batches: &Batches,
        protocols: &[Protocol],
        sequences: u64,
    ) -> Result<Vec<Self>> {
        let options = batches.options();
        for protocol in protocols {
            suits(&config.model, &config.infer, Task::Score(*protocol))?;
            protocol.check(options.seq_len)?;
            if matches!(protocol, Protocol::PrequentialShuffled { .. })
                && options.rows == Rows::Windows
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
        let pass = |(stride, protocols): (Option<usize>, Vec<Protocol>)| -> Result<Self> {
            let batches = match stride {
                None => batches.clone(),
                Some(stride) => batches.overlapping(stride)?,
            };
            Ok(Self { stride, batches, protocols })
        };
        passes.into_iter().map(pass).collect()
    }

    /// Whether some protocol needs latents of whole rows.
    fn is_fitted(&self, config: &Config) -> bool {
        config.model.n_latents > 0 && self.protocols.iter().any(Protocol::needs_fit)
    }

    /// How many of the first batches are fitted twice, until enough rows of all passes are.
    fn fitted_twice(&self, config: &Config, rows: &mut usize) -> Result<u64> {
        let mut index = 0;
        while self.is_fitted(config)
            && config.infer.method != Method::Langevin
            && *rows < LatentUse::REFITTED
            && index < self.batches.per_epoch()
        {
            let batch = self.batches.batch(index)?;
            let rows_of = batch.targets.chunks(self.batches.options().seq_len);
            *rows += rows_of.filter(|row| row.iter().any(|target| *target >= 0)).count();
            index += 1;
        }
        Ok(index)
    }

    /// Scores a batch, at latents fitted to whole rows where a protocol needs these; `None` when `scored`, which is called
    /// after each protocol, returns false.
    fn score(
        &self,
        config: &Config,
        (program, weights, inference): (&mut Program, &DeviceWeights, &Inference),
        index: u64,
        measure: Measure,
        scored: &mut dyn FnMut() -> bool,
    ) -> Result<Option<ScoredBatch>> {
        let [b, _] = program.shape();
        let batch = self.batches.batch(index)?;
        let sequences = Sequences::These(&batch.numbers);
        let key = InferKey { seed: config.run.seed, step: KEY_STEP, sequences };
        let rows = ltm_vi::Batch::new(&config.model, b, &batch.tokens, &batch.targets)?
            .with_context(&batch.context)?;
        let mut problem = program.problem(weights, &rows)?;
        let (latents, used) = match (self.is_fitted(config), measure) {
            (false, _) => (Latents::None, None),
            (true, Measure::Nothing) => {
                (inference.infer(&mut problem, key, &mut |_| Ok(()))?, None)
            }
            (true, Measure::Once | Measure::Twice) => {
                let (documents, twice) = (&batch.documents, measure == Measure::Twice);
                let (q, used) = LatentUse::measure(&mut problem, inference, key, documents, twice)?;
                (q.into(), Some(used))
            }
        };
        let kl = latents.gaussian().map(|gaussian| problem.kl(gaussian, key)).transpose()?;
        let by_row = |kl: Vec<f64>| {
            kl.chunks(config.model.n_layers).map(|of_row| of_row.iter().sum()).collect()
        };
        let mut scores = Vec::with_capacity(self.protocols.len());
        for protocol in &self.protocols {
            let found = score(&mut problem, *protocol, &latents, inference, key)?;
            let numbers = found.nats.iter().zip(&found.variance);
            scores.push(numbers.map(|(nats, variance)| [*nats, variance.sqrt()]).collect());
            if !scored() {
                return Ok(None);
            }
        }
        Ok(Some(ScoredBatch { kl: kl.map(by_row), scores, latents: used }))
    }

    /// The rows of a batch, with what was found of them.
    fn rows(&self, index: u64, scored: ScoredBatch) -> Result<Vec<Sequence>> {
        let tokenizer = &**self.batches.corpus().tokenizer();
        let t = self.batches.options().seq_len;
        let batch = self.batches.batch(index)?;
        let row = |row: usize| {
            let kl = scored.kl.as_ref().map(|kl| kl[row]);
            let by_protocol = self.protocols.iter().zip(&scored.scores);
            let scores = by_protocol.filter_map(|(protocol, scores)| {
                let [nats, sampling_error] = *scores.get(row)?;
                Some(SequenceScore { protocol: *protocol, nats, sampling_error })
            });
            let scores = scores.collect();
            Sequence { kl, scores, ..Sequence::of_row(&batch, row, t, self.stride, tokenizer) }
        };
        Ok((0..batch.rows).map(row).collect())
    }
}
