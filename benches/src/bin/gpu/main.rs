//! Every op on a CUDA device: each rung is held to the CPU's result, then timed by the device's clock.
//! Lines of JSON on stdout, and what went wrong on stderr. This file knows the command line alone.

#![forbid(unsafe_code)]

mod cases;
mod clock;
mod kernels;
mod spec;

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
}

fn main() -> Result<()> {
    match Options::parse().verb {
        Verb::Kernels(options) => kernels::run(&options),
    }
}
