//! The device under test: its clock, its roofline, and the library to compare with. Knows no case.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use ltm_bench::note;
use ltm_kernels::cuda::Context;
use ltm_kernels::ops::elementwise;
use ltm_kernels::ops::matmul::MatmulDims;
use ltm_kernels::{Buffer, DType, Device};

use crate::clock::Clock;
use crate::cublaslt::CublasLt;
use crate::record::{Missing, Record, Roofline, rounded};
use crate::spec::fill;

/// Extents of the square products that show the dense rates: large enough to fill any device.
const LARGE: [(DType, usize); 2] = [(DType::BF16, 8192), (DType::F32, 4096)];

/// Options of the verb `device`.
#[derive(Args)]
pub struct Options {
    /// Only check that a kernel compiles and runs: what a simulator can do
    #[arg(long)]
    once: bool,
}

/// Where the other verbs find what `device` measured.
#[derive(Args)]
pub struct Measured {
    /// Read the device's bandwidth and rates from this output of `gpu device` [default: measure them]
    #[arg(long, value_name = "FILE")]
    measured: Option<PathBuf>,
}

/// Runs one kernel, then measures the device.
pub fn run(options: &Options) -> Result<()> {
    let device = Device::cuda(0)?;
    let mut x = Buffer::zeros(&device, DType::F32, 64)?;
    elementwise::fill(&device, &mut x, 2.0)?;
    ensure!(x.to_f32()? == [2.0; 64], "a kernel that fills a buffer with 2 left {:?}", x.to_f32()?);
    if options.once {
        return Ok(());
    }
    Bench::new(&device, &Measured { measured: None }).map(drop)
}

/// What every measurement needs.
pub struct Bench {
    pub clock: Clock,
    /// `None` where it is not installed.
    pub library: Option<CublasLt>,
    pub roofline: Roofline,
}

impl Bench {
    /// Takes over the roofline of a CUDA device, or measures and prints it.
    pub fn new(device: &Device, measured: &Measured) -> Result<Self> {
        let Device::Cuda(context) = *device else {
            bail!("expected a CUDA device, found {device}")
        };
        let clock = Clock::new(context)?;
        let (mut library, missing) = open_library();
        let roofline = match &measured.measured {
            Some(path) => read(path, context.name())?,
            None => {
                let roofline = measure(device, context, &clock, library.as_mut())?;
                Record::Device(roofline.clone()).print()?;
                if let Some(missing) = missing {
                    Record::Missing(missing).print()?;
                }
                roofline
            }
        };
        Ok(Self { clock, library, roofline })
    }

    /// Milliseconds that the roofline allows for moving `bytes` and for `flops` with factors of type `dtype`; without
    /// cuBLASLt, for the bytes alone.
    pub fn least_ms(&self, bytes: f64, flops: f64, dtype: DType) -> f64 {
        let rate = match dtype {
            DType::BF16 => self.roofline.bf16_tflop_s,
            _ => self.roofline.f32_tflop_s,
        };
        let of_flops = rate.map_or(0.0, |tflop_s| flops / tflop_s / 1e9);
        of_flops.max(bytes / self.roofline.copy_gb_s / 1e6)
    }
}

fn measure(
    device: &Device,
    context: &Context,
    clock: &Clock,
    mut library: Option<&mut CublasLt>,
) -> Result<Roofline> {
    let mut rates = [None; 2];
    if let Some(library) = &mut library {
        for (rate, (dtype, n)) in rates.iter_mut().zip(LARGE) {
            let dims = MatmulDims::new(n, n, n);
            let factor = |seed| {
                let mut x = Buffer::zeros(device, dtype, n * n)?;
                fill(&mut x, seed, 1.0)?;
                x.to_f32()
            };
            let (sample, _) = library.time(dims, [dtype, dtype], &factor(1)?, &factor(2)?)?;
            *rate = Some(rounded(dims.cost().flops as f64 / sample.median / 1e9, 1e3));
        }
    }
    let [bf16_tflop_s, f32_tflop_s] = rates;
    Ok(Roofline {
        name: context.name().into(),
        architecture: context.architecture().to_string(),
        multiprocessors: context.multiprocessors(),
        copy_gb_s: rounded(clock.copy_gb_s, 1e3),
        bf16_tflop_s,
        f32_tflop_s,
    })
}

/// What an earlier process measured of the device with this name.
fn read(path: &Path, name: &str) -> Result<Roofline> {
    let lines =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    for line in lines.lines() {
        let record = serde_json::from_str(line)
            .with_context(|| format!("in {}: `{line}`", path.display()))?;
        if let Record::Device(roofline) = record {
            ensure!(
                roofline.name == name,
                "{} was measured on `{}`, this device is `{name}`; measure it again with `gpu device`",
                path.display(),
                roofline.name
            );
            return Ok(roofline);
        }
    }
    bail!("{} has no line of kind `device`; expected the output of `gpu device`", path.display())
}

/// The library, or why it cannot be compared with.
fn open_library() -> (Option<CublasLt>, Option<Missing>) {
    let why = match CublasLt::open() {
        Ok(Some(library)) => return (Some(library), None),
        Ok(None) => "libcublasLt was not found; install the CUDA toolkit, or `pip install nvidia-cublas` and add its \
                     lib folder to LD_LIBRARY_PATH"
            .into(),
        Err(error) => format!("libcublasLt does not start: {error:#}"),
    };
    note!("cuBLASLt is not compared: {why}");
    (None, Some(Missing { what: "cuBLASLt".into(), why }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_belongs_to_its_device() {
        let path =
            std::env::temp_dir().join(format!("ltm-gpu-device-{}.jsonl", std::process::id()));
        let line = r#"{"kind":"device","name":"A","architecture":"sm_90a","multiprocessors":1,"copy_gb_s":9.0,"bf16_tflop_s":null,"f32_tflop_s":null}"#;
        let missing = r#"{"kind":"missing","what":"cuBLASLt","why":"not found"}"#;
        let check = |text: String, name: &str| {
            fs::write(&path, text).expect("a temporary folder can be written");
            read(&path, name).map_err(|error| format!("{error:#}"))
        };
        let found = check(format!("{missing}\n{line}\n"), "A").expect("it has a device");
        assert_eq!((found.copy_gb_s, found.bf16_tflop_s), (9.0, None));
        let other = check(format!("{line}\n"), "B").expect_err("another device");
        assert!(other.contains("was measured on `A`, this device is `B`"), "{other}");
        assert!(check(format!("{missing}\n"), "A").is_err());
        assert!(check("half a l".into(), "A").is_err());
        fs::remove_file(&path).expect("written above");
    }
}
