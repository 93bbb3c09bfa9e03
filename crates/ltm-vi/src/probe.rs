//! Interventions on the latents: keep only the first layers, interpolate between two texts, exchange one
//! layer's latents. Knows no text and no corpus.

use ltm_autodiff::Precision;
use ltm_model::{Decoder, DeviceWeights, ModelConfig, SampleConfig, sample};

use crate::error::argument;
use crate::{
    Batch, InferKey, Inference, Problem, Program, Result, Sequences, SlowGradient, estimators,
};

/// How well the model reconstructs texts from the latents of their first layers alone.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerReconstruction {
    /// Scored tokens of each sequence.
    pub tokens: Vec<usize>,
    /// Nats of each sequence.
    pub nll: Vec<f64>,
    /// Targets of each sequence that had the highest probability, given the true tokens before them.
    pub correct: Vec<usize>,
}

impl LayerReconstruction {
    /// Adds the sequences of another batch.
    pub fn extend(&mut self, batch: LayerReconstruction) {
        self.tokens.extend(batch.tokens);
        self.nll.extend(batch.nll);
        self.correct.extend(batch.correct);
    }

    /// Nats per token with their standard error over the sequences; NaN for one sequence.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the numbers of sequences differ.
    pub fn nats_per_token(&self) -> Result<(f64, f64)> {
        ratio(&self.nll, &self.tokens)
    }

    /// The share of targets that had the highest probability, with its standard error over the sequences;
    /// NaN for one sequence.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when the numbers of sequences differ.
    pub fn accuracy(&self) -> Result<(f64, f64)> {
        let correct: Vec<f64> = self.correct.iter().map(|n| *n as f64).collect();
        ratio(&correct, &self.tokens)
    }
}

fn ratio(x: &[f64], tokens: &[usize]) -> Result<(f64, f64)> {
    let tokens: Vec<f64> = tokens.iter().map(|n| *n as f64).collect();
    estimators::ratio(x, &tokens)
}

/// `z (B,L·Z,C)` with the latents of the first `layers` layers unchanged and the others at `mean (L·Z,C)`, the
/// [prior's](crate::Density::moments).
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the length of `z` is not a multiple of `L·Z·C`, or that of `mean` another.
pub fn first_layers(
    config: &ModelConfig,
    z: &[f32],
    mean: &[f32],
    layers: usize,
) -> Result<Vec<f32>> {
    let group = group_len(config, "z", z)?;
    estimators::check_length("mean", group * config.n_layers, mean.len())?;
    let kept = |i: usize| i / group % config.n_layers < layers;
    let both = z.iter().zip(mean.iter().cycle()).enumerate();
    Ok(both.map(|(i, (z, mean))| if kept(i) { *z } else { *mean }).collect())
}

/// `z (B,L·Z,C)` with the latents of layer `layer`, from 0, taken from `other`.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when there is no such layer, the lengths differ, or are not
/// a multiple of `L·Z·C`.
pub fn swap_layer(
    config: &ModelConfig,
    z: &[f32],
    other: &[f32],
    layer: usize,
) -> Result<Vec<f32>> {
    let group = group_len(config, "z", z)?;
    if other.len() != z.len() {
        return Err(argument("other", format!("{} numbers, as z has", z.len()), other.len()));
    }
    if layer >= config.n_layers {
        return Err(argument("layer", format!("below {}", config.n_layers), layer));
    }
    let swapped = |i: usize| i / group % config.n_layers == layer;
    let both = z.iter().zip(other).enumerate();
    Ok(both.map(|(i, (z, other))| if swapped(i) { *other } else { *z }).collect())
}

/// Linear interpolation: the latents at `share` of the way from `from` to `to`.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when the lengths differ.
pub fn between(from: &[f32], to: &[f32], share: f32) -> Result<Vec<f32>> {
    estimators::check_length("to", from.len(), to.len())?;
    Ok(from.iter().zip(to).map(|(from, to)| (1.0 - share) * from + share * to).collect())
}

/// Numbers of one layer's latents of one sequence.
fn group_len(config: &ModelConfig, arg: &'static str, z: &[f32]) -> Result<usize> {
    let sequence = config.n_latents * config.dim;
    if sequence == 0 || !z.len().is_multiple_of(sequence) {
        return Err(argument(arg, format!("a multiple of L·Z·C = {sequence} numbers"), z.len()));
    }
    Ok(config.latents_per_layer() * config.dim)
}

/// Scores a problem's batch at the means `mu (B,L·Z,C)` of its posterior with the latents of the first 0, 1, … `L`
/// layers: one entry for each. `decoder` is one of `config` with the same weights, for `B` sequences.
///
/// # Errors
/// [`Error::Argument`](crate::Error::Argument) when lengths differ, and those of [`Problem::token_nll_at`].
pub fn progressive(
    problem: &mut Problem<'_>,
    config: &ModelConfig,
    decoder: &mut Decoder,
    mu: &[f32],
) -> Result<Vec<LayerReconstruction>> {
    let [b, t] = problem.batch().shape();
    let (tokens, targets) = (problem.batch().tokens().to_vec(), problem.batch().targets().to_vec());
    let all = problem.batch().scored_tokens();
    let scored: Vec<usize> = (0..b).filter(|b| all[*b] > 0).collect();
    let [mean, _] = problem.prior()?.moments(problem.extents().latent_len());
    let mut scores = Vec::with_capacity(config.n_layers + 1);
    for layers in 0..=config.n_layers {
        let z = first_layers(config, mu, &mean, layers)?;
        let nll: Vec<f64> =
            problem.token_nll_at(&z)?.chunks(t).map(|row| row.iter().sum()).collect();
        let correct = correct(decoder, &z, &tokens, &targets, b)?;
        scores.push(LayerReconstruction {
            tokens: scored.iter().map(|b| all[*b]).collect(),
            nll: scored.iter().map(|b| nll[*b]).collect(),
            correct: scored.iter().map(|b| correct[*b]).collect(),
        });
    }
    Ok(scores)
}

/// How many targets of each of `b` sequences have the highest probability, given the true tokens before
/// them.
fn correct(
    decoder: &mut Decoder,
    z: &[f32],
    tokens: &[i32],
    targets: &[i32],
    b: usize,
) -> Result<Vec<usize>> {
    let t = tokens.len() / b;
    decoder.set_latents(z)?;
    let mut correct = vec![0; b];
    // After the last target there is only padding.
    let end = (0..t).rev().find(|t_idx| (0..b).any(|b| targets[b * t + t_idx] >= 0));
    for t_idx in 0..end.map_or(0, |last| last + 1) {
        let column: Vec<i32> = (0..b).map(|b| tokens[b * t + t_idx]).collect();
        let logits = if t_idx == 0 { decoder.prefill(&column)? } else { decoder.step(&column)? };
        for (b, logits) in logits.chunks(logits.len() / b).enumerate() {
            let target = targets[b * t + t_idx];
            if target >= 0 && sample(logits, &SampleConfig::GREEDY, 0.0)? as i32 == target {
                correct[b] += 1;
            }
        }
    }
    Ok(correct)
}

/// Decodes greedily from given latents `z (L·Z,C)`: at most `max_tokens` tokens, ending at `stop` or when the
/// context is full. `decoder` is one for a single sequence.
///
/// # Errors
/// Those of [`Decoder::set_latents`] and [`Decoder::prefill`].
pub fn decode_greedily(
    decoder: &mut Decoder,
    max_seq_len: usize,
    z: &[f32],
    prompt: &[i32],
    max_tokens: usize,
    stop: i32,
) -> Result<Vec<i32>> {
    decoder.set_latents(z)?;
    let mut logits = decoder.prefill(prompt)?;
    let mut tokens = Vec::new();
    let room = max_tokens.min((max_seq_len + 1).saturating_sub(prompt.len()));
    while tokens.len() < room {
        let token = sample(logits, &SampleConfig::GREEDY, 0.0)? as i32;
        tokens.push(token);
        if token == stop || tokens.len() == room {
            break;
        }
        logits = decoder.step(&[token])?;
    }
    Ok(tokens)
}

/// A text with its fitted latents, which can be scored at other latents too.
pub struct Thought {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
    /// The mean of its fitted posterior, `(L·Z,C)`.
    pub z: Vec<f32>,
}

impl Thought {
    /// Fits latents to `text`, whose first token is the one that documents begin with.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a text of no token or more than the context holds, or a
    /// model without latents; those of [`Inference::infer`].
    pub fn fit(
        weights: &DeviceWeights,
        config: &ModelConfig,
        inference: &Inference,
        text: &[i32],
        seed: u64,
        precision: Precision,
    ) -> Result<Self> {
        if config.n_latents == 0 {
            return Err(argument("model", "one with latents", "n_latents = 0"));
        }
        let t = text.len().saturating_sub(1);
        if !(1..=config.max_seq_len).contains(&t) {
            return Err(argument("text", format!("1 to {} tokens", config.max_seq_len), t));
        }
        let (device, none) = (weights.device(), SlowGradient::None);
        let mut program = Program::new(config, 1, t, &device, precision, none)?;
        let batch = Batch::new(config, 1, &text[..t], &text[1..])?;
        let key = InferKey { seed, step: 0, sequences: Sequences::From(0) };
        let mut problem = program.problem(weights, &batch)?;
        let z = inference.infer(&mut problem, key, &mut |_| Ok(()))?.center()?;
        Ok(Self { program, weights: weights.clone(), batch, z })
    }

    /// The text's nats per token at latents `z (L·Z,C)`.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `z` has another length or a number
    /// that is not finite.
    pub fn nats_per_token_at(&mut self, z: &[f32]) -> Result<f64> {
        let nll = self.program.problem(&self.weights, &self.batch)?.token_nll_at(z)?;
        Ok(nll.iter().sum::<f64>() / nll.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::InferConfig;
    use crate::tiny::CONFIG;
    use ltm_kernels::Device;
    use ltm_model::Weights;

    /// Large enough weights for the latents to matter.
    fn weights() -> Weights {
        let mut weights = Weights::init(&CONFIG, 5).unwrap();
        weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 12.0 });
        weights
    }

    fn inference() -> Inference {
        Inference::finished(&InferConfig { steps: 6, ..InferConfig::published() }).unwrap()
    }

    fn on_device(config: &ModelConfig, weights: &Weights) -> DeviceWeights {
        DeviceWeights::new(config, weights, &Device::Cpu, Precision::F32).unwrap()
    }

    const TOKENS: [i32; 12] = [0, 4, 7, 1, 9, 3, 0, 2, 2, 8, 0, 0];
    const TARGETS: [i32; 12] = [4, 7, 1, 9, 3, 5, 2, 2, 8, -1, -1, -1];

    #[test]
    fn groups_belong_to_layers() {
        // Two sequences of two layers of 2·8 numbers.
        let z: Vec<f32> = (1..=64).map(|x| x as f32).collect();
        let other: Vec<f32> = z.iter().map(|x| -x).collect();
        let mean: Vec<f32> = (0..32).map(|i| 100.0 + i as f32).collect();
        let first = first_layers(&CONFIG, &z, &mean, 1).unwrap();
        for (i, x) in first.iter().enumerate() {
            assert_eq!(*x, if i / 16 % 2 == 0 { z[i] } else { mean[i % 32] });
        }
        assert_eq!(first_layers(&CONFIG, &z, &mean, 2).unwrap(), z);
        let swapped = swap_layer(&CONFIG, &z, &other, 1).unwrap();
        for (i, x) in swapped.iter().enumerate() {
            assert_eq!(*x, if i / 16 % 2 == 1 { -z[i] } else { z[i] });
        }
        assert!(swap_layer(&CONFIG, &z, &other, 2).is_err());
        assert!(swap_layer(&CONFIG, &z, &other[1..], 0).is_err());
        assert!(first_layers(&CONFIG, &z[1..], &mean, 1).is_err());
        assert!(first_layers(&CONFIG, &z, &mean[1..], 1).is_err());
        assert_eq!(between(&[0.0, 4.0], &[2.0, 0.0], 0.25).unwrap(), [0.5, 3.0]);
        assert!(between(&[0.0, 4.0], &[2.0], 0.25).is_err());
    }

    #[test]
    fn progressive_counts_what_one_pass_a_prefix_finds() {
        let (none, device_weights) = (SlowGradient::None, on_device(&CONFIG, &weights()));
        let mut program = Program::new(&CONFIG, 2, 6, &Device::Cpu, Precision::F32, none).unwrap();
        let batch = Batch::new(&CONFIG, 2, &TOKENS, &TARGETS).unwrap();
        let mut problem = program.problem(&device_weights, &batch).unwrap();
        let key = InferKey { seed: 3, step: 0, sequences: Sequences::From(0) };
        let mu = inference().infer(&mut problem, key, &mut |_| Ok(())).unwrap().center().unwrap();
        let mut decoder = Decoder::with_weights(CONFIG, device_weights.clone(), 2).unwrap();
        let scores = progressive(&mut problem, &CONFIG, &mut decoder, &mu).unwrap();
        assert_eq!(scores.len(), 3);
        for (layers, scores) in scores.iter().enumerate() {
            let z = first_layers(&CONFIG, &mu, &[0.0; 32], layers).unwrap();
            let nll = problem.token_nll_at(&z).unwrap();
            let expected = [nll[..6].iter().sum::<f64>(), nll[6..].iter().sum()];
            assert_eq!(
                (scores.nll.as_slice(), scores.tokens.as_slice()),
                (&expected[..], &[6, 3][..])
            );
            // Each sequence alone, from scratch for each prefix.
            for (b, z) in z.chunks(32).enumerate() {
                let mut one = Decoder::new(CONFIG, &weights(), Device::Cpu, 1).unwrap();
                one.set_latents(z).unwrap();
                let hit = |t: &usize| {
                    let logits = one.prefill(&TOKENS[b * 6..b * 6 + t + 1]).unwrap();
                    let best = (0..11).max_by(|i, j| logits[*i].total_cmp(&logits[*j])).unwrap();
                    best as i32 == TARGETS[b * 6 + t]
                };
                let expected = (0..scores.tokens[b]).filter(hit).count();
                assert_eq!(scores.correct[b], expected, "{layers} layers, sequence {b}");
            }
        }
        // The fit is of both layers: with both it predicts the text better than with none.
        let nats = |scores: &LayerReconstruction| scores.nats_per_token().unwrap().0;
        assert!(nats(&scores[2]) < nats(&scores[0]), "{scores:?}");
        assert!(progressive(&mut problem, &CONFIG, &mut decoder, &mu[1..]).is_err());
    }

    #[test]
    fn rates_weigh_tokens_and_have_errors() {
        let mut scores = LayerReconstruction { tokens: vec![1], nll: vec![5.0], correct: vec![1] };
        assert!(scores.accuracy().unwrap().1.is_nan());
        scores.extend(LayerReconstruction { tokens: vec![3], nll: vec![3.0], correct: vec![1] });
        // Residuals 3 and -3 of two sequences, over four tokens.
        assert_eq!(scores.nats_per_token().unwrap(), (2.0, 36f64.sqrt() / 4.0));
        assert_eq!(scores.accuracy().unwrap().0, 0.5);
        scores.tokens.pop();
        assert!(scores.accuracy().is_err() && scores.nats_per_token().is_err());
    }

    #[test]
    fn a_text_is_scored_at_any_thought_as_the_decoder_does() {
        let fit = |text: &[i32]| {
            let weights = on_device(&CONFIG, &weights());
            Thought::fit(&weights, &CONFIG, &inference(), text, 1, Precision::F32).unwrap()
        };
        let text = [0, 4, 7, 1];
        let (mut a, b) = (fit(&text), fit(&[0, 2, 2, 8]));
        assert_ne!(a.z, b.z);
        for z in [a.z.clone(), b.z.clone(), between(&a.z, &b.z, 0.5).unwrap()] {
            let mut decoder = Decoder::new(CONFIG, &weights(), Device::Cpu, 1).unwrap();
            decoder.set_latents(&z).unwrap();
            let nats = |pair: &[i32]| {
                let logits = decoder.step(&pair[..1]).unwrap();
                let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
                sum.ln() - f64::from(logits[pair[1] as usize])
            };
            let expected = text.windows(2).map(nats).sum::<f64>() / 3.0;
            let found = a.nats_per_token_at(&z).unwrap();
            // Sums in another order, in single precision, of logits up to some tens.
            assert!((found - expected).abs() <= 1e-4, "{found} is not {expected}");
        }
        assert!(a.nats_per_token_at(&b.z[1..]).is_err());
        let none = ModelConfig { n_latents: 0, ..CONFIG };
        let refused = |config: &ModelConfig, text: &[i32]| {
            let weights = on_device(config, &Weights::init(config, 1).unwrap());
            Thought::fit(&weights, config, &inference(), text, 1, Precision::F32).is_err()
        };
        assert!(refused(&none, &[0, 1]) && refused(&CONFIG, &[0]) && refused(&CONFIG, &[0; 8]));
    }

    #[test]
    fn greedy_decoding_ends_at_stop_length_and_context() {
        let mut decoder = Decoder::new(CONFIG, &weights(), Device::Cpu, 1).unwrap();
        let z = vec![0.5; 32];
        let all = decode_greedily(&mut decoder, 6, &z, &[0], 99, -1).unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(decode_greedily(&mut decoder, 6, &z, &[0], 2, -1).unwrap(), all[..2]);
        let stopped = decode_greedily(&mut decoder, 6, &z, &[0], 99, all[0]).unwrap();
        assert_eq!(stopped, all[..1]);
    }
}
