//! self_attention on CUDA: every rung and type against the reference, needs, repeatability.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::self_attention::{SelfAttentionDims, bwd, fwd, reference};
use ltm_kernels::{Buffer, DType, Device, Error, Result};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload,
};

/// Sizes of `out`, `lse` and `k`.
fn lens(dims: SelfAttentionDims) -> [usize; 3] {
    let SelfAttentionDims { b, t, h, g, d, .. } = dims;
    [b * t * h * d, b * t * h, b * t * g * d]
}

fn scale(dims: SelfAttentionDims) -> f64 {
    1.0 / (dims.d as f64).sqrt()
}

/// `q`, `k`, `v` and a gradient of `out`.
fn inputs(dims: SelfAttentionDims) -> [Vec<f64>; 4] {
    let [q, _, kv] = lens(dims);
    [data(1, q), data(2, kv), data(3, kv), data(4, q)]
}

/// `out`, `lse`, `dq`, `dk`, `dv` in f64; backward reads `out` as the device would hold it.
fn expected(dtype: DType, dims: SelfAttentionDims) -> [Vec<f64>; 5] {
    let [q, k, v, dout] = inputs(dims);
    let s = f64::from(scale(dims) as f32);
    let [n_out, n_lse, n_kv] = lens(dims);
    let (mut out, mut lse) = (vec![0.0; n_out], vec![0.0; n_lse]);
    reference::fwd(&mut out, &mut lse, &q, &k, &v, s, dims);
    let held = read(&upload(&Device::Cpu, DType::F32, &out));
    let held = if dtype == DType::BF16 { rounded(&held) } else { held };
    let [mut dq, mut dk, mut dv] = [vec![0.0; n_out], vec![0.0; n_kv], vec![0.0; n_kv]];
    reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &held, &lse, &q, &k, &v, s, dims);
    [out, lse, dq, dk, dv]
}

/// To the nearest bf16, ties to even.
fn rounded(x: &[f64]) -> Vec<f64> {
    let round = |x: &f64| {
        let bits = (*x as f32).to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    x.iter().map(round).collect()
}

/// The five outputs of the device, all gradients computed.
fn run(device: &Device, dtype: DType, dims: SelfAttentionDims) -> Result<[Buffer; 5]> {
    let [q, k, v, dout] = inputs(dims).map(|x| upload(device, dtype, &x));
    let [n_out, n_lse, n_kv] = lens(dims);
    let mut out = output(device, dtype, n_out);
    let mut lse = output(device, DType::F32, n_lse);
    fwd(device, &mut out, &mut lse, &q, &k, &v, scale(dims), dims)?;
    // Backward is given the reference's results, so that its errors are its own.
    let [out_exact, lse_exact, ..] = expected(dtype, dims);
    let out_held = upload(device, dtype, &rounded_for(dtype, &out_exact));
    let lse_held = upload(device, DType::F32, &lse_exact);
    let mut dq = output(device, dtype, n_out);
    let (mut dk, mut dv) = (output(device, dtype, n_kv), output(device, dtype, n_kv));
    let mut scratch = output(device, DType::F32, dims.scratch_len(device));
    let gradients = (Some(&mut dq), Some(&mut dk), Some(&mut dv));
    let (dq_out, dk_out, dv_out) = gradients;
    bwd(
        device,
        dq_out,
        dk_out,
        dv_out,
        &mut scratch,
        &dout,
        &out_held,
        &lse_held,
        &q,
        &k,
        &v,
        scale(dims),
        dims,
    )?;
    Ok([out, lse, dq, dk, dv])
}

fn rounded_for(dtype: DType, x: &[f64]) -> Vec<f64> {
    if dtype == DType::BF16 { rounded(x) } else { x.to_vec() }
}

/// Inputs are at most 3.5. A score is a sum of D f32 products of at most 12.25, scaled: it is wrong by
/// `s`, and so, relatively, is a probability; tensor cores round that to bf16 besides, by `r`. A
/// gradient of a score is at most 24.5 D; dk sums it over at most W queries of H/G heads. The last
/// rounding is relative.
fn tolerances(dtype: DType, rung: u32, dims: SelfAttentionDims) -> [Tol; 5] {
    let SelfAttentionDims { t, h, g, d, w, .. } = dims;
    let (n, group) = (w.min(t) as f64, (h / g) as f64);
    let s = scale(dims) * 12.25 * (d * d + 8) as f64 * F32_EPS;
    let r = if rung == 3 { BF16_EPS } else { 0.0 };
    let rel = if dtype == DType::BF16 { BF16_EPS } else { 4.0 * F32_EPS };
    // A row's probabilities sum to 1.
    let out = 3.5 * (s + r + n * F32_EPS);
    // Over a column they do not: at most one for each query and head.
    let dv = 3.5 * n * group * (s + r + n * F32_EPS);
    // A gradient of a score, in norm far below its bound: errors add up like a random walk.
    let ds = (3.5 * 3.5 * 2.0) * (d as f64).sqrt() * 4.0;
    let grad = 3.5 * scale(dims) * ds * (3.0 * s + 2.0 * r + n * F32_EPS);
    [
        Tol { abs: out, rel },
        Tol { abs: s + 8.0 * F32_EPS, rel: 4.0 * F32_EPS },
        Tol { abs: grad, rel },
        Tol { abs: grad * (n * group).sqrt(), rel },
        Tol { abs: dv.min(3.5 * (n * group).sqrt() * (s + r + n * F32_EPS) * 4.0), rel },
    ]
}

fn check_all(device: &Device, dtype: DType, rung: u32, dims: SelfAttentionDims) {
    let got = with_rung(rung, || run(device, dtype, dims)).expect("the rung's needs hold");
    let want = expected(dtype, dims);
    let names = ["out", "lse", "dq", "dk", "dv"];
    for ((name, tol), (got, want)) in
        names.iter().zip(tolerances(dtype, rung, dims)).zip(got.iter().zip(&want))
    {
        check(&format!("self_attention {name} {dtype} v{rung} {dims:?}"), got, want, tol);
    }
}

fn dims(t: usize, [h, g]: [usize; 2], d: usize, w: usize) -> SelfAttentionDims {
    SelfAttentionDims { b: 2, t, h, g, d, w }
}

#[test]
fn self_attention_naive_agrees_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        for case in [
            dims(1, [1, 1], 1, 1),
            dims(7, [2, 1], 3, 4),
            dims(33, [4, 2], 17, 9),
            dims(5, [1, 1], 256, 100),
            dims(9, [6, 2], 10, 1),
        ] {
            check_all(&device, dtype, 1, case);
        }
    }
}

#[test]
fn self_attention_with_shared_rows_agrees_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        for case in [
            dims(1, [1, 1], 4, 1),
            dims(33, [2, 1], 64, 7),
            dims(65, [2, 2], 60, 65),
            dims(130, [2, 1], 64, 70),
            dims(70, [1, 1], 128, 33),
            dims(1, [1, 1], 128, 1),
            dims(34, [6, 2], 68, 1),
            dims(37, [2, 1], 12, 1000),
        ] {
            check_all(&device, dtype, 2, case);
        }
    }
}

#[test]
fn self_attention_tensor_cores_agree_with_the_reference() {
    let Some(device) = device() else { return };
    for case in [
        dims(1, [1, 1], 8, 1),
        dims(63, [2, 1], 32, 1000),
        dims(64, [2, 2], 64, 64),
        dims(65, [2, 1], 64, 65),
        dims(130, [2, 1], 64, 17),
        dims(193, [1, 1], 40, 70),
        dims(97, [2, 1], 128, 33),
        dims(70, [1, 1], 96, 1),
        dims(1, [1, 1], 128, 1),
        dims(66, [6, 2], 72, 3),
        dims(129, [1, 1], 128, 1000),
    ] {
        check_all(&device, DType::BF16, 3, case);
    }
}

#[test]
fn self_attention_takes_the_rung_that_fits_and_repeats_its_bits() {
    let Some(device) = device() else { return };
    for (dtype, d) in [(DType::F32, 12), (DType::BF16, 16), (DType::BF16, 12)] {
        let case = dims(70, [2, 1], d, 20);
        let once = run(&device, dtype, case).expect("some rung fits");
        let twice = run(&device, dtype, case).expect("some rung fits");
        for (once, twice) in once.iter().zip(&twice) {
            let (once, twice) = (read(once), read(twice));
            assert!(once.iter().all(|x| x.is_finite()));
            assert_eq!(once, twice);
        }
    }
}

#[test]
fn self_attention_gradients_may_be_left_out() {
    let Some(device) = device() else { return };
    for (rung, dtype) in [(1, DType::F32), (2, DType::F32), (3, DType::BF16)] {
        let case = dims(66, [2, 1], 16, 20);
        let [out, lse, dq, dk, dv] = with_rung(rung, || run(&device, dtype, case)).expect("fits");
        drop((out, lse));
        let [q, k, v, dout] = inputs(case).map(|x| upload(&device, dtype, &x));
        let [out, lse, ..] = expected(dtype, case);
        let out = upload(&device, dtype, &rounded_for(dtype, &out));
        let lse = upload(&device, DType::F32, &lse);
        for (i, all) in [dq, dk, dv].iter().enumerate() {
            let mut alone = output(&device, dtype, all.len());
            let mut wanted = [None, None, None];
            wanted[i] = Some(&mut alone);
            let [dq, dk, dv] = wanted;
            let mut scratch = output(&device, DType::F32, case.scratch_len(&device));
            let s = scale(case);
            with_rung(rung, || {
                bwd(&device, dq, dk, dv, &mut scratch, &dout, &out, &lse, &q, &k, &v, s, case)
            })
            .expect("fits");
            assert_eq!(read(&alone), read(all));
        }
    }
}

#[test]
fn self_attention_refuses_what_its_kernels_cannot_do() {
    let Some(device) = device() else { return };
    let refused = |rung, dtype, case: SelfAttentionDims, label| {
        let [n_out, n_lse, n_kv] = lens(case);
        let [q, k, v, dout] = [n_out, n_kv, n_kv, n_out].map(|n| output(&device, dtype, n));
        let (mut out, mut lse) =
            (output(&device, dtype, n_out), output(&device, DType::F32, n_lse));
        let mut dq = output(&device, dtype, n_out);
        let mut scratch = output(&device, DType::F32, case.scratch_len(&device));
        with_rung(rung, || {
            assert_refused(fwd(&device, &mut out, &mut lse, &q, &k, &v, 1.0, case), label);
            let (dq, s) = (Some(&mut dq), &mut scratch);
            let refused = bwd(&device, dq, None, None, s, &dout, &out, &lse, &q, &k, &v, 1.0, case);
            assert_refused(refused, label);
        });
    };
    refused(1, DType::F32, dims(2, [1, 1], 257, 2), "[P1]");
    refused(2, DType::F32, dims(2, [1, 1], 6, 2), "[P1]");
    refused(2, DType::F32, dims(1, [65_536, 1], 4, 1), "[P2]");
    refused(3, DType::BF16, dims(2, [1, 1], 12, 2), "[P1]");
    refused(3, DType::BF16, dims(2, [1, 1], 136, 2), "[P1]");
    refused(3, DType::BF16, dims(1, [65_536, 1], 8, 1), "[P2]");
    refused(3, DType::F32, dims(2, [1, 1], 8, 2), "[P3]");
    let case = dims(2, [1, 1], 8, 2);
    let [q, k, v, _] = inputs(case).map(|x| upload(&device, DType::BF16, &x));
    let mut out = output(&device, DType::BF16, q.len());
    let mut lse = output(&device, DType::BF16, 4);
    let wrong = fwd(&device, &mut out, &mut lse, &q, &k, &v, 1.0, case);
    assert!(matches!(wrong, Err(Error::DType { .. })), "{wrong:?}");
}
