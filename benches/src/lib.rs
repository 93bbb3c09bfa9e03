//! What the benches share: seeded inputs, the check before the clock, the clock. Knows no op.

#![forbid(unsafe_code)]

#[path = "../../crates/ltm-cli/src/output/stream.rs"]
pub mod output;
mod shape;

use std::time::Duration;

use anyhow::{Result, ensure};
use criterion::{Bencher, Criterion, Throughput};
use ltm_kernels::ops::elementwise::fill;
use ltm_kernels::{Buffer, Cost, DType, Device};
use ltm_testkit::{relative_frobenius, seeded};

pub use shape::Shape;

/// The device that is timed.
pub const DEVICE: Device = Device::Cpu;

/// Few samples: the slowest call takes a good part of a second.
pub fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args()
}

/// `n` random `f32` with mean 0 and this standard deviation.
pub fn input(seed: u64, n: usize, std: f64) -> Buffer {
    Buffer::from_vec(seeded(seed, n).into_iter().map(|x| (std * x) as f32).collect())
}

/// `n` token ids below `vocabulary`.
///
/// # Panics
/// When the vocabulary does not fit an `i32`.
pub fn tokens(seed: u64, n: usize, vocabulary: usize) -> Buffer {
    let token = |x: f64| (x.abs() * 1e6) as usize % vocabulary;
    let ids = seeded(seed, n).into_iter().map(token);
    Buffer::from_vec(ids.map(|id| i32::try_from(id).expect("a token is an i32")).collect())
}

/// An output of `n` `f32`, all 0.
///
/// # Panics
/// Never on the CPU.
pub fn output(n: usize) -> Buffer {
    let mut zeros = Buffer::zeros(&DEVICE, DType::F32, n).expect("the CPU always has zeros");
    // The system hands out memory when it is first written: that is not to be timed.
    fill(&DEVICE, &mut zeros, 0.0).expect("a float takes 0");
    zeros
}

/// Holds an `f32` result against the `f64` reference, before anything is timed.
///
/// `terms` is the longest chain of roundings in one element: their distance may reach
/// `terms * f32::EPSILON` of the reference in the Frobenius norm.
///
/// # Errors
/// When it is larger, or NaN.
pub fn check(name: &str, actual: &Buffer, expected: &[f64], terms: usize) -> Result<()> {
    let distance = relative_frobenius(&actual.to_f64()?, expected);
    let allowed = terms as f64 * f64::from(f32::EPSILON);
    ensure!(distance <= allowed, "{name} is off by {distance:.2e}, {allowed:.2e} is allowed");
    Ok(())
}

/// The name of a case at a shape of the user's, which is compared with no other shape's times.
pub fn named(case: &str, shape: Option<&Shape>) -> String {
    shape.map_or_else(|| case.to_owned(), |shape| format!("{case} {shape}"))
}

/// Times `op/case`. `body` prepares its inputs and calls [`Bencher::iter`]; it runs only when the case is chosen.
///
/// The rates shown are floating-point operations (as `elem/s`) and bytes of the op's [`Cost`] per second.
pub fn time(
    criterion: &mut Criterion,
    op: &str,
    case: &str,
    cost: Cost,
    mut body: impl FnMut(&mut Bencher<'_>) + Send,
) {
    let mut group = criterion.benchmark_group(op);
    group.throughput(Throughput::ElementsAndBytes { elements: cost.flops, bytes: cost.bytes });
    // As a plan runs its ops: inside the thread pool.
    group.bench_function(case, |bencher| DEVICE.run(|| body(bencher)));
    group.finish();
}
