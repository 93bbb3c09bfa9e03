//! attention on CUDA: every rung, type and mask against the reference, needs, repeatability.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::attention::{AttentionDims, Mask, bwd, fwd, reference};
use ltm_kernels::{Buffer, DType, Device, Error, Result};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload,
};

const BOTH: [DType; 2] = [DType::F32, DType::BF16];

/// Two sequences of one key per query, within a window.
fn windowed(t: usize, [h, g]: [usize; 2], d: usize, w: usize) -> AttentionDims {
    AttentionDims { b: 2, t, t_k: t, h, g, d, mask: Mask::Window(w) }
}

/// Two sequences, every query to every key.
fn unmasked([t, t_k]: [usize; 2], [h, g]: [usize; 2], d: usize) -> AttentionDims {
    AttentionDims { b: 2, t, t_k, h, g, d, mask: Mask::None }
}

/// Sizes of `out`, `lse` and `k`.
fn lens(dims: AttentionDims) -> [usize; 3] {
    let AttentionDims { b, t, t_k, h, g, d, .. } = dims;
    [b * t * h * d, b * t * h, b * t_k * g * d]
}

fn scale(dims: AttentionDims) -> f64 {
    1.0 / (dims.d as f64).sqrt()
}

/// `q`, `k`, `v` and a gradient of `out`.
fn inputs(dims: AttentionDims) -> [Vec<f64>; 4] {
    let [q, _, kv] = lens(dims);
    [data(1, q), data(2, kv), data(3, kv), data(4, q)]
}

/// `out`, `lse`, `dq`, `dk`, `dv` in f64; backward reads `out` as the device would hold it.
fn expected(dtype: DType, dims: AttentionDims) -> [Vec<f64>; 5] {
    let [q, k, v, dout] = inputs(dims);
    let s = f64::from(scale(dims) as f32);
    let [n_out, n_lse, n_kv] = lens(dims);
    let (mut out, mut lse) = (vec![0.0; n_out], vec![0.0; n_lse]);
    reference::fwd(&mut out, &mut lse, &q, &k, &v, s, dims);
    let held = read(&upload(&Device::Cpu, DType::F32, &rounded(dtype, &out)));
    let [mut dq, mut dk, mut dv] = [vec![0.0; n_out], vec![0.0; n_kv], vec![0.0; n_kv]];
    reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &held, &lse, &q, &k, &v, s, dims);
    [out, lse, dq, dk, dv]
}

/// Where the type is bf16, to the nearest, ties to even.
fn rounded(dtype: DType, x: &[f64]) -> Vec<f64> {
    let round = |x: &f64| {
        let bits = (*x as f32).to_bits();
        f64::from(f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    };
    if dtype == DType::BF16 { x.iter().map(round).collect() } else { x.to_vec() }
}

/// `out` and `lse` of the device.
fn forward(device: &Device, dtype: DType, dims: AttentionDims) -> Result<Vec<Buffer>> {
    let [q, k, v, _] = inputs(dims).map(|x| upload(device, dtype, &x));
    let [n_out, n_lse, _] = lens(dims);
    let (mut out, mut lse) = (output(device, dtype, n_out), output(device, DType::F32, n_lse));
    fwd(device, &mut out, &mut lse, &q, &k, &v, scale(dims), dims)?;
    Ok(vec![out, lse])
}

/// Those of `dq`, `dk`, `dv` of the device that are wanted. It is given the reference's `out` and `lse`, so that its
/// errors are its own.
fn backward(
    device: &Device,
    dtype: DType,
    dims: AttentionDims,
    wanted: [bool; 3],
) -> Result<Vec<Buffer>> {
    let [q, k, v, dout] = inputs(dims).map(|x| upload(device, dtype, &x));
    let [out, lse, ..] = expected(dtype, dims);
    let out = upload(device, dtype, &rounded(dtype, &out));
    let lse = upload(device, DType::F32, &lse);
    let [n_out, _, n_kv] = lens(dims);
    let mut gradients = [n_out, n_kv, n_kv].map(|n| output(device, dtype, n));
    let mut wanted_of = wanted.iter();
    let [dq, dk, dv] =
        gradients.each_mut().map(|x| wanted_of.next().is_some_and(|w| *w).then_some(x));
    let mut scratch = output(device, DType::F32, dims.scratch_len(device));
    let (scratch, s) = (&mut scratch, scale(dims));
    bwd(device, dq, dk, dv, scratch, &dout, &out, &lse, &q, &k, &v, s, dims)?;
    Ok(gradients.into_iter().zip(wanted).filter_map(|(x, w)| w.then_some(x)).collect())
}

/// Inputs are at most 3.5. A score is a sum of D f32 products of at most 12.25, scaled: it is wrong by
/// `s`, and so, relatively, is a probability; tensor cores round that to bf16 besides, by `r`. A
/// gradient of a score is at most 24.5 D; dk sums it over the queries of H/G heads that see a key. The
/// last rounding is relative.
fn tolerances(dtype: DType, rung: u32, dims: AttentionDims) -> [Tol; 5] {
    let AttentionDims { t, t_k, h, g, d, mask, .. } = dims;
    let n = match mask {
        Mask::None => t.max(t_k),
        Mask::Window(w) => w.min(t),
    } as f64;
    let group = (h / g) as f64;
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

/// One pass of one rung against the reference.
fn check_pass(pass: &str, device: &Device, dtype: DType, rung: u32, dims: AttentionDims) {
    let (skipped, got) = match pass {
        "fwd" => (0, with_rung(rung, || forward(device, dtype, dims))),
        _ => (2, with_rung(rung, || backward(device, dtype, dims, [true; 3]))),
    };
    let got = got.expect("the rung's needs hold");
    let names = ["out", "lse", "dq", "dk", "dv"];
    let expected = names.iter().zip(tolerances(dtype, rung, dims)).zip(expected(dtype, dims));
    for (((name, tol), want), got) in expected.skip(skipped).zip(&got) {
        check(&format!("attention {name} {dtype} v{rung} {dims:?}"), got, &want, tol);
    }
}

fn check_both(device: &Device, dtype: DType, rung: u32, dims: AttentionDims) {
    check_pass("fwd", device, dtype, rung, dims);
    check_pass("bwd", device, dtype, rung, dims);
}

#[test]
fn naive_rung_agrees_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in BOTH {
        for case in [
            windowed(1, [1, 1], 1, 1),
            windowed(7, [2, 1], 3, 4),
            windowed(33, [4, 2], 17, 9),
            windowed(5, [1, 1], 256, 100),
            windowed(9, [6, 2], 10, 1),
            unmasked([1, 1], [1, 1], 1),
            unmasked([7, 5], [2, 1], 3),
            unmasked([33, 8], [4, 2], 17),
            unmasked([3, 40], [1, 1], 256),
            unmasked([5, 1], [6, 2], 9),
        ] {
            check_both(&device, dtype, 1, case);
        }
    }
}

#[test]
fn shared_rows_agree_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in BOTH {
        for case in [
            windowed(1, [1, 1], 4, 1),
            windowed(33, [2, 1], 64, 7),
            windowed(65, [2, 2], 60, 65),
            windowed(130, [2, 1], 64, 70),
            windowed(70, [1, 1], 128, 33),
            windowed(1, [1, 1], 128, 1),
            windowed(34, [6, 2], 68, 1),
            windowed(37, [2, 1], 12, 1000),
            unmasked([1, 1], [1, 1], 4),
            unmasked([33, 8], [2, 1], 64),
            unmasked([17, 17], [4, 2], 60),
            unmasked([19, 65], [2, 2], 64),
            unmasked([70, 33], [1, 1], 128),
            unmasked([1, 1], [1, 1], 128),
            unmasked([11, 16], [6, 2], 68),
        ] {
            check_both(&device, dtype, 2, case);
        }
    }
}

#[test]
fn tensor_cores_agree_with_the_reference() {
    let Some(device) = device() else { return };
    for case in [
        windowed(1, [1, 1], 8, 1),
        windowed(63, [2, 1], 32, 1000),
        windowed(64, [2, 2], 64, 64),
        windowed(65, [2, 1], 64, 65),
        windowed(130, [2, 1], 64, 17),
        windowed(193, [1, 1], 40, 70),
        windowed(97, [2, 1], 128, 33),
        windowed(70, [1, 1], 96, 1),
        windowed(1, [1, 1], 128, 1),
        windowed(66, [6, 2], 72, 3),
        windowed(129, [1, 1], 128, 1000),
        unmasked([1, 33], [1, 1], 8),
        unmasked([70, 63], [2, 1], 32),
        unmasked([64, 64], [2, 2], 64),
        unmasked([63, 65], [6, 2], 64),
        unmasked([130, 129], [1, 1], 40),
        unmasked([65, 64], [1, 1], 128),
        unmasked([5, 97], [2, 1], 72),
    ] {
        check_both(&device, DType::BF16, 3, case);
    }
    // Backward takes fewer keys as well.
    for case in [unmasked([1, 1], [1, 1], 8), unmasked([70, 9], [2, 1], 64)] {
        check_pass("bwd", &device, DType::BF16, 3, case);
    }
}

#[test]
fn split_keys_agree_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in BOTH {
        for ([b, t, t_k], [h, g], d) in [
            ([1, 1, 32], [4, 2], 64),
            ([1, 1, 33], [8, 1], 20),
            ([2, 1, 127], [2, 2], 128),
            ([1, 1, 500], [4, 4], 64),
            ([3, 8, 35], [2, 2], 4),
        ] {
            let case = AttentionDims { b, ..unmasked([t, t_k], [h, g], d) };
            check_pass("fwd", &device, dtype, 4, case);
        }
    }
}

#[test]
fn split_queries_agree_with_the_reference() {
    let Some(device) = device() else { return };
    for dtype in BOTH {
        for case in [
            unmasked([1, 1], [1, 1], 4),
            unmasked([33, 8], [2, 1], 64),
            unmasked([17, 17], [4, 2], 60),
            unmasked([70, 32], [1, 1], 128),
            unmasked([300, 8], [2, 1], 32),
            unmasked([1, 1], [1, 1], 128),
            unmasked([11, 16], [6, 2], 68),
        ] {
            check_pass("bwd", &device, dtype, 4, case);
        }
    }
}

#[test]
fn production_repeats_its_bits() {
    let Some(device) = device() else { return };
    for (dtype, case) in [
        (DType::F32, windowed(70, [2, 1], 12, 20)),
        (DType::BF16, windowed(70, [2, 1], 16, 20)),
        (DType::BF16, windowed(70, [2, 1], 12, 20)),
        (DType::F32, unmasked([150, 9], [2, 1], 16)),
        (DType::BF16, unmasked([150, 9], [2, 1], 16)),
        (DType::BF16, unmasked([70, 70], [2, 1], 16)),
    ] {
        let run = || {
            let mut outputs = forward(&device, dtype, case).expect("some rung fits");
            outputs.extend(backward(&device, dtype, case, [true; 3]).expect("some rung fits"));
            outputs.iter().map(read).collect::<Vec<_>>()
        };
        let once = run();
        assert!(once.iter().flatten().all(|x| x.is_finite()));
        assert_eq!(once, run());
    }
}

#[test]
fn a_gradient_asked_for_alone_is_the_same() {
    let Some(device) = device() else { return };
    let (window, keys) = (windowed(66, [2, 1], 16, 20), unmasked([35, 18], [2, 1], 16));
    for (rung, dtype) in
        [(1, DType::F32), (2, DType::F32), (3, DType::BF16), (4, DType::F32), (4, DType::BF16)]
    {
        for case in if rung == 4 { vec![keys] } else { vec![window, keys] } {
            let run = |wanted| with_rung(rung, || backward(&device, dtype, case, wanted));
            let all = run([true; 3]).expect("fits");
            for (i, all) in all.iter().enumerate() {
                let alone = run([0, 1, 2].map(|j| i == j)).expect("fits");
                assert_eq!(read(&alone[0]), read(all), "v{rung} {dtype} {i}");
            }
        }
    }
}

#[test]
fn refuses_what_its_kernels_cannot_do() {
    let Some(device) = device() else { return };
    let refused = |pass, rung, dtype, case: AttentionDims, label| {
        let outcome = with_rung(rung, || match pass {
            "fwd" => forward(&device, dtype, case),
            _ => backward(&device, dtype, case, [true, false, false]),
        });
        assert_refused(outcome.map(drop), label);
    };
    let (f32, bf16) = (DType::F32, DType::BF16);
    let heads = |h| windowed(1, [h, h], 8, 1);
    for pass in ["fwd", "bwd"] {
        refused(pass, 1, f32, windowed(2, [1, 1], 257, 2), "[P1]");
        refused(pass, 2, f32, windowed(2, [1, 1], 6, 2), "[P1]");
        refused(pass, 2, f32, heads(65_536), "[P2]");
        refused(pass, 3, bf16, windowed(2, [1, 1], 12, 2), "[P1]");
        refused(pass, 3, bf16, windowed(2, [1, 1], 136, 2), "[P1]");
        refused(pass, 3, bf16, heads(65_536), "[P2]");
        refused(pass, 3, f32, windowed(2, [1, 1], 8, 2), "[P3]");
        refused(pass, 5, f32, windowed(2, [1, 1], 8, 2), "a rung of that number");
    }
    refused("fwd", 3, bf16, unmasked([40, 32], [1, 1], 8), "[P4]");
    refused("fwd", 4, f32, unmasked([1, 32], [1, 1], 132), "[P1]");
    refused("fwd", 4, f32, unmasked([9, 32], [1, 1], 4), "[P3]");
    refused("fwd", 4, f32, unmasked([1, 31], [1, 1], 4), "[P3]");
    refused("fwd", 4, f32, windowed(8, [1, 1], 4, 8), "[P3]");
    refused("bwd", 4, f32, unmasked([1, 1], [32_768, 32_768], 4), "[P2]");
    refused("bwd", 4, f32, unmasked([2, 33], [1, 1], 4), "[P3]");
    refused("bwd", 4, f32, windowed(8, [1, 1], 4, 8), "[P3]");

    let case = windowed(2, [1, 1], 8, 2);
    let [q, k, v, _] = inputs(case).map(|x| upload(&device, bf16, &x));
    let mut out = output(&device, bf16, q.len());
    let mut lse = output(&device, bf16, 4);
    let wrong = fwd(&device, &mut out, &mut lse, &q, &k, &v, 1.0, case);
    assert!(matches!(wrong, Err(Error::DType { .. })), "{wrong:?}");
}
