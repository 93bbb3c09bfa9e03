//! The fast CPU implementation: tiles of logits that stay in cache from the product that computes
//! them, through their softmax, to the product that uses them.
//!
//! A task processes a block of rows and a part of the vocabulary, tile by tile with a running
//! maximum, as attention does with its keys (Milakov and Gimelshein 2018).

use rayon::prelude::*;

use super::{CrossEntropyDims, IGNORED};
use crate::ops::blocks::{Rows, for_each_block};
use crate::ops::matmul::Write;
use crate::ops::parallel::CHUNK;
use crate::simd::{Factor, Mat, MatMut, Threads};
use crate::{Float, simd};

/// Maximum rows per task, and columns per tile: many rows per packing of the weights, but a tile
/// that stays in a level-2 cache between its two products.
const BLOCK: usize = 512;
pub(super) const TILE: usize = 256;
/// Minimum number of tasks per call, if the vocabulary allows: work for this many cores.
pub(super) const TASKS: usize = 8;

/// How a call is divided. It depends only on the dims, so results do not depend on the number of
/// threads.
struct Cut {
    /// Rows per block.
    rows: usize,
    row_blocks: usize,
    /// Tokens per part of the vocabulary, a multiple of the tile.
    words: usize,
    parts: usize,
}

impl Cut {
    fn new(dims: CrossEntropyDims) -> Self {
        let rows = dims.n.div_ceil(dims.n.div_ceil(BLOCK));
        let row_blocks = dims.n.div_ceil(rows);
        let parts = TASKS.div_ceil(row_blocks).min(dims.v.div_ceil(TILE));
        let words = dims.v.div_ceil(parts).next_multiple_of(TILE);
        Self { rows, row_blocks, words, parts: dims.v.div_ceil(words) }
    }

    fn tasks(&self) -> usize {
        self.row_blocks * self.parts
    }

    /// Scratch elements per task: a tile of logits, then a [`Partial`].
    fn task_len(&self, c: usize) -> usize {
        self.rows * (TILE + c + 3)
    }
}

/// Scratch elements per call.
pub(crate) fn scratch_len(dims: CrossEntropyDims) -> usize {
    let cut = Cut::new(dims);
    // In addition to the tasks' memory, the gradient of the weight stores the log-sum-exp of every
    // row.
    cut.tasks() * cut.task_len(dims.c) + dims.n
}

/// The statistics of a block of rows over one part of the vocabulary, stored after the task's tile:
/// one number per row, and in `mean` one row of `C`.
struct Partial<S> {
    /// Largest logit.
    max: S,
    /// `Σ exp(logit − max)`.
    sum: S,
    /// The target's logit, if the target is in this part.
    logit: S,
    /// `Σ exp(logit − max) w`.
    mean: S,
}

impl<'a, T> Partial<&'a mut [T]> {
    fn cut_mut(memory: &'a mut [T], rows: usize) -> Self {
        let (max, memory) = memory.split_at_mut(rows);
        let (sum, memory) = memory.split_at_mut(rows);
        let (logit, mean) = memory.split_at_mut(rows);
        Self { max, sum, logit, mean }
    }
}

impl<'a, T> Partial<&'a [T]> {
    fn cut(memory: &'a [T], rows: usize) -> Self {
        let (max, memory) = memory.split_at(rows);
        let (sum, memory) = memory.split_at(rows);
        let (logit, mean) = memory.split_at(rows);
        Self { max, sum, logit, mean }
    }
}

pub(crate) fn fwd<T: Float, W: Factor<T>>(
    nll: Option<&mut [T]>,
    dh: Option<&mut [T]>,
    scratch: &mut [T],
    h: &[T],
    w: &[W],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let c = dims.c;
    let cut = Cut::new(dims);
    let tasks = &mut scratch[..cut.tasks() * cut.task_len(c)];
    partials(tasks, h, w, targets, dh.is_some(), dims);
    let tasks = &*tasks;
    let outputs =
        (nll.map(|nll| Rows { data: nll, width: 1 }), dh.map(|dh| Rows { data: dh, width: c }));
    for_each_block(1, dims.n, CHUNK.div_ceil(c), outputs, |_, rows, (mut nll, mut dh)| {
        for (i, n) in rows.enumerate() {
            let dh = dh.as_mut().map(|dh| &mut dh.data[i * c..][..c]);
            let loss = simd::dispatch(
                #[inline(always)]
                || join(dh, tasks, w, n, targets[n], &cut),
            );
            if let Some(nll) = &mut nll {
                nll.data[i] = loss;
            }
        }
    });
}

/// Runs all tasks, each over its part of the vocabulary.
fn partials<T: Float, W: Factor<T>>(
    tasks: &mut [T],
    h: &[T],
    w: &[W],
    targets: &[i32],
    wants_mean: bool,
    dims: CrossEntropyDims,
) {
    let (cut, c) = (Cut::new(dims), dims.c);
    tasks.par_chunks_mut(cut.task_len(c)).enumerate().for_each(|(task, memory)| {
        let (block, part) = (task / cut.parts, task % cut.parts);
        let first_row = block * cut.rows;
        let rows = cut.rows.min(dims.n - first_row);
        let (tile, memory) = memory.split_at_mut(cut.rows * TILE);
        let mut partial = Partial::cut_mut(memory, cut.rows);
        partial.max.fill(T::NEG_INFINITY);
        partial.sum.fill(T::ZERO);
        if wants_mean {
            partial.mean.fill(T::ZERO);
        }
        let h = &h[first_row * c..][..rows * c];
        let end = dims.v.min((part + 1) * cut.words);
        for first_word in (part * cut.words..end).step_by(TILE) {
            let words = TILE.min(end - first_word);
            let tile = &mut tile[..rows * words];
            let w = &w[first_word * c..][..words * c];
            logits(tile, h, w, c);
            let targets = &targets[first_row..][..rows];
            simd::dispatch(
                #[inline(always)]
                || advance(tile, &mut partial, targets, first_word, wants_mean.then_some(c)),
            );
            if wants_mean {
                let mean = MatMut { data: &mut partial.mean[..rows * c], row_stride: c };
                let (p, w) = (Mat::rows(tile, words), Mat::rows(w, c));
                W::gemm(mean, p, w, Write::Accumulate, [rows, c, words], Threads::One);
            }
        }
    });
}

/// `tile = h wᵀ`.
fn logits<T: Float, W: Factor<T>>(tile: &mut [T], h: &[T], w: &[W], c: usize) {
    let (rows, words) = (h.len() / c, w.len() / c);
    let (h, w) = (Mat::rows(h, c), Mat::rows(w, c).t());
    let to = MatMut { data: tile, row_stride: words };
    W::gemm(to, h, w, Write::Overwrite, [rows, words, c], Threads::One);
}

/// Adds a tile of logits to the statistics of its rows, and replaces it by `exp(logit − max)`. Sums
/// relative to a smaller maximum are rescaled, and so are the means of width `c`.
#[inline(always)]
fn advance<T: Float>(
    tile: &mut [T],
    partial: &mut Partial<&mut [T]>,
    targets: &[i32],
    first_word: usize,
    c: Option<usize>,
) {
    let words = tile.len() / targets.len();
    for (n, p_n) in tile.chunks_exact_mut(words).enumerate() {
        let place = usize::try_from(targets[n]).ok().and_then(|t| t.checked_sub(first_word));
        if let Some(logit) = place.and_then(|place| p_n.get(place)) {
            partial.logit[n] = *logit;
        }
        let max = simd::max(p_n);
        if max > partial.max[n] {
            let scale = simd::exp(partial.max[n] - max);
            partial.max[n] = max;
            partial.sum[n] *= scale;
            if let Some(c) = c {
                simd::scale(&mut partial.mean[n * c..][..c], scale);
            }
        }
        let max = partial.max[n];
        for p in p_n.iter_mut() {
            *p = *p - max;
        }
        simd::exp_slice(p_n);
        partial.sum[n] += simd::sum(p_n);
    }
}

/// Combines the statistics of all parts for row `n`: writes its gradient and returns its loss; both
/// are 0 for an ignored target.
#[inline(always)]
fn join<T: Float, W: Factor<T>>(
    dh: Option<&mut [T]>,
    tasks: &[T],
    w: &[W],
    n: usize,
    target: i32,
    cut: &Cut,
) -> T {
    let c = dh.as_ref().map_or(0, |dh| dh.len());
    if target == IGNORED {
        if let Some(dh) = dh {
            dh.fill(T::ZERO);
        }
        return T::ZERO;
    }
    let target = target as usize;
    let (block, i) = (n / cut.rows, n % cut.rows);
    let len = tasks.len() / cut.tasks();
    let part = |part: usize| {
        let memory = &tasks[(block * cut.parts + part) * len..][..len];
        Partial::cut(&memory[cut.rows * TILE..], cut.rows)
    };
    let max = (0..cut.parts).map(|p| part(p).max[i]).fold(T::NEG_INFINITY, T::max);
    let factor = |p: usize| simd::exp(part(p).max[i] - max);
    let sum: T = (0..cut.parts).map(|p| part(p).sum[i] * factor(p)).sum();
    if let Some(dh) = dh {
        dh.fill(T::ZERO);
        for p in 0..cut.parts {
            simd::axpy(dh, factor(p) / sum, &part(p).mean[i * c..][..c]);
        }
        for (dh, w) in dh.iter_mut().zip(&w[target * c..][..c]) {
            *dh = *dh - w.widen();
        }
    }
    max + sum.ln() - part(target / cut.words).logit[i]
}

pub(crate) fn bwd_weight<T: Float, W: Factor<T>>(
    dw: &mut [T],
    scratch: &mut [T],
    [dnll, nll]: [&[T]; 2],
    h: &[T],
    w: &[W],
    targets: &[i32],
    dims: CrossEntropyDims,
) {
    let (cut, c) = (Cut::new(dims), dims.c);
    let (tasks, lse) = scratch.split_at_mut(cut.tasks() * cut.task_len(c));
    let lse = &mut lse[..dims.n];
    lse.par_iter_mut().enumerate().for_each(|(n, lse)| {
        // An ignored target has no loss and no gradient.
        if let Ok(target) = usize::try_from(targets[n]) {
            let mut logit = [T::ZERO];
            logits(&mut logit, &h[n * c..][..c], &w[target * c..][..c], c);
            *lse = nll[n] + logit[0];
        }
    });
    let lse = &*lse;
    let words = dims.v.div_ceil(cut.tasks()).next_multiple_of(TILE);
    let memory = tasks.par_chunks_mut(cut.task_len(c));
    dw.par_chunks_mut(words * c).zip(memory).enumerate().for_each(|(part, (dw, memory))| {
        for (i, dw) in dw.chunks_mut(TILE * c).enumerate() {
            let (first_word, words) = (part * words + i * TILE, dw.len() / c);
            let w = &w[first_word * c..][..words * c];
            for (block, h) in h.chunks(cut.rows * c).enumerate() {
                let rows = h.len() / c;
                let (first_row, tile) = (block * cut.rows, &mut memory[..rows * words]);
                logits(tile, h, w, c);
                let of_rows = first_row..first_row + rows;
                simd::dispatch(
                    #[inline(always)]
                    || {
                        let (lse, dnll) = (&lse[of_rows.clone()], &dnll[of_rows.clone()]);
                        slopes(tile, lse, dnll, &targets[of_rows], first_word);
                    },
                );
                let write = if block == 0 { Write::Overwrite } else { Write::Accumulate };
                let to = MatMut { data: &mut *dw, row_stride: c };
                let (p, h) = (Mat::rows(tile, words).t(), Mat::rows(h, c));
                simd::gemm(to, p, h, T::ONE, write, [words, c, rows], Threads::One);
            }
        }
    });
}

/// Replaces a tile of logits by the gradients with respect to them.
#[inline(always)]
fn slopes<T: Float>(tile: &mut [T], lse: &[T], dnll: &[T], targets: &[i32], first_word: usize) {
    let words = tile.len() / targets.len();
    for (n, p_n) in tile.chunks_exact_mut(words).enumerate() {
        let Ok(target) = usize::try_from(targets[n]) else {
            p_n.fill(T::ZERO);
            continue;
        };
        for p in p_n.iter_mut() {
            *p = *p - lse[n];
        }
        simd::exp_slice(p_n);
        simd::scale(p_n, dnll[n]);
        if let Some(p) = target.checked_sub(first_word).and_then(|place| p_n.get_mut(place)) {
            *p = *p - dnll[n];
        }
    }
}
