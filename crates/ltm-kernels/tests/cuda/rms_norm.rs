//! Every rung of `rms_norm` against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::rms_norm::{RmsNormDims, bwd, fwd, fwd_add, reference};
use ltm_kernels::{Buffer, DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload,
};

const EPS: f64 = 1e-2;
const F32: DType = DType::F32;

/// Forward, with and without a residual, and both gradients; the results' bits.
fn agrees(device: &Device, rung: u32, dtype: DType, rows: usize, c: usize) -> Vec<f64> {
    let dims = RmsNormDims { rows, c };
    let n = rows * c;
    let [x, residual, dout, dresidual] = [1, 2, 3, 4].map(|seed| data(seed, n));
    let weight = data(5, c);
    let on = |x: &[f64]| upload(device, dtype, x);
    let (x_dev, residual_dev, dout_dev, dresidual_dev) =
        (on(&x), on(&residual), on(&dout), on(&dresidual));
    let weight_dev = upload(device, F32, &weight);
    let [mut out, mut sum, mut out_add, mut dx] = [(); 4].map(|()| output(device, dtype, n));
    let mut dweight = output(device, F32, c);
    let mut scratch = output(device, F32, dims.scratch_len(device));
    with_rung(rung, || {
        fwd(device, &mut out, &x_dev, &weight_dev, EPS, dims)?;
        let (sum, out) = (&mut sum, &mut out_add);
        fwd_add(device, sum, out, &x_dev, &residual_dev, &weight_dev, EPS, dims)?;
        let (dx, dweight, past) = (Some(&mut dx), Some(&mut dweight), Some(&dresidual_dev));
        let weight = &weight_dev;
        bwd(device, dx, dweight, &mut scratch, &dout_dev, &x_dev, weight, past, EPS, dims)
    })
    .expect("needs hold");

    let [mut expected, mut expected_sum, mut expected_add, mut expected_dx] =
        [(); 4].map(|()| vec![0.0; n]);
    let mut expected_dweight = vec![0.0; c];
    reference::fwd(&mut expected, &x, &weight, EPS, dims);
    reference::fwd_add(&mut expected_sum, &mut expected_add, &x, &residual, &weight, EPS, dims);
    // It is the rounded sum that is normalised.
    reference::fwd(&mut expected_add, &read(&sum), &weight, EPS, dims);
    let past = Some(&dresidual[..]);
    reference::bwd_x(&mut expected_dx, &dout, &x, &weight, past, EPS, dims);
    reference::bwd_weight(&mut expected_dweight, &dout, &x, EPS, dims);
    // One rounding of the output; c terms of the sum of squares and a few products before it.
    let steps = c as f64 + 16.0;
    let rounding = if dtype == DType::BF16 { BF16_EPS } else { 0.0 };
    let tol = Tol { abs: 0.0, rel: rounding + steps * F32_EPS };
    let case = |what: &str| format!("rms_norm {what} v{rung} {dtype} {dims:?}");
    check(&case("fwd"), &out, &expected, tol);
    check(&case("sum"), &sum, &expected_sum, Tol { abs: 0.0, rel: rounding.max(F32_EPS) });
    check(&case("fwd_add"), &out_add, &expected_add, tol);
    // Two terms within 10 * 3.5² * sqrt(C), which may cancel.
    let abs = 10.0 * 12.25 * (c as f64).sqrt() * steps * F32_EPS;
    check(&case("dx"), &dx, &expected_dx, Tol { abs, rel: rounding });
    let abs = rows as f64 * 3.5 * (c as f64).sqrt() * (rows as f64 + steps) * F32_EPS;
    check(&case("dweight"), &dweight, &expected_dweight, Tol { abs, rel: 0.0 });
    [out, out_add, dx, dweight].iter().flat_map(read).collect()
}

#[test]
fn v1_agrees() {
    let Some(device) = device() else { return };
    for dtype in [F32, DType::BF16] {
        for (rows, c) in [(1, 1), (3, 37), (257, 5)] {
            agrees(&device, 1, dtype, rows, c);
        }
    }
}

#[test]
fn v2_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for dtype in [F32, DType::BF16] {
        for (rows, c) in [(1, 8), (1, 1024), (9, 264), (70, 40), (17, 1024)] {
            agrees(&device, 2, dtype, rows, c);
        }
        assert_eq!(agrees(&device, 2, dtype, 33, 72), agrees(&device, 2, dtype, 33, 72));
    }
}

#[test]
fn v3_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for dtype in [F32, DType::BF16] {
        // One past a warp's columns, one past an eight a thread, and as many as a block holds.
        for (rows, c) in [(1, 8), (3, 1032), (17, 2056), (2, 8192)] {
            agrees(&device, 3, dtype, rows, c);
        }
        assert_eq!(agrees(&device, 3, dtype, 33, 72), agrees(&device, 3, dtype, 33, 72));
    }
}

#[test]
fn gradients_may_be_left_out_and_nothing_may_pass_by() {
    let Some(device) = device() else { return };
    let dims = RmsNormDims { rows: 19, c: 40 };
    let n = dims.rows * dims.c;
    for (rung, dtype) in [1, 2, 3].into_iter().flat_map(|r| [(r, F32), (r, DType::BF16)]) {
        let [dout, x] = [1, 2].map(|seed| upload(&device, dtype, &data(seed, n)));
        let (weight, none) = (upload(&device, F32, &data(3, dims.c)), vec![0.0; n]);
        let none = upload(&device, dtype, &none);
        let run = |wants_dx: bool, wants_dweight: bool, past: Option<&Buffer>| {
            let (mut dx, mut dweight) = (output(&device, dtype, n), output(&device, F32, dims.c));
            let mut scratch = output(&device, F32, dims.scratch_len(&device));
            let wanted = (wants_dx.then_some(&mut dx), wants_dweight.then_some(&mut dweight));
            with_rung(rung, || {
                let s = &mut scratch;
                bwd(&device, wanted.0, wanted.1, s, &dout, &x, &weight, past, EPS, dims)
            })
            .expect("needs hold");
            (read(&dx), read(&dweight))
        };
        let both = run(true, true, Some(&none));
        assert!(both.0.iter().chain(&both.1).all(|x| x.is_finite()));
        assert_eq!(run(true, true, None), both, "v{rung} {dtype}: no residual is one of zeros");
        assert_eq!(run(true, false, None).0, both.0, "v{rung} {dtype}");
        assert_eq!(run(false, true, None).1, both.1, "v{rung} {dtype}");
    }
}

#[test]
fn refusals() {
    let Some(device) = device() else { return };
    let try_fwd = |rung, c: usize, out: DType, weight: DType| {
        let dims = RmsNormDims { rows: 2, c };
        let (mut out, x) = (output(&device, out, 2 * c), upload(&device, F32, &vec![1.0; 2 * c]));
        let weight = output(&device, weight, c);
        with_rung(rung, || fwd(&device, &mut out, &x, &weight, EPS, dims))
    };
    let try_bwd = |rung, c: usize| {
        let dims = RmsNormDims { rows: 2, c };
        let [mut dx, dout, x] = [(); 3].map(|()| output(&device, F32, 2 * c));
        let (weight, mut scratch) =
            (output(&device, F32, c), output(&device, F32, dims.scratch_len(&device)));
        with_rung(rung, || {
            bwd(&device, Some(&mut dx), None, &mut scratch, &dout, &x, &weight, None, EPS, dims)
        })
    };
    for (rung, c, need) in [(2, 12, "[P1]"), (2, 1032, "[P2]"), (3, 12, "[P1]"), (3, 8200, "[P2]")]
    {
        assert_refused(try_fwd(rung, c, F32, F32), need);
        assert_refused(try_bwd(rung, c), need);
    }
    assert!(matches!(try_fwd(2, 8, DType::BF16, F32), Err(Error::DType { .. })));
    assert!(matches!(try_fwd(2, 8, F32, DType::BF16), Err(Error::DType { .. })));
    let dims = RmsNormDims { rows: 1, c: 8 };
    let on_the_host = Buffer::from_vec(vec![0f32; 8]);
    let weight = output(&device, F32, 8);
    let refused = fwd(&device, &mut output(&device, F32, 8), &on_the_host, &weight, EPS, dims);
    assert!(matches!(refused, Err(Error::WrongDevice { .. })));
}
