//! Every op on a CUDA device: each rung is held to the CPU's result, then timed by the device's clock.
//! Lines of JSON on stdout, and what went wrong on stderr. This file knows the command line alone.

mod bench;
mod cases;
mod clock;
mod compare;
mod cublaslt;
mod kernels;
mod record;
mod spec;
mod steps;
mod summary;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// What a machine with a GPU measures, and what one without can check of it.
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Check every rung of every op, or of one, against the CPU, then time it.
    Kernels(kernels::Options),
    /// Time whole steps of the published models.
    Steps(steps::Options),
    /// Hold a device's record of the kernel suite to the simulator's.
    Compare(compare::Options),
    /// Make tables of a run's lines.
    Summary(summary::Options),
}

fn main() -> Result<()> {
    match Options::parse().verb {
        Verb::Kernels(options) => kernels::run(&options),
        Verb::Steps(options) => steps::run(&options),
        Verb::Compare(options) => compare::run(&options),
        Verb::Summary(options) => summary::run(&options),
    }
}
