//! `adamw` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::adamw::{AdamW, Factors, reference, scheduled, step};
use ltm_testkit::Tol;

use crate::harness::{F32, F32_EPS, data, device, read, upload, upload_i32};
use crate::walk::{Case, Subject, f32_alone, no_needs};

const ADAMW: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// Steps that are taken one after another.
const STEPS: u64 = 3;

pub fn subject() -> Subject {
    let case = Case {
        pass: "fwd",
        calls: f32_alone([1usize, 19, 2051]),
        holds: no_needs,
        run: |device, _, &n| {
            let mut by_value = start(n).map(|x| upload(device, F32, &x));
            let mut by_table = start(n).map(|x| upload(device, F32, &x));
            let factors = upload(device, F32, &factor_rows());
            for t in 1..=STEPS {
                let grad = upload(device, F32, &data(10 + t, n));
                let [param, m, v] = &mut by_value;
                step(device, param, m, v, &grad, 0.5, ADAMW, t)?;
                let [param, m, v] = &mut by_table;
                scheduled(
                    device,
                    param,
                    m,
                    v,
                    &grad,
                    &factors,
                    &upload_i32(device, &[t as i32 - 1]),
                )?;
            }
            let results = by_value.map(|x| read(&x));
            assert_eq!(results, by_table.map(|x| read(&x)), "both take the same arithmetic");
            Ok(results.into())
        },
        expected: |_, &n, _| {
            let [mut param, mut m, mut v] = start(n);
            for t in 1..=STEPS {
                let factors = Factors::new(ADAMW, 0.5, t);
                reference::step(&mut param, &mut m, &mut v, &data(10 + t, n), factors);
            }
            // Ten roundings a step of numbers within 3.5.
            let tol = Tol { abs: 3.5 * 30.0 * F32_EPS, rel: 0.0 };
            vec![("param", param, tol), ("m", m, tol), ("v", v, tol)]
        },
    };
    Subject { op: "adamw", cases: vec![Box::new(case)] }
}

/// Parameters and both moments before the first step.
fn start(n: usize) -> [Vec<f64>; 3] {
    [data(1, n), vec![0.0; n], vec![0.0; n]]
}

/// The factors of every step.
fn factor_rows() -> Vec<f64> {
    (1..=STEPS).flat_map(|t| Factors::<f64>::new(ADAMW, 0.5, t).to_row()).collect()
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn a_step_outside_the_table_shows_as_nan() {
    let Some(device) = device() else { return };
    for (rung, outside) in [(1, 3), (1, -1), (2, 3), (2, -1)] {
        let grad = upload(&device, F32, &data(10, 19));
        let factors = upload(&device, F32, &factor_rows());
        let [mut param, mut m, mut v] = start(19).map(|x| upload(&device, F32, &x));
        let step = upload_i32(&device, &[outside]);
        with_rung(rung, || scheduled(&device, &mut param, &mut m, &mut v, &grad, &factors, &step))
            .expect("refused on the device");
        assert!(read(&param).iter().all(|x| x.is_nan()));
    }
}
