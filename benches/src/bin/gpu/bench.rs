//! The device under test: its clock, its roofline, and the library it is compared with. Knows no case.

use anyhow::{Result, bail};
use ltm_bench::note;
use ltm_kernels::ops::matmul::MatmulDims;
use ltm_kernels::{Buffer, DType, Device};

use crate::clock::Clock;
use crate::cublaslt::CublasLt;
use crate::record::{Roofline, rounded};
use crate::spec::fill;

/// Extents of the square products that show the dense rates: large enough to fill any device.
const LARGE: [(DType, usize); 2] = [(DType::BF16, 8192), (DType::F32, 4096)];

/// What every measurement needs.
pub struct Bench {
    pub clock: Clock,
    /// `None` where it is not installed.
    pub library: Option<CublasLt>,
    pub roofline: Roofline,
}

impl Bench {
    /// Measures the roofline of a CUDA device.
    pub fn new(device: &Device) -> Result<Self> {
        let Device::Cuda(context) = *device else { bail!("a CUDA device was asked for") };
        let clock = Clock::new(context)?;
        let mut library = open_library();
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
        let roofline = Roofline {
            name: context.name().into(),
            architecture: context.architecture().to_string(),
            multiprocessors: context.multiprocessors(),
            copy_gb_s: rounded(clock.copy_gb_s, 1e3),
            bf16_tflop_s,
            f32_tflop_s,
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

/// The library; `None`, after saying why, where it is not there or will not start.
fn open_library() -> Option<CublasLt> {
    let reason = match CublasLt::open() {
        Ok(Some(library)) => return Some(library),
        Ok(None) => "libcublasLt was not found; install the CUDA toolkit, or `pip install nvidia-cublas` and add its \
                     lib folder to LD_LIBRARY_PATH"
            .into(),
        Err(error) => format!("libcublasLt does not start: {error:#}"),
    };
    note!("rates and ratios that need cuBLASLt are left out: {reason}");
    None
}
