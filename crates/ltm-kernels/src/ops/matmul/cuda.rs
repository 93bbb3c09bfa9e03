//! Matrix product on CUDA: chooses the rung and the tile, and how to split a long sum. Supports row
//! pitches, so that other ops can multiply padded matrices; must not know what the matrices mean.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{Layout, MatmulDims, OP, Write};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::{Buffer, DType, Result};

/// Minimum steps per part of a split sum; with fewer, adding the parts costs more than it saves.
const STEPS_PER_SPLIT: usize = 256;
/// A multiple of every rung's step.
const STEP_MULTIPLE: usize = 64;
const MOST_BLOCKS_Z: usize = 65_535;
const SUM_BLOCK: usize = 256;
const MOST_NAIVE_BLOCKS: usize = 1 << 20;

/// Addresses, types and row pitches of a product; the matrices of a batch are contiguous.
#[derive(Clone, Copy)]
pub(crate) struct Operands {
    pub c: Arg,
    pub a: Arg,
    pub b: Arg,
    /// Type of `a` and `b`.
    pub input: DType,
    /// Type of `c`.
    pub output: DType,
    /// Elements between the starts of successive rows of `a`, as stored.
    pub lda: usize,
    pub ldb: usize,
    pub ldc: usize,
}

/// [`super::fwd`] on CUDA.
pub(super) fn fwd(
    context: &'static Context,
    c: &mut Buffer,
    a: &Buffer,
    b: &Buffer,
    write: Write,
    dims: MatmulDims,
) -> Result<()> {
    cuda::check_activation(a.dtype())?;
    let output = match (a.dtype(), c.dtype()) {
        (DType::BF16, DType::F32) => DType::F32,
        (input, _) => input,
    };
    let MatmulDims { m, n, k, .. } = dims;
    let operands = Operands {
        c: c.arg_mut(context, output)?,
        a: a.arg(context, a.dtype())?,
        b: b.arg(context, a.dtype())?,
        input: a.dtype(),
        output,
        lda: if dims.a == Layout::Normal { k } else { m },
        ldb: if dims.b == Layout::Normal { n } else { k },
        ldc: n,
    };
    // SAFETY: `arg` and `arg_mut` checked device and types, `super::fwd` the lengths against dims; the
    // pitches are those of dense matrices.
    unsafe { multiply(context, operands, write, dims) }
}

/// Queues one product on the stream, with the fastest rung that supports it.
///
/// # Safety
/// The addresses name matrices of the given types, as large as `dims` and the pitches say, on this
/// context's device; `c` overlaps neither factor, and none is the workspace.
pub(crate) unsafe fn multiply(
    context: &'static Context,
    operands: Operands,
    write: Write,
    dims: MatmulDims,
) -> Result<()> {
    let Operands { c, a, b, input, output, lda, ldb, ldc } = operands;
    let MatmulDims { m, n, k, batch, .. } = dims;
    let rung = rung(input, [lda, ldb], batch)?;
    let part = if output == input { "" } else { "f32out_" };
    let extent = |x| Arg::extent(OP, x);
    // Extents times a pitch must fit 64 bits, which holds for `i32` extents.
    let stride = |x: usize| Arg::I64(x as i64);
    let rows =
        |layout, normal, transposed| if layout == Layout::Normal { normal } else { transposed };
    let stride_a = stride(rows(dims.a, m, k) * lda);
    let stride_b = stride(rows(dims.b, k, n) * ldb);
    let transposed = |layout| Arg::I32(i32::from(layout == Layout::Transposed));
    let accumulate = Arg::I32(i32::from(write == Write::Accumulate));
    let factors = [a, b, extent(m)?, extent(n)?, extent(k)?];
    let pitches = [extent(lda)?, extent(ldb)?];

    if rung == 1 {
        let blocks = (batch * m * n).div_ceil(256).min(MOST_NAIVE_BLOCKS) as u32;
        let geometry = Geometry { grid: [blocks, 1, 1], block: [256, 1, 1], smem_bytes: 0 };
        let mut args = vec![c];
        args.extend(factors);
        args.push(extent(batch)?);
        args.extend(pitches);
        args.extend([extent(ldc)?, stride_a, stride_b, stride(m * ldc)]);
        args.extend([transposed(dims.a), transposed(dims.b), accumulate]);
        // SAFETY: the caller vouches for the matrices; the kernel needs nothing more.
        return unsafe { context.launch(&format!("matmul_fwd_{part}{input}_v1"), geometry, &args) };
    }

    // No other thread may use the workspace between writing the partial sums and adding them.
    let _together = context.together()?;
    let (workspace, workspace_bytes) = context.workspace();
    let blocks = Blocks::choose(dims, context.multiprocessors() as usize, workspace_bytes);
    let Blocks { tile, splits, k_per_split } = blocks;
    let split = splits > 1;
    // The partial sums of a split product are f32, whatever the type of `c`.
    let part = if split && input == DType::BF16 { "f32out_" } else { part };
    let size = if tile == 128 { "large" } else { "small" };
    let mut args = vec![if split { workspace } else { c }];
    args.extend(factors);
    args.extend(pitches);
    args.push(extent(if split { n } else { ldc })?);
    args.extend([stride_a, stride_b, stride(if split { m * n } else { m * ldc })]);
    if rung == 2 {
        args.extend([transposed(dims.a), transposed(dims.b)]);
    }
    args.extend([extent(splits)?, extent(k_per_split)?]);
    args.push(if split { Arg::I32(0) } else { accumulate });
    let (symbol, threads, smem_bytes) = if rung == 2 {
        (format!("matmul_fwd_{size}_{part}{input}_v2"), 256, 0)
    } else {
        let layout = format!("{}{}", letter(dims.a), letter(dims.b));
        let (threads, smem_bytes) = if tile == 128 { (256, 64 << 10) } else { (128, 48 << 10) };
        (format!("matmul_fwd_{layout}_{size}_{part}{input}_v3"), threads, smem_bytes)
    };
    let tiles = m.div_ceil(tile) * n.div_ceil(tile);
    let grid = [grid_extent(tiles)?, 1, (batch * splits) as u32];
    // SAFETY: the caller vouches for the matrices; the needs hold or `choose` refused; `Blocks` keeps
    // batch * splits within the grid, the partial sums within the workspace, and no split empty.
    unsafe {
        context.launch(&symbol, Geometry { grid, block: [threads, 1, 1], smem_bytes }, &args)?
    };
    if !split {
        return Ok(());
    }
    let grid = [grid_extent((batch * m * n).div_ceil(SUM_BLOCK))?, 1, 1];
    let geometry = Geometry { grid, block: [SUM_BLOCK as u32, 1, 1], smem_bytes: 0 };
    let args = [
        c,
        workspace,
        extent(m)?,
        extent(n)?,
        extent(batch)?,
        extent(ldc)?,
        stride(m * ldc),
        extent(splits)?,
        accumulate,
    ];
    // SAFETY: the partial sums were just put on the same stream; `c` is as large as the caller states.
    unsafe { context.launch(&format!("matmul_fwd_sum_{output}_v2"), geometry, &args) }
}

/// The rung for factors of this type and with these row pitches.
fn rung(input: DType, pitches: [usize; 2], batch: usize) -> Result<u32> {
    let aligned = pitches.iter().all(|pitch| pitch.is_multiple_of(8));
    let batch_fits = batch <= MOST_BLOCKS_Z;
    let tensor_cores = [
        ("[P1] rows of a and b are multiples of 16 bytes", aligned),
        ("[P2] batch <= 65535", batch_fits),
    ];
    let tiled = [("[P1] batch <= 65535", batch_fits)];
    let (v2, v1) = (Rung(2, &tiled), Rung(1, &[]));
    match input {
        DType::BF16 => cuda::choose(OP, &[Rung(3, &tensor_cores), v2, v1]),
        _ => cuda::choose(OP, &[v2, v1]),
    }
}

fn letter(layout: Layout) -> char {
    match layout {
        Layout::Normal => 'n',
        Layout::Transposed => 't',
    }
}

fn grid_extent(blocks: usize) -> Result<u32> {
    Arg::extent(OP, blocks).map(|_| blocks as u32)
}

/// How a product is divided: square tiles, and parts of the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blocks {
    tile: usize,
    splits: usize,
    k_per_split: usize,
}

impl Blocks {
    /// Large tiles if they, together with parts of a long sum, keep every multiprocessor busy;
    /// otherwise small ones. Depends only on dims and device, so the order of every sum is fixed.
    fn choose(dims: MatmulDims, multiprocessors: usize, workspace_bytes: usize) -> Self {
        let MatmulDims { m, n, k, batch, .. } = dims;
        let most_splits = (k / STEPS_PER_SPLIT)
            .min(workspace_bytes / 4 / (batch * m * n))
            .min(MOST_BLOCKS_Z / batch)
            .max(1);
        let tiles = |tile: usize| m.div_ceil(tile) * n.div_ceil(tile) * batch;
        let large = m > 64 && n > 64 && tiles(128) * most_splits >= multiprocessors;
        let tile = if large { 128 } else { 64 };
        // A multiprocessor runs two large or four small blocks at a time.
        let wanted = multiprocessors * if large { 2 } else { 4 };
        let splits = match tiles(tile) {
            enough if enough >= multiprocessors => 1,
            few => (wanted / few).clamp(1, most_splits),
        };
        let k_per_split = k.div_ceil(splits).next_multiple_of(STEP_MULTIPLE);
        Self { tile, splits: k.div_ceil(k_per_split), k_per_split }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal, taken};

    #[test]
    fn each_need_is_refused_and_its_limit_taken() {
        let (v2, v3) = ("fwd_v2_register_tiles.cu", "fwd_v3_tensor_cores.cu");
        let refused =
            |file, pitches, batch| refusal(OP, file, || rung(DType::BF16, pitches, batch));
        let shown = [
            refused(v2, [8, 8], 65_536),
            refused(v3, [12, 8], 1),
            refused(v3, [8, 9], 1),
            refused(v3, [8, 8], 65_536),
        ];
        assert_eq!(BTreeSet::from(shown), needs(OP));
        assert!(taken(2, || rung(DType::F32, [1, 1], 65_535)));
        assert!(taken(3, || rung(DType::BF16, [8, 8], 65_535)));
    }

    fn blocks(m: usize, n: usize, k: usize) -> Blocks {
        Blocks::choose(MatmulDims::new(m, n, k), 132, 32 << 20)
    }

    #[test]
    fn long_sums_with_few_tiles_are_split_and_others_are_not() {
        assert_eq!(blocks(512, 512, 65536), Blocks { tile: 128, splits: 16, k_per_split: 4096 });
        let Blocks { tile, splits, .. } = blocks(65536, 512, 512);
        assert_eq!((tile, splits), (128, 1));
        let Blocks { tile, splits, .. } = blocks(8, 512, 512);
        assert_eq!((tile, splits), (64, 2));
        assert_eq!(blocks(1, 1, 1), Blocks { tile: 64, splits: 1, k_per_split: 64 });
    }

    #[test]
    fn splits_fit_the_workspace_and_none_is_empty() {
        for [m, n, k] in [[1376, 512, 65536], [4096, 4096, 4096], [1, 1, 100_000], [70, 9, 770]] {
            let Blocks { splits, k_per_split, .. } = blocks(m, n, k);
            assert!(splits == 1 || splits * m * n * 4 <= 32 << 20);
            assert!((splits - 1) * k_per_split < k && k <= splits * k_per_split);
            assert_eq!(k_per_split % 8, 0);
        }
        let batched = MatmulDims { batch: 30_000, ..MatmulDims::new(1, 1, 4096) };
        let Blocks { splits, .. } = Blocks::choose(batched, 1 << 20, 32 << 20);
        assert!(splits * 30_000 <= MOST_BLOCKS_Z, "{splits}");
    }
}
