//! `reparam` on its devices.

use ltm_kernels::ops::reparam::{bwd, fwd, reference};
use ltm_testkit::Tol;

use crate::harness::{F32, F32_EPS, data, output, read, upload};
use crate::walk::{Case, Subject, f32_alone, no_needs};

/// A handful of roundings of products below 3.5² · e^1.75 / 2 and 3.5 · e^1.75 + 3.5.
const TOL: Tol = Tol { abs: 40.0 * 5.0 * F32_EPS, rel: 0.0 };

pub fn subject() -> Subject {
    let extents = [1usize, 15, 4107];
    let fwd = Case {
        pass: "fwd",
        calls: f32_alone(extents),
        holds: no_needs,
        run: |device, _, &n| {
            let [mu, log_var, noise] = [1, 2, 3].map(|seed| upload(device, F32, &data(seed, n)));
            let mut z = output(device, F32, n);
            fwd(device, &mut z, &mu, &log_var, &noise)?;
            Ok(vec![read(&z)])
        },
        expected: |_, &n, _| {
            let mut z = vec![0.0; n];
            reference::fwd(&mut z, &data(1, n), &data(2, n), &data(3, n));
            vec![("fwd", z, TOL)]
        },
    };
    let bwd = Case {
        pass: "bwd",
        calls: f32_alone(extents),
        holds: no_needs,
        run: |device, _, &n| {
            let [log_var, noise, dz] = [2, 3, 4].map(|seed| upload(device, F32, &data(seed, n)));
            let mut dlog_var = output(device, F32, n);
            bwd(device, &mut dlog_var, &dz, &log_var, &noise)?;
            Ok(vec![read(&dlog_var)])
        },
        expected: |_, &n, _| {
            let mut dlog_var = vec![0.0; n];
            reference::bwd(&mut dlog_var, &data(4, n), &data(2, n), &data(3, n));
            vec![("bwd", dlog_var, TOL)]
        },
    };
    Subject { op: "reparam", cases: vec![Box::new(fwd), Box::new(bwd)] }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}
