//! What the ops' CUDA tests share: the device, inputs that every type holds exactly, outputs in
//! which a forgotten element shows, and the record of what was computed.

use std::io::Write;
use std::sync::Mutex;

use ltm_kernels::{Buffer, DType, Device};
use ltm_testkit::{Tol, assert_close, cuda_device, seeded};

/// Relative error of one rounding to `bf16`.
pub const BF16_EPS: f64 = 1.0 / 256.0;
/// Relative spacing of `f32`.
pub const F32_EPS: f64 = f32::EPSILON as f64;

pub const F32: DType = DType::F32;
pub const BF16: DType = DType::BF16;
/// Of results that are not rounded.
pub const EXACT: Tol = Tol { abs: 0.0, rel: 0.0 };

/// The relative error of rounding a result to its type, beyond those of arithmetic in `f32`.
pub fn rounding(dtype: DType) -> f64 {
    if dtype == BF16 { BF16_EPS } else { 0.0 }
}

/// Of `terms` roundings in `f32` and one to the output, next to numbers of this size.
pub fn rounded_terms(dtype: DType, terms: f64, size: f64) -> Tol {
    Tol { abs: size * terms * F32_EPS, rel: terms * F32_EPS + rounding(dtype) }
}

/// The device to test, or `None` after saying that the test is skipped: without `LTM_DEVICE=cuda`
/// none was requested. Requested but missing is a failure.
pub fn device() -> Option<Device> {
    let name = cuda_device()?;
    Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
}

/// `n` seeded numbers that `f32` and `bf16` both hold exactly.
pub fn data(seed: u64, n: usize) -> Vec<f64> {
    let round = |x: f64| f64::from(f32::from_bits((x as f32).to_bits() & 0xffff_0000));
    seeded(seed, n).into_iter().map(round).collect()
}

/// A buffer on `device` of these numbers.
pub fn upload(device: &Device, dtype: DType, x: &[f64]) -> Buffer {
    let mut buffer = Buffer::zeros(device, dtype, x.len()).expect("a small buffer fits");
    let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    buffer.write_f32(&x).expect("a float buffer of this length");
    buffer
}

/// A buffer on `device` of these integers.
pub fn upload_i32(device: &Device, x: &[i32]) -> Buffer {
    let mut buffer = Buffer::zeros(device, DType::I32, x.len()).expect("a small buffer fits");
    buffer.write_i32(x).expect("an integer buffer of this length");
    buffer
}

/// An output in which what a kernel forgets to write stays visible.
pub fn output(device: &Device, dtype: DType, n: usize) -> Buffer {
    upload(device, dtype, &vec![f64::NAN; n])
}

/// The elements, for comparison.
pub fn read(buffer: &Buffer) -> Vec<f64> {
    buffer.to_f64().expect("the device still works")
}

/// Compares a result with the reference, and records it.
#[track_caller]
pub fn check(case: &str, actual: &Buffer, expected: &[f64], tol: Tol) {
    check_values(case, &read(actual), expected, tol);
}

/// As [`check`], of numbers that were read already.
#[track_caller]
pub fn check_values(case: &str, actual: &[f64], expected: &[f64], tol: Tol) {
    record(case, actual, tol);
    println!("{case}");
    assert_close(actual, expected, tol);
}

/// Numbers kept of one result.
const RECORDED: usize = 256;

/// Appends a JSON line to the file that `LTM_DUMP` names, so that two devices can be compared with
/// each other: the tolerance, and the result or, of a long one, numbers spread evenly over it.
fn record(case: &str, values: &[f64], tol: Tol) {
    static FILE: Mutex<()> = Mutex::new(());
    let Some(path) = std::env::var_os("LTM_DUMP") else { return };
    let _one_line_at_a_time = FILE.lock();
    let mut file = std::fs::File::options()
        .append(true)
        .create(true)
        .open(path)
        .expect("LTM_DUMP names a file that can be written");
    let kept = values.len().min(RECORDED);
    // JSON has no NaN.
    let number = |x: f64| if x.is_finite() { x.to_string() } else { "null".into() };
    let values: Vec<_> = (0..kept).map(|i| number(values[i * values.len() / kept])).collect();
    let Tol { abs, rel } = tol;
    let values = values.join(",");
    writeln!(file, r#"{{"case":"{case}","abs":{abs},"rel":{rel},"values":[{values}]}}"#)
        .expect("disk has room");
}
