//! `ltm parity`: this build compared with recorded values of another implementation.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use ltm_eval::parity::{Fixture, Quantity, compare};
use ltm_vi::{Device, Precision};

use crate::device_args::PrecisionArg;
use crate::output::OutputError;

/// Arguments of `parity`.
#[derive(clap::Args)]
#[command(
    after_help = "Prints the relative error of each quantity and its limit. Exit status 1 if one exceeds its limit.

Example:
  ltm parity crates/ltm-model/tests/fixtures/tiny.safetensors"
)]
pub struct Args {
    /// Safetensors files of recorded values, with hyperparameters in the metadata key `config`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Device: `cpu`, `cuda` (the first GPU) or `cuda:N`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Arithmetic precision, which determines the limits
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let device: Device = args.device.parse()?;
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Mixed => Precision::mixed(&device),
    };
    let (mut exceeded, mut printed) = (false, Ok(()));
    for path in &args.files {
        let fixture = Fixture::read(path)?;
        let found =
            compare(&fixture, &device, precision).with_context(|| path.display().to_string())?;
        exceeded |= found.iter().any(Quantity::exceeds);
        // A reader that leaves early does not hide a later miss.
        printed = printed.and_then(|()| print(path, &found));
    }
    if exceeded {
        return Ok(ExitCode::FAILURE);
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn print(path: &Path, found: &[Quantity]) -> Result<(), OutputError> {
    outln!("{}\n{:<48}  {:>10}  {:>8}", path.display(), "quantity", "error", "limit")?;
    for quantity in found {
        let verdict = if quantity.exceeds() { "  EXCEEDED" } else { "" };
        let Quantity { name, error, limit } = quantity;
        outln!("{name:<48}  {error:>10.3e}  {limit:>8.1e}{verdict}")?;
    }
    let exceed = found.iter().filter(|quantity| quantity.exceeds()).count();
    let worst = found.iter().map(|quantity| quantity.error).fold(0.0, f64::max);
    outln!("{} quantities, {exceed} exceed their limit, largest error {worst:.3e}\n", found.len())
}
