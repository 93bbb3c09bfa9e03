//! Both rungs of `cross_entropy`, and the rung that production takes, against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::cross_entropy::{CrossEntropyDims, IGNORED, bwd_weight, fwd, reference};
use ltm_kernels::{DType, Device};
use ltm_testkit::{Tol, assert_close};

use crate::harness::{BF16_EPS, F32_EPS, data, device, output, read, upload, upload_i32};

fn targets_for(dims: CrossEntropyDims) -> Vec<i32> {
    (0..dims.n).map(|n| if n % 5 == 3 { IGNORED } else { (n * n * 11 % dims.v) as i32 }).collect()
}

/// `nll`, `dh` and `dw` on the device.
fn run(device: &Device, dtype: DType, targets: &[i32], dims: CrossEntropyDims) -> [Vec<f64>; 3] {
    let CrossEntropyDims { n, c, v } = dims;
    let (h, w) = (upload(device, dtype, &data(1, n * c)), upload(device, dtype, &data(2, v * c)));
    let dnll = upload(device, DType::F32, &data(3, n));
    let targets = upload_i32(device, targets);
    let mut scratch = output(device, DType::F32, dims.scratch_len(device));
    let (mut nll, mut dh) = (output(device, DType::F32, n), output(device, dtype, n * c));
    let mut dw = output(device, DType::F32, v * c);
    let outputs = (Some(&mut nll), Some(&mut dh));
    fwd(device, outputs.0, outputs.1, &mut scratch, &h, &w, &targets, dims).expect("needs hold");
    bwd_weight(device, &mut dw, &mut scratch, &dnll, &h, &w, &targets, dims).expect("needs hold");
    [nll, dh, dw].map(|buffer| read(&buffer))
}

fn agrees(device: &Device, rung: Option<u32>, dtype: DType, dims: CrossEntropyDims) {
    let CrossEntropyDims { n, c, v } = dims;
    let (h, w, dnll, targets) = (data(1, n * c), data(2, v * c), data(3, n), targets_for(dims));
    let (mut nll, mut dh, mut dw) = (vec![0.0; n], vec![0.0; n * c], vec![0.0; v * c]);
    let mut p_n = vec![0.0; v];
    reference::fwd(Some(&mut nll), Some(&mut dh), &mut p_n, &h, &w, &targets, dims);
    reference::bwd_weight(&mut dw, &mut p_n, &dnll, &h, &w, &targets, dims);
    // A logit sums C products within 3.5², and is rounded to its type when stored; a probability is
    // off by twice that, relatively, by its own rounding, and by exp and the sum.
    let rounding = if dtype == DType::BF16 { BF16_EPS } else { 0.0 };
    let size = 3.5 * 3.5 * c as f64;
    let logit = size * (c as f64 * F32_EPS + rounding);
    let p = 2.0 * logit + rounding + (100 + v) as f64 * F32_EPS;
    let [got_nll, got_dh, got_dw] = match rung {
        Some(rung) => with_rung(rung, || run(device, dtype, &targets, dims)),
        None => run(device, dtype, &targets, dims),
    };
    println!("cross_entropy {rung:?} {dtype} {dims:?}");
    assert_close(&got_nll, &nll, Tol { abs: 2.0 * p, rel: F32_EPS });
    // The p of a row sum to 2 at most with the target's 1; `dh` is rounded once more.
    let abs = 2.0 * 3.5 * (p + v as f64 * F32_EPS);
    assert_close(&got_dh, &dh, Tol { abs, rel: rounding });
    let abs = n as f64 * 3.5 * 3.5 * (p + n as f64 * F32_EPS);
    assert_close(&got_dw, &dw, Tol { abs, rel: 0.0 });
}

#[test]
fn every_rung_agrees() {
    let Some(device) = device() else { return };
    for (n, c, v) in [(1, 1, 1), (6, 8, 65), (11, 16, 1030), (70, 5, 7)] {
        for dtype in [DType::F32, DType::BF16] {
            for rung in [Some(1), Some(2), None] {
                agrees(&device, rung, dtype, CrossEntropyDims { n, c, v });
            }
        }
    }
}

#[test]
fn a_target_outside_the_vocabulary_is_nan_and_stays_in_its_row() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 4, c: 8, v: 10 };
    for rung in [1, 2] {
        let [nll, dh, _] =
            with_rung(rung, || run(&device, DType::BF16, &[10, 3, IGNORED, -7], dims));
        assert_eq!([0, 1, 2, 3].map(|n| nll[n].is_nan()), [true, false, false, true]);
        assert_eq!([0, 1, 2, 3].map(|n| dh[8 * n].is_nan()), [true, false, false, true]);
        assert_eq!((nll[2], &dh[16..24]), (0.0, &[0.0; 8][..]));
    }
}

#[test]
fn same_bits_twice() {
    let Some(device) = device() else { return };
    let dims = CrossEntropyDims { n: 9, c: 8, v: 300 };
    let once = || run(&device, DType::BF16, &targets_for(dims), dims);
    assert_eq!(once(), once());
}
