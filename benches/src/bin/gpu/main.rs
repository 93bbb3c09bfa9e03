//! Every op on a CUDA device: each rung is held to the CPU's result, then timed by the device's clock.
//! `gpu [--once] [--rung n] [op]`; a line of JSON a rung on stdout, and what went wrong on stderr.
//!
//! `--once` checks the small shapes and times nothing: what a simulator can do.

#![forbid(unsafe_code)]

mod cases;

use anyhow::{Context as _, Result, bail, ensure};
use cases::{Case, Element, Spec};
use ltm_bench::input;
use ltm_kernels::cuda::{Context, with_rung};
use ltm_kernels::{Buffer, DType, Device, Error, registry};
use ltm_testkit::relative_frobenius;

/// Timed calls of a case, after the first few that are not.
const SAMPLES: usize = 30;
const WARM_UP: usize = 5;

/// More than the L2 cache of any device: copied between calls, so that none finds its inputs there.
const FLUSH_ELEMENTS: usize = 64 << 20;

/// What the command line asks for.
struct Options {
    is_once: bool,
    rung: Option<u32>,
    op: Option<String>,
}

fn main() -> Result<()> {
    let options = options(std::env::args().skip(1))?;
    let device = Device::cuda(0)?;
    let Device::Cuda(context) = device else { bail!("a CUDA device was asked for") };
    let mut clock = if options.is_once { None } else { Some(Clock::new(context)?) };
    let mut failures = 0;
    for case in cases::all() {
        if options.op.as_ref().is_some_and(|op| op != case.op) {
            continue;
        }
        for dtype in case.dtypes {
            let mut first = None;
            for rung in registry::rungs(case.op, case.pass) {
                if options.rung.is_some_and(|wanted| wanted != rung) {
                    continue;
                }
                let name = format!("{}/{} {dtype} v{rung}", case.op, case.name);
                match with_rung(rung, || measure(&case, *dtype, &device, clock.as_mut())) {
                    Ok(sample) => println!("{}", line(&case, *dtype, rung, sample, &mut first)),
                    Err(error) if is_refusal(&error) => eprintln!("{name}: not run: {error:#}"),
                    Err(error) => {
                        failures += 1;
                        eprintln!("{name}: FAILED: {error:#}");
                    }
                }
            }
        }
    }
    ensure!(failures == 0, "{failures} rungs failed");
    Ok(())
}

fn options(mut args: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options { is_once: false, rung: None, op: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--once" => options.is_once = true,
            "--rung" => {
                let rung = args.next().context("--rung takes a number")?;
                options.rung = Some(rung.parse().context("--rung takes a number")?);
            }
            op if !op.starts_with('-') => options.op = Some(op.into()),
            other => bail!("unknown option `{other}`; there are --once, --rung n and an op"),
        }
    }
    Ok(options)
}

/// Whether a rung said that these dims or this type are not for it.
fn is_refusal(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(Error::Unsupported { .. }))
}

/// Checks a case at its small shape, then times it at its full one.
fn measure(
    case: &Case,
    dtype: DType,
    device: &Device,
    clock: Option<&mut Clock>,
) -> Result<Option<Sample>> {
    let spec = (case.spec)(case.small);
    let expected = Call::new(&spec, DType::F32, &Device::Cpu)?.outputs(&spec, &Device::Cpu)?;
    let actual = Call::new(&spec, dtype, device)?.outputs(&spec, device)?;
    // One rounding of each operand, the terms of a sum, and the rounding of what is stored.
    let eps = match dtype {
        DType::BF16 => 1.0 / 256.0,
        _ => spec.terms as f64 * f64::from(f32::EPSILON),
    };
    for (i, (actual, expected)) in actual.iter().zip(&expected).enumerate() {
        let distance = relative_frobenius(actual, expected);
        ensure!(distance <= 2.0 * eps, "output {i} is off by {distance:.2e} of {:.2e}", 2.0 * eps);
    }
    let Some(clock) = clock else { return Ok(None) };
    let spec = (case.spec)(case.full);
    let mut call = Call::new(&spec, dtype, device)?;
    clock.sample(|| (spec.run)(device, &call.inputs, &mut call.outputs)).map(Some)
}

/// The buffers of one call.
struct Call {
    inputs: Vec<Buffer>,
    outputs: Vec<Buffer>,
}

impl Call {
    fn new(spec: &Spec, dtype: DType, device: &Device) -> Result<Self> {
        let of = |element: Element| match element {
            Element::Activation => dtype,
            Element::F32 => DType::F32,
        };
        let mut inputs = Vec::new();
        for (seed, (len, element)) in (1..).zip(&spec.inputs) {
            let mut buffer = Buffer::zeros(device, of(*element), *len)?;
            buffer.write_f32(&numbers(seed, *len)?)?;
            inputs.push(buffer);
        }
        let output = |(len, element): &(usize, Element)| Buffer::zeros(device, of(*element), *len);
        let outputs = spec.outputs.iter().map(output).collect::<Result<_, _>>()?;
        Ok(Self { inputs, outputs })
    }

    fn outputs(mut self, spec: &Spec, device: &Device) -> Result<Vec<Vec<f64>>> {
        (spec.run)(device, &self.inputs, &mut self.outputs)?;
        let checked = self.outputs.iter().take(spec.checked);
        Ok(checked.map(Buffer::to_f64).collect::<Result<_, _>>()?)
    }
}

/// Random numbers that bf16 holds exactly, so that every type computes the same.
fn numbers(seed: u64, n: usize) -> Result<Vec<f32>> {
    let round = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    Ok(input(seed, n, 1.0).to_f32()?.into_iter().map(round).collect())
}

/// Times of one case in milliseconds.
#[derive(Clone, Copy)]
struct Sample {
    p10: f64,
    median: f64,
    p90: f64,
    /// Bytes read and written a second by a plain copy in the same run.
    copy_gb_s: f64,
}

/// The device's clock, and what clears its cache.
struct Clock {
    context: &'static Context,
    flush: [Buffer; 2],
    copy_gb_s: f64,
}

impl Clock {
    fn new(context: &'static Context) -> Result<Self> {
        let device = Device::Cuda(context);
        let zeros = || Buffer::zeros(&device, DType::F32, FLUSH_ELEMENTS);
        let [mut to, from] = [zeros()?, zeros()?];
        let mut times = Vec::new();
        for _ in 0..WARM_UP + SAMPLES {
            times.push(context.elapsed_ms(|| to.copy_from(&from))?);
        }
        let median = quantile(&mut times, 0.5);
        let copy_gb_s = 2.0 * to.size_bytes() as f64 / median / 1e6;
        Ok(Self { context, flush: [to, from], copy_gb_s })
    }

    fn sample(&mut self, mut call: impl FnMut() -> ltm_kernels::Result<()>) -> Result<Sample> {
        let mut times = Vec::new();
        for i in 0..WARM_UP + SAMPLES {
            let [to, from] = &mut self.flush;
            to.copy_from(from)?;
            let elapsed_ms = self.context.elapsed_ms(&mut call)?;
            if i >= WARM_UP {
                times.push(elapsed_ms);
            }
        }
        let [p10, median, p90] = [0.1, 0.5, 0.9].map(|share| quantile(&mut times, share));
        Ok(Sample { p10, median, p90, copy_gb_s: self.copy_gb_s })
    }
}

fn quantile(times: &mut [f64], share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// One line of JSON. `first` is the median of the lowest rung that was timed.
fn line(
    case: &Case,
    dtype: DType,
    rung: u32,
    sample: Option<Sample>,
    first: &mut Option<f64>,
) -> String {
    let head =
        format!(r#"{{"op":"{}","case":"{}","dtype":"{dtype}","rung":{rung}"#, case.op, case.name);
    let Some(Sample { p10, median, p90, copy_gb_s }) = sample else {
        return format!(r#"{head},"checked":true}}"#);
    };
    let cost = (case.spec)(case.full).cost;
    // A cost counts bytes of f32.
    let width = if dtype == DType::BF16 { 0.5 } else { 1.0 };
    let gb_s = cost.bytes as f64 * width / median / 1e6;
    let tflop_s = cost.flops as f64 / median / 1e9;
    let ratio = *first.get_or_insert(median) / median;
    format!(
        r#"{head},"checked":true,"median_ms":{median:.5},"p10_ms":{p10:.5},"p90_ms":{p90:.5},"gb_s":{gb_s:.1},"tflop_s":{tflop_s:.3},"copy_gb_s":{copy_gb_s:.1},"share_of_copy":{:.3},"times_lowest_rung":{ratio:.2}}}"#,
        gb_s / copy_gb_s
    )
}
