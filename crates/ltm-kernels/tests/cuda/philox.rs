//! `philox` on its devices; the CPU is the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::philox::{NormalRowsDims, Philox, PhiloxKey, normal, normal_rows};
use ltm_kernels::{Buffer, Device, Result};
use ltm_testkit::Tol;

use crate::harness::{F32, F32_EPS, device, output, read, upload_i32};
use crate::walk::{Case, Subject, f32_alone, no_needs};

pub fn subject() -> Subject {
    let normal = Case {
        pass: "normal",
        calls: f32_alone([1usize, 15, 2000]),
        holds: |_, _, _| true,
        run: |device, _, &n| {
            let mut out = output(device, F32, n);
            normal(device, &mut out, key(9), 0.5, 2.0)?;
            Ok(vec![read(&out)])
        },
        expected: |_, &n, _| {
            // Both round the same f64 number but for a few of its last bits; a sum near 0 keeps the error of its terms.
            vec![("normal", on_cpu(n, 9, 0.5, 2.0), Tol { abs: 1e-13, rel: F32_EPS })]
        },
    };
    let rows = Case {
        pass: "normal_rows",
        // The longer rows are more than a block has threads for.
        calls: f32_alone([7, 601, 10, 602]),
        holds: |need, _, n| match need {
            "[P1] n % 2 == 0" => n % 2 == 0,
            _ => no_needs(need, F32, n),
        },
        run: |device, _, &n| {
            let both = [rows(device, n, 0)?, rows(device, n, 1)?];
            Ok(vec![both[0][..n].to_vec(), both[1].clone()])
        },
        expected: |_, &n, _| {
            let tol = Tol { abs: 1e-14, rel: F32_EPS };
            let second = (3..6).flat_map(|i| on_cpu(n, i, 0.0, 1.0)).collect();
            vec![("first row", on_cpu(n, 0, 0.0, 1.0), tol), ("rows", second, tol)]
        },
    };
    Subject { op: "philox", cases: vec![Box::new(normal), Box::new(rows)] }
}

fn key(step: u64) -> PhiloxKey {
    PhiloxKey { seed: 7, stream: 1 << 40, step }
}

fn on_cpu(n: usize, step: u64, mean: f64, std: f64) -> Vec<f64> {
    let mut out = Buffer::from_vec(vec![0f32; n]);
    normal(&Device::Cpu, &mut out, key(step), mean, std).expect("a float");
    read(&out)
}

/// The three rows of `n` numbers that a table of two steps has for this one.
fn rows(device: &Device, n: usize, step: i32) -> Result<Vec<f64>> {
    let words = (0..6).flat_map(|i| Philox::new(key(i)).words().map(u32::cast_signed));
    let keys = upload_i32(device, &words.collect::<Vec<_>>());
    let mut out = output(device, F32, 3 * n);
    let dims = NormalRowsDims { steps: 2, rows: 3, n };
    normal_rows(device, &mut out, &keys, &upload_i32(device, &[step]), dims)?;
    Ok(read(&out))
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn a_step_outside_the_table_shows_as_nan() {
    let Some(device) = device() else { return };
    for (rung, step) in [(1, 2), (1, -1), (2, 2), (2, -1)] {
        let out = with_rung(rung, || rows(&device, 10, step)).expect("needs hold");
        assert!(out.iter().all(|x| x.is_nan()));
    }
}
