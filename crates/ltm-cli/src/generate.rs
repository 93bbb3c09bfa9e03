//! `ltm generate`: thoughts first, then words.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_model::SampleConfig;
use ltm_train::Checkpoint;
use ltm_train::data::Tokenizer;
use ltm_vi::{GenerateOptions, LatentSource, generate};

use crate::compute::Compute;

/// How tokens are chosen where nothing else is asked for: from the model's own distribution, without its tail.
pub const SAMPLE: SampleConfig = SampleConfig { temperature: 0.8, top_k: 0, top_p: 0.95 };

/// Arguments of `generate`.
#[derive(clap::Args)]
pub struct Args {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// Text to continue: thoughts are fitted to it, then it is continued with them fixed. Without a prompt,
    /// thoughts come from the prior
    #[arg(long, default_value = "")]
    prompt: String,
    /// The most tokens to write
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// How many texts
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// 0 takes the likeliest token
    #[arg(long, default_value_t = SAMPLE.temperature)]
    temperature: f64,
    /// Keep only so many likeliest tokens; 0 for all
    #[arg(long, default_value_t = SAMPLE.top_k)]
    top_k: usize,
    /// Keep only the likeliest tokens of together this probability
    #[arg(long, default_value_t = SAMPLE.top_p)]
    top_p: f64,
    /// Seed of thoughts and words
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Write past the end of the document
    #[arg(long)]
    no_stop: bool,
    #[command(flatten)]
    compute: Compute,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut checkpoint = Checkpoint::load(&args.checkpoint)?;
    args.compute.apply(&mut checkpoint.config.run);
    let (device, precision) = checkpoint.config.run.compute()?;
    let (config, tokenizer) = (&checkpoint.config, &checkpoint.state.tokenizer);
    let prompt = encode(tokenizer, &args.prompt)?;
    let separator = i32::from(tokenizer.separator());
    for index in 0..args.count {
        let options = GenerateOptions {
            max_tokens: args.max_tokens,
            sample: SampleConfig {
                temperature: args.temperature,
                top_k: args.top_k,
                top_p: args.top_p,
            },
            latents: if prompt.len() > 1 { LatentSource::Prompt } else { LatentSource::Prior },
            seed: args.seed.wrapping_add(index),
            stop: (!args.no_stop).then_some(separator),
            device,
            precision,
        };
        let infer = &config.infer;
        let written = generate(&checkpoint.weights, &config.model, infer, &prompt, &options)?;
        // Decoded together, so that a space or a character that parts prompt and answer is right.
        let mut tokens = prompt[1..].to_vec();
        tokens.extend(&written.tokens);
        println!("{}", decode(tokenizer, &tokens));
    }
    Ok(ExitCode::SUCCESS)
}

/// A text as the model reads it: behind the separator that documents begin with.
pub fn encode(tokenizer: &Tokenizer, text: &str) -> anyhow::Result<Vec<i32>> {
    let separator = i32::from(tokenizer.separator());
    let ids = tokenizer.encode(text)?;
    Ok([separator].into_iter().chain(ids.into_iter().map(i32::from)).collect())
}

/// Tokens as text, without a separator at the end.
pub fn decode(tokenizer: &Tokenizer, tokens: &[i32]) -> String {
    let mut ids: Vec<u16> = tokens.iter().map(|token| *token as u16).collect();
    if ids.last() == Some(&tokenizer.separator()) {
        ids.pop();
    }
    tokenizer.decode(&ids)
}
