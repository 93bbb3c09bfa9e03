//! `ltm config`: show, explain and check configuration files.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ltm_train::{Config, config, flops, memory};

/// What to do with a configuration file.
#[derive(Subcommand)]
pub enum Verb {
    /// Print a configuration with every default filled in, its size, FLOPs and memory
    Show(ShowArgs),
    /// Check whether a configuration can work; exit status 2 if not
    Check(Args),
    /// Print the JSON Schema of configuration files, for completion and checks in editors
    Schema,
    /// Print the reference of every key as Markdown: docs/configuration.md
    Reference,
}

/// A configuration file with overrides.
#[derive(clap::Args)]
pub struct Args {
    /// Configuration file (TOML)
    file: PathBuf,
    /// Override a value, repeatable: `--set train.steps=100`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

/// Arguments of `config show`.
#[derive(clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    of: Args,
    /// Print the meaning and the default of every key as comments
    #[arg(long)]
    explain: bool,
}

pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Show(args) => {
            let config = Config::load(&args.of.file, &args.of.set)?;
            print_size(&config)?;
            outln!("{}", config.to_annotated_toml(args.explain).trim_end())?;
        }
        Verb::Check(args) => {
            let config = Config::load(&args.file, &args.set)?;
            outln!("{}: ok, {} parameters", args.file.display(), config.model.param_count())?;
        }
        Verb::Schema => outln!("{}", serde_json::to_string_pretty(&config::schema())?)?,
        Verb::Reference => outln!("{}", config::reference().trim_end())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What the configuration amounts to, as comments.
fn print_size(config: &Config) -> anyhow::Result<()> {
    let (model, train) = (&config.model, &config.train);
    outln!("# parameters: {}", model.param_count())?;
    outln!("# latent variables per sequence: {}", model.n_latents * model.dim)?;
    outln!("# tokens per slow step: {}", train.batch * train.micro_batches * train.seq_len)?;
    let memory = memory::estimate(config)?;
    outln!("# peak memory of training, estimated: {}", size(memory.total()))?;
    for (what, bytes) in [
        ("weights and one copy", memory.weights),
        ("optimizer state", memory.optimizer),
        ("gradients", memory.gradients),
        ("posteriors of rows", memory.posteriors),
        ("batch and posterior", memory.batch),
        ("activations of the fast and slow plans", memory.activations),
        ("evaluation or writing a checkpoint", memory.evaluation),
    ] {
        outln!("#   {what}: {}", size(bytes))?;
    }
    let flops = flops::count(config)?;
    let (counted, formula) = (1e-9 * flops.per_token, 1e-9 * flops.formula_per_token);
    outln!("# GFLOP per token of training, counted from the graphs: {counted:.4}")?;
    outln!("# GFLOP per token of training, by the paper's formula: {formula:.4}")?;
    outln!("#   the formula, (S+1)(6P + 6LCT), counts weight gradients in every fast step\n")?;
    Ok(())
}

/// Bytes in decimal units.
fn size(bytes: usize) -> String {
    match bytes as f64 {
        bytes if bytes < 1e9 => format!("{:.1} MB", 1e-6 * bytes),
        bytes => format!("{:.1} GB", 1e-9 * bytes),
    }
}
