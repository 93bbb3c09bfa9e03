//! Checks and times every op on a CUDA device: each rung is compared with the CPU's result, then timed by the device's
//! clock. Writes JSON lines to stdout and messages to stderr. This file knows the command line alone.

mod bench;
mod cases;
mod clock;
mod compare;
mod cublaslt;
mod kernels;
mod precompile;
mod record;
mod spec;
mod steps;
mod summary;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Check and time the kernels and whole steps on a CUDA device
#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Print the device's name and, unless it is the simulator, its measured bandwidth and rates
    Device(bench::Options),
    /// Check every rung of every op, or of one, against the CPU, then time it
    Kernels(kernels::Options),
    /// Time whole steps of the published models
    Steps(steps::Options),
    /// Compare the kernel suite's results on the device with those on the simulator
    Compare(compare::Options),
    /// Print a run's JSON lines as Markdown tables
    Summary(summary::Options),
    /// Compile every kernel for an architecture into the kernel cache; needs NVRTC but no device
    Compile(precompile::Options),
}

fn main() -> Result<()> {
    match Options::parse().verb {
        Verb::Device(options) => bench::run(&options),
        Verb::Kernels(options) => kernels::run(&options),
        Verb::Steps(options) => steps::run(&options),
        Verb::Compare(options) => compare::run(&options),
        Verb::Summary(options) => summary::run(&options),
        Verb::Compile(options) => precompile::run(&options),
    }
}
