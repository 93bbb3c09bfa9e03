//! How elementwise ops share the cores: recursive halving at fixed boundaries. Knows nothing of any op.

use crate::{Float, simd};

/// Elements one task takes: large enough to hide the cost of a task, small enough to stay in cache.
pub(crate) const CHUNK: usize = 1 << 14;

/// Calls `f` on matching pieces of at most [`CHUNK`] elements of every slice, in parallel.
///
/// All slices have one length; `f` must treat elements independently, so that the cuts do not show. Mark it
/// `#[inline(always)]`: it is compiled for the widest instruction set at hand.
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
