//! `gaussian_kl` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::gaussian_kl::{GaussianKlDims, bwd, fwd, reference};
use ltm_testkit::Tol;

use crate::harness::{F32, F32_EPS, data, device, output, read, upload};
use crate::walk::{Case, Subject, f32_alone, no_needs};

pub fn subject() -> Subject {
    let dims = [(1, 1), (5, 37), (257, 3), (5, 257), (1, 8), (3, 520), (300, 8)]
        .map(|(rows, n)| GaussianKlDims { rows, n });
    let fwd = Case {
        pass: "fwd",
        calls: f32_alone(dims),
        holds: no_needs,
        run: |device, _, dims| {
            let n = dims.rows * dims.n;
            let [mu, log_var] = [1, 2].map(|seed| upload(device, F32, &data(seed, n)));
            let mut kl = output(device, F32, dims.rows);
            fwd(device, &mut kl, &mu, &log_var, *dims)?;
            Ok(vec![read(&kl)])
        },
        expected: |_, dims, _| {
            let n = dims.rows * dims.n;
            let mut kl = vec![0.0; dims.rows];
            reference::fwd(&mut kl, &data(1, n), &data(2, n), *dims);
            // A term is below 3.5² + e^3.5 = 45.4 and takes six roundings; the sum is in f64.
            let abs = dims.n as f64 * 46.0 * 6.0 * F32_EPS / 2.0;
            vec![("fwd", kl, Tol { abs, rel: F32_EPS })]
        },
    };
    let bwd = Case {
        pass: "bwd",
        calls: f32_alone(dims),
        holds: |need, _, dims| match need {
            "[P1] n % 8 == 0" => dims.n.is_multiple_of(8),
            _ => no_needs(need, F32, dims),
        },
        run: |device, _, dims| {
            let n = dims.rows * dims.n;
            let [mu, log_var, dkl] = [(1, n), (2, n), (3, dims.rows)]
                .map(|(seed, n)| upload(device, F32, &data(seed, n)));
            let [mut dmu, mut dlog_var] = [(); 2].map(|()| output(device, F32, n));
            bwd(device, Some(&mut dmu), Some(&mut dlog_var), &dkl, &mu, &log_var, *dims)?;
            Ok(vec![read(&dmu), read(&dlog_var)])
        },
        expected: |_, dims, _| {
            let n = dims.rows * dims.n;
            let (mu, log_var, dkl) = (data(1, n), data(2, n), data(3, dims.rows));
            let [mut dmu, mut dlog_var] = [(); 2].map(|()| vec![0.0; n]);
            reference::bwd_mu(&mut dmu, &dkl, &mu, *dims);
            reference::bwd_log_var(&mut dlog_var, &dkl, &log_var, *dims);
            let abs = 3.5 * 33.0 * 4.0 * F32_EPS;
            vec![
                ("dmu", dmu, Tol { abs: 0.0, rel: F32_EPS }),
                ("dlog_var", dlog_var, Tol { abs, rel: 0.0 }),
            ]
        },
    };
    Subject { op: "gaussian_kl", cases: vec![Box::new(fwd), Box::new(bwd)] }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn each_gradient_may_be_omitted() {
    let Some(device) = device() else { return };
    for rung in [1, 2] {
        let dims = GaussianKlDims { rows: 2, n: 16 };
        let [mu, log_var, dkl] =
            [(1, 32), (2, 32), (3, 2)].map(|(seed, n)| upload(&device, F32, &data(seed, n)));
        let run = |wants_dmu: bool, wants_dlog_var: bool| {
            let [mut dmu, mut dlog_var] = [(); 2].map(|()| output(&device, F32, 32));
            let wanted = (wants_dmu.then_some(&mut dmu), wants_dlog_var.then_some(&mut dlog_var));
            with_rung(rung, || bwd(&device, wanted.0, wanted.1, &dkl, &mu, &log_var, dims))
                .expect("needs hold");
            (read(&dmu), read(&dlog_var))
        };
        let both = run(true, true);
        assert_eq!((run(true, false).0, run(false, true).1), both);
    }
}
