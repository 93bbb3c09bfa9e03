//! The distribution of every token of a text, as prequential scores predict it. Knows no corpus.

use ltm_model::{DeviceWeights, Forward, ModelConfig, Tap};

use super::{Protocol, prequential};
use crate::fitter::Fitter;
use crate::key::SampleOf;
use crate::{Batch, InferKey, Inference, Precision, Result, suits};

/// Predicts the tokens of a text one after the other, and what comes after it.
///
/// Its protocol is [`Protocol::Prequential`], of whose score of the text the log-probabilities are the parts: a block of
/// targets is predicted from samples of latents that are fitted to the targets before it, and within a block the samples
/// are weighted by how well they have predicted so far. Without latents it is [`Protocol::Autoregressive`].
pub struct Predictor {
    fitter: Fitter,
    forward: Forward,
}

/// The samples of one block's latents.
struct Block {
    /// Logits of each sample, of the block's positions on, `(K,stride,V)`.
    logits: Vec<Vec<f32>>,
    /// Nats of the block's targets so far, by sample.
    nats: Vec<f64>,
}

impl Predictor {
    /// A predictor with the model of `weights`, which it shares.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for a configuration or weights that do not fit.
    pub fn new(
        config: &ModelConfig,
        weights: &DeviceWeights,
        inference: &Inference,
        precision: Precision,
    ) -> Result<Self> {
        let fitter = Fitter::new(config, weights, inference, precision)?;
        let taps = [Tap::Logits(config.n_layers)];
        let forward = Forward::new(*config, weights.clone(), precision, &taps)?;
        Ok(Self { fitter, forward })
    }

    /// Calls `on_token` with the log-probabilities `(V)`, in nats, of each of `tokens` after the first, and last with
    /// those of the token after them. Random numbers are those of a [score](crate::score()) of the text as a batch under
    /// `key`; an error of `on_token` ends the call.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for no tokens and for what [`Protocol::check`] refuses, [`Error::PromptTooLong`](crate::Error::PromptTooLong),
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) for a model whose tokens are not predicted one by one and for latents without a density;
    /// those of [`Inference::infer`] and of `on_token`.
    pub fn predict(
        &mut self,
        tokens: &[i32],
        [stride, samples]: [usize; 2],
        key: InferKey,
        on_token: &mut dyn FnMut(&[f64]) -> Result<()>,
    ) -> Result<()> {
        self.fitter.check_prompt(tokens)?;
        let (len, config) = (tokens.len(), self.fitter.config);
        let has_latents = config.n_latents > 0;
        let protocol = match has_latents {
            true => Protocol::Prequential { stride, samples },
            false => Protocol::Autoregressive,
        };
        suits::scores(&(&config).into(), protocol)?;
        protocol.check(config.max_seq_len)?;
        let stride = if has_latents { stride } else { len };
        for start in (0..len).step_by(stride) {
            let range = start..len.min(start + stride);
            let mut block = self.block(tokens, protocol, start, key)?;
            for position in range.clone() {
                let log_probs = block.log_probs(position - start, config.vocab_size);
                on_token(&log_probs)?;
                if let Some(target) = tokens.get(position + 1).filter(|_| position + 1 < range.end)
                {
                    block.see(position - start, *target as usize, config.vocab_size);
                }
            }
        }
        Ok(())
    }

    /// The samples of the latents of the block that begins with target number `start`, and what they predict.
    fn block(
        &mut self,
        tokens: &[i32],
        protocol: Protocol,
        start: usize,
        key: InferKey,
    ) -> Result<Block> {
        let latents = match protocol {
            Protocol::Prequential { stride, samples } => {
                self.latents(tokens, protocol, start, key, start / stride * samples, samples)?
            }
            _ => vec![Vec::new()],
        };
        let from = start * self.fitter.config.vocab_size;
        let mut logits = Vec::with_capacity(latents.len());
        for z in &latents {
            let all = self.forward.run(1, tokens, z)?.swap_remove(0);
            logits.push(all[from..].to_vec());
        }
        Ok(Block { nats: vec![0.0; logits.len()], logits })
    }

    /// Samples `first` and on of the latents that are fitted to the targets before number `start`.
    fn latents(
        &mut self,
        tokens: &[i32],
        protocol: Protocol,
        start: usize,
        key: InferKey,
        first: usize,
        samples: usize,
    ) -> Result<Vec<Vec<f32>>> {
        let Fitter { config, weights, inference, programs } = &mut self.fitter;
        // A text of one token has no target; what follows it is predicted from nothing, as a first block is.
        let (t, targets) = (tokens.len().max(2) - 1, tokens.get(1..).unwrap_or_default());
        let mut prefix = vec![Batch::IGNORED; t];
        prefix[..start.min(targets.len())].copy_from_slice(&targets[..start.min(targets.len())]);
        let batch = Batch::new(&*config, 1, &tokens[..t], &prefix)?;
        let mut problem = programs.get(1, t)?.problem(weights, &batch)?;
        let (q, from_prior) = prequential::fit(&mut problem, protocol, &prefix, inference, key)?;
        let (posterior, prior) = (q.to_host()?, problem.prior()?);
        (first..first + samples)
            .map(|sample| match from_prior.is_empty() {
                true => posterior.fresh_sample(&*config, key, sample),
                false => {
                    let noise = posterior.draw(1, key, SampleOf::Score, sample)?;
                    Ok(prior.sample_f32(&noise.numbers))
                }
            })
            .collect()
    }
}

impl Block {
    /// The log-probabilities at a position of the block: of the mixture of the samples, each weighted by its likelihood
    /// of the targets before.
    fn log_probs(&self, position: usize, vocab_size: usize) -> Vec<f64> {
        let evidence = log_sum_exp(self.nats.iter().map(|nats| -nats));
        let samples: Vec<(&[f32], f64)> = self
            .logits
            .iter()
            .zip(&self.nats)
            .map(|(logits, nats)| {
                let logits = &logits[position * vocab_size..][..vocab_size];
                let norm = log_sum_exp(logits.iter().map(|x| f64::from(*x)));
                (logits, -nats - evidence - norm)
            })
            .collect();
        let of = |token| {
            log_sum_exp(samples.iter().map(|(logits, weight)| f64::from(logits[token]) + weight))
        };
        (0..vocab_size).map(of).collect()
    }

    /// Weighs the samples by how well they predicted `target`.
    fn see(&mut self, position: usize, target: usize, vocab_size: usize) {
        for (logits, nats) in self.logits.iter().zip(&mut self.nats) {
            let logits = &logits[position * vocab_size..][..vocab_size];
            let norm = log_sum_exp(logits.iter().map(|x| f64::from(*x)));
            *nats += norm - f64::from(logits[target]);
        }
    }
}

/// `log(sum(exp(x)))`; minus infinity of nothing.
fn log_sum_exp(numbers: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = numbers.clone().fold(f64::NEG_INFINITY, f64::max);
    match max == f64::NEG_INFINITY {
        true => max,
        false => max + numbers.map(|x| (x - max).exp()).sum::<f64>().ln(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Error, InferConfig, Latents, Method, Program, Sequences, SlowGradient, StartKind, score,
    };
    use ltm_kernels::Device;
    use ltm_model::Weights;

    const CONFIG: ModelConfig = ModelConfig { max_seq_len: 8, ..crate::tiny::CONFIG };
    const KEY: InferKey = InferKey { seed: 3, step: 0, sequences: Sequences::From(0) };
    const TEXT: [i32; 7] = [0, 4, 7, 1, 2, 9, 3];

    fn weights(config: &ModelConfig) -> DeviceWeights {
        let mut weights = Weights::init(config, 1).unwrap();
        weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
        DeviceWeights::new(config, &weights, &Device::Cpu, Precision::F32).unwrap()
    }

    fn predictions(config: &ModelConfig, infer: &InferConfig, stride: usize) -> Vec<Vec<f64>> {
        let (weights, inference) = (weights(config), Inference::finished(infer).unwrap());
        let mut predictor = Predictor::new(config, &weights, &inference, Precision::F32).unwrap();
        let mut all = Vec::new();
        let mut on_token = |log_probs: &[f64]| {
            all.push(log_probs.to_vec());
            Ok(())
        };
        predictor.predict(&TEXT, [stride, 3], KEY, &mut on_token).unwrap();
        all
    }

    /// The nats of the text's targets are those of its score, and every distribution has the mass 1.
    fn check(config: &ModelConfig, infer: &InferConfig, stride: usize, protocol: Protocol) {
        let all = predictions(config, infer, stride);
        assert_eq!(all.len(), TEXT.len());
        for log_probs in &all {
            let mass: f64 = log_probs.iter().map(|x| x.exp()).sum();
            assert!((mass - 1.0).abs() < 1e-9, "{mass}");
        }
        let found: f64 =
            TEXT[1..].iter().zip(&all).map(|(target, probs)| -probs[*target as usize]).sum();
        let (weights, inference) = (weights(config), Inference::finished(infer).unwrap());
        let t = TEXT.len() - 1;
        let none = SlowGradient::None;
        let mut program = Program::new(config, 1, t, &Device::Cpu, Precision::F32, none).unwrap();
        let batch = Batch::new(config, 1, &TEXT[..t], &TEXT[1..]).unwrap();
        let mut problem = program.problem(&weights, &batch).unwrap();
        let scores = score(&mut problem, protocol, &Latents::None, &inference, KEY).unwrap();
        let difference = (found - scores.nats[0]).abs();
        assert!(difference <= 1e-5 * scores.nats[0], "{found} {:?}", scores.nats);
    }

    #[test]
    fn the_parts_of_a_score_add_up_to_it() {
        let infer = InferConfig::published();
        for stride in [1, 2, 4, 6] {
            let protocol = Protocol::Prequential { stride, samples: 3 };
            check(&CONFIG, &infer, stride, protocol);
            let encodes = ModelConfig { encoder_width: 6, ..CONFIG };
            let infer = InferConfig { start: StartKind::Encoder, steps: 1, ..infer };
            check(&encodes, &infer, stride, protocol);
        }
        let plain = ModelConfig { n_latents: 0, ..CONFIG };
        check(&plain, &infer, 4, Protocol::Autoregressive);
    }

    #[test]
    fn what_cannot_be_predicted_is_refused() {
        let (weights, infer) = (weights(&CONFIG), InferConfig::published());
        let refused = |infer: &InferConfig, tokens: &[i32], stride| {
            let inference = Inference::finished(infer).unwrap();
            let mut predictor =
                Predictor::new(&CONFIG, &weights, &inference, Precision::F32).unwrap();
            predictor.predict(tokens, [stride, 2], KEY, &mut |_| Ok(())).unwrap_err()
        };
        assert!(matches!(refused(&infer, &[], 2), Error::Argument { .. }));
        assert!(matches!(refused(&infer, &[1; 9], 2), Error::PromptTooLong { tokens: 9, .. }));
        assert!(matches!(refused(&infer, &TEXT, 0), Error::Argument { .. }));
        let unknown = refused(&infer, &[0, 11], 2);
        assert!(format!("{unknown:?}").contains("11"), "{unknown:?}");
        let noise = crate::Noise::Fresh;
        let langevin = InferConfig { method: Method::Langevin, noise, ..infer };
        assert!(matches!(refused(&langevin, &TEXT, 2), Error::Unsuitable { .. }));
    }
}
