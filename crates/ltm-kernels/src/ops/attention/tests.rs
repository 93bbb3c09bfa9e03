//! attention against its reference, finite differences, other thread counts, and bad dims.

use super::*;
use crate::{DType, Error};
use ltm_testkit::{Tol, assert_close, gradcheck, seeded};
use proptest::prelude::*;

const SCALE: f64 = 0.5;

/// Of one key per query, within a window.
fn windowed([b, t]: [usize; 2], [h, g]: [usize; 2], d: usize, w: usize) -> AttentionDims {
    AttentionDims { b, t, t_k: t, h, g, d, mask: Mask::Window(w) }
}

/// Of every query to every key.
fn unmasked([b, t, t_k]: [usize; 3], [h, g]: [usize; 2], d: usize) -> AttentionDims {
    AttentionDims { b, t, t_k, h, g, d, mask: Mask::None }
}

/// `q`, `k`, `v` and a gradient of `out`; rounded to f32 first, so that both precisions see the
/// same numbers.
fn inputs<T: Float>(dims: AttentionDims) -> [Vec<T>; 4] {
    let data = |seed, len| {
        seeded(seed, len).into_iter().map(|x| T::from_f64(f64::from(x as f32))).collect()
    };
    let (q, kv) = (dims.q_len(), dims.kv_len());
    [data(1, q), data(2, kv), data(3, kv), data(4, q)]
}

/// `out`, `lse`, `dq`, `dk`, `dv` of the implementation, from buffers full of NaN.
fn run<T: Float>(dims: AttentionDims) -> [Vec<f64>; 5] {
    let [q, k, v, dout] = inputs::<T>(dims).map(Buffer::from_vec);
    let nan = |len| Buffer::from_vec(vec![T::from_f64(f64::NAN); len]);
    let (mut out, mut lse) = (nan(dims.q_len()), nan(dims.lse_len()));
    fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims).expect("shapes agree");
    let (mut dq, mut dk, mut dv) = (nan(dims.q_len()), nan(dims.kv_len()), nan(dims.kv_len()));
    let scratch = &mut nan(dims.scratch_len(&Device::Cpu));
    let [dq_out, dk_out, dv_out] = [&mut dq, &mut dk, &mut dv].map(Some);
    let device = &Device::Cpu;
    bwd(device, dq_out, dk_out, dv_out, scratch, &dout, &out, &lse, &q, &k, &v, SCALE, dims)
        .expect("shapes agree");
    [out, lse, dq, dk, dv].map(|x| x.to_f64().expect("on the CPU"))
}

fn reference(dims: AttentionDims) -> [Vec<f64>; 5] {
    let [q, k, v, dout] = inputs::<f64>(dims);
    let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; dims.lse_len()]);
    reference::fwd(&mut out, &mut lse, &q, &k, &v, SCALE, dims);
    let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
    reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &out, &lse, &q, &k, &v, SCALE, dims);
    [out, lse, dq, dk, dv]
}

fn check(dims: AttentionDims) {
    let expected = reference(dims);
    let AttentionDims { t, h, g, d, mask, .. } = dims;
    let n_keys = dims.most_keys();
    let n_queries = if mask == Mask::None { t } else { n_keys } * h / g;
    // Inputs are at most 3.5. A score is a sum of d products with error s; a probability has the
    // same error, relatively. The gradient of a score is at most 2 * 12.25 d, with an error of 3 s of
    // that; dk sums it over the queries that see a key, dq over the keys that a query sees.
    let bound = |eps: f64| {
        let s = SCALE * 12.25 * (d * d + 4) as f64 * eps;
        let sums = |n: usize| 3.5 * (n + 4) as f64 * (eps + s);
        let grad = 3.5 * SCALE * 24.5 * d as f64 * 3.0 * (s + eps);
        [
            sums(n_keys),
            s + 4.0 * eps,
            grad * n_keys as f64,
            grad * n_queries as f64,
            sums(n_queries),
        ]
    };
    for (got, eps) in
        [(run::<f32>(dims), f64::from(f32::EPSILON)), (run::<f64>(dims), 2.0 * f64::EPSILON)]
    {
        for ((got, expected), abs) in got.iter().zip(&expected).zip(bound(eps)) {
            assert_close(got, expected, Tol { abs, rel: 4.0 * eps });
        }
    }
}

#[test]
fn edges_agree_with_the_reference() {
    // (T, W) around the tile and the window.
    for (t, w) in [(1, 1), (64, 64), (65, 1), (130, 64), (129, 100), (40, 1000), (50, 16), (70, 17)]
    {
        check(windowed([2, t], [2, 2], 8, w));
    }
    // (T, T_k) around the tile and the block of partial sums.
    for (t, t_k) in
        [(1, 1), (64, 64), (65, 1), (130, 65), (256, 8), (257, 8), (40, 130), (600, 3), (300, 70)]
    {
        check(unmasked([2, t, t_k], [2, 2], 8));
    }
    // Grouped heads and odd widths.
    for (heads, d) in [([1, 1], 1), ([4, 2], 3), ([6, 1], 17), ([2, 2], 70)] {
        check(windowed([1, 67], heads, d, 33));
        check(unmasked([1, 67, 12], heads, d));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn agrees_with_the_reference(
        b in 1usize..3, t in 1usize..300, t_k in 1usize..80, g in 1usize..3, group in 1usize..3,
        d in 1usize..24, w in prop::option::of(1usize..160),
    ) {
        check(match w {
            None => unmasked([b, t, t_k], [g * group, g], d),
            Some(w) => windowed([b, t], [g * group, g], d, w),
        });
    }
}

#[test]
fn a_query_sees_the_keys_of_its_mask() {
    // Equal scores: a query's output is the mean of what it sees, here of positions.
    let means = |dims: AttentionDims| {
        let [q, k] = [vec![0f64; dims.q_len()], vec![0f64; dims.kv_len()]].map(Buffer::from_vec);
        let v = Buffer::from_vec((0..dims.t_k).map(|j| j as f64).collect());
        let [mut out, mut lse] =
            [dims.q_len(), dims.lse_len()].map(|n| Buffer::from_vec(vec![f64::NAN; n]));
        fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims).expect("shapes agree");
        out.to_f64().expect("on the CPU")
    };
    let tol = Tol { abs: 1e-12, rel: 0.0 };
    assert_close(&means(windowed([1, 5], [1, 1], 1, 3)), &[0.0, 0.5, 1.0, 2.0, 3.0], tol);
    assert_close(&means(windowed([1, 3], [1, 1], 1, 1)), &[0.0, 1.0, 2.0], tol);
    assert_close(&means(windowed([1, 3], [1, 1], 1, usize::MAX)), &[0.0, 0.5, 1.0], tol);
    assert_close(&means(unmasked([1, 2, 4], [1, 1], 1)), &[1.5, 1.5], tol);
}

#[test]
fn gradients_agree_with_finite_differences() {
    for dims in [windowed([2, 7], [4, 2], 3, 4), unmasked([2, 7, 4], [4, 2], 3)] {
        let [q, k, v, dout] = inputs::<f64>(dims);
        let loss = |q: &[f64], k: &[f64], v: &[f64]| {
            let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; dims.lse_len()]);
            reference::fwd(&mut out, &mut lse, q, k, v, SCALE, dims);
            out.iter().zip(&dout).map(|(out, dout)| out * dout).sum()
        };
        let [_, _, dq, dk, dv] = run::<f64>(dims);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|q| loss(q, &k, &v), &q, &dq, tol);
        gradcheck(|k| loss(&q, k, &v), &k, &dk, tol);
        gradcheck(|v| loss(&q, &k, v), &v, &dv, tol);
    }
}

#[test]
fn a_gradient_asked_for_alone_is_the_same() {
    for dims in [windowed([1, 70], [2, 1], 5, 20), unmasked([1, 300, 20], [2, 1], 5)] {
        let [out, lse, dq, dk, dv] = run::<f64>(dims);
        let [q, k, v, dout] = inputs::<f64>(dims).map(Buffer::from_vec);
        let [out, lse] = [out, lse].map(Buffer::from_vec);
        for (i, expected) in [dq, dk, dv].into_iter().enumerate() {
            let mut got = Buffer::from_vec(vec![0f64; expected.len()]);
            let mut wanted = [None, None, None];
            wanted[i] = Some(&mut got);
            let [dq, dk, dv] = wanted;
            let mut scratch = Buffer::from_vec(vec![f64::NAN; dims.scratch_len(&Device::Cpu)]);
            bwd(&Device::Cpu, dq, dk, dv, &mut scratch, &dout, &out, &lse, &q, &k, &v, SCALE, dims)
                .expect("shapes agree");
            assert_eq!(got.to_f64().expect("on the CPU"), expected);
        }
    }
}

#[test]
fn same_bits_on_any_number_of_threads() {
    for dims in [windowed([3, 150], [4, 2], 9, 70), unmasked([3, 600, 70], [4, 2], 9)] {
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads start").install(|| run::<f32>(dims))
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3));
    }
}

#[test]
fn large_scores_do_not_overflow() {
    let dims = windowed([1, 3], [1, 1], 1, 3);
    let [q, k, v] = [[300.0, 300.0, -300.0], [300.0, -300.0, 1.0], [1.0, 2.0, 4.0]]
        .map(|x| Buffer::from_vec(x.map(|x| x as f32).to_vec()));
    let (mut out, mut lse) = (Buffer::from_vec(vec![0f32; 3]), Buffer::from_vec(vec![0f32; 3]));
    fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, 1.0, dims).expect("shapes agree");
    assert_eq!(out.to_f32().expect("on the CPU"), [1.0, 1.0, 2.0]);
    assert_eq!(lse.to_f32().expect("on the CPU"), [90_000.0, 90_000.0, 90_000.0]);
}

#[test]
fn refuses_what_does_not_fit() {
    let dims = unmasked([1, 3, 2], [4, 2], 2);
    let buffer = |len| Buffer::from_vec(vec![0f32; len]);
    let try_fwd = |lens: [usize; 5], dims| {
        let [mut out, mut lse, q, k, v] = lens.map(buffer);
        fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims)
    };
    let good = [24, 12, 24, 8, 8];
    assert_eq!(try_fwd(good, dims), Ok(()));
    for (i, arg) in ["out", "lse", "q", "k", "v"].into_iter().enumerate() {
        let mut lens = good;
        lens[i] += 1;
        assert!(matches!(try_fwd(lens, dims), Err(Error::Shape { arg: got, .. }) if got == arg));
    }
    let names = ["dq", "dk", "dv", "scratch", "dout", "out", "lse", "q", "k", "v"];
    for dims in [dims, unmasked([1, 300, 2], [4, 2], 2), windowed([1, 3], [4, 2], 2, 2)] {
        let (q_len, kv_len, lse_len) = (dims.q_len(), dims.kv_len(), dims.lse_len());
        let scratch_len = dims.scratch_len(&Device::Cpu);
        let good =
            [q_len, kv_len, kv_len, scratch_len, q_len, q_len, lse_len, q_len, kv_len, kv_len];
        for (i, arg) in names.into_iter().enumerate() {
            let mut lens = good;
            lens[i] -= 1;
            let [mut dq, mut dk, mut dv, mut scratch, dout, out, lse, q, k, v] = lens.map(buffer);
            let (dq, dk, dv) = (Some(&mut dq), Some(&mut dk), Some(&mut dv));
            let scratch = &mut scratch;
            let refused =
                bwd(&Device::Cpu, dq, dk, dv, scratch, &dout, &out, &lse, &q, &k, &v, SCALE, dims);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
    }
    for dims in [
        AttentionDims { t_k: 0, ..dims },
        AttentionDims { g: 3, ..dims },
        AttentionDims { b: usize::MAX / 2, ..dims },
        // A window over another number of keys than of queries, and one of 0.
        AttentionDims { mask: Mask::Window(2), ..dims },
        AttentionDims { t: 2, mask: Mask::Window(0), ..dims },
    ] {
        assert!(matches!(try_fwd(good, dims), Err(Error::Dims { .. })));
    }
    let [mut out, mut lse, k, v] = [24, 12, 8, 8].map(buffer);
    let q = Buffer::from_vec(vec![0f64; 24]);
    let refused = fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims);
    assert_eq!(refused, Err(Error::DType { expected: "f32", got: DType::F64 }));
}
