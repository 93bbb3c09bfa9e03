//! Walks the cases: checks each rung at the small shape, times it at the full one, prints a line. Knows no op.

use anyhow::{Result, bail, ensure};
use clap::Args;
use ltm_kernels::cuda::with_rung;
use ltm_kernels::{DType, Device, Error, registry};
use ltm_testkit::relative_frobenius;
use serde::Serialize;

use crate::cases;
use crate::clock::{Clock, Sample};
use crate::spec::{Call, Case, Choice, Spec};

/// Which cases are run, and how.
#[derive(Args)]
pub struct Options {
    /// Check the small shapes and time nothing: what a simulator can do.
    #[arg(long)]
    once: bool,
    /// This rung alone.
    #[arg(long)]
    rung: Option<u32>,
    /// This op alone.
    op: Option<String>,
}

/// What is printed of a rung.
#[derive(Serialize)]
struct Line {
    op: &'static str,
    case: &'static str,
    dtype: String,
    rung: String,
    shape: [usize; 3],
    #[serde(flatten)]
    times: Option<Times>,
}

/// What the clock says, rounded to what it can tell apart.
#[derive(Serialize)]
struct Times {
    median_ms: f64,
    p10_ms: f64,
    p90_ms: f64,
    samples: usize,
    gb_s: f64,
    tflop_s: f64,
    share_of_copy: f64,
    times_lowest_rung: f64,
}

/// Runs the cases; fails when a rung disagrees with the CPU.
pub fn run(options: &Options) -> Result<()> {
    let device = Device::cuda(0)?;
    let Device::Cuda(context) = device else { bail!("a CUDA device was asked for") };
    let mut clock = if options.once { None } else { Some(Clock::new(context)?) };
    let wanted = |case: &Case| options.op.as_ref().is_none_or(|op| op == case.op);
    let cases: Vec<_> = cases::all().into_iter().filter(wanted).collect();
    ensure!(!cases.is_empty(), "no case of `{}`", options.op.as_deref().unwrap_or_default());
    let mut failures = 0;
    for (case, dtype) in cases.iter().flat_map(|case| case.dtypes.iter().map(move |t| (case, *t))) {
        let mut lowest_ms = None;
        for choice in choices(case, options.rung) {
            let name = format!("{}/{} {dtype} {}", case.op, case.name, label(choice));
            match measure(case, dtype, choice, &device, clock.as_mut()) {
                Ok(sample) => {
                    let times = sample
                        .zip(clock.as_ref())
                        .map(|(sample, clock)| times(case, dtype, sample, clock, &mut lowest_ms));
                    println!("{}", serde_json::to_string(&line(case, dtype, choice, times))?);
                }
                Err(error) if is_refusal(&error) => eprintln!("{name}: not run: {error:#}"),
                Err(error) => {
                    failures += 1;
                    eprintln!("{name}: FAILED: {error:#}");
                }
            }
        }
    }
    ensure!(failures == 0, "{failures} rungs failed");
    Ok(())
}

/// The rungs of a case, lowest first, then production's choice where no one rung is it.
fn choices(case: &Case, wanted: Option<u32>) -> Vec<Choice> {
    let rungs = registry::rungs(case.op, case.pass).into_iter();
    let mut choices: Vec<_> = rungs
        .filter(|rung| wanted.is_none_or(|wanted| wanted == *rung))
        .map(Choice::Rung)
        .collect();
    if case.is_composed && wanted.is_none() {
        choices.push(Choice::Production);
    }
    choices
}

fn label(choice: Choice) -> String {
    match choice {
        Choice::Rung(rung) => format!("v{rung}"),
        Choice::Production => "production".into(),
    }
}

/// Whether a rung said that these dims or this type are not for it.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unsupported { .. }))
}

/// Checks a case at its small shape, then times it at its full one.
fn measure(
    case: &Case,
    dtype: DType,
    choice: Choice,
    device: &Device,
    clock: Option<&mut Clock>,
) -> Result<Option<Sample>> {
    let expected = {
        let spec = (case.spec)(case.small, &Device::Cpu);
        let mut call = Call::new(&spec, DType::F32, &Device::Cpu)?;
        call.run(&spec, &Device::Cpu)?;
        call.results(&spec)?
    };
    let spec = (case.spec)(case.small, device);
    let mut call = Call::new(&spec, dtype, device)?;
    chosen(choice, || call.run(&spec, device))?;
    compare(&call.results(&spec)?, &expected, &spec, dtype)?;
    let Some(clock) = clock else { return Ok(None) };
    let spec = (case.spec)(case.full, device);
    let mut call = Call::new(&spec, dtype, device)?;
    clock.sample(|| chosen(choice, || call.run(&spec, device))).map(Some)
}

fn chosen<T>(choice: Choice, body: impl FnOnce() -> T) -> T {
    match choice {
        Choice::Rung(rung) => with_rung(rung, body),
        Choice::Production => body(),
    }
}

/// Holds each output to the CPU's, in the Frobenius norm.
fn compare(actual: &[Vec<f64>], expected: &[Vec<f64>], spec: &Spec, dtype: DType) -> Result<()> {
    // One rounding of each operand, the terms of a sum, and the rounding of what is stored.
    let eps = match dtype {
        DType::BF16 => 1.0 / 256.0,
        _ => spec.terms as f64 * f64::from(f32::EPSILON),
    };
    for (i, (actual, expected)) in actual.iter().zip(expected).enumerate() {
        let distance = relative_frobenius(actual, expected);
        ensure!(distance <= 2.0 * eps, "output {i} is off by {distance:.2e} of {:.2e}", 2.0 * eps);
    }
    Ok(())
}

fn line(case: &Case, dtype: DType, choice: Choice, times: Option<Times>) -> Line {
    let shape = if times.is_some() { case.full } else { case.small };
    Line {
        op: case.op,
        case: case.name,
        dtype: dtype.to_string(),
        rung: label(choice),
        shape,
        times,
    }
}

/// `lowest_ms` is the median of the lowest rung that was timed.
fn times(
    case: &Case,
    dtype: DType,
    sample: Sample,
    clock: &Clock,
    lowest_ms: &mut Option<f64>,
) -> Times {
    let Sample { p10, median, p90, samples } = sample;
    let spec = (case.spec)(case.full, &Device::Cpu);
    let gb_s = spec.bytes(dtype) / median / 1e6;
    Times {
        median_ms: rounded(median, 1e5),
        p10_ms: rounded(p10, 1e5),
        p90_ms: rounded(p90, 1e5),
        samples,
        gb_s: rounded(gb_s, 10.0),
        tflop_s: rounded(spec.cost.flops as f64 / median / 1e9, 1e3),
        share_of_copy: rounded(gb_s / clock.copy_gb_s, 1e3),
        times_lowest_rung: rounded(*lowest_ms.get_or_insert(median) / median, 1e2),
    }
}

/// To one part of `unit`.
fn rounded(x: f64, unit: f64) -> f64 {
    (x * unit).round() / unit
}
