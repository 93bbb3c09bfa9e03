//! Causal attention within a sliding window. Knows shapes and the window; must not know how queries
//! are computed.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_dims, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "self_attention";

/// Extents of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelfAttentionDims {
    /// Sequences.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
    /// Query heads.
    pub h: usize,
    /// Key and value heads: a divisor of `h`. Query head `i` reads head `i / (h / g)`.
    pub g: usize,
    /// Width of a head.
    pub d: usize,
    /// Keys a query sees, itself included; fewer at the start of a sequence.
    pub w: usize,
}

impl SelfAttentionDims {
    /// Refuses an extent of 0, a `g` that does not divide `h`, and products that overflow.
    ///
    /// # Errors
    /// [`crate::Error::Dims`].
    pub fn validate(&self) -> Result<()> {
        let Self { b, t, h, g, d, w } = *self;
        check_dims(OP, ![b, t, h, g, d, w].contains(&0), || {
            format!("every extent must be at least 1, got b {b}, t {t}, h {h}, g {g}, d {d}, w {w}")
        })?;
        check_dims(OP, h % g == 0, || format!("g must divide h, got h {h}, g {g}"))?;
        let flops =
            [b, t, h, d, t.min(w)].iter().try_fold(10usize, |product, x| product.checked_mul(*x));
        check_dims(OP, flops.is_some(), || {
            format!("10 * b * t * h * d * w overflows with b {b}, t {t}, h {h}, d {d}, w {w}")
        })
    }

    /// Elements of [`bwd`]'s scratch.
    pub fn scratch_len(&self, _device: &Device) -> usize {
        self.b * self.t * self.h
    }

    /// Cost of [`fwd`]: two products over the visible pairs; the score matrix is not stored.
    pub fn cost_fwd(&self) -> Cost {
        Cost::new(4 * self.pair_elements(), 2 * self.q_len() + 2 * self.kv_len() + self.lse_len())
    }

    /// Cost of [`bwd`] with all gradients: the five products that are necessary.
    pub fn cost_bwd(&self) -> Cost {
        Cost::new(10 * self.pair_elements(), 4 * self.q_len() + 4 * self.kv_len() + self.lse_len())
    }

    /// `B * H * D` times the number of visible pairs of query and key.
    fn pair_elements(&self) -> usize {
        let Self { b, t, h, d, w, .. } = *self;
        let w = w.min(t);
        b * h * d * (w * (w + 1) / 2 + (t - w) * w)
    }

    fn q_len(&self) -> usize {
        self.b * self.t * self.h * self.d
    }

    fn kv_len(&self) -> usize {
        self.b * self.t * self.g * self.d
    }

    fn lse_len(&self) -> usize {
        self.b * self.t * self.h
    }
}

/// `out[b,t,h,:] = sum_j p_j v[b,j,:]` with `p = softmax_j(scale * q[b,t,h,:]·k[b,j,:])` over `j`
/// in `max(0,t-W+1)..=t`.
///
/// # Shapes
/// `q (B,T,H,D)`, `k` and `v (B,T,G,D)` → `out (B,T,H,D)`, `lse (B,T,H)`, the log-sum-exp of the
/// scaled scores, which [`bwd`] reads. `scale` is usually `1/sqrt(D)`. f32 or f64; on CUDA f32 or
/// bf16, with `lse` and [`bwd`]'s scratch f32 in both cases.
///
/// Inputs must be finite: a NaN or infinity at a position may affect queries up to 63 positions
/// away from those that see it.
///
/// # Errors
/// [`crate::Error::Dims`] from [`SelfAttentionDims::validate`], [`crate::Error::Shape`] when a
/// buffer disagrees with `dims`, [`crate::Error::DType`] when the buffers do not share one float
/// type, [`crate::Error::Unsupported`] when no CUDA kernel takes these `dims`.
///
/// # Source
/// Vaswani et al. 2017, equation 1, with the sliding window of Beltagy et al. 2020; online softmax
/// of Milakov and Gimelshein 2018.
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    lse: &mut Buffer,
    q: &Buffer,
    k: &Buffer,
    v: &Buffer,
    scale: f64,
    dims: SelfAttentionDims,
) -> Result<()> {
    dims.validate()?;
    for (arg, got, expected) in [
        ("out", out.len(), dims.q_len()),
        ("lse", lse.len(), dims.lse_len()),
        ("q", q.len(), dims.q_len()),
        ("k", k.len(), dims.kv_len()),
        ("v", v.len(), dims.kv_len()),
    ] {
        check_len(OP, arg, got, expected)?;
    }
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, lse, q, k, v, scale, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            let (out, lse) = (out.as_mut_slice::<T>()?, lse.as_mut_slice()?);
            let (q, k, v) = (q.as_slice()?, k.as_slice()?, v.as_slice()?);
            cpu::fwd::<T>(out, lse, q, k, v, T::from_f64(scale), dims);
            Ok(())
        }),
    }
}

/// Gradients of [`fwd`]'s `out` with respect to the requested inputs; each is overwritten.
///
/// # Shapes
/// `dout` and `out (B,T,H,D)`, `lse (B,T,H)`, `q`, `k`, `v` as in [`fwd`] → `dq (B,T,H,D)`, `dk`
/// and `dv (B,T,G,D)`; `scratch` holds [`SelfAttentionDims::scratch_len`] elements of any content.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// Dao et al. 2022 (FlashAttention), algorithm 4: probabilities are rebuilt from `lse`.
pub fn bwd(
    device: &Device,
    dq: Option<&mut Buffer>,
    dk: Option<&mut Buffer>,
    dv: Option<&mut Buffer>,
    scratch: &mut Buffer,
    dout: &Buffer,
    out: &Buffer,
    lse: &Buffer,
    q: &Buffer,
    k: &Buffer,
    v: &Buffer,
    scale: f64,
    dims: SelfAttentionDims,
) -> Result<()> {
    dims.validate()?;
    let wanted = |x: &Option<&mut Buffer>, expected| x.as_ref().map_or(expected, |x| x.len());
    for (arg, got, expected) in [
        ("dq", wanted(&dq, dims.q_len()), dims.q_len()),
        ("dk", wanted(&dk, dims.kv_len()), dims.kv_len()),
        ("dv", wanted(&dv, dims.kv_len()), dims.kv_len()),
        ("scratch", scratch.len(), dims.scratch_len(device)),
        ("dout", dout.len(), dims.q_len()),
        ("out", out.len(), dims.q_len()),
        ("lse", lse.len(), dims.lse_len()),
        ("q", q.len(), dims.q_len()),
        ("k", k.len(), dims.kv_len()),
        ("v", v.len(), dims.kv_len()),
    ] {
        check_len(OP, arg, got, expected)?;
    }
    match device {
        Device::Cuda(context) => {
            let gradients = cuda::Gradients { dq, dk, dv };
            cuda::bwd(context, gradients, scratch, dout, out, lse, q, k, v, scale, dims)
        }
        Device::Cpu => on_float!(dout.dtype(), T => {
            let dq = dq.map(Buffer::as_mut_slice::<T>).transpose()?;
            let dk = dk.map(Buffer::as_mut_slice::<T>).transpose()?;
            let dv = dv.map(Buffer::as_mut_slice::<T>).transpose()?;
            let (dout, out, lse) = (dout.as_slice()?, out.as_slice()?, lse.as_slice()?);
            let (q, k, v) = (q.as_slice()?, k.as_slice()?, v.as_slice()?);
            let scratch = scratch.as_mut_slice()?;
            cpu::bwd::<T>(dq, dk, dv, scratch, dout, out, lse, q, k, v, T::from_f64(scale), dims);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    //! self_attention against its reference, finite differences, other thread counts, and bad dims.

    use super::*;
    use crate::{DType, Error};
    use ltm_testkit::{Tol, assert_close, gradcheck, seeded};
    use proptest::prelude::*;

    const SCALE: f64 = 0.5;

    /// `q`, `k`, `v` and a gradient of `out`; rounded to f32 first, so that both precisions see the
    /// same numbers.
    fn inputs<T: Float>(dims: SelfAttentionDims) -> [Vec<T>; 4] {
        let data = |seed, len| {
            seeded(seed, len).into_iter().map(|x| T::from_f64(f64::from(x as f32))).collect()
        };
        let (q, kv) = (dims.q_len(), dims.kv_len());
        [data(1, q), data(2, kv), data(3, kv), data(4, q)]
    }

    /// `out`, `lse`, `dq`, `dk`, `dv` of the implementation, from buffers full of NaN.
    fn run<T: Float>(dims: SelfAttentionDims) -> [Vec<f64>; 5] {
        let [q, k, v, dout] = inputs::<T>(dims).map(Buffer::from_vec);
        let nan = |len| Buffer::from_vec(vec![T::from_f64(f64::NAN); len]);
        let (mut out, mut lse) = (nan(dims.q_len()), nan(dims.lse_len()));
        fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims).expect("shapes agree");
        let (mut dq, mut dk, mut dv) = (nan(dims.q_len()), nan(dims.kv_len()), nan(dims.kv_len()));
        let mut scratch = nan(dims.scratch_len(&Device::Cpu));
        let (dq_out, dk_out, dv_out) = (Some(&mut dq), Some(&mut dk), Some(&mut dv));
        bwd(
            &Device::Cpu,
            dq_out,
            dk_out,
            dv_out,
            &mut scratch,
            &dout,
            &out,
            &lse,
            &q,
            &k,
            &v,
            SCALE,
            dims,
        )
        .expect("shapes agree");
        [out, lse, dq, dk, dv].map(|x| x.to_f64().expect("on the CPU"))
    }

    fn reference(dims: SelfAttentionDims) -> [Vec<f64>; 5] {
        let [q, k, v, dout] = inputs::<f64>(dims);
        let (mut out, mut lse) = (vec![0.0; q.len()], vec![0.0; dims.lse_len()]);
        reference::fwd(&mut out, &mut lse, &q, &k, &v, SCALE, dims);
        let (mut dq, mut dk, mut dv) = (vec![0.0; q.len()], vec![0.0; k.len()], vec![0.0; k.len()]);
        reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &out, &lse, &q, &k, &v, SCALE, dims);
        [out, lse, dq, dk, dv]
    }

    fn check(dims: SelfAttentionDims) {
        let expected = reference(dims);
        let SelfAttentionDims { t, h, g, d, w, .. } = dims;
        // Inputs are at most 3.5. A score is a sum of d products with error s; a probability has
        // the same error, relatively. The gradient of a score is at most 2 * 12.25 d, with an error
        // of 3 s of that; dk sums it over w queries and h/g heads.
        let bound = |eps: f64| {
            let s = SCALE * 12.25 * (d * d + 4) as f64 * eps;
            let sums = 3.5 * (w.min(t) + 4) as f64 * (eps + s);
            let grad = 3.5 * SCALE * 24.5 * d as f64 * 3.0 * (s + eps) * (w.min(t) * h / g) as f64;
            [sums, s + 4.0 * eps, grad, grad, sums * (h / g) as f64]
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
        // (T, W) around the tile and the window, then grouped heads and odd widths.
        for (t, w) in
            [(1, 1), (64, 64), (65, 1), (130, 64), (129, 100), (40, 1000), (50, 16), (70, 17)]
        {
            check(SelfAttentionDims { b: 2, t, h: 2, g: 2, d: 8, w });
        }
        for (h, g, d) in [(1, 1, 1), (4, 2, 3), (6, 1, 17), (2, 2, 70)] {
            check(SelfAttentionDims { b: 1, t: 67, h, g, d, w: 33 });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn agrees_with_the_reference(
            b in 1usize..3, t in 1usize..150, g in 1usize..3,
            group in 1usize..3, d in 1usize..24, w in 1usize..160,
        ) {
            check(SelfAttentionDims { b, t, h: g * group, g, d, w });
        }
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let dims = SelfAttentionDims { b: 2, t: 7, h: 4, g: 2, d: 3, w: 4 };
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

    #[test]
    fn a_gradient_asked_for_alone_is_the_same() {
        let dims = SelfAttentionDims { b: 1, t: 70, h: 2, g: 1, d: 5, w: 20 };
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

    #[test]
    fn same_bits_on_any_number_of_threads() {
        let dims = SelfAttentionDims { b: 3, t: 150, h: 4, g: 2, d: 9, w: 70 };
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            pool.expect("threads start").install(|| run::<f32>(dims))
        };
        let one = on(1);
        assert!(one == on(2) && one == on(3));
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let dims = SelfAttentionDims { b: 1, t: 3, h: 1, g: 1, d: 1, w: 3 };
        let [q, k, v] = [[300.0, 300.0, -300.0], [300.0, -300.0, 1.0], [1.0, 2.0, 4.0]]
            .map(|x| Buffer::from_vec(x.map(|x| x as f32).to_vec()));
        let (mut out, mut lse) = (Buffer::from_vec(vec![0f32; 3]), Buffer::from_vec(vec![0f32; 3]));
        fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, 1.0, dims).expect("shapes agree");
        assert_eq!(out.to_f32().expect("on the CPU"), [1.0, 1.0, 2.0]);
        assert_eq!(lse.to_f32().expect("on the CPU"), [90_000.0, 90_000.0, 90_000.0]);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = SelfAttentionDims { b: 1, t: 3, h: 4, g: 2, d: 2, w: 2 };
        let buffer = |len| Buffer::from_vec(vec![0f32; len]);
        let try_fwd = |lens: [usize; 5], dims| {
            let [mut out, mut lse, q, k, v] = lens.map(buffer);
            fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims)
        };
        let good = [24, 12, 24, 12, 12];
        assert_eq!(try_fwd(good, dims), Ok(()));
        for (i, arg) in ["out", "lse", "q", "k", "v"].into_iter().enumerate() {
            let mut lens = good;
            lens[i] += 1;
            assert!(
                matches!(try_fwd(lens, dims), Err(Error::Shape { arg: got, .. }) if got == arg)
            );
        }
        let names = ["dq", "dk", "dv", "scratch", "dout", "out", "lse", "q", "k", "v"];
        let good_bwd = [24, 12, 12, 12, 24, 24, 12, 24, 12, 12];
        for (i, arg) in names.into_iter().enumerate() {
            let mut lens = good_bwd;
            lens[i] -= 1;
            let [mut dq, mut dk, mut dv, mut scratch, dout, out, lse, q, k, v] = lens.map(buffer);
            let (dq, dk, dv) = (Some(&mut dq), Some(&mut dk), Some(&mut dv));
            let refused = bwd(
                &Device::Cpu,
                dq,
                dk,
                dv,
                &mut scratch,
                &dout,
                &out,
                &lse,
                &q,
                &k,
                &v,
                SCALE,
                dims,
            );
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        for dims in [
            SelfAttentionDims { w: 0, ..dims },
            SelfAttentionDims { g: 3, ..dims },
            SelfAttentionDims { b: usize::MAX / 2, ..dims },
        ] {
            assert!(matches!(try_fwd(good, dims), Err(Error::Dims { .. })));
        }
        let [mut out, mut lse, k, v] = [24, 12, 12, 12].map(buffer);
        let q = Buffer::from_vec(vec![0f64; 24]);
        let refused = fwd(&Device::Cpu, &mut out, &mut lse, &q, &k, &v, SCALE, dims);
        assert_eq!(refused, Err(Error::DType { expected: "f32", got: DType::F64 }));
    }
}
