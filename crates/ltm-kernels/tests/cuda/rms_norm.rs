//! `rms_norm` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::rms_norm::{RmsNormDims, bwd, fwd, fwd_add, reference};
use ltm_kernels::{Buffer, DType, Error};
use ltm_testkit::Tol;

use crate::harness::{BF16, F32, F32_EPS, data, device, output, read, rounding, upload};
use crate::walk::{Case, Subject, both, no_needs};

const EPS: f64 = 1e-2;

pub fn subject() -> Subject {
    // Besides 1 and odd ones: a warp's most columns and one eight past them, one past an eight per thread, as many as a
    // block holds and one eight more.
    let dims = || {
        both(
            [
                (1, 1),
                (3, 37),
                (257, 5),
                (1, 8),
                (33, 72),
                (70, 40),
                (9, 264),
                (17, 1024),
                (3, 1032),
                (17, 2056),
                (2, 8192),
                (1, 8200),
            ]
            .map(|(rows, c)| RmsNormDims { rows, c }),
        )
    };
    let fwd_case = Case {
        pass: "fwd",
        calls: dims(),
        holds,
        run: |device, dtype, dims| {
            let n = dims.rows * dims.c;
            let [x, residual] = [1, 2].map(|seed| upload(device, dtype, &data(seed, n)));
            let weight = upload(device, F32, &data(5, dims.c));
            let [mut out, mut sum, mut out_add] = [(); 3].map(|()| output(device, dtype, n));
            fwd(device, &mut out, &x, &weight, EPS, *dims)?;
            fwd_add(device, &mut sum, &mut out_add, &x, &residual, &weight, EPS, *dims)?;
            Ok([out, sum, out_add].map(|x| read(&x)).into())
        },
        expected: |dtype, dims, results| {
            let n = dims.rows * dims.c;
            let (x, residual, weight) = (data(1, n), data(2, n), data(5, dims.c));
            let [mut out, mut sum, mut out_add] = [(); 3].map(|()| vec![0.0; n]);
            reference::fwd(&mut out, &x, &weight, EPS, *dims);
            reference::fwd_add(&mut sum, &mut out_add, &x, &residual, &weight, EPS, *dims);
            // It is the rounded sum that is normalised.
            reference::fwd(&mut out_add, &results[1], &weight, EPS, *dims);
            let tol = Tol { abs: 0.0, rel: rounding(dtype) + steps(dims) * F32_EPS };
            let once = Tol { abs: 0.0, rel: rounding(dtype).max(F32_EPS) };
            vec![("fwd", out, tol), ("sum", sum, once), ("fwd_add", out_add, tol)]
        },
    };
    let bwd_case = Case {
        pass: "bwd",
        calls: dims(),
        holds,
        run: |device, dtype, dims| {
            let n = dims.rows * dims.c;
            let [x, dout, past] = [1, 3, 4].map(|seed| upload(device, dtype, &data(seed, n)));
            let weight = upload(device, F32, &data(5, dims.c));
            let (mut dx, mut dweight) = (output(device, dtype, n), output(device, F32, dims.c));
            let mut scratch = output(device, F32, dims.scratch_len(device));
            let (wants_dx, wants_dweight) = (Some(&mut dx), Some(&mut dweight));
            let (s, past) = (&mut scratch, Some(&past));
            bwd(device, wants_dx, wants_dweight, s, &dout, &x, &weight, past, EPS, *dims)?;
            Ok(vec![read(&dx), read(&dweight)])
        },
        expected: |dtype, dims, _| {
            let (rows, c) = (dims.rows as f64, dims.c as f64);
            let n = dims.rows * dims.c;
            let (x, dout, past, weight) = (data(1, n), data(3, n), data(4, n), data(5, dims.c));
            let (mut dx, mut dweight) = (vec![0.0; n], vec![0.0; dims.c]);
            reference::bwd_x(&mut dx, &dout, &x, &weight, Some(&past), EPS, *dims);
            reference::bwd_weight(&mut dweight, &dout, &x, EPS, *dims);
            // Two terms within 10 * 3.5² * sqrt(C), which may cancel.
            let abs = 10.0 * 12.25 * c.sqrt() * steps(dims) * F32_EPS;
            let of_dx = Tol { abs, rel: rounding(dtype) };
            let abs = rows * 3.5 * c.sqrt() * (rows + steps(dims)) * F32_EPS;
            vec![("dx", dx, of_dx), ("dweight", dweight, Tol { abs, rel: 0.0 })]
        },
    };
    Subject { op: "rms_norm", cases: vec![Box::new(fwd_case), Box::new(bwd_case)] }
}

fn holds(need: &str, dtype: DType, dims: &RmsNormDims) -> bool {
    match need {
        "[P1] C % 8 == 0" => dims.c.is_multiple_of(8),
        "[P2] C <= 1024" => dims.c <= 1024,
        "[P2] C <= 8192" => dims.c <= 8192,
        _ => no_needs(need, dtype, dims),
    }
}

/// Roundings before that of the output: c terms of the sum of squares and a few products.
fn steps(dims: &RmsNormDims) -> f64 {
    dims.c as f64 + 16.0
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn gradients_may_be_left_out_and_nothing_may_pass_by() {
    let Some(device) = device() else { return };
    let dims = RmsNormDims { rows: 19, c: 40 };
    let n = dims.rows * dims.c;
    for (rung, dtype) in [1, 2, 3].into_iter().flat_map(|r| [(r, F32), (r, BF16)]) {
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
fn other_types_and_devices_are_refused() {
    let Some(device) = device() else { return };
    let try_fwd = |rung, c: usize, out: DType, weight: DType| {
        let dims = RmsNormDims { rows: 2, c };
        let (mut out, x) = (output(&device, out, 2 * c), upload(&device, F32, &vec![1.0; 2 * c]));
        let weight = output(&device, weight, c);
        with_rung(rung, || fwd(&device, &mut out, &x, &weight, EPS, dims))
    };
    assert!(matches!(try_fwd(2, 8, BF16, F32), Err(Error::DType { .. })));
    assert!(matches!(try_fwd(2, 8, F32, BF16), Err(Error::DType { .. })));
    let dims = RmsNormDims { rows: 1, c: 8 };
    let on_the_host = Buffer::from_vec(vec![0f32; 8]);
    let weight = output(&device, F32, 8);
    let refused = fwd(&device, &mut output(&device, F32, 8), &on_the_host, &weight, EPS, dims);
    assert!(matches!(refused, Err(Error::WrongDevice { .. })));
}
