//! The output layer and its loss in one: logits exist only as tiles, in scratch.

mod cpu;
mod cuda;
pub mod reference;

use half::bf16;

use crate::shape::{check_extents, check_len, on_float};
use crate::simd::Factor;
use crate::{Buffer, Cost, DType, Device, Element, Error, Float, Result};

const OP: &str = "cross_entropy";

/// A target that is not predicted: its loss and its gradients are 0.
pub const IGNORED: i32 = -1;

/// Extents of one call: `n` rows of width `c` scored against a vocabulary of `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrossEntropyDims {
    /// Rows: the tokens to predict.
    pub n: usize,
    /// Width.
    pub c: usize,
    /// Vocabulary.
    pub v: usize,
}

impl CrossEntropyDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`] naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("n", self.n), ("c", self.c)])?;
        check_extents(OP, &[("v", self.v), ("c", self.c)])?;
        // The statistics that a task keeps per row.
        let kept = self.c.saturating_add(cpu::TILE + 3);
        check_extents(OP, &[("tasks", cpu::TASKS), ("n", self.n), ("a tile's width and c", kept)])
    }

    /// Elements of scratch that [`fwd`] and [`bwd_weight`] need.
    pub fn scratch_len(&self, device: &Device) -> usize {
        match device {
            Device::Cpu => cpu::scratch_len(*self),
            Device::Cuda(_) => cuda::scratch_len(*self),
        }
    }

    /// What [`fwd`] costs when both outputs are computed.
    pub fn cost_fwd(&self) -> Cost {
        let logits = self.n * self.v;
        Cost::new(
            4 * logits * self.c + 6 * logits,
            2 * self.n * self.c + self.v * self.c + 2 * self.n,
        )
    }

    /// What [`bwd_weight`] costs.
    pub fn cost_bwd_weight(&self) -> Cost {
        let logits = self.n * self.v;
        Cost::new(
            4 * logits * self.c + 6 * logits,
            self.n * self.c + 2 * self.v * self.c + 3 * self.n,
        )
    }

    fn check(
        &self,
        device: &Device,
        scratch: &Buffer,
        h: &Buffer,
        w: &Buffer,
        targets: &Buffer,
    ) -> Result<()> {
        self.validate()?;
        check_len(OP, "scratch", scratch.len(), self.scratch_len(device))?;
        check_len(OP, "h", h.len(), self.n * self.c)?;
        check_len(OP, "w", w.len(), self.v * self.c)?;
        check_len(OP, "targets", targets.len(), self.n)?;
        if matches!(device, Device::Cuda(_)) {
            // The host cannot check without waiting; the kernels turn such a row into NaN.
            return Ok(());
        }
        let targets = targets.as_slice::<i32>()?;
        let valid =
            |&target: &i32| target == IGNORED || usize::try_from(target).is_ok_and(|v| v < self.v);
        match targets.iter().position(|target| !valid(target)) {
            None => Ok(()),
            Some(position) => {
                let got = i64::from(targets[position]);
                Err(Error::Index { op: OP, position, got, limit: self.v })
            }
        }
    }
}

/// Loss of each row and, in the same pass, its gradient. With `logits = h Wᵀ`,
/// `nll[n] = log Σ_v exp(logits[n,v]) − logits[n, targets[n]]` and `dh[n,:] = ∂nll[n]/∂h[n,:]`.
///
/// # Shapes
/// `h (N,C)`, `w (V,C)`, `targets (N)` of `i32` → `nll (N)`, `dh (N,C)`. `scratch` holds
/// [`CrossEntropyDims::scratch_len`] elements. A target of [`IGNORED`] gives 0 in both outputs.
/// On CUDA `h`, `w` and `dh` share f32 or bf16, `nll` and `scratch` are f32. On the CPU `w` may be bf16 where everything else
/// is f32: then rows are rounded to bf16 where they meet it, and sums are f32.
///
/// # Errors
/// [`Error::Index`] for any other target outside `0..V`, on the CPU; on CUDA such a row is NaN instead. [`Error::Dims`], [`Error::Shape`] or
/// [`Error::DType`] when dims, lengths or types disagree.
///
/// # Source
/// `dh = (softmax(logits) − onehot(target)) W`. The softmax is shifted by the row's maximum.
pub fn fwd(
    device: &Device,
    nll: Option<&mut Buffer>,
    dh: Option<&mut Buffer>,
    scratch: &mut Buffer,
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    dims.check(device, scratch, h, w, targets)?;
    if let Some(nll) = &nll {
        check_len(OP, "nll", nll.len(), dims.n)?;
    }
    if let Some(dh) = &dh {
        check_len(OP, "dh", dh.len(), dims.n * dims.c)?;
    }
    match device {
        Device::Cuda(context) => cuda::fwd(context, nll, dh, scratch, h, w, targets, dims),
        Device::Cpu if w.dtype() == DType::BF16 => {
            fwd_on_cpu::<f32, bf16>(nll, dh, scratch, h, w, targets, dims)
        }
        Device::Cpu => on_float!(h.dtype(), T => {
            fwd_on_cpu::<T, T>(nll, dh, scratch, h, w, targets, dims)
        }),
    }
}

fn fwd_on_cpu<T: Float, W: Element + Factor<T>>(
    nll: Option<&mut Buffer>,
    dh: Option<&mut Buffer>,
    scratch: &mut Buffer,
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    let nll = nll.map(Buffer::as_mut_slice::<T>).transpose()?;
    let dh = dh.map(Buffer::as_mut_slice::<T>).transpose()?;
    let (h, w, targets) = (h.as_slice::<T>()?, w.as_slice::<W>()?, targets.as_slice()?);
    cpu::fwd(nll, dh, scratch.as_mut_slice()?, h, w, targets, dims);
    Ok(())
}

/// Gradient of `Σ_n dnll[n]·nll[n]` with respect to the weight; recomputes the logits.
///
/// `nll` is the result of [`fwd`]: it saves the CPU a pass over the vocabulary, and is not read on
/// CUDA.
///
/// # Shapes
/// `dnll (N)`, `nll (N)`, `h (N,C)`, `w (V,C)`, `targets (N)` of `i32` → `dw (V,C)`, overwritten. `scratch` as in [`fwd`].
/// On CUDA `dw`, `dnll` and `nll` are f32.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// `dW = Σ_n dnll[n]·(softmax(logits[n]) − onehot(targets[n]))ᵀ h[n]`.
pub fn bwd_weight(
    device: &Device,
    dw: &mut Buffer,
    scratch: &mut Buffer,
    dnll: &Buffer,
    nll: &Buffer,
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    dims.check(device, scratch, h, w, targets)?;
    check_len(OP, "dw", dw.len(), dims.v * dims.c)?;
    check_len(OP, "dnll", dnll.len(), dims.n)?;
    check_len(OP, "nll", nll.len(), dims.n)?;
    match device {
        Device::Cuda(context) => cuda::bwd_weight(context, dw, scratch, dnll, h, w, targets, dims),
        Device::Cpu if w.dtype() == DType::BF16 => {
            bwd_weight_on_cpu::<f32, bf16>(dw, scratch, [dnll, nll], h, w, targets, dims)
        }
        Device::Cpu => on_float!(h.dtype(), T => {
            bwd_weight_on_cpu::<T, T>(dw, scratch, [dnll, nll], h, w, targets, dims)
        }),
    }
}

fn bwd_weight_on_cpu<T: Float, W: Element + Factor<T>>(
    dw: &mut Buffer,
    scratch: &mut Buffer,
    [dnll, nll]: [&Buffer; 2],
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    let rows = [dnll.as_slice::<T>()?, nll.as_slice()?];
    let (h, w) = (h.as_slice()?, w.as_slice::<W>()?);
    let (dw, scratch) = (dw.as_mut_slice()?, scratch.as_mut_slice()?);
    cpu::bwd_weight(dw, scratch, rows, h, w, targets.as_slice()?, dims);
    Ok(())
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::ops::testing::{
        EPS, assert_same_on_any_pool, data, f32s, f64s, inner, out32, out64,
    };

    fn targets_for(dims: CrossEntropyDims) -> Vec<i32> {
        let target = |n: usize| if n % 5 == 3 { IGNORED } else { (n * n * 11 % dims.v) as i32 };
        (0..dims.n).map(target).collect()
    }

    /// `nll`, `dh` and `dw` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, dims: CrossEntropyDims) -> [Vec<f64>; 3] {
        let CrossEntropyDims { n, c, v } = dims;
        let (h, w, dnll) = (make(&data(1, n * c)), make(&data(2, v * c)), make(&data(3, n)));
        let targets = Buffer::from_vec(targets_for(dims));
        let poisoned = |n| make(&vec![f64::NAN; n]);
        let (mut nll, mut dh, mut dw) = (poisoned(n), poisoned(n * c), poisoned(v * c));
        let mut scratch = poisoned(dims.scratch_len(&Device::Cpu));
        let outputs = (Some(&mut nll), Some(&mut dh));
        fwd(&Device::Cpu, outputs.0, outputs.1, &mut scratch, &h, &w, &targets, dims)
            .expect("shapes agree");
        bwd_weight(&Device::Cpu, &mut dw, &mut scratch, &dnll, &nll, &h, &w, &targets, dims)
            .expect("shapes agree");
        [nll, dh, dw].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    fn check(dims: CrossEntropyDims) {
        let CrossEntropyDims { n, c, v } = dims;
        let (h, w, dnll, targets) = (data(1, n * c), data(2, v * c), data(3, n), targets_for(dims));
        let (mut nll, mut dh, mut dw) = (vec![0.0; n], vec![0.0; n * c], vec![0.0; v * c]);
        let mut p_n = vec![0.0; v];
        reference::fwd(Some(&mut nll), Some(&mut dh), &mut p_n, &h, &w, &targets, dims);
        reference::bwd_weight(&mut dw, &mut p_n, &dnll, &h, &w, &targets, dims);
        for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
            // A logit is a sum of C products within 3.5², each step rounding by half of eps; a
            // probability has twice that error, relatively, plus that of the sum over a tile.
            let logit = 3.5 * 3.5 * (c * c) as f64 * eps / 2.0;
            let p = 2.0 * logit + 100.0 * eps;
            let [got_nll, got_dh, got_dw] = run(make, dims);
            assert_close(&got_nll, &nll, Tol { abs: 2.0 * p, rel: eps });
            // The p of a row sum to 2 at most with the target's 1; the product adds V, or N, roundings.
            let abs = 2.0 * 3.5 * (p + v as f64 * eps);
            assert_close(&got_dh, &dh, Tol { abs, rel: 0.0 });
            let abs = n as f64 * 3.5 * 3.5 * (p + n as f64 * eps);
            assert_close(&got_dw, &dw, Tol { abs, rel: 0.0 });
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..40, c in 1usize..40, v in 1usize..320) {
            check(CrossEntropyDims { n, c, v });
        }
    }

    #[test]
    fn several_blocks_parts_and_tiles_agree_too() {
        check(CrossEntropyDims { n: 1030, c: 3, v: 17 });
        check(CrossEntropyDims { n: 3, c: 5, v: 2500 });
        check(CrossEntropyDims { n: 600, c: 2, v: 1100 });
    }

    #[test]
    fn weights_of_bf16_round_the_probabilities_alone() {
        let dims = CrossEntropyDims { n: 7, c: 40, v: 600 };
        let CrossEntropyDims { n, c, v } = dims;
        let rounded =
            |seed, n| -> Vec<bf16> { data(seed, n).into_iter().map(bf16::from_f64).collect() };
        // Numbers that bf16 holds, so that logits are those of f32.
        let (h, w, targets) = (rounded(1, n * c), rounded(2, v * c), targets_for(dims));
        let wide = |x: &[bf16]| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
        let (mut nll, mut dh, mut dw) = (vec![0.0; n], vec![0.0; n * c], vec![0.0; v * c]);
        let (mut p_n, dnll) = (vec![0.0; v], data(3, n));
        let (h, wide_w) = (wide(&h), wide(&w));
        reference::fwd(Some(&mut nll), Some(&mut dh), &mut p_n, &h, &wide_w, &targets, dims);
        reference::bwd_weight(&mut dw, &mut p_n, &dnll, &h, &wide_w, &targets, dims);

        let (h, w, targets) = (f32s(&h), Buffer::from_vec(w), Buffer::from_vec(targets));
        let (mut got_nll, mut got_dh, mut got_dw) = (out32(n), out32(n * c), out32(v * c));
        let mut scratch = out32(dims.scratch_len(&Device::Cpu));
        let outputs = (Some(&mut got_nll), Some(&mut got_dh));
        fwd(&Device::Cpu, outputs.0, outputs.1, &mut scratch, &h, &w, &targets, dims)
            .expect("shapes agree");
        let dnll = f32s(&dnll);
        bwd_weight(
            &Device::Cpu,
            &mut got_dw,
            &mut scratch,
            &dnll,
            &got_nll,
            &h,
            &w,
            &targets,
            dims,
        )
        .expect("shapes agree");
        // As in `check`, but for the mean of the weights: probabilities there are off by half of a
        // bf16's spacing, 1/256, and weights lie within 3.5.
        let p = 3.5 * 3.5 * (c * c) as f64 * EPS + 100.0 * EPS;
        let close = |got: &Buffer, expected: &[f64], abs| {
            assert_close(&got.to_f64().expect("on the CPU"), expected, Tol { abs, rel: EPS });
        };
        close(&got_nll, &nll, 2.0 * p);
        close(&got_dh, &dh, 2.0 * 3.5 * (p + v as f64 * EPS) + 3.5 / 256.0);
        close(&got_dw, &dw, n as f64 * 3.5 * 3.5 * (p + n as f64 * EPS));
    }

    #[test]
    fn logits_that_rise_from_tile_to_tile_stay_finite() {
        // From one tile to the next the maximum grows by 128, and exp(-128) underflows in f32.
        let dims = CrossEntropyDims { n: 2, c: 1, v: 4000 };
        let (h, targets) = (vec![1.0; 2], vec![3998, 0]);
        let w: Vec<f64> = (0..dims.v).map(|v| 0.5 * v as f64).collect();
        let (mut nll, mut dh) = (vec![0.0; 2], vec![0.0; 2]);
        let outputs = (Some(&mut nll[..]), Some(&mut dh[..]));
        reference::fwd(outputs.0, outputs.1, &mut vec![0.0; dims.v], &h, &w, &targets, dims);
        let (mut got_nll, mut got_dh) = (out32(2), out32(2));
        let mut scratch = f32s(&vec![f64::NAN; dims.scratch_len(&Device::Cpu)]);
        let outputs = (Some(&mut got_nll), Some(&mut got_dh));
        let (h, w, targets) = (f32s(&h), f32s(&w), Buffer::from_vec(targets));
        fwd(&Device::Cpu, outputs.0, outputs.1, &mut scratch, &h, &w, &targets, dims)
            .expect("shapes agree");
        // The numbers reach 2000; a probability is exact to a few roundings.
        let tol = Tol { abs: 2000.0 * 8.0 * EPS, rel: 0.0 };
        assert_close(&got_nll.to_f64().expect("on the CPU"), &nll, tol);
        assert_close(&got_dh.to_f64().expect("on the CPU"), &dh, tol);
    }

    #[test]
    fn gradients() {
        let dims = CrossEntropyDims { n: 5, c: 4, v: 7 };
        let (h, w, dnll) = (data(1, 20), data(2, 28), data(3, 5));
        let targets = Buffer::from_vec(targets_for(dims));
        let loss = |h: &[f64], w: &[f64]| {
            let (mut nll, mut scratch) = (out64(5), out64(dims.scratch_len(&Device::Cpu)));
            fwd(
                &Device::Cpu,
                Some(&mut nll),
                None,
                &mut scratch,
                &f64s(h),
                &f64s(w),
                &targets,
                dims,
            )
            .expect("shapes agree");
            nll.to_f64().expect("on the CPU")
        };
        let [nll, dh, dw] = run(f64s, dims);
        // The loss does not depend on whether the gradient is requested.
        assert_eq!(loss(&h, &w), nll);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|h| loss(h, &w).iter().sum(), &h, &dh, tol);
        gradcheck(|w| inner(&loss(&h, w), &dnll), &w, &dw, tol);
    }

    #[test]
    fn an_ignored_row_is_zero_and_a_uniform_row_costs_ln_v() {
        let dims = CrossEntropyDims { n: 2, c: 3, v: 10 };
        let (h, w) = (f32s(&[0.0; 6]), f32s(&data(1, 30)));
        let targets = Buffer::from_vec(vec![IGNORED, 4]);
        let (mut nll, mut dh, mut scratch) =
            (out32(2), out32(6), out32(dims.scratch_len(&Device::Cpu)));
        fwd(&Device::Cpu, Some(&mut nll), Some(&mut dh), &mut scratch, &h, &w, &targets, dims)
            .expect("shapes agree");
        assert_close(
            &nll.to_f64().expect("on the CPU"),
            &[0.0, 10f64.ln()],
            Tol { abs: 0.0, rel: 4.0 * EPS },
        );
        assert_eq!(dh.to_f64().expect("on the CPU")[..3], [0.0; 3]);
    }

    #[test]
    fn nan_shows_in_the_loss() {
        let dims = CrossEntropyDims { n: 3, c: 4, v: 50 };
        let losses = |h: &[f64], w: &[f64]| {
            let (mut nll, mut scratch) = (out32(3), out32(dims.scratch_len(&Device::Cpu)));
            let targets = Buffer::from_vec(vec![1i32, 2, 3]);
            fwd(
                &Device::Cpu,
                Some(&mut nll),
                None,
                &mut scratch,
                &f32s(h),
                &f32s(w),
                &targets,
                dims,
            )
            .expect("shapes agree");
            nll.to_f64().expect("on the CPU")
        };
        let (mut h, mut w) = (data(1, 12), data(2, 200));
        h[5] = f64::NAN;
        assert_eq!(
            losses(&h, &w).iter().map(|x| x.is_nan()).collect::<Vec<_>>(),
            [false, true, false]
        );
        h[5] = 0.5;
        w[150] = f64::NAN;
        assert!(losses(&h, &w).iter().all(|x| x.is_nan()));
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        for dims in [
            CrossEntropyDims { n: 70, c: 33, v: 3001 },
            CrossEntropyDims { n: 1100, c: 20, v: 61 },
            CrossEntropyDims { n: 1, c: 40, v: 5000 },
        ] {
            assert_same_on_any_pool(|| run(f32s, dims).concat());
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let dims = CrossEntropyDims { n: 2, c: 3, v: 4 };
        let try_fwd = |[nll, dh, scratch, h, w]: [usize; 5], targets: [i32; 2], dims| {
            let (mut nll, mut dh) = (out32(nll), out32(dh));
            let targets = Buffer::from_vec(targets.to_vec());
            let (h, w) = (f32s(&data(1, h)), f32s(&data(2, w)));
            fwd(
                &Device::Cpu,
                Some(&mut nll),
                Some(&mut dh),
                &mut out32(scratch),
                &h,
                &w,
                &targets,
                dims,
            )
        };
        let right = [2, 6, dims.scratch_len(&Device::Cpu), 6, 12];
        assert_eq!(try_fwd(right, [IGNORED, 3], dims), Ok(()));
        for (i, arg) in ["nll", "dh", "scratch", "h", "w"].into_iter().enumerate() {
            let mut wrong = right;
            wrong[i] += 1;
            let refused = try_fwd(wrong, [0, 0], dims);
            assert!(matches!(refused, Err(Error::Shape { arg: got, .. }) if got == arg));
        }
        for targets in [[0, 4], [0, -2]] {
            let refused = try_fwd(right, targets, dims);
            assert!(matches!(refused, Err(Error::Index { position: 1, limit: 4, .. })));
        }
        for dims in
            [CrossEntropyDims { v: 0, ..dims }, CrossEntropyDims { v: usize::MAX / 8, ..dims }]
        {
            assert!(matches!(try_fwd(right, [0, 0], dims), Err(Error::Dims { .. })));
        }
    }
}
