//! The fast CPU implementation: the shared tiles with a sliding window.

use std::ops::Range;

use super::SelfAttentionDims;
use crate::Float;
use crate::ops::attention::{self, Attention, Extents, Saved, TILE};
use crate::ops::blocks::{Rows, for_each_block};

pub(crate) fn fwd<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: SelfAttentionDims,
) {
    attention(q, k, v, scale, dims).fwd(out, lse);
}

pub(crate) fn bwd<T: Float>(
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
    dims: SelfAttentionDims,
) {
    let SelfAttentionDims { b, t, g, d, w, .. } = dims;
    let attention = attention(q, k, v, scale, dims);
    if dq.is_some() || dk.is_some() {
        attention::delta(scratch, dout, out, d);
    }
    let saved = Saved { dout, lse, delta: scratch };
    if let Some(dq) = dq {
        attention.bwd_q(dq, saved);
    }
    if dk.is_some() || dv.is_some() {
        let [dk, dv] = [dk, dv].map(|x| x.map(|data| Rows { data, width: g * d }));
        for_each_block(b, t, tile(w), (dk, dv), |b, keys, (dk, dv)| {
            // The last key is seen by the queries before `keys.end - 1 + w`.
            let rows = keys.start..t.min((keys.end - 1).saturating_add(w));
            attention.bwd_kv(b, keys, rows, dk.map(|x| x.data), dv.map(|x| x.data), saved);
        });
    }
}

fn attention<'a, T: Float>(
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    scale: T,
    dims: SelfAttentionDims,
) -> Attention<'a, T, impl Fn(usize) -> Range<usize> + Sync> {
    let SelfAttentionDims { b, t, h, g, d, w } = dims;
    let extents = Extents { b, t, s: t, h, g, d, tile: tile(w) };
    let visible = move |t: usize| (t + 1).saturating_sub(w)..t + 1;
    Attention { q, k, v, scale, extents, visible }
}

/// A tile much wider than the window would mostly compute masked scores; a much smaller one would
/// mostly be call overhead.
fn tile(w: usize) -> usize {
    if w <= TILE / 2 { TILE / 2 } else { TILE }
}
