//! The output layer and its loss on CUDA: matrix products, and between them a kernel on the rows of
//! logits. Knows chunks and the padded pitch of the logits; `matmul` computes the products.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{CrossEntropyDims, OP};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::ops::matmul::cuda::{Operands, multiply};
use crate::ops::matmul::{Layout, MatmulDims, Write};
use crate::{Buffer, DType, Result};

/// Maximum rows of logits held at a time, and maximum elements.
const MOST_ROWS: usize = 4096;
const MOST_LOGITS: usize = 1 << 27;
/// Rows of logits start at multiples of this many elements: whole cache lines in either type.
const PITCH_MULTIPLE: usize = 64;

fn pitch(dims: CrossEntropyDims) -> usize {
    dims.v.next_multiple_of(PITCH_MULTIPLE)
}

/// Rows per chunk: chunks of equal size, as few as the maxima allow.
fn chunk_rows(dims: CrossEntropyDims) -> usize {
    let most = (MOST_LOGITS / pitch(dims)).clamp(64, MOST_ROWS);
    dims.n.div_ceil(dims.n.div_ceil(most))
}

/// Number of f32 elements that hold a chunk of logits of either type.
pub(super) fn scratch_len(dims: CrossEntropyDims) -> usize {
    chunk_rows(dims) * pitch(dims)
}

/// What every pass over the chunks reads; the addresses have been checked.
struct Chunks {
    context: &'static Context,
    logits: Arg,
    h: Arg,
    w: Arg,
    targets: Arg,
    dtype: DType,
    rung: u32,
    dims: CrossEntropyDims,
}

impl Chunks {
    fn new(
        context: &'static Context,
        scratch: &mut Buffer,
        h: &Buffer,
        w: &Buffer,
        targets: &Buffer,
        dims: CrossEntropyDims,
    ) -> Result<Self> {
        let dtype = h.dtype();
        cuda::check_activation(dtype)?;
        Ok(Self {
            context,
            logits: scratch.arg_mut(context, DType::F32)?,
            h: h.arg(context, dtype)?,
            w: w.arg(context, dtype)?,
            targets: targets.arg(context, DType::I32)?,
            dtype,
            rung: rung(dtype, dims)?,
            dims,
        })
    }

    /// The first row and the number of rows of every chunk.
    fn ranges(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (n, rows) = (self.dims.n, chunk_rows(self.dims));
        (0..n).step_by(rows).map(move |first| (first, rows.min(n - first)))
    }

    fn product(&self, c: Arg, a: Arg, b: Arg, output: DType, lda: usize, ldc: usize) -> Operands {
        let (input, ldb) = (self.dtype, self.dims.c);
        Operands { c, a, b, input, output, lda, ldb, ldc }
    }

    /// Writes the logits of `rows` rows from `first` to scratch or, with `write_p`, their
    /// probabilities minus one-hot times `factor`; writes the loss to `nll`.
    fn rows(
        &self,
        (first, rows): (usize, usize),
        nll: Option<Arg>,
        factor: Option<Arg>,
        write_p: bool,
    ) -> Result<()> {
        if self.rung == 3 {
            return self.rows_with_peaks((first, rows), nll, factor, write_p);
        }
        let CrossEntropyDims { c, v, .. } = self.dims;
        let h = offset(self.h, first * c, self.dtype);
        let operands = self.product(self.logits, h, self.w, self.dtype, c, pitch(self.dims));
        let dims = MatmulDims { b: Layout::Transposed, ..MatmulDims::new(rows, v, c) };
        // SAFETY: `h` and `w` are as long as the op checked, scratch holds `rows` rows of the pitch.
        unsafe { multiply(self.context, operands, Write::Overwrite, dims)? };
        let of_rows =
            |arg: Option<Arg>| arg.map_or(Arg::Ptr(0), |arg| offset(arg, first, DType::F32));
        let args = [
            of_rows(nll),
            self.logits,
            offset(self.targets, first, DType::I32),
            of_rows(factor),
            Arg::extent(OP, rows)?,
            Arg::extent(OP, v)?,
            Arg::extent(OP, pitch(self.dims))?,
            Arg::I32(i32::from(write_p)),
        ];
        let (blocks, threads) = if self.rung == 1 { (rows.div_ceil(64), 64) } else { (rows, 256) };
        let geometry =
            Geometry { grid: [blocks as u32, 1, 1], block: [threads, 1, 1], smem_bytes: 0 };
        let symbol = format!("cross_entropy_fwd_{}_v{}", self.dtype, self.rung);
        // SAFETY: as above; targets, loss and factors have N elements, null stands for none; the
        // pitch is a multiple of 4 and scratch is aligned as every allocation is.
        unsafe { self.context.launch(&symbol, geometry, &args) }
    }

    /// [`Self::rows`] with the third rung, whose product also writes the maximum and sum of each
    /// row and tile.
    fn rows_with_peaks(
        &self,
        (first, rows): (usize, usize),
        nll: Option<Arg>,
        factor: Option<Arg>,
        write_p: bool,
    ) -> Result<()> {
        let CrossEntropyDims { c, v, .. } = self.dims;
        let tile = tile(rows, v, self.context.multiprocessors() as usize);
        let (tiles, pitch) = (v.div_ceil(tile), pitch(self.dims));
        // The second half of scratch is used only by f32 logits, so for bf16 the peaks go there.
        let peaks = offset(self.logits, chunk_rows(self.dims) * pitch, self.dtype);
        let at_target = offset(peaks, 2 * rows * tiles, DType::F32);
        let logits = if write_p { self.logits } else { Arg::Ptr(0) };
        let h = offset(self.h, first * c, self.dtype);
        let targets = offset(self.targets, first, DType::I32);
        let extent = |x| Arg::extent(OP, x);
        let (n_rows, v_end, ldl) = (extent(rows)?, extent(v)?, extent(pitch)?);
        let args = [logits, peaks, at_target, h, self.w, targets, n_rows, v_end, extent(c)?, ldl];
        let (size, threads, smem_bytes) =
            if tile == 128 { ("large", 256, 64 << 10) } else { ("small", 128, 48 << 10) };
        let Arg::I32(blocks) = extent(rows.div_ceil(tile) * tiles)? else {
            unreachable!("an extent is an i32")
        };
        let geometry =
            Geometry { grid: [blocks.unsigned_abs(), 1, 1], block: [threads, 1, 1], smem_bytes };
        // SAFETY: `h` and `w` are as long as the op checked, `targets` too; scratch holds a chunk of
        // f32 logits, so `rows` rows of bf16 ones and, as a test shows, the peaks behind a chunk's.
        unsafe {
            let symbol = format!("cross_entropy_fwd_logits_{size}_bf16_v3");
            self.context.launch(&symbol, geometry, &args)?;
        }
        let of_rows =
            |arg: Option<Arg>| arg.map_or(Arg::Ptr(0), |arg| offset(arg, first, DType::F32));
        let write_p = Arg::I32(i32::from(write_p));
        let (nll, factor, n_tiles) = (of_rows(nll), of_rows(factor), extent(tiles)?);
        let args =
            [nll, logits, peaks, at_target, targets, factor, n_rows, n_tiles, v_end, ldl, write_p];
        let geometry = Geometry { grid: [rows as u32, 1, 1], block: [256, 1, 1], smem_bytes: 0 };
        // SAFETY: as above; the launch before wrote peaks and, for each target in the vocabulary, its
        // logit; loss and factors have N elements, null stands for none.
        unsafe { self.context.launch("cross_entropy_fwd_rows_bf16_v3", geometry, &args) }
    }
}

fn rung(dtype: DType, dims: CrossEntropyDims) -> Result<u32> {
    let peaks =
        [("[P1] bf16", dtype == DType::BF16), ("[P2] C % 8 == 0", dims.c.is_multiple_of(8))];
    cuda::choose(OP, &[Rung(3, &peaks), Rung(2, &[]), Rung(1, &[])])
}

/// The tile of the third rung's product: the large one if it gives every multiprocessor work.
fn tile(rows: usize, v: usize, multiprocessors: usize) -> usize {
    let large = rows > 64 && rows.div_ceil(128) * v.div_ceil(128) >= multiprocessors;
    if large { 128 } else { 64 }
}

fn offset(arg: Arg, elements: usize, dtype: DType) -> Arg {
    match arg {
        Arg::Ptr(address) => Arg::Ptr(address + (elements * dtype.size_bytes()) as u64),
        other => other,
    }
}

/// [`super::fwd`] on CUDA.
pub(super) fn fwd(
    context: &'static Context,
    nll: Option<&mut Buffer>,
    dh: Option<&mut Buffer>,
    scratch: &mut Buffer,
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    let chunks = Chunks::new(context, scratch, h, w, targets, dims)?;
    let nll = nll.map(|nll| nll.arg_mut(context, DType::F32)).transpose()?;
    let dh = dh.map(|dh| dh.arg_mut(context, h.dtype())).transpose()?;
    for (first, rows) in chunks.ranges() {
        chunks.rows((first, rows), nll, None, dh.is_some())?;
        let Some(dh) = dh else { continue };
        let dh = offset(dh, first * dims.c, chunks.dtype);
        let (p, lda) = (chunks.logits, pitch(dims));
        let operands = chunks.product(dh, p, chunks.w, chunks.dtype, lda, dims.c);
        let product = MatmulDims::new(rows, dims.c, dims.v);
        // SAFETY: scratch holds the rows, `w` and `dh` are as long as the op checked.
        unsafe { multiply(context, operands, Write::Overwrite, product)? };
    }
    Ok(())
}

/// [`super::bwd_weight`] on CUDA.
pub(super) fn bwd_weight(
    context: &'static Context,
    dw: &mut Buffer,
    scratch: &mut Buffer,
    dnll: &Buffer,
    h: &Buffer,
    w: &Buffer,
    targets: &Buffer,
    dims: CrossEntropyDims,
) -> Result<()> {
    let chunks = Chunks::new(context, scratch, h, w, targets, dims)?;
    let dw = dw.arg_mut(context, DType::F32)?;
    let dnll = dnll.arg(context, DType::F32)?;
    for (first, rows) in chunks.ranges() {
        chunks.rows((first, rows), None, Some(dnll), true)?;
        let h = offset(chunks.h, first * dims.c, chunks.dtype);
        let operands = chunks.product(dw, chunks.logits, h, DType::F32, pitch(dims), dims.c);
        let product = MatmulDims { a: Layout::Transposed, ..MatmulDims::new(dims.v, dims.c, rows) };
        let write = if first == 0 { Write::Overwrite } else { Write::Accumulate };
        // SAFETY: scratch holds the rows, `h` and `dw` are as long as the op checked.
        unsafe { multiply(context, operands, write, product)? };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal};

    #[test]
    fn each_need_is_refused() {
        let refused = |dtype, c| {
            let dims = CrossEntropyDims { n: 1, c, v: 1 };
            refusal(OP, "fwd_v3_statistics_in_product.cu", || rung(dtype, dims))
        };
        let shown = [refused(DType::F32, 8), refused(DType::BF16, 12)];
        assert_eq!(BTreeSet::from(shown), needs(OP));
    }

    #[test]
    fn peaks_fit_behind_the_logits_of_a_chunk() {
        for (n, v) in [(1, 1), (65, 64), (4096, 65), (5000, 50_258), (70, 1 << 22)] {
            let dims = CrossEntropyDims { n, c: 8, v };
            let rows = chunk_rows(dims);
            for multiprocessors in [1, 1 << 20] {
                let peaks = rows * v.div_ceil(tile(rows, v, multiprocessors));
                let bytes = 2 * rows * pitch(dims) + 8 * peaks + 4 * rows;
                assert!(bytes <= 4 * scratch_len(dims), "{dims:?}");
            }
        }
    }

    #[test]
    fn chunks_are_equal_and_as_few_as_fit() {
        let rows = |n, v| chunk_rows(CrossEntropyDims { n, c: 8, v });
        assert_eq!((rows(1, 1), rows(4096, 7), rows(4097, 7)), (1, 4096, 2049));
        // 2^27 elements of logits are 2668 rows of 50304; in f32 that is half a GiB.
        assert_eq!((rows(16_384, 50_258), rows(2668, 50_258)), (2341, 2668));
        assert_eq!(rows(2669, 50_258), 1335);
        assert_eq!(rows(1000, 1 << 24), 63);
        for v in [1, 63, 64, 65, 50_258] {
            let pitch = pitch(CrossEntropyDims { n: 1, c: 8, v });
            assert!(pitch >= v && pitch - v < PITCH_MULTIPLE && pitch.is_multiple_of(4));
        }
    }
}
