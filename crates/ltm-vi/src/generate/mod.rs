//! Generation: latents from the prior or fitted to a prompt, then tokens decoded with the latents fixed, or fitted again
//! on the way or after it. Knows no text.

mod generator;
mod pool;
mod rethink;
mod rounds;

use std::ops::Range;

use ltm_autodiff::Precision;
use ltm_model::{DeviceWeights, ModelConfig, SampleConfig};

pub use generator::Generator;
pub use pool::{Draw, Next, Pool};
pub use rethink::{Keep, Rethink, RethinkStart, Round, RoundScore};

use crate::{FastStep, Inference, LatentSource, Result};

/// The most texts of one call, which are decoded as one batch.
const MOST_DRAWS: u64 = 1 << 16;

/// How to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens to generate. Where they exceed the context, it rolls: see [`Generator::next`].
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sample: SampleConfig,
    /// The distribution of the latents.
    pub latents: LatentSource,
    /// Fits the latents again to the text so far after each time that this many tokens were generated.
    pub refit: Option<usize>,
    /// Fits the latents to the whole text once it is written, and writes it again; with `refit` in every round.
    pub rethink: Option<Rethink>,
    /// Seed of latents and tokens.
    pub seed: u64,
    /// Generation ends after this token.
    pub stop: Option<i32>,
    /// The precision of the fit; tokens are decoded in single precision.
    pub precision: Precision,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The continuation, with the stop token if it was generated.
    pub tokens: Vec<i32>,
    /// The fast steps of the fit to the prompt; empty without a fit.
    pub fit: Vec<FastStep>,
    /// The latents `(L·Z,C)`, those of the last fit before its end.
    pub z: Vec<f32>,
    /// The round that this text is of: 0 without [`rethinking`](GenerateOptions::rethink).
    pub round: usize,
    /// The text of each round, this one among them; empty without rethinking.
    pub rounds: Vec<Round>,
}

/// Continues `prompt`, which is at least the token that documents begin with, to the end: see [`Generator`], which
/// yields the tokens one by one.
///
/// # Errors
/// Those of [`Generator`].
pub fn generate(
    config: &ModelConfig,
    weights: &DeviceWeights,
    inference: &Inference,
    prompt: &[i32],
    options: &GenerateOptions,
) -> Result<Generation> {
    let one = generate_many(config, weights, inference, prompt, options, 0..1)?;
    Ok(one.into_iter().next().expect("one was asked for"))
}

/// Continues `prompt` several times, decoded as one batch: a single fit with the options' seed, and for each of
/// `draws` latents and tokens drawn with that seed plus the draw's number. Draw 0 is the result of
/// [`generate`].
///
/// # Errors
/// Those of [`Generator`].
pub fn generate_many(
    config: &ModelConfig,
    weights: &DeviceWeights,
    inference: &Inference,
    prompt: &[i32],
    options: &GenerateOptions,
    draws: Range<u64>,
) -> Result<Vec<Generation>> {
    let observer = &mut |_: &FastStep| Ok(());
    let mut generator = Generator::new(config, weights, inference, &[prompt], options, observer)?;
    generator.begin(draws)?;
    generator.finish(observer)?;
    Ok(generator.texts())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, InferConfig, StartKind};
    use ltm_kernels::Device;
    use ltm_model::{Decoder, Weights, param_table, sample};

    const CONFIG: ModelConfig = ModelConfig { max_seq_len: 8, ..crate::tiny::CONFIG };
    const OPTIONS: GenerateOptions = GenerateOptions {
        max_tokens: 3,
        sample: SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 },
        latents: LatentSource::Prompt,
        refit: None,
        rethink: None,
        seed: 5,
        stop: None,
        precision: Precision::F32,
    };

    fn on_device(config: &ModelConfig, weights: &Weights) -> DeviceWeights {
        DeviceWeights::new(config, weights, &Device::Cpu, Precision::F32).unwrap()
    }

    fn weights(config: &ModelConfig) -> DeviceWeights {
        on_device(config, &Weights::init(config, 1).unwrap())
    }

    fn inference() -> Inference {
        Inference::finished(&InferConfig::published()).unwrap()
    }

    fn check(config: ModelConfig, prompt: &[i32], options: GenerateOptions) -> Result<Generation> {
        generate(&config, &weights(&config), &inference(), prompt, &options)
    }

    #[test]
    fn more_draws_than_a_batch_holds_are_refused() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let refused = generate_many(&CONFIG, &weights, &inference, &[1], &OPTIONS, 0..u64::MAX);
        assert!(matches!(refused, Err(Error::Argument { arg: "draws", .. })), "{refused:?}");
    }

    #[test]
    fn depends_on_its_arguments_alone() {
        let first = check(CONFIG, &[0, 4, 7], OPTIONS).unwrap();
        assert_eq!((first.tokens.len(), first.fit.len()), (3, 16));
        assert_eq!(first, check(CONFIG, &[0, 4, 7], OPTIONS).unwrap());
        assert_ne!(first.z, check(CONFIG, &[0, 4, 6], OPTIONS).unwrap().z);
        let other = check(CONFIG, &[0, 4, 7], GenerateOptions { seed: 6, ..OPTIONS }).unwrap();
        assert_ne!(first.z, other.z);
    }

    #[test]
    fn many_draws_are_those_drawn_alone() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let draw = |options: &GenerateOptions, draws| {
            generate_many(&CONFIG, &weights, &inference, &[0, 4, 7], options, draws).unwrap()
        };
        let many = draw(&OPTIONS, 0..4);
        assert_eq!(many[0], check(CONFIG, &[0, 4, 7], OPTIONS).unwrap());
        assert_eq!(many[2..], draw(&OPTIONS, 2..4));
        assert!(many[1..].iter().all(|other| other.z != many[0].z && other.fit == many[0].fit));
        // From the prior nothing is shared but the weights; a seed stands for a draw.
        let prior = GenerateOptions { latents: LatentSource::Prior, ..OPTIONS };
        let other = GenerateOptions { seed: OPTIONS.seed + 3, ..prior };
        assert_eq!(draw(&prior, 3..4), draw(&other, 0..1));
        // Those that go on are not disturbed by those that have ended.
        let stop = many[1].tokens[0];
        assert!(many.iter().any(|one| !one.tokens.contains(&stop)), "{many:?}");
        let stopped = draw(&GenerateOptions { stop: Some(stop), ..OPTIONS }, 0..4);
        for (one, whole) in stopped.iter().zip(&many) {
            let ends = whole.tokens.iter().position(|token| *token == stop).map_or(3, |at| at + 1);
            assert_eq!(one.tokens, whole.tokens[..ends]);
        }
        assert!(draw(&OPTIONS, 0..0).is_empty());
    }

    #[test]
    fn the_prior_serves_without_a_fit() {
        let prior = GenerateOptions { latents: LatentSource::Prior, ..OPTIONS };
        let prior = check(CONFIG, &[0, 4, 7], prior).unwrap();
        let single = check(CONFIG, &[0], OPTIONS).unwrap();
        assert!(prior.fit.is_empty() && single.fit.is_empty());
        assert_eq!(prior.z, single.z);
        let baseline = check(ModelConfig { n_latents: 0, ..CONFIG }, &[0, 1], OPTIONS).unwrap();
        assert_eq!((baseline.tokens.len(), baseline.z.len()), (3, 0));
    }

    /// A model whose logits are all equal gives each token by its uniform number alone.
    #[test]
    fn each_token_has_a_uniform_number_of_its_own() {
        let config = ModelConfig { max_seq_len: 65, ..CONFIG };
        let mut weights = Weights::init(&config, 1).unwrap();
        weights.params[0].fill(0.0);
        let options = GenerateOptions { max_tokens: 64, latents: LatentSource::Prior, ..OPTIONS };
        let weights = on_device(&config, &weights);
        let texts = generate_many(&config, &weights, &inference(), &[0], &options, 0..2).unwrap();
        assert_ne!(texts[0].tokens, texts[1].tokens);
        for Generation { tokens, .. } in texts {
            // Of 64 uniform draws, a token is missing with a chance of 0.002, and two next to each other are
            // equal in 1 of 11.
            let distinct = (0..11).filter(|token| tokens.contains(token)).count();
            let repeats = tokens.windows(2).filter(|pair| pair[0] == pair[1]).count();
            assert!(tokens.len() == 64 && distinct >= 9 && repeats <= 20, "{tokens:?}");
        }
    }

    #[test]
    fn ends_at_the_stop_token_and_at_the_most_tokens() {
        let greedy = GenerateOptions { sample: SampleConfig::GREEDY, ..OPTIONS };
        let first = check(CONFIG, &[0, 4], greedy).unwrap().tokens[0];
        let stopped = GenerateOptions { stop: Some(first), ..greedy };
        assert_eq!(check(CONFIG, &[0, 4], stopped).unwrap().tokens, [first]);
        let long = GenerateOptions { max_tokens: 99, ..OPTIONS };
        assert_eq!(check(CONFIG, &[0, 4, 7, 1, 2], long).unwrap().tokens.len(), 99);
        let none = GenerateOptions { max_tokens: 0, ..OPTIONS };
        assert!(check(CONFIG, &[0, 4], none).unwrap().tokens.is_empty());
    }

    /// Past the context, of 8 tokens, each token is the one that follows its last tokens read from position 0.
    #[test]
    fn past_the_context_the_last_half_is_read_again() {
        let prompt = [0, 4, 7, 1, 2];
        let greedy = GenerateOptions { sample: SampleConfig::GREEDY, ..OPTIONS };
        let long = check(CONFIG, &prompt, GenerateOptions { max_tokens: 40, ..greedy }).unwrap();
        let all = [&prompt[..], &long.tokens].concat();
        let weights = Weights::init(&CONFIG, 1).unwrap();
        let mut decoder = Decoder::new(CONFIG, &weights, Device::Cpu, 1).unwrap();
        decoder.set_latents(&long.z).unwrap();
        // Tokens 0..8 are the context; then the last 4 are read again whenever 8 are full.
        let (mut start, mut end) = (0, prompt.len());
        while end < all.len() {
            let logits = decoder.prefill(&all[start..end]).unwrap();
            let next = sample(logits, &SampleConfig::GREEDY, 0.0).unwrap() as i32;
            assert_eq!(next, all[end], "token {end} after {start}..{end}");
            end += 1;
            if end - start > CONFIG.max_seq_len {
                start = end - CONFIG.max_seq_len / 2;
            }
        }
        // Sequences do not depend on their neighbours.
        let many = |draws| {
            let options = GenerateOptions { max_tokens: 30, ..OPTIONS };
            let weights = on_device(&CONFIG, &weights);
            generate_many(&CONFIG, &weights, &inference(), &prompt, &options, draws).unwrap()
        };
        assert_eq!(many(0..3)[1..], many(1..3));
        let one = ModelConfig { max_seq_len: 1, window: 1, n_latents: 0, ..CONFIG };
        let options = GenerateOptions { max_tokens: 5, ..OPTIONS };
        assert_eq!(check(one, &[0], options).unwrap().tokens.len(), 5);
    }

    #[test]
    fn refusals_carry_the_numbers() {
        let error = check(CONFIG, &[1; 9], OPTIONS).unwrap_err();
        assert!(matches!(error, Error::PromptTooLong { tokens: 9, max_seq_len: 8 }), "{error}");
        assert!(matches!(check(CONFIG, &[], OPTIONS), Err(Error::Argument { .. })));
        assert!(check(CONFIG, &[0, 11], OPTIONS).is_err());
    }

    /// Texts of prompts of different lengths, decoded together past the context: each is what it is alone.
    #[test]
    fn prompts_are_decoded_together_and_do_not_depend_on_each_other() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let prompts: [&[i32]; 4] = [&[0, 4, 7], &[0], &[0, 2, 2, 8, 1], &[0, 9, 3, 1, 5]];
        for refit in [None, Some(4)] {
            let options = GenerateOptions { max_tokens: 20, refit, ..OPTIONS };
            let mut fits = 0;
            let mut observer = |step: &FastStep| {
                fits += usize::from(step.step == 0);
                Ok(())
            };
            let mut generator =
                Generator::new(&CONFIG, &weights, &inference, &prompts, &options, &mut observer)
                    .unwrap();
            generator.begin(0..2).unwrap();
            let mut streamed = vec![Vec::new(); 8];
            while let Some(tokens) = generator.next(&mut observer).unwrap() {
                streamed.iter_mut().zip(tokens).for_each(|(text, token)| text.extend(token));
            }
            // One for each prompt but the one without targets; again after 4, 8, 12 and 16 tokens of each text.
            assert_eq!(fits, 3 + if refit.is_some() { 4 * 8 } else { 0 });
            let together = generator.texts();
            for (i, prompt) in prompts.iter().enumerate() {
                let alone =
                    generate_many(&CONFIG, &weights, &inference, prompt, &options, 0..2).unwrap();
                assert_eq!(alone, together[2 * i..2 * i + 2], "{prompt:?}");
                assert_eq!(alone[1].tokens, streamed[2 * i + 1]);
            }
            // Another draw of the same fits.
            generator.begin(1..2).unwrap();
            while generator.next(&mut |_| Ok(())).unwrap().is_some() {}
            assert_eq!(generator.texts()[2], together[5]);
        }
    }

    /// After a refit the text is read again with latents fitted to it, beginning where the last fit ended.
    #[test]
    fn a_refit_reads_the_text_again() {
        let greedy = GenerateOptions { sample: SampleConfig::GREEDY, ..OPTIONS };
        let options = GenerateOptions { refit: Some(2), max_tokens: 3, ..greedy };
        let weights = {
            let mut weights = Weights::init(&CONFIG, 1).unwrap();
            weights
                .params
                .iter_mut()
                .flatten()
                .for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 20.0 });
            on_device(&CONFIG, &weights)
        };
        let prompt = [0, 4, 7];
        let run = |options: &GenerateOptions| {
            generate(&CONFIG, &weights, &inference(), &prompt, options).unwrap()
        };
        let (fixed, refitted) = (run(&greedy), run(&options));
        assert_eq!(fixed.tokens[..2], refitted.tokens[..2]);
        assert_ne!(fixed.z, refitted.z);
        let mut decoder = Decoder::with_weights(CONFIG, weights.clone(), 1).unwrap();
        decoder.set_latents(&refitted.z).unwrap();
        let read = [&prompt[..], &refitted.tokens[..2]].concat();
        let next = sample(decoder.prefill(&read).unwrap(), &SampleConfig::GREEDY, 0.0).unwrap();
        assert_eq!(next as i32, refitted.tokens[2]);
        let never = GenerateOptions { refit: Some(0), ..OPTIONS };
        assert!(matches!(check(CONFIG, &prompt, never), Err(Error::Argument { arg: "refit", .. })));
    }

    /// An encoder reads the whole text again, and a refit without steps is what it predicts.
    #[test]
    fn a_refit_begins_where_an_encoder_says() {
        let config = ModelConfig { encoder_width: 6, ..CONFIG };
        let mut weights = Weights::init(&config, 1).unwrap();
        for (spec, params) in param_table(&config).iter().zip(&mut weights.params) {
            match spec.name.as_str() {
                // A sample is the mean.
                "encoder.log_var.weight" => params.fill(0.0),
                "encoder.log_var.bias" => params.fill(-80.0),
                _ => {}
            }
        }
        let weights = on_device(&config, &weights);
        let infer = InferConfig { start: StartKind::Encoder, steps: 0, ..InferConfig::published() };
        let inference = Inference::finished(&infer).unwrap();
        let run = |prompt: &[i32], refit| {
            let sample = SampleConfig::GREEDY;
            let options = GenerateOptions { sample, refit, max_tokens: 3, ..OPTIONS };
            generate(&config, &weights, &inference, prompt, &options).unwrap()
        };
        let refitted = run(&[0, 4, 7], Some(2));
        let read = [&[0, 4, 7], &refitted.tokens[..2]].concat();
        assert_eq!(refitted.z, run(&read, None).z);
        assert_ne!(refitted.z, run(&[0, 4, 7], None).z);
    }

    /// Cancelled in the fit of its second text, the call can be made again.
    #[test]
    fn a_cancelled_refit_changes_no_text() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let prompts: [&[i32]; 2] = [&[0, 4, 7], &[0, 2, 2, 8]];
        let options = GenerateOptions { refit: Some(2), max_tokens: 4, ..OPTIONS };
        let run = |cancel: bool| {
            let mut quiet = |_: &FastStep| Ok(());
            let mut generator =
                Generator::new(&CONFIG, &weights, &inference, &prompts, &options, &mut quiet)
                    .unwrap();
            generator.begin(0..1).unwrap();
            generator.next(&mut quiet).unwrap();
            generator.next(&mut quiet).unwrap();
            if cancel {
                let mut fits = 0;
                let mut stop = |step: &FastStep| {
                    fits += usize::from(step.step == 0);
                    if fits == 2 { Err(Error::Stopped) } else { Ok(()) }
                };
                assert!(matches!(generator.next(&mut stop), Err(Error::Stopped)));
            }
            while generator.next(&mut quiet).unwrap().is_some() {}
            generator.texts()
        };
        assert_eq!(run(true), run(false));
    }

    #[test]
    fn a_fit_is_cancelled_by_its_observer() {
        let mut seen = 0;
        let mut stop = |_: &FastStep| {
            seen += 1;
            if seen == 3 { Err(Error::Stopped) } else { Ok(()) }
        };
        let (weights, prompt): (_, &[i32]) = (weights(&CONFIG), &[0, 4, 7]);
        let stopped =
            Generator::new(&CONFIG, &weights, &inference(), &[prompt], &OPTIONS, &mut stop);
        assert!(matches!(stopped.err(), Some(Error::Stopped)));
        assert_eq!(seen, 3);
    }
}
