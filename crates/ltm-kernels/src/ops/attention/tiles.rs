//! Softmax attention on the CPU, in tiles of queries by keys.
//!
//! Forward is the online softmax (Milakov and Gimelshein 2018) over tiles of keys; backward
//! rebuilds each tile's probabilities from the saved log-sum-exp (Dao et al. 2022). Only tiles with
//! a visible key are computed, and no tile outlives its task.

use std::ops::Range;

use rayon::prelude::*;

use super::{AttentionDims, Mask};
use crate::Float;
use crate::ops::blocks::{Rows, for_each_block};
use crate::ops::matmul::Write::{Accumulate, Overwrite};
use crate::simd::{self, Mat, MatMut, Threads};

/// Maximum queries or keys per tile: 16 KiB of `f32`, half a level-1 cache.
pub(super) const TILE: usize = 64;

/// One tile's scores, then its probabilities: `(queries, keys)`, packed.
type Tile<T> = [T; TILE * TILE];

/// The inputs of one call.
pub(super) struct Attention<'a, T> {
    pub(super) q: &'a [T],
    pub(super) k: &'a [T],
    pub(super) v: &'a [T],
    pub(super) scale: T,
    pub(super) dims: AttentionDims,
}

/// What backward reads besides the inputs.
#[derive(Clone, Copy)]
pub(super) struct Saved<'a, T> {
    pub(super) dout: &'a [T],
    pub(super) lse: &'a [T],
    /// [`delta`]'s result.
    pub(super) delta: &'a [T],
}

/// The position of one tile: sequence, query head, queries, keys.
#[derive(Clone)]
struct Place {
    b: usize,
    h: usize,
    rows: Range<usize>,
    keys: Range<usize>,
}

/// `delta[b,t,h] = dout[b,t,h,:] · out[b,t,h,:]`, which is `sum_j p_j dp_j`.
pub(super) fn delta<T: Float>(delta: &mut [T], dout: &[T], out: &[T], d: usize) {
    let tasks =
        delta.par_chunks_mut(TILE).zip(dout.par_chunks(TILE * d)).zip(out.par_chunks(TILE * d));
    tasks.for_each(|((delta, dout), out)| {
        simd::dispatch(
            #[inline(always)]
            || {
                let heads = dout.chunks_exact(d).zip(out.chunks_exact(d));
                for (delta, (dout, out)) in delta.iter_mut().zip(heads) {
                    *delta = simd::dot(dout, out);
                }
            },
        );
    });
}

impl<T: Float> Attention<'_, T> {
    /// `out (B,T,H,D)` and `lse (B,T,H)`.
    pub(super) fn fwd(&self, out: &mut [T], lse: &mut [T]) {
        let AttentionDims { b, t, h: n_heads, d, .. } = self.dims;
        let width = n_heads * d;
        let outputs = (Rows { data: out, width }, Rows { data: lse, width: n_heads });
        for_each_block(b, t, self.tile(), outputs, |b, rows, (out, lse)| {
            let mut p: Tile<T> = [T::ZERO; TILE * TILE];
            out.data.fill(T::ZERO);
            for h in 0..n_heads {
                let mut softmax = Softmax::new();
                let out = &mut out.data[h * d..];
                // From the last tile backwards: every query of the block sees a key of the last
                // tile, its own or any, so that running maxima are finite from the first on.
                for keys in self.key_tiles(&rows).rev() {
                    let place = Place { b, h, rows: rows.clone(), keys };
                    let p = self.scores(&mut p, &place);
                    softmax.absorb(p, place.keys.len(), out, width, d);
                    let n = [rows.len(), d, place.keys.len()];
                    product(out, width, Mat::rows(p, n[2]), self.keys(self.v, &place), T::ONE, n);
                }
                softmax.finish(rows.len(), out, width, d, &mut lse.data[h..], n_heads);
            }
        });
    }

    /// `dq (B,T,H,D)`.
    pub(super) fn bwd_q(&self, dq: &mut [T], saved: Saved<T>) {
        let AttentionDims { b, t, h: n_heads, d, .. } = self.dims;
        let width = n_heads * d;
        for_each_block(b, t, self.tile(), Rows { data: dq, width }, |b, rows, dq| {
            let (mut p, mut ds) = ([T::ZERO; TILE * TILE], [T::ZERO; TILE * TILE]);
            dq.data.fill(T::ZERO);
            for h in 0..n_heads {
                for keys in self.key_tiles(&rows) {
                    let place = Place { b, h, rows: rows.clone(), keys };
                    let n = [rows.len(), d, place.keys.len()];
                    let p = self.probabilities(&mut p, &place, saved);
                    let ds = self.score_gradient(&mut ds, p, &place, saved);
                    let dq = &mut dq.data[h * d..];
                    product(
                        dq,
                        width,
                        Mat::rows(ds, n[2]),
                        self.keys(self.k, &place),
                        self.scale,
                        n,
                    );
                }
            }
        });
    }

    /// Overwrites `dk` and `dv`, both `(keys,G,D)`, with the contributions of the queries in `rows`
    /// of sequence `b` to `keys`, at most one tile of them.
    pub(super) fn bwd_kv(
        &self,
        b: usize,
        keys: Range<usize>,
        rows: Range<usize>,
        mut dk: Option<&mut [T]>,
        mut dv: Option<&mut [T]>,
        saved: Saved<T>,
    ) {
        let AttentionDims { h: n_heads, g: n_groups, d, .. } = self.dims;
        let width = n_groups * d;
        let (mut p, mut ds) = ([T::ZERO; TILE * TILE], [T::ZERO; TILE * TILE]);
        for x in [dk.as_deref_mut(), dv.as_deref_mut()].into_iter().flatten() {
            x.fill(T::ZERO);
        }
        for h in 0..n_heads {
            let g = h / (n_heads / n_groups);
            for rows in tiles(rows.clone(), self.tile()) {
                let place = Place { b, h, rows, keys: keys.clone() };
                let n = [keys.len(), d, place.rows.len()];
                let p = self.probabilities(&mut p, &place, saved);
                if let Some(dv) = &mut dv {
                    let dout = self.rows(saved.dout, &place);
                    product(&mut dv[g * d..], width, Mat::rows(p, n[0]).t(), dout, T::ONE, n);
                }
                if let Some(dk) = &mut dk {
                    let ds = Mat::rows(self.score_gradient(&mut ds, p, &place, saved), n[0]);
                    let q = self.rows(self.q, &place);
                    product(&mut dk[g * d..], width, ds.t(), q, self.scale, n);
                }
            }
        }
    }

    /// Queries and keys per tile. A tile much wider than the window would mostly compute masked scores;
    /// a much smaller one would mostly be call overhead.
    pub(super) fn tile(&self) -> usize {
        match self.dims.mask {
            Mask::Window(w) if w <= TILE / 2 => TILE / 2,
            _ => TILE,
        }
    }

    /// The keys that query `t` sees; both ends are non-decreasing in `t`.
    fn visible(&self, t: usize) -> Range<usize> {
        match self.dims.mask {
            Mask::None => 0..self.dims.t_k,
            Mask::Window(w) => (t + 1).saturating_sub(w)..t + 1,
        }
    }

    /// The tiles of keys that any query in `rows` sees.
    fn key_tiles(&self, rows: &Range<usize>) -> impl DoubleEndedIterator<Item = Range<usize>> {
        let (first, last) = (self.visible(rows.start), self.visible(rows.end - 1));
        let tile = self.tile();
        // Aligned starts, so that a tile of keys covers the same positions as a tile of queries.
        tiles(first.start / tile * tile..last.end, tile)
    }

    /// A head's rows of an array of shape `(B,T,H,D)`.
    fn rows<'x>(&self, x: &'x [T], place: &Place) -> Mat<'x, T> {
        let AttentionDims { t, h, d, .. } = self.dims;
        Mat::rows(&x[((place.b * t + place.rows.start) * h + place.h) * d..], h * d)
    }

    /// A head's rows of an array of shape `(B,T_k,G,D)`.
    fn keys<'x>(&self, x: &'x [T], place: &Place) -> Mat<'x, T> {
        let AttentionDims { t_k, h, g, d, .. } = self.dims;
        Mat::rows(&x[((place.b * t_k + place.keys.start) * g + place.h / (h / g)) * d..], g * d)
    }

    /// `scale * q k^T`, negative infinity where a query does not see a key.
    fn scores<'p>(&self, tile: &'p mut Tile<T>, place: &Place) -> &'p mut [T] {
        let Place { rows, keys, .. } = place;
        let n = [rows.len(), keys.len(), self.dims.d];
        let s = &mut tile[..n[0] * n[1]];
        let c = MatMut { data: s, row_stride: n[1] };
        let (q, k) = (self.rows(self.q, place), self.keys(self.k, place));
        simd::gemm(c, q, k.t(), self.scale, Overwrite, n, Threads::One);
        if self.dims.mask == Mask::None {
            return s;
        }
        for (row, s) in rows.clone().zip(s.chunks_exact_mut(n[1])) {
            let seen = self.visible(row);
            let first = seen.start.clamp(keys.start, keys.end) - keys.start;
            let end = seen.end.clamp(keys.start, keys.end) - keys.start;
            s[..first].fill(T::NEG_INFINITY);
            s[end.max(first)..].fill(T::NEG_INFINITY);
        }
        s
    }

    /// `exp(score - lse)`.
    fn probabilities<'p>(
        &self,
        tile: &'p mut Tile<T>,
        place: &Place,
        saved: Saved<T>,
    ) -> &'p mut [T] {
        let n_heads = self.dims.h;
        let lse = &saved.lse[(place.b * self.dims.t + place.rows.start) * n_heads + place.h..];
        let p = self.scores(tile, place);
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = p.chunks_exact_mut(place.keys.len());
                for (p, lse) in rows.zip(lse.iter().step_by(n_heads)) {
                    for p in p {
                        *p = *p - *lse;
                    }
                }
                simd::exp_slice(p);
            },
        );
        p
    }

    /// `p * (dout v^T - delta)`: the gradient of the scaled scores.
    fn score_gradient<'p>(
        &self,
        tile: &'p mut Tile<T>,
        p: &[T],
        place: &Place,
        saved: Saved<T>,
    ) -> &'p [T] {
        let n = [place.rows.len(), place.keys.len(), self.dims.d];
        let n_heads = self.dims.h;
        let delta = &saved.delta[(place.b * self.dims.t + place.rows.start) * n_heads + place.h..];
        let ds = &mut tile[..n[0] * n[1]];
        let c = MatMut { data: ds, row_stride: n[1] };
        let (dout, v) = (self.rows(saved.dout, place), self.keys(self.v, place));
        simd::gemm(c, dout, v.t(), T::ONE, Overwrite, n, Threads::One);
        simd::dispatch(
            #[inline(always)]
            || {
                let rows = ds.chunks_exact_mut(n[1]).zip(p.chunks_exact(n[1]));
                for ((ds, p), delta) in rows.zip(delta.iter().step_by(n_heads)) {
                    for (ds, p) in ds.iter_mut().zip(p) {
                        *ds = *p * (*ds - *delta);
                    }
                }
            },
        );
        ds
    }
}

/// The running softmax of a block of queries.
struct Softmax<T> {
    max: [T; TILE],
    sum: [T; TILE],
}

impl<T: Float> Softmax<T> {
    fn new() -> Self {
        Self { max: [T::NEG_INFINITY; TILE], sum: [T::ZERO; TILE] }
    }

    /// Replaces a tile's scores by `exp(score - max)` and rescales what `out` has accumulated to
    /// the new maximum.
    fn absorb(&mut self, s: &mut [T], keys: usize, out: &mut [T], width: usize, d: usize) {
        simd::dispatch(
            #[inline(always)]
            || {
                let mut decay = [T::ONE; TILE];
                let n = s.len() / keys;
                for (i, s) in s.chunks_exact_mut(keys).enumerate() {
                    let old = self.max[i];
                    let new = simd::max(s);
                    let new = if new > old { new } else { old };
                    self.max[i] = new;
                    decay[i] = old - new;
                    for s in s {
                        *s = *s - new;
                    }
                }
                simd::exp_slice(s);
                simd::exp_slice(&mut decay[..n]);
                let rows = s.chunks_exact(keys).zip(out.chunks_mut(width));
                for (i, (p, out)) in rows.enumerate() {
                    self.sum[i] = self.sum[i] * decay[i] + simd::sum(p);
                    simd::scale(&mut out[..d], decay[i]);
                }
            },
        );
    }

    /// Divides `n` rows of `out` by their sums and writes `max + ln sum`.
    fn finish(
        &self,
        n: usize,
        out: &mut [T],
        width: usize,
        d: usize,
        lse: &mut [T],
        n_heads: usize,
    ) {
        for (i, out) in out.chunks_mut(width).take(n).enumerate() {
            simd::scale(&mut out[..d], T::ONE / self.sum[i]);
            lse[i * n_heads] = self.max[i] + self.sum[i].ln();
        }
    }
}

/// `c += alpha * a b`, on the calling thread.
fn product<T: Float>(
    c: &mut [T],
    row_stride: usize,
    a: Mat<T>,
    b: Mat<T>,
    alpha: T,
    n: [usize; 3],
) {
    simd::gemm(MatMut { data: c, row_stride }, a, b, alpha, Accumulate, n, Threads::One);
}

/// Splits `range` into steps of `tile`.
fn tiles(range: Range<usize>, tile: usize) -> impl DoubleEndedIterator<Item = Range<usize>> {
    range.clone().step_by(tile).map(move |first| first..range.end.min(first + tile))
}
