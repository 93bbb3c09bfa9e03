//! LAMBADA (Paperno et al. 2016): predict the last word of a passage from everything before it.

mod passage;

use ltm_model::{Decoder, DeviceWeights};
use ltm_train::config::Config;
use ltm_train::data::batches::IGNORED;
use ltm_train::eval::KEY_STEP;
use ltm_vi::estimators::{self, Sampled};
use ltm_vi::{InferKey, Inference, Posterior, Program, Sequences, SlowGradient, Task, suits};
use serde_json::{Value, json};

use super::Mean;
use crate::{Error, Result};

pub use passage::{Passage, read, split_last_word};

/// How well one last word was predicted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WordScore {
    /// Tokens of the word.
    pub tokens: usize,
    /// `-log mean_s p(word | z_s, context)`, in nats.
    pub nats: f64,
    /// Variance of the `nats` under new samples of the latents: 0 without latents, NaN for one sample.
    pub variance: f64,
    /// Whether each token of the word had the highest probability, given the tokens before it.
    pub predicted: bool,
    /// Whether the passage was cut to the model's context.
    pub cut: bool,
}

/// How well last words were predicted.
#[derive(Clone, Debug, PartialEq)]
pub struct Lambada {
    /// Samples of the latents per passage; 0 for a model without latents, whose numbers are exact.
    pub samples: usize,
    /// The passages in their order.
    pub words: Vec<WordScore>,
}

impl Lambada {
    /// The protocol of the numbers.
    pub fn protocol(&self) -> String {
        match self.samples {
            0 => "last-word autoregressive".into(),
            samples => format!("last-word predictive, {samples} samples"),
        }
    }

    /// Nats per word with their standard error over passages: NaN for one.
    pub fn nats_per_word(&self) -> (f64, f64) {
        self.mean(|word| word.nats)
    }

    /// The part of that error that more samples of the latents would remove.
    pub fn sampling_error(&self) -> f64 {
        let variance: f64 = self.words.iter().map(|word| word.variance).sum();
        variance.sqrt() / self.words.len() as f64
    }

    /// `exp(nats per word)`, and its standard error to first order.
    pub fn word_perplexity(&self) -> (f64, f64) {
        let (nats, error) = self.nats_per_word();
        (nats.exp(), nats.exp() * error)
    }

    /// The share of words predicted whole, and its standard error.
    pub fn accuracy(&self) -> (f64, f64) {
        self.mean(|word| f64::from(u8::from(word.predicted)))
    }

    /// Passages that were cut to the model's context.
    pub fn cut(&self) -> usize {
        self.words.iter().filter(|word| word.cut).count()
    }

    fn mean(&self, of: impl Fn(&WordScore) -> f64) -> (f64, f64) {
        let values: Vec<f64> = self.words.iter().map(of).collect();
        let Mean { mean, standard_error, .. } = Mean::of(&values);
        (mean, standard_error)
    }

    /// The numbers as JSON.
    pub fn to_json(&self) -> Value {
        let (nats, nats_error) = self.nats_per_word();
        let (perplexity, perplexity_error) = self.word_perplexity();
        let (accuracy, accuracy_error) = self.accuracy();
        json!({
            "protocol": self.protocol(),
            "nats_per_word": nats,
            "standard_error": nats_error,
            "sampling_error": self.sampling_error(),
            "word_perplexity": perplexity,
            "word_perplexity_standard_error": perplexity_error,
            "accuracy": accuracy,
            "accuracy_standard_error": accuracy_error,
            "passages": self.words.len(),
            "word_tokens": self.words.iter().map(|word| word.tokens).sum::<usize>(),
            "cut": self.cut(),
        })
    }
}

/// Fits latents to the context of each passage alone, and predicts its last word from `samples` fresh samples of that
/// fit, on the device of `config.run`.
///
/// The samples do not depend on the word, so `-log mean_s p(word | z_s, context)` is the code length of a normalised
/// distribution, comparable with an autoregressive model's. Fewer samples make it longer in expectation. A token is
/// predicted when it has the highest probability under the same mixture, given the word's true tokens before it; the
/// token after the word is not scored. `progress(done, all)` counts passages.
///
/// # Errors
/// [`Error::Field`] for no samples; [`Error::Infer`] for latents found by Langevin dynamics, which have no density, and
/// for tokens outside the vocabulary; [`Error::Train`], with the passage when a score is not finite.
pub fn evaluate(
    config: &Config,
    weights: &DeviceWeights,
    passages: &[Passage],
    samples: usize,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Lambada> {
    if samples == 0 {
        return Err(Error::field("samples", "at least 1", samples));
    }
    // As for `prequential`: a sample without a density has no fresh ones.
    suits(&config.model, &config.infer, Task::Predict("last-word predictive"))?;
    let (device, precision) = config.run.compute_evaluation()?;
    let model = &config.model;
    // Without latents all samples are one.
    let samples = if model.n_latents == 0 { 1 } else { samples };
    let b = config.train.batch.min(passages.len().max(1));
    let t = passages.iter().map(|passage| passage.inputs().len()).max().unwrap_or(1);
    let mut program = Program::new(model, b, t, &device, precision, SlowGradient::None)?;
    let inference = Inference::finished(&config.infer)?;
    let mut decoder = Decoder::with_weights(*model, weights.clone(), samples)?;
    let mut words = Vec::with_capacity(passages.len());
    for group in passages.chunks(b) {
        let first_sequence = words.len() as u64;
        let key = InferKey {
            seed: config.run.seed,
            step: KEY_STEP,
            sequences: Sequences::From(first_sequence),
        };
        let n = model.n_latents * model.dim;
        let mut draws = Vec::new();
        if let Some(posterior) = fit_to_contexts(&mut program, weights, &inference, group, key)? {
            for sample in 0..samples {
                draws.push(posterior.fresh_sample(model, key, sample)?);
            }
        }
        for (row, passage) in group.iter().enumerate() {
            progress(words.len() as u64, passages.len() as u64);
            if n > 0 {
                let z: Vec<f32> =
                    draws.iter().flat_map(|z| &z[row * n..(row + 1) * n]).copied().collect();
                decoder.set_latents(&z)?;
            }
            let word = predict(&mut decoder, passage, samples)?;
            let variance = if n > 0 { word.variance } else { 0.0 };
            words.push(WordScore { variance, ..word });
        }
    }
    progress(words.len() as u64, passages.len() as u64);
    if let Some(at) = words.iter().position(|word| !word.nats.is_finite()) {
        let tensor = format!("the score of passage {}", at + 1);
        return Err(ltm_train::Error::NonFinite { step: 0, tensor, last_good: None }.into());
    }
    Ok(Lambada { samples: if model.n_latents == 0 { 0 } else { samples }, words })
}

/// The posterior given each passage's context, without the last words; `None` without latents. A batch's last rows may
/// be empty.
fn fit_to_contexts(
    program: &mut Program,
    weights: &DeviceWeights,
    inference: &Inference,
    group: &[Passage],
    key: InferKey,
) -> Result<Option<Posterior>> {
    let [b, t] = program.shape();
    let mut tokens = vec![0; b * t];
    let mut targets = vec![IGNORED; b * t];
    for (row, passage) in group.iter().enumerate() {
        let (start, known) = (row * t, passage.known());
        tokens[start..start + passage.inputs().len()].copy_from_slice(passage.inputs());
        targets[start..start + known].copy_from_slice(&passage.targets()[..known]);
    }
    let batch = ltm_vi::Batch::new(program.extents(), b, &tokens, &targets)?;
    let mut problem = program.problem(weights, &batch)?;
    let latents = inference.infer(&mut problem, key, &mut |_| Ok(()))?;
    Ok(latents.gaussian().map(|gaussian| gaussian.to_host()).transpose()?)
}

/// Predicts a passage's last word by the mixture over the latents of `decoder`.
fn predict(decoder: &mut Decoder, passage: &Passage, samples: usize) -> Result<WordScore> {
    let mut known = passage.known();
    let context = &passage.inputs()[..known + 1];
    let mut logits = decoder.prefill(&context.repeat(samples))?;
    // Per sample, the log-likelihood of the word so far.
    let mut log_p = vec![0.0; samples];
    let mut predicted = true;
    loop {
        let target = passage.targets()[known];
        predicted &= is_most_likely(logits, &mut log_p, target as usize);
        known += 1;
        if known == passage.targets().len() {
            break;
        }
        logits = decoder.step(&vec![target; samples])?;
    }
    let nll: Vec<f64> = log_p.iter().map(|log_p| -log_p).collect();
    let Sampled { nats, variance } = estimators::predictive(&nll);
    Ok(WordScore { tokens: passage.word, nats, variance, predicted, cut: passage.cut })
}

/// Adds `log p(target)` of each sample to `log_p`; returns whether `target` has the mixture's highest probability.
/// `logits` are `(samples,V)`, and a sample's weight is the likelihood that it gave the tokens so far.
fn is_most_likely(logits: &[f32], log_p: &mut [f64], target: usize) -> bool {
    let vocab_size = logits.len() / log_p.len();
    let most = log_p.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut mixture = vec![0.0; vocab_size];
    for (logits, log_p) in logits.chunks(vocab_size).zip(log_p) {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let exp = |logit: &f32| f64::from(logit - max).exp();
        let sum: f64 = logits.iter().map(exp).sum();
        let weight = (*log_p - most).exp() / sum;
        mixture.iter_mut().zip(logits).for_each(|(p, logit)| *p += weight * exp(logit));
        *log_p += f64::from(logits[target] - max) - sum.ln();
    }
    // Of equal ones it is the first, so that equal logits do not predict every word.
    let (before, after) = mixture.split_at(target);
    before.iter().all(|p| *p < mixture[target]) && after.iter().all(|p| *p <= mixture[target])
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};
    use ltm_vi::{Latents, Method, Protocol, score};

    use super::passage::tests::passage;
    use super::*;
    use crate::tiny::{config, weights};

    #[test]
    fn words_cost_what_the_prequential_protocol_charges_for_them() {
        let passages = ["the dog saw", "one", "a much longer passage than that"]
            .map(|text| passage(&format!("{text} cat")).expect("two words"));
        for n_latents in [4, 0] {
            let mut config = config(n_latents);
            config.train.batch = 2;
            let weights = weights(&config);
            let scores = evaluate(&config, &weights, &passages, 3, &mut |_, _| ()).expect("scored");
            assert_eq!((scores.words.len(), scores.cut()), (3, 1));
            for (index, (passage, found)) in passages.iter().zip(&scores.words).enumerate() {
                let t = passage.inputs().len();
                let (device, precision) = config.run.compute_evaluation().expect("the CPU");
                let gradient = SlowGradient::None;
                let mut program = Program::new(&config.model, 1, t, &device, precision, gradient)
                    .expect("the model is good");
                let batch =
                    ltm_vi::Batch::new(&config.model, 1, passage.inputs(), passage.targets())
                        .and_then(|batch| batch.with_context(&[passage.known()]))
                        .expect("it fits");
                let mut problem = program.problem(&weights, &batch).expect("they fit");
                let first_sequence = index as u64;
                let key = InferKey {
                    seed: config.run.seed,
                    step: KEY_STEP,
                    sequences: Sequences::From(first_sequence),
                };
                let protocol = Protocol::PrequentialOverlap { stride: 4, samples: 3 };
                let inference = Inference::finished(&config.infer).expect("it is good");
                let expected =
                    score(&mut problem, protocol, &Latents::None, &inference, key).expect("scored");
                // Four logarithms of sums over 257 numbers in single precision, and three fast steps of Adam, which
                // may enlarge the rounding of a gradient near zero.
                let tol = Tol { abs: 1e-3, rel: 1e-4 };
                assert_close(&[found.nats], &expected.nats, tol);
                assert_close(&[found.variance], &expected.variance, tol);
            }
        }
    }

    /// A fit by Langevin dynamics leaves one sample, and no density to draw fresh ones from.
    #[test]
    fn a_sample_without_a_density_is_refused_as_by_prequential() {
        let mut config = config(4);
        config.infer.method = Method::Langevin;
        let passages = [passage("one cat").expect("two words")];
        let refused = evaluate(&config, &weights(&config), &passages, 3, &mut |_, _| ());
        assert!(
            matches!(refused, Err(Error::Infer(ltm_vi::Error::Unsuitable { .. }))),
            "{refused:?}"
        );
        // Without latents nothing is drawn.
        config.model.n_latents = 0;
        evaluate(&config, &weights(&config), &passages, 3, &mut |_, _| ()).expect("exact");
    }

    #[test]
    fn fits_are_those_of_the_end_of_training() {
        let mut config = config(4);
        let passages = [passage("the dog saw a cat").expect("words")];
        let mut nats = |lr, lr_end, kl_warmup| {
            config.infer = ltm_vi::InferConfig { lr, lr_end, kl_warmup, ..config.infer };
            let scores = evaluate(&config, &weights(&config), &passages, 3, &mut |_, _| ());
            scores.expect("scored").words[0].nats
        };
        let end = nats(0.9, None, 0.0);
        assert_eq!(nats(0.1, Some(0.9), 0.0), end);
        assert_eq!(nats(0.9, None, 1.0), end);
        assert_ne!(nats(0.1, None, 0.0), end);
    }

    #[test]
    fn what_the_model_would_write_is_predicted() {
        let config = config(0);
        let weights = weights(&config);
        let mut decoder = Decoder::with_weights(config.model, weights.clone(), 1).expect("good");
        let greedy = |logits: &[f32]| {
            (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).expect("some") as i32
        };
        let mut tokens = vec![256, 97, 98];
        let mut next = greedy(decoder.prefill(&tokens).expect("read"));
        for _ in 0..3 {
            tokens.push(next);
            next = greedy(decoder.step(&[next]).expect("read"));
        }
        let passage = Passage { tokens: tokens.clone(), word: 3, cut: false };
        let mut others = Vec::new();
        for place in 3..6 {
            let mut tokens = tokens.clone();
            tokens[place] = (tokens[place] + 1) % 256;
            others.push(Passage { tokens, word: 3, cut: false });
        }
        let passages = [vec![passage], others].concat();
        let scores = evaluate(&config, &weights, &passages, 8, &mut |_, _| ()).expect("scored");
        let predicted: Vec<bool> = scores.words.iter().map(|word| word.predicted).collect();
        assert_eq!(predicted, [true, false, false, false]);
        assert_eq!((scores.samples, scores.sampling_error()), (0, 0.0));
        // One of four, with the standard deviation 1/2 of such a sample.
        assert_eq!(scores.accuracy(), (0.25, 0.25));
        assert!(evaluate(&config, &weights, &passages, 0, &mut |_, _| ()).is_err());
    }

    #[test]
    fn samples_weigh_by_what_they_predicted() {
        // Two samples over three tokens: the first all for token 0, the second for token 1.
        let logits = [2.0, 0.0, 0.0, 0.0, 3.0, 0.0];
        assert!(!is_most_likely(&logits, &mut [0.0, 0.0], 0));
        let mut log_p = [0.0, -5.0];
        assert!(is_most_likely(&logits, &mut log_p, 0), "the second made the word so far unlikely");
        let expected = [2.0 - (2f64.exp() + 2.0).ln(), -5.0 - (3f64.exp() + 2.0).ln()];
        assert_close(&log_p, &expected, Tol { abs: 1e-12, rel: 0.0 });
        assert!(!is_most_likely(&[f32::NAN, 0.0], &mut [0.0], 1));
        let equal = [0, 1].map(|target| is_most_likely(&[3.0, 3.0], &mut [0.0], target));
        assert_eq!(equal, [true, false]);
    }
}
