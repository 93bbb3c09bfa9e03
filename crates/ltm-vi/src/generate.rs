//! Thinking before speaking: latents from the prior or fitted to a prompt, then tokens decoded with
//! the latents fixed. Knows no text.

use std::ops::Range;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_model::{Decoder, ModelConfig, SampleConfig, Weights, sample};

use crate::engine::argument;
use crate::posterior::Purpose;
use crate::{Engine, Error, FastStep, InferConfig, InferKey, Result, SlowGradient};

/// Where the latents of a generation come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentSource {
    /// `z ~ N(0,I)`: unconditional but for the prompt's tokens.
    Prior,
    /// `z ~ q(z|prompt)`, fitted to the prompt alone.
    Prompt,
}

/// How to generate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GenerateOptions {
    /// The most tokens to generate; the end of the context comes first if it is nearer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sample: SampleConfig,
    /// Where the latents come from.
    pub latents: LatentSource,
    /// Seed of latents and tokens.
    pub seed: u64,
    /// Generation ends behind this token.
    pub stop: Option<i32>,
    /// Where to compute.
    pub device: Device,
    /// The precision of the fit; tokens are decoded in single precision.
    pub precision: Precision,
}

/// What was generated.
#[derive(Clone, Debug, PartialEq)]
pub struct Generation {
    /// The continuation, the stop token included if it came.
    pub tokens: Vec<i32>,
    /// The fast steps of the fit; empty when there was none.
    pub fit: Vec<FastStep>,
    /// The latents `(L·Z,C)`.
    pub z: Vec<f32>,
}

/// Continues `prompt`, which is at least the token that documents begin with.
///
/// A prompt of one token says nothing to fit to, so that its latents come from the prior whatever
/// the options say. The result depends on the arguments alone.
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

/// Continues `prompt` several times, decoded together: one fit with the options' seed, and for each of `draws` latents
/// and tokens drawn with that seed plus its number. Draw 0 is what [`generate`] gives.
///
/// # Errors
/// Those of [`generate`].
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
    // What a sequence that has ended reads meanwhile is of no effect on the others.
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
        let full = decoder.position() == config.max_seq_len || position + 1 == options.max_tokens;
        if full || !going.contains(&true) {
            break;
        }
        decoder.step(&next)?;
    }
    Ok(written)
}

/// A generation without tokens for each seed: its latents, and the fit that they come from.
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
        // A finished model is at the end of its training.
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
                    // A draw of its own: the fit knows its noise too well.
                    posterior.noise = noise;
                }
                posterior.sample()
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

    #[test]
    fn ends_at_the_stop_token_and_at_the_context() {
        let greedy = GenerateOptions { sample: SampleConfig::GREEDY, ..OPTIONS };
        let first = check(CONFIG, &[0, 4], greedy).unwrap().tokens[0];
        let stopped = GenerateOptions { stop: Some(first), ..greedy };
        assert_eq!(check(CONFIG, &[0, 4], stopped).unwrap().tokens, [first]);
        let long = GenerateOptions { max_tokens: 99, ..OPTIONS };
        // The context's last token is read, and one more comes out of it.
        assert_eq!(check(CONFIG, &[0, 4, 7, 1, 2], long).unwrap().tokens.len(), 4);
        let none = GenerateOptions { max_tokens: 0, ..OPTIONS };
        assert!(check(CONFIG, &[0, 4], none).unwrap().tokens.is_empty());
    }

    #[test]
    fn refusals_carry_the_numbers() {
        let error = check(CONFIG, &[1; 9], OPTIONS).unwrap_err();
        assert!(matches!(error, Error::PromptTooLong { tokens: 9, max_seq_len: 8 }), "{error}");
        assert!(matches!(check(CONFIG, &[], OPTIONS), Err(Error::Argument { .. })));
        assert!(check(CONFIG, &[0, 11], OPTIONS).is_err());
    }
}
