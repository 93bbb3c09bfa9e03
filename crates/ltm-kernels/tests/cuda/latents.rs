//! Every rung of the ops on latents, `reparam`, `gaussian_kl`, `adamw` and `philox`, against their
//! references; the CPU is the reference of random numbers.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::adamw::{self, AdamW, Factors};
use ltm_kernels::ops::gaussian_kl::{self, GaussianKlDims};
use ltm_kernels::ops::philox::{self, NormalRowsDims, Philox, PhiloxKey};
use ltm_kernels::ops::reparam;
use ltm_kernels::{Buffer, DType, Device};
use ltm_testkit::Tol;

use crate::harness::{
    F32_EPS, assert_refused, check, check_values, data, device, output, read, upload, upload_i32,
};

const F32: DType = DType::F32;
const ADAMW: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

#[test]
fn reparam_agrees() {
    let Some(device) = device() else { return };
    for (rung, n) in [1, 2].into_iter().flat_map(|rung| [(rung, 1), (rung, 15), (rung, 4107)]) {
        let [mu, log_var, noise, dz] = [1, 2, 3, 4].map(|seed| data(seed, n));
        let [mu_dev, log_var_dev, noise_dev, dz_dev] =
            [&mu, &log_var, &noise, &dz].map(|x| upload(&device, F32, x));
        let (mut z, mut dlog_var) = (output(&device, F32, n), output(&device, F32, n));
        with_rung(rung, || {
            reparam::fwd(&device, &mut z, &mu_dev, &log_var_dev, &noise_dev)?;
            reparam::bwd(&device, &mut dlog_var, &dz_dev, &log_var_dev, &noise_dev)
        })
        .expect("needs hold");
        let (mut expected_z, mut expected_dlog_var) = (vec![0.0; n], vec![0.0; n]);
        reparam::reference::fwd(&mut expected_z, &mu, &log_var, &noise);
        reparam::reference::bwd(&mut expected_dlog_var, &dz, &log_var, &noise);
        // A handful of roundings of products below 3.5² · e^1.75 / 2 and 3.5 · e^1.75 + 3.5.
        let tol = Tol { abs: 40.0 * 5.0 * F32_EPS, rel: 0.0 };
        check(&format!("reparam fwd v{rung} {n}"), &z, &expected_z, tol);
        check(&format!("reparam bwd v{rung} {n}"), &dlog_var, &expected_dlog_var, tol);
    }
}

#[test]
fn gaussian_kl_agrees() {
    let Some(device) = device() else { return };
    let extents = [(1, 1, 1), (1, 5, 37), (1, 257, 3)];
    for (rung, rows, n) in
        extents.into_iter().chain([(2, 1, 1), (2, 5, 257), (2, 1, 8), (2, 3, 520), (2, 300, 8)])
    {
        let dims = GaussianKlDims { rows, n };
        // The second rung's gradients take whole eights alone.
        let bwd_rung = if n % 8 == 0 { rung } else { 1 };
        let (mu, log_var, dkl) = (data(1, rows * n), data(2, rows * n), data(3, rows));
        let [mu_dev, log_var_dev, dkl_dev] = [&mu, &log_var, &dkl].map(|x| upload(&device, F32, x));
        let mut kl = output(&device, F32, rows);
        let [mut dmu, mut dlog_var] = [(); 2].map(|()| output(&device, F32, rows * n));
        with_rung(rung, || {
            gaussian_kl::fwd(&device, &mut kl, &mu_dev, &log_var_dev, dims)?;
            let outs = (Some(&mut dmu), Some(&mut dlog_var));
            with_rung(bwd_rung, || {
                gaussian_kl::bwd(&device, outs.0, outs.1, &dkl_dev, &mu_dev, &log_var_dev, dims)
            })
        })
        .expect("needs hold");
        let mut expected_kl = vec![0.0; rows];
        let [mut expected_dmu, mut expected_dlog_var] = [(); 2].map(|()| vec![0.0; rows * n]);
        gaussian_kl::reference::fwd(&mut expected_kl, &mu, &log_var, dims);
        gaussian_kl::reference::bwd_mu(&mut expected_dmu, &dkl, &mu, dims);
        gaussian_kl::reference::bwd_log_var(&mut expected_dlog_var, &dkl, &log_var, dims);
        // A term is below 3.5² + e^3.5 = 45.4 and takes six roundings; the sum is in f64.
        let tol = Tol { abs: n as f64 * 46.0 * 6.0 * F32_EPS / 2.0, rel: F32_EPS };
        check(&format!("gaussian_kl fwd v{rung} {dims:?}"), &kl, &expected_kl, tol);
        let tol = Tol { abs: 0.0, rel: F32_EPS };
        check(&format!("gaussian_kl dmu v{bwd_rung} {dims:?}"), &dmu, &expected_dmu, tol);
        let tol = Tol { abs: 3.5 * 33.0 * 4.0 * F32_EPS, rel: 0.0 };
        check(
            &format!("gaussian_kl dlog_var v{bwd_rung} {dims:?}"),
            &dlog_var,
            &expected_dlog_var,
            tol,
        );
    }
    for rung in [1, 2] {
        let dims = GaussianKlDims { rows: 2, n: 16 };
        let [mu, log_var, dkl] =
            [(1, 32), (2, 32), (3, 2)].map(|(seed, n)| upload(&device, F32, &data(seed, n)));
        let run = |wants_dmu: bool, wants_dlog_var: bool| {
            let [mut dmu, mut dlog_var] = [(); 2].map(|()| output(&device, F32, 32));
            let wanted = (wants_dmu.then_some(&mut dmu), wants_dlog_var.then_some(&mut dlog_var));
            with_rung(rung, || {
                gaussian_kl::bwd(&device, wanted.0, wanted.1, &dkl, &mu, &log_var, dims)
            })
            .expect("needs hold");
            (read(&dmu), read(&dlog_var))
        };
        let both = run(true, true);
        assert_eq!((run(true, false).0, run(false, true).1), both, "each may be omitted");
    }
    let x = output(&device, F32, 3);
    let dims = GaussianKlDims { rows: 1, n: 3 };
    let dkl = output(&device, F32, 1);
    let refused = with_rung(2, || gaussian_kl::bwd(&device, None, None, &dkl, &x, &x, dims));
    assert_refused(refused, "[P1]");
}

#[test]
fn adamw_agrees_with_factors_by_value_and_by_table() {
    let Some(device) = device() else { return };
    for (rung, n) in [1, 2].into_iter().flat_map(|rung| [(rung, 1), (rung, 19), (rung, 2051)]) {
        let start = || [data(1, n), vec![0.0; n], vec![0.0; n]];
        let [mut param, mut m, mut v] = start();
        let mut by_value = start().map(|x| upload(&device, F32, &x));
        let mut by_table = start().map(|x| upload(&device, F32, &x));
        let rows = (1..4).flat_map(|t| Factors::<f64>::new(ADAMW, 0.5, t).to_row());
        let factors = upload(&device, F32, &rows.collect::<Vec<_>>());
        let take = |[param, m, v]: &mut [Buffer; 3], grad: &Buffer, t: i32| {
            let step = upload_i32(&device, &[t]);
            adamw::scheduled(&device, param, m, v, grad, &factors, &step)
        };
        for t in 1..4 {
            let grad = data(10 + t, n);
            let grad_dev = upload(&device, F32, &grad);
            adamw::reference::step(&mut param, &mut m, &mut v, &grad, Factors::new(ADAMW, 0.5, t));
            with_rung(rung, || {
                let [param, m, v] = &mut by_value;
                adamw::step(&device, param, m, v, &grad_dev, 0.5, ADAMW, t)?;
                take(&mut by_table, &grad_dev, t as i32 - 1)
            })
            .expect("needs hold");
        }
        // As on the CPU: ten roundings a step of numbers within 3.5.
        let tol = Tol { abs: 3.5 * 30.0 * F32_EPS, rel: 0.0 };
        let expected = [("param", param), ("m", m), ("v", v)];
        for (((what, expected), value), table) in expected.iter().zip(&by_value).zip(&by_table) {
            check(&format!("adamw {what} v{rung} {n}"), value, expected, tol);
            assert_eq!(read(value), read(table), "both take the same arithmetic");
        }
        for outside in [3, -1] {
            let grad = upload(&device, F32, &data(10, n));
            let mut state = start().map(|x| upload(&device, F32, &x));
            with_rung(rung, || take(&mut state, &grad, outside)).expect("refused on the device");
            assert!(read(&state[0]).iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn philox_normal_numbers_are_those_of_the_cpu() {
    let Some(device) = device() else { return };
    let key = |i| PhiloxKey { seed: 7, stream: 1 << 40, step: i };
    let cpu = |n: usize, i, mean, std| {
        let mut out = Buffer::from_vec(vec![0f32; n]);
        philox::normal(&Device::Cpu, &mut out, key(i), mean, std).expect("a float");
        read(&out)
    };
    // Both round the same f64 number but for a few of its last bits.
    let tol = Tol { abs: 1e-14, rel: F32_EPS };
    for (rung, n) in [1, 2].into_iter().flat_map(|rung| [(rung, 1), (rung, 15), (rung, 2000)]) {
        let mut out = output(&device, F32, n);
        with_rung(rung, || philox::normal(&device, &mut out, key(9), 0.5, 2.0)).expect("a float");
        // A sum near 0 keeps the error of its terms.
        let tol = Tol { abs: 1e-13, ..tol };
        check(&format!("philox normal v{rung} {n}"), &out, &cpu(n, 9, 0.5, 2.0), tol);
    }
    // The longer rows are more than a block has threads for.
    for (rung, n) in [(1, 7), (1, 601), (2, 10), (2, 602)] {
        let dims = NormalRowsDims { steps: 2, rows: 3, n };
        let words = (0..6).flat_map(|i| Philox::new(key(i)).words().map(u32::cast_signed));
        let keys = upload_i32(&device, &words.collect::<Vec<_>>());
        let draw = |step| {
            let mut out = output(&device, F32, 3 * n);
            let step = upload_i32(&device, &[step]);
            with_rung(rung, || philox::normal_rows(&device, &mut out, &keys, &step, dims))
                .expect("needs hold");
            out
        };
        let expected: Vec<_> = (3..6).flat_map(|i| cpu(n, i, 0.0, 1.0)).collect();
        check(&format!("philox rows v{rung} {dims:?}"), &draw(1), &expected, tol);
        assert_eq!(read(&draw(1)), read(&draw(1)));
        let first = &read(&draw(0))[..n];
        check_values(
            &format!("philox first row v{rung} {dims:?}"),
            first,
            &cpu(n, 0, 0.0, 1.0),
            tol,
        );
        assert!([2, -1].iter().all(|&step| read(&draw(step)).iter().all(|x| x.is_nan())));
    }
    let (mut out, step) = (output(&device, F32, 3), upload_i32(&device, &[0]));
    let (keys, dims) = (upload_i32(&device, &[0; 4]), NormalRowsDims { steps: 1, rows: 1, n: 3 });
    let refused = with_rung(2, || philox::normal_rows(&device, &mut out, &keys, &step, dims));
    assert_refused(refused, "[P1]");
}
