//! Runs elementwise ops on all cores: recursive halving at fixed boundaries. Must not know any op.

use crate::{Float, simd};

/// Elements per task: large enough to amortise the task, small enough to stay in cache.
pub(crate) const CHUNK: usize = 1 << 14;

/// Calls `f` in parallel on corresponding pieces, of at most [`CHUNK`] elements, of every slice.
///
/// All slices have the same length. `f` must treat elements independently, so that the boundaries
/// do not matter. Mark it `#[inline(always)]`: it is compiled for the widest instruction set of the
/// host.
pub(crate) fn zip_chunks<T: Float, const M: usize, const N: usize>(
    outs: [&mut [T]; M],
    ins: [&[T]; N],
    f: impl Fn([&mut [T]; M], [&[T]; N]) + Copy + Send + Sync,
) {
    let len = outs[0].len();
    if len <= CHUNK {
        return simd::dispatch(
            #[inline(always)]
            || f(outs, ins),
        );
    }
    let mid = (len / 2).next_multiple_of(CHUNK);
    let mut tails: [&mut [T]; M] = std::array::from_fn(|_| Default::default());
    let mut slots = tails.iter_mut();
    let heads = outs.map(|out| {
        let (head, tail) = out.split_at_mut(mid);
        *slots.next().expect("one slot an output") = tail;
        head
    });
    rayon::join(
        || zip_chunks(heads, ins.map(|x| &x[..mid]), f),
        || zip_chunks(tails, ins.map(|x| &x[mid..]), f),
    );
}
