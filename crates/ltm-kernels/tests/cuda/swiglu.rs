//! `swiglu` on its devices.

use ltm_kernels::Error;
use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::swiglu::{bwd, fwd, reference};
use ltm_testkit::Tol;

use crate::harness::{BF16, F32, F32_EPS, check, data, device, output, read, rounding, upload};
use crate::walk::{Case, Subject, both, no_needs};

/// A dozen roundings of products of three numbers within 3.5.
const ROUNDINGS: f64 = 3.5 * 3.5 * 3.5 * 12.0 * F32_EPS;

pub fn subject() -> Subject {
    let extents = [1usize, 7, 8, 2061];
    let fwd = Case {
        pass: "fwd",
        calls: both(extents),
        holds: no_needs,
        run: |device, dtype, &n| {
            let [gate, up] = [1, 2].map(|seed| upload(device, dtype, &data(seed, n)));
            let mut out = output(device, dtype, n);
            fwd(device, &mut out, &gate, &up)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, &n, _| {
            let mut out = vec![0.0; n];
            reference::fwd(&mut out, &data(1, n), &data(2, n));
            vec![("fwd", out, Tol { abs: ROUNDINGS, rel: rounding(dtype) })]
        },
    };
    let bwd = Case {
        pass: "bwd",
        calls: both(extents),
        holds: no_needs,
        run: |device, dtype, &n| {
            let [gate, up, dout] = [1, 2, 3].map(|seed| upload(device, dtype, &data(seed, n)));
            let [mut dgate, mut dup] = [(); 2].map(|()| output(device, dtype, n));
            bwd(device, Some(&mut dgate), Some(&mut dup), &dout, &gate, &up)?;
            Ok(vec![read(&dgate), read(&dup)])
        },
        expected: |dtype, &n, _| {
            let [gate, up, dout] = [1, 2, 3].map(|seed| data(seed, n));
            let [mut dgate, mut dup] = [(); 2].map(|()| vec![0.0; n]);
            reference::bwd(Some(&mut dgate), Some(&mut dup), &dout, &gate, &up);
            let tol = Tol { abs: ROUNDINGS, rel: rounding(dtype) };
            vec![("dgate", dgate, tol), ("dup", dup, tol)]
        },
    };
    Subject { op: "swiglu", cases: vec![Box::new(fwd), Box::new(bwd)] }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn one_gradient_does_not_depend_on_the_other() {
    let Some(device) = device() else { return };
    for (rung, (dtype, n)) in
        [1, 2].into_iter().flat_map(|r| both([7, 2061]).into_iter().map(move |x| (r, x)))
    {
        let [gate, up, dout] = [1, 2, 3].map(|seed| upload(&device, dtype, &data(seed, n)));
        let [mut dgate, mut dup, mut alone] = [(); 3].map(|()| output(&device, dtype, n));
        with_rung(rung, || {
            bwd(&device, Some(&mut dgate), Some(&mut dup), &dout, &gate, &up)?;
            bwd(&device, None, Some(&mut alone), &dout, &gate, &up)
        })
        .expect("no needs");
        assert!(read(&alone) == read(&dup), "v{rung} {dtype} {n}");
    }
}

#[test]
fn far_tails_are_finite() {
    let Some(device) = device() else { return };
    let gate = upload(&device, F32, &[-1e4, -90.0, 90.0, 1e4]);
    let up = upload(&device, F32, &[2.0; 4]);
    let mut out = output(&device, F32, 4);
    fwd(&device, &mut out, &gate, &up).expect("shapes agree");
    let tol = Tol { abs: 1e-30, rel: F32_EPS };
    check("swiglu far tails", &out, &[0.0, 0.0, 180.0, 2e4], tol);
    let mut wrong = output(&device, BF16, 4);
    assert!(matches!(fwd(&device, &mut wrong, &gate, &up), Err(Error::DType { .. })));
}
