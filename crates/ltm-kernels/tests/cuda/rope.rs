//! Every rung of `rope` against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::rope::{RopeDims, bwd, fwd, reference, table};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload, upload_i32,
};

fn agrees(device: &Device, rung: u32, dtype: DType, dims: RopeDims) -> Vec<f64> {
    let RopeDims { b, t, h, d } = dims;
    let (n, x) = (b * t * h * d, data(1, b * t * h * d));
    let angles = data(2, t * d);
    let (x_dev, table_dev) = (upload(device, dtype, &x), upload(device, DType::F32, &angles));
    let (mut out, mut dx) = (output(device, dtype, n), output(device, dtype, n));
    with_rung(rung, || {
        fwd(device, &mut out, &x_dev, &table_dev, dims)?;
        bwd(device, &mut dx, &x_dev, &table_dev, dims)
    })
    .expect("needs hold");
    let (mut expected, mut expected_dx) = (vec![0.0; n], vec![0.0; n]);
    reference::fwd(&mut expected, &x, &angles, dims);
    reference::bwd(&mut expected_dx, &x, &angles, dims);
    // Two products of numbers within 3.5 and their sum, rounded once more to the output.
    let rel = if dtype == DType::BF16 { BF16_EPS } else { 0.0 };
    let tol = Tol { abs: 3.0 * 12.25 * F32_EPS, rel };
    check(&format!("rope fwd v{rung} {dtype} {dims:?}"), &out, &expected, tol);
    check(&format!("rope bwd v{rung} {dtype} {dims:?}"), &dx, &expected_dx, tol);
    [out, dx].iter().flat_map(read).collect()
}

#[test]
fn every_rung_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        for (rung, b, t, h, d) in [
            (1, 1, 1, 1, 2),
            (1, 2, 3, 5, 6),
            (1, 1, 257, 1, 2),
            (2, 1, 1, 1, 8),
            (2, 3, 19, 3, 16),
        ] {
            let dims = RopeDims { b, t, h, d };
            assert_eq!(agrees(&device, rung, dtype, dims), agrees(&device, rung, dtype, dims));
        }
    }
}

#[test]
fn the_table_agrees_far_out() {
    let Some(device) = device() else { return };
    let positions = [0, 1, 2, 255, 1023, 65_537, 1_000_003, i32::MAX];
    for (positions, d) in [(&positions[..], 34), (&[7], 2), (&positions[..3], 256)] {
        let theta = 10_000.0;
        let mut out = output(&device, DType::F32, positions.len() * d);
        table(&device, &mut out, &upload_i32(&device, positions), theta, d).expect("shapes agree");
        let mut expected = vec![0f32; positions.len() * d];
        reference::table(&mut expected, positions, theta, d);
        let expected: Vec<_> = expected.into_iter().map(f64::from).collect();
        // Frequency and angle are the same f32 numbers on both sides; cosine and sine of them are
        // exact to a few roundings in f64 before they become f32, at worst the neighbour.
        let case = format!("rope table {} {d}", positions.len());
        check(&case, &out, &expected, Tol { abs: 1e-14, rel: F32_EPS });
    }
    let odd =
        table(&device, &mut output(&device, DType::F32, 3), &upload_i32(&device, &[0]), 1e4, 3);
    assert!(matches!(odd, Err(Error::Dims { .. })), "{odd:?}");
}

#[test]
fn refusals() {
    let Some(device) = device() else { return };
    let dims = RopeDims { b: 1, t: 1, h: 1, d: 6 };
    let x = output(&device, DType::F32, 6);
    let refused = with_rung(2, || fwd(&device, &mut output(&device, DType::F32, 6), &x, &x, dims));
    assert_refused(refused, "[P1]");
    let odd =
        fwd(&device, &mut output(&device, DType::F32, 6), &x, &x, RopeDims { t: 2, d: 3, ..dims });
    assert!(matches!(odd, Err(Error::Dims { .. })), "{odd:?}");
}
