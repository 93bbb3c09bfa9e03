//! `ltm eval`: scores of a corpus by named protocols.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::ValueEnum;
use ltm_train::data::{Corpus, Order, Split};
use ltm_train::{Checkpoint, Config, Evaluation, evaluate, trainer};
use ltm_vi::{LatentUse, Protocol};

use crate::compute::Compute;

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// A corpus folder; the run's own validation split when left out
    data: Option<PathBuf>,
    /// reconstruction, elbo-fitted-noise, elbo or elbo:SAMPLES, iwae or iwae:SAMPLES, prequential:STRIDE[:SAMPLES],
    /// autoregressive, masked-diffusion or masked-diffusion:MASKS; may be repeated;
    /// those that suit the model and need no fit of their own when left out
    #[arg(long)]
    protocol: Vec<Protocol>,
    /// Score this many sequences only; 0 for all
    #[arg(long, default_value_t = 0)]
    sequences: u64,
    /// Which part of the corpus
    #[arg(long, value_enum, default_value_t = Part::Val)]
    split: Part,
    /// Replace a value of the run's configuration, such as `--set infer.steps=64`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    compute: Compute,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A part of a corpus.
#[derive(Clone, Copy, ValueEnum)]
pub enum Part {
    /// What was learned from
    Train,
    /// What is measured on
    Val,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let checkpoint = Checkpoint::load(&args.checkpoint)?;
    let file = checkpoint.dir.join(ltm_train::checkpoint::CONFIG_FILE);
    let mut config = Config::load_resolved(&file, &args.set)?;
    args.compute.apply(&mut config.run);
    anyhow::ensure!(config.model == checkpoint.config.model, "--set cannot change the model");
    let split = match args.split {
        Part::Train => Split::Train,
        Part::Val => Split::Val,
    };
    let dir = args.data.unwrap_or_else(|| trainer::corpus_dir(&config));
    let corpus = Corpus::open(&dir, split, Some(&checkpoint.state.tokenizer))?;
    let batches = trainer::open_corpus(&config, corpus, Order::Sequential)?;
    let mut protocols = args.protocol;
    if protocols.is_empty() {
        protocols = ltm_train::eval::protocols(&config, Protocol::DEFAULT_SAMPLES);
        if protocols.iter().any(|protocol| matches!(protocol, Protocol::Elbo { .. })) {
            protocols.push(Protocol::Iwae { samples: Protocol::DEFAULT_SAMPLES });
        }
    }
    let bar = crate::progress_bar(0, "{bar:40} batch {pos}/{len} ETA {eta}");
    let evaluation = evaluate(
        &config,
        &checkpoint.weights,
        &batches,
        &protocols,
        args.sequences,
        &mut |done, all| {
            bar.set_length(all);
            bar.set_position(done);
        },
    );
    bar.finish_and_clear();
    let evaluation = evaluation?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&evaluation.to_json())?);
    } else {
        println!("checkpoint {}, data {}\n", checkpoint.dir.display(), dir.display());
        print_table(&evaluation, &config);
    }
    Ok(ExitCode::SUCCESS)
}

/// The estimates as a table, and what the latents carry.
pub fn print_table(evaluation: &Evaluation, config: &Config) {
    println!(
        "{:<30}  {:>20}  {:>10}  {:>8}  {:>9}",
        "protocol", "nats per token", "perplexity", "tokens", "sequences"
    );
    for e in &evaluation.estimates {
        println!(
            "{:<30}  {:>20}  {:>10.3}  {:>8}  {:>9}",
            label(e.protocol),
            format!("{:.4} ± {:.4}", e.mean_nats_per_token, e.standard_error),
            e.perplexity(),
            e.tokens,
            e.per_sequence.len(),
        );
    }
    if let Some(latents) = &evaluation.latents {
        let kl: Vec<String> = latents.kl_per_layer().iter().map(|kl| format!("{kl:.2}")).collect();
        println!("KL of each layer            {} nats a sequence", kl.join(", "));
        println!(
            "active latent numbers       {} of {}; the others cost {:.2} nats a sequence",
            latents.active_units(LatentUse::ACTIVE),
            config.model.n_latents * config.model.dim,
            latents.kl_floor(LatentUse::ACTIVE),
        );
    }
}

fn label(protocol: Protocol) -> String {
    match protocol {
        Protocol::Reconstruction => "reconstruction (no bound)".into(),
        Protocol::ElboFittedNoise => "elbo-fitted-noise (optimistic)".into(),
        Protocol::Elbo { samples } => format!("elbo, {samples} fresh samples"),
        Protocol::Iwae { samples } => format!("iwae, {samples} fresh samples"),
        Protocol::MaskedDiffusion { samples } => format!("masked-diffusion, {samples} masks"),
        other => other.to_string(),
    }
}
