//! `softmax` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::softmax::{SoftmaxDims, bwd, fwd, reference};

use crate::harness::{EXACT, F32, check, data, device, output, read, rounded_terms, upload};
use crate::walk::{Case, Subject, both, no_needs};

pub fn subject() -> Subject {
    let dims = [(1, 1), (5, 7), (257, 3), (9, 33), (3, 300), (11, 31)]
        .map(|(rows, c)| SoftmaxDims { rows, c });
    let fwd_case = Case {
        pass: "fwd",
        calls: both(dims),
        holds: no_needs,
        run: |device, dtype, dims| {
            let n = dims.rows * dims.c;
            let mut out = output(device, dtype, n);
            fwd(device, &mut out, &upload(device, dtype, &data(1, n)), *dims)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, dims, _| {
            let n = dims.rows * dims.c;
            let mut out = vec![0.0; n];
            reference::fwd(&mut out, &data(1, n), *dims);
            // Sums of c numbers with a few roundings each.
            vec![("fwd", out, rounded_terms(dtype, dims.c as f64 + 8.0, 0.0))]
        },
    };
    let bwd_case = Case {
        pass: "bwd",
        calls: both(dims),
        holds: no_needs,
        run: |device, dtype, dims| {
            let n = dims.rows * dims.c;
            let [x, dout] = [1, 2].map(|seed| upload(device, dtype, &data(seed, n)));
            let [mut out, mut dx] = [(); 2].map(|()| output(device, dtype, n));
            fwd(device, &mut out, &x, *dims)?;
            bwd(device, &mut dx, &dout, &out, *dims)?;
            Ok(vec![read(&out), read(&dx)])
        },
        expected: |dtype, dims, results| {
            let n = dims.rows * dims.c;
            let [mut out, mut dx] = [(); 2].map(|()| vec![0.0; n]);
            reference::fwd(&mut out, &data(1, n), *dims);
            // The gradient starts from the result as it was rounded.
            reference::bwd(&mut dx, &data(2, n), &results[0], *dims);
            // As above; differences of up to 7.
            let terms = dims.c as f64 + 8.0;
            vec![
                ("out", out, rounded_terms(dtype, terms, 0.0)),
                ("bwd", dx, rounded_terms(dtype, terms, 7.0)),
            ]
        },
    };
    Subject { op: "softmax", cases: vec![Box::new(fwd_case), Box::new(bwd_case)] }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn large_and_excluded_scores() {
    let Some(device) = device() else { return };
    let x = upload(&device, F32, &[1e4, 1e4, f64::NEG_INFINITY, -1e4, -1e4, -2e4]);
    for rung in [1, 2] {
        let mut out = output(&device, F32, 6);
        let dims = SoftmaxDims { rows: 2, c: 3 };
        with_rung(rung, || fwd(&device, &mut out, &x, dims)).expect("no needs");
        let case = format!("softmax of large and excluded scores v{rung}");
        check(&case, &out, &[0.5, 0.5, 0.0, 0.5, 0.5, 0.0], EXACT);
    }
}
