//! `attention` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::attention::{AttentionDims, Mask, bwd, fwd, reference};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{BF16, BF16_EPS, F32, F32_EPS, data, device, output, read, upload};
use crate::walk::{Case, Expected, Need, Pass, Results, Subject, both, no_needs};

/// Only more rows, or keys, than 32-bit integers count do not meet these; the unit tests show them refused.
const TOO_LARGE: [Need; 3] = [
    ("attention/bwd_v1_naive.cu", "[P2] B*T*H < 2^31, B*T_k*G < 2^31"),
    ("attention/fwd_v1_naive.cu", "[P2] B*T*H < 2^31"),
    ("attention/fwd_v4_split_keys.cu", "[P2] B*T*H < 2^31, T_k <= 2^30"),
];

pub fn subject() -> Subject {
    let head = |d| windowed(2, [1, 1], d, 2);
    let many_heads = windowed(1, [65_536; 2], 8, 1);
    // One warp per row.
    let naive = [
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
        head(257),
    ];
    // 32 rows per block.
    let shared = [
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
        head(6),
        head(132),
        many_heads,
    ];
    // Tiles of 64 queries and 64 keys.
    let tiles = [
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
        // Backward alone takes as few keys.
        unmasked([1, 1], [1, 1], 8),
        unmasked([70, 9], [2, 1], 64),
        unmasked([40, 32], [1, 1], 8),
        head(12),
        head(136),
        many_heads,
    ];
    let in_bf16 = || tiles.map(|dims| (BF16, dims)).into_iter().chain([(F32, head(8))]).collect();
    // Sixteen keys at once, for at most eight queries.
    let split_keys = [
        unmasked([1, 32], [4, 2], 64),
        unmasked([1, 33], [8, 1], 20),
        unmasked([1, 127], [2, 2], 128),
        unmasked([1, 500], [4, 4], 64),
        unmasked([8, 35], [2, 2], 4),
        unmasked([1, 32], [1, 1], 6),
        unmasked([1, 32], [1, 1], 132),
        unmasked([9, 32], [1, 1], 4),
        unmasked([1, 31], [1, 1], 4),
        windowed(8, [1, 1], 4, 8),
    ];
    // Parts of the queries, for at most 32 keys.
    let split_queries = [
        unmasked([1, 1], [1, 1], 4),
        unmasked([33, 8], [2, 1], 64),
        unmasked([17, 17], [4, 2], 60),
        unmasked([70, 32], [1, 1], 128),
        unmasked([300, 8], [2, 1], 32),
        unmasked([1, 1], [1, 1], 128),
        unmasked([11, 16], [6, 2], 68),
        unmasked([1, 1], [1, 1], 6),
        unmasked([1, 1], [1, 1], 132),
        unmasked([1, 1], [32_768; 2], 4),
        unmasked([2, 33], [1, 1], 4),
        windowed(8, [1, 1], 4, 8),
    ];
    let cases = vec![
        fwd_of::<1>(both(naive)),
        fwd_of::<2>(both(shared)),
        fwd_of::<3>(in_bf16()),
        fwd_of::<4>(both(split_keys)),
        bwd_of::<1>(both(naive)),
        bwd_of::<2>(both(shared)),
        bwd_of::<3>(in_bf16()),
        bwd_of::<4>(both(split_queries)),
    ];
    Subject { op: "attention", cases }
}

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

/// As the kernels take it.
fn rounded_scale(dims: AttentionDims) -> f64 {
    f64::from(scale(dims) as f32)
}

fn fwd_of<const RUNG: u32>(calls: Vec<(DType, AttentionDims)>) -> Box<dyn Pass> {
    let run = |device: &Device, dtype, dims: &AttentionDims| forward(device, dtype, *dims);
    Case { pass: "fwd", calls, holds, run, expected: expected_fwd::<RUNG> }.of_rung(RUNG)
}

fn bwd_of<const RUNG: u32>(calls: Vec<(DType, AttentionDims)>) -> Box<dyn Pass> {
    let run =
        |device: &Device, dtype, dims: &AttentionDims| backward(device, dtype, *dims, [true; 3]);
    Case { pass: "bwd", calls, holds, run, expected: expected_bwd::<RUNG> }.of_rung(RUNG)
}

fn holds(need: &str, dtype: DType, dims: &AttentionDims) -> bool {
    let AttentionDims { b, t, t_k, h, g, d, mask } = *dims;
    let (most, rows) = (65_535, b * t * h);
    match need {
        "[P1] D <= 256" => d <= 256,
        "[P1] D % 4 == 0, D <= 128" => d.is_multiple_of(4) && d <= 128,
        "[P1] D % 8 == 0, D <= 128" => d.is_multiple_of(8) && d <= 128,
        "[P2] B*T*H < 2^31" => rows < 1 << 31,
        "[P2] B*T*H < 2^31, T_k <= 2^30" => rows < 1 << 31 && t_k <= 1 << 30,
        "[P2] B*T*H < 2^31, B*T_k*G < 2^31" => rows < 1 << 31 && b * t_k * g < 1 << 31,
        "[P2] B*G <= 65535, B*T*H <= 2^30" => b * g <= most && rows <= 1 << 30,
        "[P2] G <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30" => {
            g <= most && b <= most && rows <= 1 << 30 && t_k <= 1 << 30
        }
        "[P2] H <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30" => {
            h <= most && b <= most && rows <= 1 << 30 && t_k <= 1 << 30
        }
        "[P3] bf16" => dtype == BF16,
        "[P3] T*(H/G) <= 8, T_k >= 32" => t * (h / g) <= 8 && t_k >= 32,
        "[P3] no mask, T_k <= 32" => mask == Mask::None && t_k <= 32,
        "[P4] a window, or T_k > 32" => mask != Mask::None || t_k > 32,
        _ => no_needs(need, dtype, dims),
    }
}

/// `q`, `k`, `v` and a gradient of `out`.
fn inputs(dims: AttentionDims) -> [Vec<f64>; 4] {
    let [q, _, kv] = lens(dims);
    [data(1, q), data(2, kv), data(3, kv), data(4, q)]
}

/// `out` and `lse` in f64.
fn of_forward(dims: AttentionDims) -> [Vec<f64>; 2] {
    let [q, k, v, _] = inputs(dims);
    let [n_out, n_lse, _] = lens(dims);
    let (mut out, mut lse) = (vec![0.0; n_out], vec![0.0; n_lse]);
    reference::fwd(&mut out, &mut lse, &q, &k, &v, rounded_scale(dims), dims);
    [out, lse]
}

fn expected_fwd<const RUNG: u32>(
    dtype: DType,
    dims: &AttentionDims,
    _: &[Vec<f64>],
) -> Vec<Expected> {
    let ([out, lse], [of_out, of_lse, ..]) = (of_forward(*dims), tolerances(dtype, RUNG, *dims));
    vec![("out", out, of_out), ("lse", lse, of_lse)]
}

fn expected_bwd<const RUNG: u32>(
    dtype: DType,
    dims: &AttentionDims,
    _: &[Vec<f64>],
) -> Vec<Expected> {
    let ([q, k, v, dout], [out, lse]) = (inputs(*dims), of_forward(*dims));
    let [n_out, _, n_kv] = lens(*dims);
    let [mut dq, mut dk, mut dv] = [n_out, n_kv, n_kv].map(|n| vec![0.0; n]);
    let (out, s) = (rounded(dtype, &out), rounded_scale(*dims));
    reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &out, &lse, &q, &k, &v, s, *dims);
    let [.., of_dq, of_dk, of_dv] = tolerances(dtype, RUNG, *dims);
    vec![("dq", dq, of_dq), ("dk", dk, of_dk), ("dv", dv, of_dv)]
}

/// As a device holds them: to the nearest of the type, ties to even.
fn rounded(dtype: DType, x: &[f64]) -> Vec<f64> {
    let round = |x: &f64| {
        let bits = (*x as f32).to_bits();
        let to_bf16 = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000;
        f64::from(f32::from_bits(if dtype == BF16 { to_bf16 } else { bits }))
    };
    x.iter().map(round).collect()
}

/// `out` and `lse` of the device.
fn forward(device: &Device, dtype: DType, dims: AttentionDims) -> Results {
    let [q, k, v, _] = inputs(dims).map(|x| upload(device, dtype, &x));
    let [n_out, n_lse, _] = lens(dims);
    let (mut out, mut lse) = (output(device, dtype, n_out), output(device, F32, n_lse));
    fwd(device, &mut out, &mut lse, &q, &k, &v, scale(dims), dims)?;
    Ok(vec![read(&out), read(&lse)])
}

/// Those of `dq`, `dk`, `dv` of the device that are wanted. It is given the reference's `out` and `lse`, so that its
/// errors are its own.
fn backward(device: &Device, dtype: DType, dims: AttentionDims, wanted: [bool; 3]) -> Results {
    let [q, k, v, dout] = inputs(dims).map(|x| upload(device, dtype, &x));
    let [out, lse] = of_forward(dims);
    let out = upload(device, dtype, &rounded(dtype, &out));
    let lse = upload(device, F32, &lse);
    let [n_out, _, n_kv] = lens(dims);
    let mut gradients = [n_out, n_kv, n_kv].map(|n| output(device, dtype, n));
    let mut wanted_of = wanted.iter();
    let [dq, dk, dv] =
        gradients.each_mut().map(|x| wanted_of.next().is_some_and(|w| *w).then_some(x));
    let mut scratch = output(device, F32, dims.scratch_len(device));
    let (scratch, s) = (&mut scratch, scale(dims));
    bwd(device, dq, dk, dv, scratch, &dout, &out, &lse, &q, &k, &v, s, dims)?;
    Ok(gradients.iter().zip(wanted).filter(|(_, w)| *w).map(|(x, _)| read(x)).collect())
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
    let rel = if dtype == BF16 { BF16_EPS } else { 4.0 * F32_EPS };
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

#[test]
fn every_rung_agrees() {
    subject().walk_except(&TOO_LARGE);
}

#[test]
fn a_gradient_asked_for_alone_is_the_same() {
    let Some(device) = device() else { return };
    let (window, keys) = (windowed(66, [2, 1], 16, 20), unmasked([35, 18], [2, 1], 16));
    for (rung, dtype) in [(1, F32), (2, F32), (3, BF16), (4, F32), (4, BF16)] {
        for case in if rung == 4 { vec![keys] } else { vec![window, keys] } {
            let run = |wanted| with_rung(rung, || backward(&device, dtype, case, wanted));
            let all = run([true; 3]).expect("fits");
            for (i, all) in all.iter().enumerate() {
                let alone = run([0, 1, 2].map(|j| i == j)).expect("fits");
                assert_eq!(alone, std::slice::from_ref(all), "v{rung} {dtype} {i}");
            }
        }
    }
}

#[test]
fn log_sums_of_another_type_are_refused() {
    let Some(device) = device() else { return };
    let dims = windowed(2, [1, 1], 8, 2);
    let [q, k, v, _] = inputs(dims).map(|x| upload(&device, BF16, &x));
    let (mut out, mut lse) = (output(&device, BF16, q.len()), output(&device, BF16, 4));
    let wrong = fwd(&device, &mut out, &mut lse, &q, &k, &v, 1.0, dims);
    assert!(matches!(wrong, Err(Error::DType { .. })), "{wrong:?}");
}
