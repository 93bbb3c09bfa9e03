//! `rope` on its devices.

use ltm_kernels::ops::rope::{RopeDims, bwd, fwd, reference, table};
use ltm_kernels::{Buffer, DType, Device, Error, Result};
use ltm_testkit::Tol;

use crate::harness::{F32, F32_EPS, data, device, output, read, rounding, upload, upload_i32};
use crate::walk::{Case, Expected, Subject, both, f32_alone, no_needs};

pub fn subject() -> Subject {
    let dims = [(1, 1, 1, 2), (2, 3, 5, 6), (1, 257, 1, 2), (1, 1, 1, 8), (3, 19, 3, 16)]
        .map(|(b, t, h, d)| RopeDims { b, t, h, d });
    let rotation = Case {
        pass: "fwd",
        calls: both(dims),
        holds: |need, _, dims| match need {
            "[P1] D % 8 == 0" => dims.d.is_multiple_of(8),
            _ => no_needs(need, F32, dims),
        },
        run: |device, dtype, dims| {
            Ok(vec![rotate(device, dtype, *dims, fwd)?, rotate(device, dtype, *dims, bwd)?])
        },
        expected,
    };
    let table = Case {
        pass: "table",
        calls: f32_alone([(8, 34), (3, 256), (1, 2)]),
        holds: no_needs,
        run: |device, _, &(n, d)| {
            let mut out = output(device, F32, n * d);
            table(device, &mut out, &upload_i32(device, &POSITIONS[..n]), THETA, d)?;
            Ok(vec![read(&out)])
        },
        expected: |_, &(n, d), _| {
            let mut out = vec![0f32; n * d];
            reference::table(&mut out, &POSITIONS[..n], THETA, d);
            // Frequency and angle are the same f32 numbers on both sides; cosine and sine of them are
            // exact to a few roundings in f64 before they become f32, at worst the neighbour.
            let tol = Tol { abs: 1e-14, rel: F32_EPS };
            vec![("table", out.into_iter().map(f64::from).collect(), tol)]
        },
    };
    Subject { op: "rope", cases: vec![Box::new(rotation), Box::new(table)] }
}

const THETA: f64 = 10_000.0;

/// The first are far from 0 already.
const POSITIONS: [i32; 8] = [1_000_003, i32::MAX, 0, 1, 2, 255, 1023, 65_537];

type Rotate = fn(&Device, &mut Buffer, &Buffer, &Buffer, RopeDims) -> Result<()>;

fn rotate(device: &Device, dtype: DType, dims: RopeDims, call: Rotate) -> Result<Vec<f64>> {
    let RopeDims { b, t, h, d } = dims;
    let n = b * t * h * d;
    let (x, angles) = (upload(device, dtype, &data(1, n)), upload(device, F32, &data(2, t * d)));
    let mut out = output(device, dtype, n);
    call(device, &mut out, &x, &angles, dims)?;
    Ok(read(&out))
}

fn expected(dtype: DType, dims: &RopeDims, _: &[Vec<f64>]) -> Vec<Expected> {
    let RopeDims { b, t, h, d } = *dims;
    let (x, angles) = (data(1, b * t * h * d), data(2, t * d));
    let (mut out, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    reference::fwd(&mut out, &x, &angles, *dims);
    reference::bwd(&mut dx, &x, &angles, *dims);
    // Two products of numbers within 3.5 and their sum, rounded once more to the output.
    let tol = Tol { abs: 3.0 * 12.25 * F32_EPS, rel: rounding(dtype) };
    vec![("fwd", out, tol), ("bwd", dx, tol)]
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn odd_widths_are_refused() {
    let Some(device) = device() else { return };
    let (x, mut out) = (output(&device, F32, 6), output(&device, F32, 6));
    let odd = fwd(&device, &mut out, &x, &x, RopeDims { b: 1, t: 2, h: 1, d: 3 });
    assert!(matches!(odd, Err(Error::Dims { .. })), "{odd:?}");
    let odd = table(&device, &mut output(&device, F32, 3), &upload_i32(&device, &[0]), 1e4, 3);
    assert!(matches!(odd, Err(Error::Dims { .. })), "{odd:?}");
}
