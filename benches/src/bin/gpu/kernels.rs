//! Runs the cases: checks each rung at the small shape, times it at the full one, prints a line. Knows no op.

use std::collections::BTreeSet;

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use ltm_bench::{Shape, note, outln};
use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::elementwise;
use ltm_kernels::ops::matmul::MatmulDims;
use ltm_kernels::{Buffer, DType, Device, Error, registry};
use ltm_testkit::relative_frobenius;

use crate::bench::{Bench, Measured};
use crate::cases;
use crate::clock::Sample;
use crate::cublaslt::CublasLt;
use crate::record::{Kernel, KernelTimes, Record, rounded};
use crate::spec::{Call, Case, Choice, Spec};

/// Which cases are run, and how.
#[derive(Args)]
pub struct Options {
    /// Check the small shapes and time nothing: what a simulator can do
    #[arg(long)]
    once: bool,
    /// Only this rung
    #[arg(long)]
    rung: Option<u32>,
    /// Extents of the op in place of its own, such as m=1024,n=768,k=768
    #[arg(long, value_name = "NAME=EXTENT,…", requires = "op")]
    shape: Option<Shape>,
    /// Print the ops that have cases, one per line, and exit; needs no device
    #[arg(long)]
    list: bool,
    #[command(flatten)]
    measured: Measured,
    /// Only this op
    op: Option<String>,
}

/// Runs the cases; fails when a rung disagrees with the CPU.
pub fn run(options: &Options) -> Result<()> {
    if options.list {
        let ops: BTreeSet<_> = cases::all().iter().map(|case| case.op).collect();
        for op in ops {
            outln!("{op}")?;
        }
        return Ok(());
    }
    let device = Device::cuda(0)?;
    let mut bench = if options.once { None } else { Some(Bench::new(&device, &options.measured)?) };
    let wanted = |case: &Case| options.op.as_ref().is_none_or(|op| op == case.op);
    let mut cases: Vec<_> = cases::all().into_iter().filter(wanted).collect();
    ensure!(!cases.is_empty(), "no case of `{}`", options.op.as_deref().unwrap_or_default());
    if let Some(shape) = &options.shape {
        cases = at_shape(cases, shape, options.once)?;
    }
    let mut failures = 0;
    for (case, dtype) in cases.iter().flat_map(|case| case.dtypes.iter().map(move |t| (case, *t))) {
        let mut shared = Shared::default();
        for choice in choices(case, options.rung) {
            let rung = label(choice);
            match measure(case, dtype, choice, &device, bench.as_mut(), &mut shared) {
                Ok(times) => Record::Kernel(Kernel {
                    op: case.op.into(),
                    case: case.name.into(),
                    dtype: dtype.to_string(),
                    rung,
                    shape: if times.is_some() { case.full } else { case.small },
                    times,
                })
                .print()?,
                Err(error) => {
                    let is_failure = !is_refusal(&error);
                    failures += usize::from(is_failure);
                    let what = if is_failure { "FAILED" } else { "not run" };
                    note!("{}/{} {dtype} {rung}: {what}: {error:#}", case.op, case.name);
                }
            }
        }
    }
    ensure!(failures == 0, "{failures} rungs failed");
    Ok(())
}

/// The cases whose extents these are, at this shape: to be checked where nothing is timed, otherwise to be timed.
fn at_shape(cases: Vec<Case>, shape: &Shape, once: bool) -> Result<Vec<Case>> {
    let mut found = Vec::new();
    let mut refused = None;
    for mut case in cases {
        let names = cases::extents(&case);
        let extents = match names {
            Some([a, b]) => shape.extents(case.op, [a, b]).map(|[a, b]| [a, b, 0]),
            Some([a, b, c]) => shape.extents(case.op, [a, b, c]),
            _ => Err(anyhow!("{}/{} has only its own shape; omit --shape", case.op, case.name)),
        };
        match extents {
            Ok(extents) => {
                *(if once { &mut case.small } else { &mut case.full }) = extents;
                found.push(case);
            }
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// What the rungs of one case share: its buffers at the full shape, and what other implementations do.
#[derive(Default)]
struct Shared {
    call: Option<Call>,
    /// The median of the lowest rung that was timed.
    lowest_ms: Option<f64>,
    /// cuBLASLt's time and result, once it was called; the inner `None` when it refused.
    cublaslt: Option<Option<(Sample, Vec<f32>)>>,
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

/// Whether the rung does not support these dims or this type, or the device has too little memory for them.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unsupported { .. } | Error::OutOfMemory { .. }))
}

/// Checks a case at its small shape, then times it at its full one.
fn measure(
    case: &Case,
    dtype: DType,
    choice: Choice,
    device: &Device,
    bench: Option<&mut Bench>,
    shared: &mut Shared,
) -> Result<Option<KernelTimes>> {
    let expected = {
        let spec = (case.spec)(case.small, &Device::Cpu);
        let mut call = Call::new(&spec, DType::F32, &Device::Cpu)?;
        call.run(&spec, &Device::Cpu)?;
        call.results(&spec)?
    };
    let spec = (case.spec)(case.small, device);
    let mut call = Call::new(&spec, dtype, device)?;
    chosen(choice, || call.run(&spec, device))?;
    for (i, (actual, expected)) in call.results(&spec)?.iter().zip(&expected).enumerate() {
        let distance = relative_frobenius(actual, expected);
        let allowed = allowed(&spec, dtype);
        ensure!(distance <= allowed, "output {i} is off by {distance:.2e} of {allowed:.2e}");
    }
    let Some(bench) = bench else { return Ok(None) };
    let spec = (case.spec)(case.full, device);
    let call = match &mut shared.call {
        Some(call) => call,
        empty => empty.insert(Call::new(&spec, dtype, device)?),
    };
    if spec.product.is_some() {
        // What another rung left there would hide a rung that writes nothing.
        elementwise::fill(device, &mut call.outputs[0], 0.0)?;
    }
    let sample = bench.clock.sample(|| chosen(choice, || call.run(&spec, device)))?;
    if let (Some(dims), Some(library)) = (spec.product, &mut bench.library) {
        let (inputs, types) = (&call.inputs, [dtype, spec.outputs[0].element.dtype(dtype)]);
        let theirs = match &mut shared.cublaslt {
            Some(answer) => answer,
            empty => empty.insert(ask(library, dims, types, inputs)?),
        };
        if let Some((_, theirs)) = theirs {
            let distance = relative_frobenius(&call.outputs[0].to_f32()?, theirs);
            let allowed = allowed(&spec, dtype);
            ensure!(distance <= allowed, "off by {distance:.2e} of {allowed:.2e} from cuBLASLt");
        }
    }
    Ok(Some(times(&spec, dtype, sample, bench, shared)))
}

/// The library's time and result; `None`, after saying why, when it refuses.
fn ask(
    library: &mut CublasLt,
    dims: MatmulDims,
    types: [DType; 2],
    inputs: &[Buffer],
) -> Result<Option<(Sample, Vec<f32>)>> {
    match library.time(dims, types, &inputs[0].to_f32()?, &inputs[1].to_f32()?) {
        Ok(answer) => Ok(Some(answer)),
        Err(error) => {
            note!("cuBLASLt refuses {dims:?}: {error:#}");
            Ok(None)
        }
    }
}

fn chosen<T>(choice: Choice, body: impl FnOnce() -> T) -> T {
    match choice {
        Choice::Rung(rung) => with_rung(rung, body),
        Choice::Production => body(),
    }
}

/// The distance of two results that passes, in the Frobenius norm.
fn allowed(spec: &Spec, dtype: DType) -> f64 {
    // One rounding of each operand, the terms of a sum, and the rounding of what is stored.
    match dtype {
        DType::BF16 => 2.0 / 256.0,
        _ => 2.0 * spec.terms as f64 * f64::from(f32::EPSILON),
    }
}

fn times(
    spec: &Spec,
    dtype: DType,
    sample: Sample,
    bench: &Bench,
    shared: &mut Shared,
) -> KernelTimes {
    let median = sample.median;
    let (bytes, flops) = (spec.bytes(dtype), spec.cost.flops as f64);
    let least_ms = bench.least_ms(bytes, flops, dtype);
    let cublaslt_ms =
        shared.cublaslt.as_ref().and_then(Option::as_ref).map(|(sample, _)| sample.median);
    KernelTimes {
        times: sample.into(),
        gb_s: rounded(bytes / median / 1e6, 10.0),
        tflop_s: rounded(flops / median / 1e9, 1e3),
        share_of_roofline: rounded(least_ms / median, 1e4),
        times_lowest_rung: rounded(*shared.lowest_ms.get_or_insert(median) / median, 1e2),
        cublaslt_ms: cublaslt_ms.map(|ms| rounded(ms, 1e5)),
        times_cublaslt: cublaslt_ms.map(|ms| rounded(ms / median, 1e3)),
    }
}
