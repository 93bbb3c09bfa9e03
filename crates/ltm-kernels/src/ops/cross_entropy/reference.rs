//! The definition of `cross_entropy` as plain loops, one row of logits at a time.

#![expect(non_snake_case, reason = "extents keep the letters of the formulas")]

use super::{CrossEntropyDims, IGNORED};
use crate::Float;

/// Writes `softmax(h_n Wᵀ) − onehot(target)` and returns the row's loss; zeros for an ignored target.
fn row<T: Float>(p_n: &mut [T], h_n: &[T], w: &[T], target: i32, C: usize) -> T {
    if target == IGNORED {
        p_n.fill(T::ZERO);
        return T::ZERO;
    }
    for (v, p) in p_n.iter_mut().enumerate() {
        *p = (0..C).map(|c| h_n[c] * w[v * C + c]).sum();
    }
    let max = p_n.iter().copied().fold(T::NEG_INFINITY, T::max);
    let target = target as usize;
    let logit = p_n[target];
    p_n.iter_mut().for_each(|p| *p = (*p - max).exp());
    let sum: T = p_n.iter().copied().sum();
    p_n.iter_mut().for_each(|p| *p = *p / sum);
    p_n[target] = p_n[target] - T::ONE;
    max + sum.ln() - logit
}

/// Loss of each row and its gradient with respect to `h`. `scratch` holds at least one row of logits.
///
/// # Panics
/// When a slice is shorter than the dims require or a target is outside the vocabulary.
pub fn fwd<T: Float>(
    mut nll: Option<&mut [T]>,
    mut dh: Option<&mut [T]>,
    scratch: &mut [T],
    h: &[T],
    w: &[T],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let (C, V) = (dims.c, dims.v);
    let p_n = &mut scratch[..V];
    for n in 0..dims.n {
        let loss = row(p_n, &h[n * C..(n + 1) * C], w, targets[n], C);
        if let Some(nll) = &mut nll {
            nll[n] = loss;
        }
        if let Some(dh) = &mut dh {
            for c in 0..C {
                dh[n * C + c] = (0..V).map(|v| p_n[v] * w[v * C + c]).sum();
            }
        }
    }
}

/// `dW = Σ_n dnll[n]·(softmax − onehot)ᵀ h[n]`. `scratch` holds at least one row of logits.
///
/// # Panics
/// When a slice is shorter than the dims require or a target is outside the vocabulary.
pub fn bwd_weight<T: Float>(
    dw: &mut [T],
    scratch: &mut [T],
    dnll: &[T],
    h: &[T],
    w: &[T],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let (C, V) = (dims.c, dims.v);
    let p_n = &mut scratch[..V];
    dw.fill(T::ZERO);
    for n in 0..dims.n {
        row(p_n, &h[n * C..(n + 1) * C], w, targets[n], C);
        for v in 0..V {
            for c in 0..C {
                dw[v * C + c] += dnll[n] * p_n[v] * h[n * C + c];
            }
        }
    }
}
