//! The fast CPU implementation: divides the work on tiles among tasks.

use std::ops::Range;

use rayon::prelude::*;

use super::tiles::{self, Attention, Saved, TILE};
use super::{AttentionDims, Mask};
use crate::Float;
use crate::ops::blocks::{Rows, for_each_block};
use crate::simd;

/// Without a mask, the queries over which one task sums `dk` and `dv`: keys may be few.
const BLOCK: usize = 4 * TILE;

/// Delta; then, if there are several parts of the queries, each one's `dk` and each one's `dv`.
pub(super) fn scratch_len(dims: AttentionDims) -> usize {
    match parts(dims) {
        1 => dims.lse_len(),
        n_parts => dims.lse_len() + n_parts * 2 * dims.kv_len(),
    }
}

/// The number of parts of the queries over which `dk` and `dv` are summed separately. In a window
/// one is enough: its keys are many, and few queries see each.
fn parts(dims: AttentionDims) -> usize {
    match dims.mask {
        Mask::None => dims.t.div_ceil(BLOCK),
        Mask::Window(_) => 1,
    }
}

/// The queries of a part that see some of these keys.
fn queries(part: usize, keys: &Range<usize>, dims: AttentionDims) -> Range<usize> {
    let t = dims.t;
    match dims.mask {
        Mask::None => part * BLOCK..t.min((part + 1) * BLOCK),
        // The last key is seen by the queries before `keys.end - 1 + w`.
        Mask::Window(w) => keys.start..t.min((keys.end - 1).saturating_add(w)),
    }
}

pub(super) fn fwd<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: AttentionDims,
) {
    Attention { q, k, v, scale, dims }.fwd(out, lse);
}

pub(super) fn bwd<T: Float>(
    dq: Option<&mut [T]>,
    dk: Option<&mut [T]>,
    dv: Option<&mut [T]>,
    scratch: &mut [T],
    dout: &[T],
    out: &[T],
    lse: &[T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: AttentionDims,
) {
    let AttentionDims { b: n_b, t_k, g, d, .. } = dims;
    let attention = Attention { q, k, v, scale, dims };
    let (delta, partials) = scratch.split_at_mut(dims.lse_len());
    if dq.is_some() || dk.is_some() {
        tiles::delta(delta, dout, out, d);
    }
    let saved = Saved { dout, lse, delta };
    if let Some(dq) = dq {
        attention.bwd_q(dq, saved);
    }
    if dk.is_none() && dv.is_none() {
        return;
    }
    let n_parts = parts(dims);
    // The sums of every part: `(parts,B,T_k,G,D)`.
    let sum_queries = |dk: Option<&mut [T]>, dv: Option<&mut [T]>| {
        let [dk, dv] = [dk, dv].map(|x| x.map(|data| Rows { data, width: g * d }));
        for_each_block(n_parts * n_b, t_k, attention.tile(), (dk, dv), |i, keys, (dk, dv)| {
            let rows = queries(i / n_b, &keys, dims);
            let (dk, dv) = (dk.map(|x| x.data), dv.map(|x| x.data));
            attention.bwd_kv(i % n_b, keys, rows, dk, dv, saved);
        });
    };
    if n_parts == 1 {
        return sum_queries(dk, dv);
    }
    let (dk_parts, dv_parts) = partials.split_at_mut(n_parts * dims.kv_len());
    sum_queries(dk.is_some().then_some(&mut *dk_parts), dv.is_some().then_some(&mut *dv_parts));
    for (x, parts) in [(dk, dk_parts), (dv, dv_parts)] {
        let Some(x) = x else { continue };
        let len = t_k * g * d;
        x.par_chunks_mut(len).enumerate().for_each(|(b, x)| {
            x.fill(T::ZERO);
            for part in 0..n_parts {
                simd::axpy(x, T::ONE, &parts[(part * n_b + b) * len..][..len]);
            }
        });
    }
}
