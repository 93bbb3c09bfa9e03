//! Generation: latents from the prior or fitted to a prompt, then tokens decoded with the latents fixed.
//! Knows no text.

use std::ops::Range;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_model::{Decoder, ModelConfig, SampleConfig, Weights, sample};

use crate::engine::argument;
use crate::posterior::Purpose;
use crate::{Engine, Error, FastStep, InferConfig, InferKey, Result, SlowGradient};

/// The most texts of one call, which are decoded as one batch.
const MOST_DRAWS: u64 = 1 << 16;

/// The distribution of a generation's latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentSource {
    /// `z ~ N(0,I)`: conditioned on the prompt only through the decoder.
    Prior,
    /// `z ~ q(z|prompt)`, fitted to the prompt alone.
    Prompt,
}

/// How to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens to generate. Where they exceed the context, it rolls: see [`generate`].
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sample: SampleConfig,
    /// The distribution of the latents.
    pub latents: LatentSource,
    /// Seed of latents and tokens.
    pub seed: u64,
    /// Generation ends after this token.
    pub stop: Option<i32>,
    /// The device.
    pub device: Device,
    /// The precision of the fit; tokens are decoded in single precision.
    pub precision: Precision,
}

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The continuation, with the stop token if it was generated.
    pub tokens: Vec<i32>,
    /// The fast steps of the fit; empty without a fit.
    pub fit: Vec<FastStep>,
    /// The latents `(L·Z,C)`.
    pub z: Vec<f32>,
}

/// Continues `prompt`, which is at least the token that documents begin with.
///
/// A prompt of one token has no targets to fit to, so its latents come from the prior whatever the options
/// are. The result depends on the arguments alone.
///
/// When the context is full, the last half of its tokens is read again from position 0, with the same latents:
/// positions stay within those of training, and older tokens act through the latents alone.
///
/// # Errors
/// [`Error::Argument`] for an empty prompt, [`Error::PromptTooLong`]; [`Error::Config`] or
/// [`Error::Model`] for a configuration, weights or tokens that do not fit.
pub fn generate(
    weights: &Weights,
    config: &ModelConfig,
    infer: &InferConfig,
    prompt: &[i32],
    options: &GenerateOptions,
) -> Result<Generation> {
    let one = generate_many(weights, config, infer, prompt, options, 0..1)?;
    Ok(one.into_iter().next().expect("one was asked for"))
}

/// Continues `prompt` several times, decoded as one batch: a single fit with the options' seed, and for each of
/// `draws` latents and tokens drawn with that seed plus the draw's number. Draw 0 is the result of
/// [`generate`].
///
/// # Errors
/// Those of [`generate`], and [`Error::Argument`] for more than 65536 draws.
pub fn generate_many(
    weights: &Weights,
    config: &ModelConfig,
    infer: &InferConfig,
    prompt: &[i32],
    options: &GenerateOptions,
    draws: Range<u64>,
) -> Result<Vec<Generation>> {
    infer.validate()?;
    options.sample.validate()?;
    weights.check(config)?;
    if prompt.is_empty() {
        let expected = "at least one token, such as the one that documents begin with";
        return Err(argument("prompt", expected, "none"));
    }
    if prompt.len() > config.max_seq_len {
        let (tokens, max_seq_len) = (prompt.len(), config.max_seq_len);
        return Err(Error::PromptTooLong { tokens, max_seq_len });
    }
    let count = draws.end.saturating_sub(draws.start);
    if count > MOST_DRAWS {
        return Err(argument("draws", format!("at most {MOST_DRAWS}"), count));
    }
    let seeds: Vec<u64> = draws.map(|draw| options.seed.wrapping_add(draw)).collect();
    if seeds.is_empty() {
        return Ok(Vec::new());
    }
    let mut written = latents(weights, config, infer, prompt, options, &seeds)?;

    let mut decoder = Decoder::new(*config, weights, options.device, seeds.len())?;
    if config.n_latents > 0 {
        let z: Vec<f32> = written.iter().flat_map(|one| one.z.iter().copied()).collect();
        decoder.set_latents(&z)?;
    }
    let stream = Purpose::Token as u64;
    let uniforms = seeds.iter().map(|&seed| Philox::new(PhiloxKey { seed, stream, step: 0 }));
    let uniforms: Vec<Philox> = uniforms.collect();
    decoder.prefill(&prompt.repeat(seeds.len()))?;
    // All that each sequence has read, to read the end of it again.
    let mut read = vec![prompt.to_vec(); seeds.len()];
    // A sequence that has ended goes on reading its last token, which does not affect the others.
    let mut next = vec![prompt[0]; seeds.len()];
    let mut going = vec![true; seeds.len()];
    for position in 0..options.max_tokens {
        let logits = decoder.logits().expect("the prompt was read");
        for (i, logits) in logits.chunks(config.vocab_size).enumerate() {
            if !going[i] {
                continue;
            }
            let uniform = uniforms[i].uniform(position as u64);
            next[i] = sample(logits, &options.sample, uniform)? as i32;
            written[i].tokens.push(next[i]);
            going[i] = options.stop != Some(next[i]);
        }
        if position + 1 == options.max_tokens || !going.contains(&true) {
            break;
        }
        for (read, token) in read.iter_mut().zip(&next) {
            read.push(*token);
        }
        if decoder.position() < config.max_seq_len {
            decoder.step(&next)?;
        } else {
            let kept = config.max_seq_len.div_ceil(2);
            let ends: Vec<i32> =
                read.iter().flat_map(|read| &read[read.len() - kept..]).copied().collect();
            decoder.prefill(&ends)?;
        }
    }
    Ok(written)
}

/// A generation without tokens for each seed: its latents, and their fit.
fn latents(
    weights: &Weights,
    config: &ModelConfig,
    infer: &InferConfig,
    prompt: &[i32],
    options: &GenerateOptions,
    seeds: &[u64],
) -> Result<Vec<Generation>> {
    if config.n_latents == 0 {
        let nothing = Generation { tokens: Vec::new(), fit: Vec::new(), z: Vec::new() };
        return Ok(vec![nothing; seeds.len()]);
    }
    let key = |seed| InferKey { seed, step: 0, first_sequence: 0 };
    let fresh = |seed| key(seed).normal(config, 1, Purpose::ScoreNoise, 0, 0.0, 1.0);
    let mut fit = Vec::new();
    let mut posterior = None;
    if options.latents == LatentSource::Prompt && prompt.len() > 1 {
        let t = prompt.len() - 1;
        let GenerateOptions { device, precision, .. } = options;
        let mut engine = Engine::new(config, 1, t, device, *precision, SlowGradient::None)?;
        engine.set_weights(weights)?;
        engine.set_batch(&prompt[..t], &prompt[1..])?;
        // Progress 1: the rates of the end of training.
        engine.infer(infer, 1.0, key(options.seed), &mut |step| {
            fit.push(step.clone());
            Ok(())
        })?;
        posterior = Some((engine.posterior()?, engine.has_density()));
    }
    let one = |seed: &u64| {
        let noise = fresh(*seed)?;
        let z = match &mut posterior {
            None => noise,
            Some((posterior, has_density)) => {
                if *has_density {
                    // A fresh draw: the fit has seen its own noise.
                    posterior.noise = noise;
                }
                posterior.sample()?
            }
        };
        Ok(Generation { tokens: Vec::new(), fit: fit.clone(), z })
    };
    seeds.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: ModelConfig = ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 8,
        window: 3,
        n_latents: 4,
        ffn_hidden: 16,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: ltm_model::Attention::Causal,
        encoder_layers: 0,
    };
    const OPTIONS: GenerateOptions = GenerateOptions {
        max_tokens: 3,
        sample: SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 },
        latents: LatentSource::Prompt,
        seed: 5,
        stop: None,
        device: Device::Cpu,
        precision: Precision::F32,
    };

    fn check(config: ModelConfig, prompt: &[i32], options: GenerateOptions) -> Result<Generation> {
        let weights = Weights::init(&config, 1)?;
        generate(&weights, &config, &InferConfig::published(), prompt, &options)
    }

    #[test]
    fn more_draws_than_a_batch_holds_are_refused() {
        let (weights, infer) = (Weights::init(&CONFIG, 1).unwrap(), InferConfig::published());
        let refused = generate_many(&weights, &CONFIG, &infer, &[1], &OPTIONS, 0..u64::MAX);
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
        let weights = Weights::init(&CONFIG, 1).unwrap();
        let infer = InferConfig::published();
        let draw = |options: &GenerateOptions, draws| {
            generate_many(&weights, &CONFIG, &infer, &[0, 4, 7], options, draws).unwrap()
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
        let infer = InferConfig::published();
        let texts = generate_many(&weights, &config, &infer, &[0], &options, 0..2).unwrap();
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
            let infer = InferConfig::published();
            generate_many(&weights, &CONFIG, &infer, &prompt, &options, draws).unwrap()
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
}
