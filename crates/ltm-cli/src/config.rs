//! `ltm config`: a configuration file, resolved or refused.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use ltm_train::{Config, flops};

/// What to do with a configuration file.
#[derive(Subcommand)]
pub enum Verb {
    /// Print the configuration with every default filled in, the parameter count and the FLOPs of training
    Show(Args),
    /// Say whether the configuration can work; exit status 2 when not
    Check(Args),
}

/// A configuration file and what replaces values in it.
#[derive(clap::Args)]
pub struct Args {
    /// The TOML file
    file: PathBuf,
    /// Replace a value, such as `--set train.steps=100`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Show(args) => {
            let config = Config::load(&args.file, &args.set)?;
            let model = &config.model;
            outln!("# parameters: {}", model.param_count())?;
            outln!("# weights: {:.1} MB in f32", 4e-6 * model.param_count() as f64)?;
            outln!("# latent numbers per sequence: {}", model.n_latents * model.dim)?;
            let tokens = config.train.batch * config.train.micro_batches * config.train.seq_len;
            outln!("# tokens per slow step: {tokens}")?;
            let flops = flops::count(&config)?;
            let counted = 1e-9 * flops.per_token;
            let formula = 1e-9 * flops.formula_per_token;
            outln!(
                "# GFLOP per token of training: {counted:.4} counted, {formula:.4} by the paper's formula"
            )?;
            outln!(
                "#   (S+1)(6P + 6LCT), which counts weight gradients in every fast step; counted are those"
            )?;
            outln!("#   of the graphs, which have none there\n")?;
            outln!("{}", config.to_toml().trim_end())?;
        }
        Verb::Check(args) => {
            let config = Config::load(&args.file, &args.set)?;
            outln!("{}: ok, {} parameters", args.file.display(), config.model.param_count())?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
