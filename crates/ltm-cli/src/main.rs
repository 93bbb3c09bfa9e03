//! The `ltm` command: arguments in, library calls out. Progress on stderr, results on stdout.

#[macro_use]
mod output;

mod config;
mod data;
mod device_args;
mod eval;
mod files;
mod generate;
mod gsm8k;
mod parity;
mod probe;
mod report;
mod suites;
mod sweep;
mod think;
mod train;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use output::progress_bar;

/// Trains, scores and talks to Latent Thought Models.
///
/// A Latent Thought Model writes with a plan: latent thought vectors that cross-attention feeds into
/// every layer. The plan of a text is found at run time by a few fast gradient steps (the posterior);
/// the weights learn slowly, one step a batch.
#[derive(Parser)]
#[command(
    version,
    after_help = "First steps:\n  ltm train configs/quickstart.toml     train on little stories, minutes on a laptop\n  ltm generate runs/quickstart          write one\n  ltm think runs/quickstart --text \"one sunny morning , tom went to the river\"\n\nExit status: 0 done, 1 failed, 2 wrong usage or configuration."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Turn text into a corpus of token shards, or look into one
    #[command(subcommand)]
    Data(data::Verb),
    /// Train a model from a configuration file
    Train(train::Args),
    /// Train and score a grid of configurations under one budget
    Sweep(sweep::Args),
    /// Draw runs and sweeps as one page, with what their numbers say in words
    Report(report::Args),
    /// Score a corpus or a file by named protocols, with standard errors
    ///
    /// Files are read as by `ltm data prepare`: `ltm eval RUN wikitext2-test.txt`, AG News's test.csv, *.jsonl,
    /// *.parquet. LAMBADA's passages have a protocol of their own: latents are fitted to all but the last word, which
    /// samples of them then predict. GSM8K's problems are answered by generation and scored by pass@k:
    /// `ltm eval RUN gsm8k-test.jsonl --shots 5 --train-file gsm8k-train.jsonl --samples 5`.
    Eval(eval::Args),
    /// Continue a prompt, or write from nothing
    ///
    /// With `--out` many texts go to a file, and their variety, repetition and length are measured, with `--reference`
    /// beside those of other texts.
    Generate(generate::Args),
    /// Show how the thoughts of a text are found, step by step
    Think(think::Args),
    /// Change thoughts and see what becomes of the text: by layers, between two texts, exchanged
    #[command(subcommand)]
    Probe(probe::Verb),
    /// Hold this build's numbers against recorded ones
    Parity(parity::Args),
    /// Show or check a configuration file
    #[command(subcommand)]
    Config(config::Verb),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(shown) => return output::finish_parsing(&shown),
    };
    let result = match cli.verb {
        Verb::Data(verb) => data::run(verb),
        Verb::Train(args) => train::run(args),
        Verb::Sweep(args) => sweep::run(args),
        Verb::Report(args) => report::run(args),
        Verb::Eval(args) => eval::run(args),
        Verb::Generate(args) => generate::run(args),
        Verb::Think(args) => think::run(args),
        Verb::Probe(verb) => probe::run(verb),
        Verb::Parity(args) => parity::run(args),
        Verb::Config(verb) => config::run(verb),
    };
    output::finish(result)
}

/// How fast training goes: what the bars of `train` and `sweep` tell. The bars' own estimate follows every
/// evaluation between two steps.
#[derive(Default)]
struct Pace {
    spent: f64,
    steps: u64,
}

impl Pace {
    /// Counts a step of so many seconds; what is left of the bar at the mean of all.
    fn eta(&mut self, bar: &indicatif::ProgressBar, seconds: f64) -> indicatif::HumanDuration {
        self.spent += seconds;
        self.steps += 1;
        let left = bar.length().unwrap_or(0).saturating_sub(bar.position());
        let eta = self.spent / self.steps as f64 * left as f64;
        indicatif::HumanDuration(std::time::Duration::from_secs_f64(eta))
    }
}
