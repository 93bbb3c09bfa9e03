//! The fast CPU implementation: the shared tiles without a mask, and for the gradients of the
//! latents a reduction over tokens.

use std::ops::Range;

use rayon::prelude::*;

use super::CrossAttentionDims;
use crate::Float;
use crate::ops::attention::{self, Attention, Extents, Saved, TILE};
use crate::simd;

/// Tokens over which one task sums `dk` and `dv`.
const BLOCK: usize = 4 * TILE;

/// Blocks of tokens, each with its own partial `dk` and `dv` in scratch.
pub(crate) fn partials(dims: CrossAttentionDims) -> usize {
    dims.b * dims.t.div_ceil(BLOCK)
}

pub(crate) fn fwd<T: Float>(
    out: &mut [T],
    lse: &mut [T],
    q: &[T],
    k: &[T],
    v: &[T],
    scale: T,
    dims: CrossAttentionDims,
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
    dims: CrossAttentionDims,
) {
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let attention = attention(q, k, v, scale, dims);
    let (delta, partials) = scratch.split_at_mut(b * t * h);
    if dq.is_some() || dk.is_some() {
        attention::delta(delta, dout, out, d);
    }
    let saved = Saved { dout, lse, delta };
    if let Some(dq) = dq {
        attention.bwd_q(dq, saved);
    }
    if dk.is_none() && dv.is_none() {
        return;
    }
    let per_sequence = t.div_ceil(BLOCK);
    let len = z * g * d;
    partials.par_chunks_mut(2 * len).enumerate().for_each(|(i, partial)| {
        let (b, first) = (i / per_sequence, i % per_sequence * BLOCK);
        let rows = first..t.min(first + BLOCK);
        let (dk_part, dv_part) = partial.split_at_mut(len);
        let parts = dk_part.chunks_mut(TILE * g * d).zip(dv_part.chunks_mut(TILE * g * d));
        for (i, (dk_part, dv_part)) in parts.enumerate() {
            let keys = i * TILE..z.min((i + 1) * TILE);
            let dk_part = dk.is_some().then_some(dk_part);
            let dv_part = dv.is_some().then_some(dv_part);
            attention.bwd_kv(b, keys, rows.clone(), dk_part, dv_part, saved);
        }
    });
    for (offset, x) in [(0, dk), (len, dv)] {
        let Some(x) = x else { continue };
        x.par_chunks_mut(len).enumerate().for_each(|(b, x)| {
            let parts = partials[b * per_sequence * 2 * len..].chunks_exact(2 * len);
            x.fill(T::ZERO);
            for part in parts.take(per_sequence) {
                simd::axpy(x, T::ONE, &part[offset..][..len]);
            }
        });
    }
}

fn attention<'a, T: Float>(
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    scale: T,
    dims: CrossAttentionDims,
) -> Attention<'a, T, impl Fn(usize) -> Range<usize> + Sync> {
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let extents = Extents { b, t, s: z, h, g, d, tile: TILE };
    Attention { q, k, v, scale, extents, visible: move |_| 0..z }
}
