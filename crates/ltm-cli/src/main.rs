//! The `ltm` command: arguments in, library calls out. Progress on stderr, results on stdout.

#[macro_use]
mod output;

mod compare;
mod config;
mod convergence;
mod data;
mod device_args;
mod eval;
mod explore;
mod export;
mod files;
mod generate;
mod group;
mod gsm8k;
mod manual;
mod parity;
mod probe;
mod report;
mod serve;
mod signals;
mod suites;
mod sweep;
mod think;
mod train;

use std::process::ExitCode;

use clap::{Command, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use output::progress_bar;

/// Train, evaluate and sample Latent Thought Models
///
/// A Latent Thought Model is a Transformer decoder in which every layer also attends to latent thought vectors (latents)
/// that belong to one sequence. The posterior of a sequence's latents is fitted by gradient steps on the evidence
/// lower bound (fast steps); the weights are updated once per batch (slow steps).
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  ltm train configs/quickstart.toml        Train on generated stories; minutes on two CPU cores
  ltm eval runs/quickstart                 Score the validation split
  ltm generate runs/quickstart             Generate a text
  ltm think runs/quickstart --text \"one sunny morning , tom went to the river\"

Results are written to standard output, messages and progress to standard error.

Exit status:
  0              success, also when the reader of standard output has closed it, as `head` does
  1              failure
  2              invalid usage or configuration
  129, 130, 143  stopped by SIGHUP, Ctrl-C or SIGTERM after saving a checkpoint"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prepare a corpus of token shards, or inspect one
    #[command(subcommand)]
    Data(data::Verb),
    /// Train a model from a configuration file
    Train(train::Args),
    /// Train and evaluate a grid of configurations under one budget
    Sweep(sweep::Args),
    /// Write an HTML page about runs and sweeps: findings in words, charts, tables
    Report(report::Args),
    /// Compare runs: scores by protocol with paired differences, and settings that differ
    Compare(compare::Args),
    /// Evaluate a model on a corpus or a file, with standard errors
    ///
    /// A file is read as by `ltm data prepare` and scored by protocols. Two test sets have their own evaluation:
    /// LAMBADA, for which the posterior is fitted to everything before the last word and the model then predicts
    /// that word; and GSM8K, for which answers are generated and scored by pass@k.
    #[command(after_help = EVAL_EXAMPLES)]
    Eval(eval::Args),
    /// Generate texts, optionally continuing a prompt
    Generate(generate::Args),
    /// Show how the posterior of a text is fitted, step by step
    Think(think::Args),
    /// Write a page that shows the latents of texts: how they form, what they cost and save, and what they say when changed
    Explore(explore::Args),
    /// Intervene on the latents and observe the generated text
    #[command(subcommand)]
    Probe(probe::Verb),
    /// Write a trained model for PyTorch, or as a run folder of weights only
    #[command(after_help = EXPORT_EXAMPLES)]
    Export(export::ExportArgs),
    /// Make a run folder of an exported model, or of weights of the published code
    Import(export::ImportArgs),
    /// Serve models over HTTP: completions, scores and fitted latents
    Serve(serve::Args),
    /// Compare this build against recorded reference values
    Parity(parity::Args),
    /// Show, explain or check a configuration file
    #[command(subcommand)]
    Config(config::Verb),
    /// Print a completion script for a shell
    Completions(manual::CompletionsArgs),
    /// Write manual pages, one per command
    Man(manual::ManArgs),
}

const EVAL_EXAMPLES: &str = "Examples:
  ltm eval runs/quickstart --protocol elbo --protocol iwae:64
  ltm eval runs/book wikitext2-test.txt --sequences 100
  ltm eval runs/book lambada-test.jsonl
  ltm eval runs/book gsm8k-test.jsonl --shots 5 --train-file gsm8k-train.jsonl --samples 5";

const EXPORT_EXAMPLES: &str = "Examples:
  ltm export runs/quickstart quickstart-hf
  lm_eval --model hf --model_args pretrained=quickstart-hf,trust_remote_code=True --tasks lambada_openai
  ltm export runs/quickstart models/mine --format run
  ltm import quickstart-hf --out runs/again";

fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(shown) => return output::finish_parsing(&shown),
    };
    let result = match cli.verb {
        Verb::Data(verb) => data::run(verb),
        Verb::Train(args) => train::run(args),
        Verb::Sweep(args) => sweep::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Compare(args) => compare::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Generate(args) => generate::run(args),
        Verb::Think(args) => think::run(args),
        Verb::Explore(args) => explore::run(args),
        Verb::Probe(verb) => probe::run(verb),
        Verb::Export(args) => export::export(args),
        Verb::Import(args) => export::import(args),
        Verb::Serve(args) => serve::run(args),
        Verb::Parity(args) => parity::run(args),
        Verb::Config(verb) => config::run(verb),
        Verb::Completions(args) => manual::completions(args),
        Verb::Man(args) => manual::man(args),
    };
    output::finish(result)
}

/// The command line. Negative numbers are values, which the options then refuse by their names.
fn command() -> Command {
    fn numbers(command: Command) -> Command {
        command.allow_negative_numbers(true).mut_subcommands(numbers)
    }
    numbers(Cli::command()).name("ltm")
}

/// The pace of training, for the bars of `train` and `sweep`: the bars' own estimate would include the evaluations
/// between two steps.
#[derive(Default)]
struct Pace {
    spent: f64,
    steps: u64,
}

impl Pace {
    /// Counts a step of `seconds`; the time left at the mean of all steps.
    fn eta(&mut self, bar: &indicatif::ProgressBar, seconds: f64) -> indicatif::HumanDuration {
        self.spent += seconds;
        self.steps += 1;
        let left = bar.length().unwrap_or(0).saturating_sub(bar.position());
        let eta = self.spent / self.steps as f64 * left as f64;
        indicatif::HumanDuration(std::time::Duration::from_secs_f64(eta))
    }
}
