//! Attention on CUDA: chooses rung and kernel instance, launches, and divides queries among partial sums.
//! Knows the kernels' contracts; must not know how queries are computed.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{AttentionDims, Mask, OP};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::{Buffer, DType, Result};

/// Rows per block of the warp-per-row kernels.
const ROWS_PER_WARP_BLOCK: usize = 4;
/// Rows per block of the kernels with shared rows.
const ROWS_PER_BLOCK: usize = 32;
/// Queries, or keys, per block of the tensor-core kernels.
const TILE: usize = 64;
/// Keys per block of the kernel that splits queries, and queries per iteration.
const KEYS_PER_BLOCK: usize = 16;
/// Without a mask and with at most so many keys, most of a tile would be empty, and blocks that own
/// keys would be few.
const FEW_KEYS: usize = 32;
/// Target number of blocks: fills a large device a few times over; more partial sums would only
/// cost memory.
const ENOUGH_BLOCKS: usize = 1024;
/// Maximum blocks along y or z.
const MOST_BLOCKS: usize = 65_535;
/// Maximum queries, and keys, of kernels that round positions up to a tile in 32 bits.
const MOST_ROWS: usize = 1 << 30;

/// The requested gradients, as in [`super::bwd`].
pub(super) struct Gradients<'a> {
    pub dq: Option<&'a mut Buffer>,
    pub dk: Option<&'a mut Buffer>,
    pub dv: Option<&'a mut Buffer>,
}

/// Elements of [`super::bwd`]'s scratch: delta, then the partial sums of few keys and values.
pub(super) fn scratch_len(dims: AttentionDims) -> usize {
    if has_few_keys(dims) {
        partials_start(dims) + chunks(dims).0 * 2 * dims.kv_len()
    } else {
        dims.lse_len()
    }
}

/// Where the partial sums begin in scratch: after delta, at a multiple of 16 bytes.
fn partials_start(dims: AttentionDims) -> usize {
    dims.lse_len().next_multiple_of(4)
}

/// The number of parts into which a key's queries are divided, and the queries per part. Both
/// depend only on the dims, so the order of the sums does too.
fn chunks(dims: AttentionDims) -> (usize, usize) {
    let rows = dims.t * (dims.h / dims.g);
    let most = ENOUGH_BLOCKS.div_ceil(dims.b * dims.g * dims.t_k.div_ceil(KEYS_PER_BLOCK));
    let rows_per_chunk = rows.div_ceil(most).next_multiple_of(KEYS_PER_BLOCK);
    (rows.div_ceil(rows_per_chunk), rows_per_chunk)
}

/// [`super::fwd`] on CUDA.
pub(super) fn fwd(
    context: &'static Context,
    out: &mut Buffer,
    lse: &mut Buffer,
    q: &Buffer,
    k: &Buffer,
    v: &Buffer,
    scale: f64,
    dims: AttentionDims,
) -> Result<()> {
    let dtype = q.dtype();
    cuda::check_activation(dtype)?;
    let mut args = vec![out.arg_mut(context, dtype)?, lse.arg_mut(context, DType::F32)?];
    for x in [q, k, v] {
        args.push(x.arg(context, dtype)?);
    }
    let rung = fwd_rung(dtype, dims)?;
    args.extend(scalars(scale, dims)?);
    let (symbol, geometry) = match rung {
        1 => (format!("attention_fwd_{dtype}_v1"), warps_geometry(dims.lse_len())),
        2 => (
            format!("attention_fwd_d{}_{dtype}_v2", lanes_width(dims.d)),
            shared_geometry(dims.t * (dims.h / dims.g), dims),
        ),
        3 => {
            let width = tile_width(dims.d);
            let smem_bytes = 5 * TILE * (width + 8) * 2;
            (
                format!("attention_fwd_d{width}_{dtype}_v3"),
                tiles_geometry([dims.t, dims.h], smem_bytes, dims),
            )
        }
        _ => (
            format!("attention_fwd_d{}_{dtype}_v4", lanes_width(dims.d)),
            geometry([dims.lse_len(), 1, 1], 128, 0),
        ),
    };
    // SAFETY: the rung's needs hold, `fwd_rung` checked them; `super::fwd` checked the lengths, `arg`
    // and `arg_mut` devices and types; allocations are aligned to 256 bytes.
    unsafe { context.launch(&symbol, geometry, &args) }
}

/// [`super::bwd`] on CUDA.
pub(super) fn bwd(
    context: &'static Context,
    gradients: Gradients,
    scratch: &mut Buffer,
    dout: &Buffer,
    out: &Buffer,
    lse: &Buffer,
    q: &Buffer,
    k: &Buffer,
    v: &Buffer,
    scale: f64,
    dims: AttentionDims,
) -> Result<()> {
    let dtype = q.dtype();
    cuda::check_activation(dtype)?;
    let Gradients { dq, dk, dv } = gradients;
    let address = |x: Option<&mut Buffer>| x.map(|x| x.arg_mut(context, dtype)).transpose();
    let (dq, dk, dv) = (address(dq)?, address(dk)?, address(dv)?);
    let delta = scratch.arg_mut(context, DType::F32)?;
    let dout = dout.arg(context, dtype)?;
    let out = out.arg(context, dtype)?;
    let mut inputs = vec![dout, lse.arg(context, DType::F32)?, delta];
    for x in [q, k, v] {
        inputs.push(x.arg(context, dtype)?);
    }
    let rung = bwd_rung(dtype, dims)?;
    inputs.extend(scalars(scale, dims)?);
    let launch = |symbol: &str, geometry, args: &[Arg]| {
        // SAFETY: as in `fwd`, with `bwd_rung`; scratch holds delta and all partial sums, `super::bwd`
        // checked its length; a null gradient is one that the kernel may be called without.
        unsafe { context.launch(symbol, geometry, args) }
    };

    let AttentionDims { t, t_k, h, g, d, .. } = dims;
    let rows = dims.lse_len();
    let row_args = [delta, dout, out, Arg::extent(OP, rows)?, Arg::extent(OP, d)?];
    launch(&format!("attention_bwd_delta_{dtype}_v1"), warps_geometry(rows), &row_args)?;
    let (lanes, tile) = (lanes_width(d), tile_width(d));
    let streamed = if tile == 128 { TILE / 2 } else { TILE };
    let smem_bytes = (2 * TILE + 4 * streamed) * (tile + 8) * 2 + 16 * streamed;
    if let Some(dq) = dq {
        let (symbol, geometry) = match rung {
            1 => (format!("attention_bwd_dq_{dtype}_v1"), warps_geometry(rows)),
            3 => (
                format!("attention_bwd_dq_d{tile}_{dtype}_v3"),
                tiles_geometry([t, h], smem_bytes, dims),
            ),
            // Rung 4 differs in dk and dv alone.
            _ => (
                format!("attention_bwd_dq_d{lanes}_{dtype}_v2"),
                shared_geometry(t * (h / g), dims),
            ),
        };
        launch(&symbol, geometry, &[&[dq], &inputs[..]].concat())?;
    }
    if dk.is_none() && dv.is_none() {
        return Ok(());
    }
    let outputs = [dk, dv].map(|x| x.unwrap_or(Arg::Ptr(0)));
    let (symbol, geometry) = match rung {
        1 => (format!("attention_bwd_dkv_{dtype}_v1"), warps_geometry(dims.b * t_k * g)),
        2 => (format!("attention_bwd_dkv_d{lanes}_{dtype}_v2"), shared_geometry(t_k, dims)),
        3 => (
            format!("attention_bwd_dkv_d{tile}_{dtype}_v3"),
            tiles_geometry([t_k, g], smem_bytes, dims),
        ),
        _ => {
            let Arg::Ptr(scratch_address) = delta else {
                unreachable!("a buffer's argument is an address")
            };
            let partials = Arg::Ptr(scratch_address + partials_start(dims) as u64 * 4);
            let (n_chunks, rows_per_chunk) = chunks(dims);
            let args = [&[partials], &inputs[..], &[Arg::extent(OP, rows_per_chunk)?]].concat();
            let grid = [n_chunks, t_k.div_ceil(KEYS_PER_BLOCK), dims.b * g];
            let symbol = format!("attention_bwd_dkv_d{lanes}_{dtype}_v4");
            launch(&symbol, geometry(grid, 256, 0), &args)?;
            let extents = [Arg::extent(OP, n_chunks)?, Arg::extent(OP, dims.kv_len())?];
            let args = [&outputs[..], &[partials, Arg::F32(scale as f32)], &extents].concat();
            let grid = [dims.kv_len().div_ceil(256), 2, 1];
            let symbol = format!("attention_bwd_sum_{dtype}_v4");
            return launch(&symbol, geometry(grid, 256, 0), &args);
        }
    };
    launch(&symbol, geometry, &[&outputs, &inputs[..]].concat())
}

fn fwd_rung(dtype: DType, dims: AttentionDims) -> Result<u32> {
    let AttentionDims { b, t, t_k, h, g, d, .. } = dims;
    let (rows, sharing) = (dims.lse_len(), t * (h / g));
    let positions_fit = rows <= MOST_ROWS && t_k <= MOST_ROWS;
    let split = [
        ("[P1] D % 4 == 0, D <= 128", d % 4 == 0 && d <= 128),
        ("[P2] B*T*H < 2^31, T_k <= 2^30", fits(rows) && t_k <= MOST_ROWS),
        ("[P3] T*(H/G) <= 8, T_k >= 32", sharing <= 8 && t_k >= 32),
    ];
    let tiles = [
        ("[P1] D % 8 == 0, D <= 128", d % 8 == 0 && d <= 128),
        (
            "[P2] H <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30",
            h <= MOST_BLOCKS && b <= MOST_BLOCKS && positions_fit,
        ),
        ("[P3] bf16", dtype == DType::BF16),
        ("[P4] a window, or T_k > 32", !has_few_keys(dims)),
    ];
    let shared = [
        ("[P1] D % 4 == 0, D <= 128", d % 4 == 0 && d <= 128),
        (
            "[P2] G <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30",
            g <= MOST_BLOCKS && b <= MOST_BLOCKS && positions_fit,
        ),
    ];
    let naive = [("[P1] D <= 256", d <= 256), ("[P2] B*T*H < 2^31", fits(rows))];
    cuda::choose(OP, &[Rung(4, &split), Rung(3, &tiles), Rung(2, &shared), Rung(1, &naive)])
}

fn bwd_rung(dtype: DType, dims: AttentionDims) -> Result<u32> {
    let AttentionDims { b, t_k, h, g, d, .. } = dims;
    let rows = dims.lse_len();
    let positions_fit = rows <= MOST_ROWS && t_k <= MOST_ROWS;
    let split = [
        ("[P1] D % 4 == 0, D <= 128", d % 4 == 0 && d <= 128),
        ("[P2] B*G <= 65535, B*T*H <= 2^30", b * g <= MOST_BLOCKS && rows <= MOST_ROWS),
        ("[P3] no mask, T_k <= 32", has_few_keys(dims)),
    ];
    let tiles = [
        ("[P1] D % 8 == 0, D <= 128", d % 8 == 0 && d <= 128),
        (
            "[P2] H <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30",
            h <= MOST_BLOCKS && b <= MOST_BLOCKS && positions_fit,
        ),
        ("[P3] bf16", dtype == DType::BF16),
    ];
    let shared = [
        ("[P1] D % 4 == 0, D <= 128", d % 4 == 0 && d <= 128),
        (
            "[P2] G <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30",
            g <= MOST_BLOCKS && b <= MOST_BLOCKS && positions_fit,
        ),
    ];
    let naive = [
        ("[P1] D <= 256", d <= 256),
        ("[P2] B*T*H < 2^31, B*T_k*G < 2^31", fits(rows) && fits(b * t_k * g)),
    ];
    cuda::choose(OP, &[Rung(4, &split), Rung(3, &tiles), Rung(2, &shared), Rung(1, &naive)])
}

fn has_few_keys(dims: AttentionDims) -> bool {
    dims.mask == Mask::None && dims.t_k <= FEW_KEYS
}

/// Whether `n` fits the 32-bit integers of the kernels.
fn fits(n: usize) -> bool {
    i32::try_from(n).is_ok()
}

/// Scale, extents and window, which the kernels of all rungs take; no mask is a window of 0.
fn scalars(scale: f64, dims: AttentionDims) -> Result<Vec<Arg>> {
    let AttentionDims { b, t, t_k, h, g, d, mask } = dims;
    let window = match mask {
        Mask::None => 0,
        // A longer one has the same effect, and may not fit 32 bits.
        Mask::Window(w) => w.min(t),
    };
    let mut args = vec![Arg::F32(scale as f32)];
    for extent in [b, t, t_k, h, g, d, window] {
        args.push(Arg::extent(OP, extent)?);
    }
    Ok(args)
}

/// The narrowest instance of the kernels with eight or sixteen lanes per row that supports head
/// width `d`.
fn lanes_width(d: usize) -> usize {
    if d <= 64 { 64 } else { 128 }
}

/// The narrowest instance of the tensor-core kernels that supports head width `d`.
fn tile_width(d: usize) -> usize {
    match d {
        0..=32 => 32,
        33..=64 => 64,
        _ => 128,
    }
}

/// One warp per row.
fn warps_geometry(rows: usize) -> Geometry {
    geometry([rows.div_ceil(ROWS_PER_WARP_BLOCK), 1, 1], ROWS_PER_WARP_BLOCK * 32, 0)
}

/// One block per 32 rows of a key head of a sequence.
fn shared_geometry(rows: usize, dims: AttentionDims) -> Geometry {
    geometry([rows.div_ceil(ROWS_PER_BLOCK), dims.g, dims.b], 256, 0)
}

/// One block per tile of a head of a sequence.
fn tiles_geometry([rows, heads]: [usize; 2], smem_bytes: usize, dims: AttentionDims) -> Geometry {
    geometry([rows.div_ceil(TILE), heads, dims.b], 128, smem_bytes)
}

/// Converts extents that the needs of the rungs bound.
fn geometry(grid: [usize; 3], threads: usize, smem_bytes: usize) -> Geometry {
    Geometry {
        grid: grid.map(|n| n as u32),
        block: [threads as u32, 1, 1],
        smem_bytes: smem_bytes as u32,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal, taken};

    /// Without a mask.
    fn dims([b, t, t_k]: [usize; 3], [h, g]: [usize; 2], d: usize) -> AttentionDims {
        AttentionDims { b, t, t_k, h, g, d, mask: Mask::None }
    }

    fn windowed([b, t]: [usize; 2], [h, g]: [usize; 2], d: usize) -> AttentionDims {
        AttentionDims { b, t, t_k: t, h, g, d, mask: Mask::Window(1) }
    }

    /// With 32 heads, more queries over all heads and sequences than 32 bits count.
    const MANY: [usize; 2] = [1 << 11, 1 << 15];

    #[test]
    fn each_need_is_refused() {
        let (f32, bf16) = (DType::F32, DType::BF16);
        let fwd = |file, dtype, dims| refusal(OP, file, || fwd_rung(dtype, dims));
        let bwd = |file, dtype, dims| refusal(OP, file, || bwd_rung(dtype, dims));
        let [b, t] = MANY;
        let mut shown = BTreeSet::new();

        let (v1_fwd, v1_bwd) = ("fwd_v1_naive.cu", "bwd_v1_naive.cu");
        for case in [windowed([1, 1], [1, 1], 257), windowed(MANY, [32, 1], 1)] {
            shown.extend([fwd(v1_fwd, f32, case), bwd(v1_bwd, f32, case)]);
        }
        assert!(shown.contains(&bwd(v1_bwd, f32, dims([b, 1, t], [32, 32], 1))));

        let (v2_fwd, v2_bwd) = ("fwd_v2_shared_keys.cu", "bwd_v2_shared_rows.cu");
        let (v3_fwd, v3_bwd) = ("fwd_v3_tensor_cores.cu", "bwd_v3_tensor_cores.cu");
        for case in [
            windowed([1, 1], [1, 1], 12),
            windowed([1, 1], [1, 1], 136),
            windowed([65_536, 1], [1, 1], 8),
            windowed([1, 1], [65_536, 65_536], 8),
            windowed([1, (1 << 30) + 1], [1, 1], 8),
            dims([1, 1, (1 << 30) + 1], [1, 1], 8),
        ] {
            shown.extend([fwd(v3_fwd, bf16, case), bwd(v3_bwd, bf16, case)]);
            if case.d != 12 {
                shown.extend([fwd(v2_fwd, f32, case), bwd(v2_bwd, f32, case)]);
            }
        }
        let small = windowed([1, 1], [1, 1], 6);
        shown.extend([fwd(v2_fwd, f32, small), bwd(v2_bwd, f32, small)]);
        let small = windowed([1, 1], [1, 1], 8);
        shown.extend([fwd(v3_fwd, f32, small), bwd(v3_bwd, f32, small)]);
        shown.insert(fwd(v3_fwd, bf16, dims([1, 64, 32], [1, 1], 8)));

        for case in [
            dims([1, 1, 32], [1, 1], 6),
            dims([1, 1, 32], [1, 1], 132),
            dims([1 << 28, 8, 32], [1, 1], 4),
            dims([1, 1, (1 << 30) + 1], [1, 1], 4),
            dims([1, 9, 32], [1, 1], 4),
            dims([1, 3, 32], [3, 1], 4),
            dims([1, 1, 31], [1, 1], 4),
        ] {
            shown.insert(fwd("fwd_v4_split_keys.cu", f32, case));
        }
        for case in [
            dims([1, 1, 1], [1, 1], 6),
            dims([1, 1, 1], [1, 1], 132),
            dims([8, 1, 1], [8192, 8192], 4),
            dims([1, (1 << 30) + 1, 1], [1, 1], 4),
            dims([1, 1, 33], [1, 1], 4),
            windowed([1, 8], [1, 1], 4),
        ] {
            shown.insert(bwd("bwd_v4_split_queries.cu", f32, case));
        }
        assert_eq!(shown, needs(OP));
    }

    #[test]
    fn each_limit_is_taken() {
        let longest = dims([1, (1 << 31) - 1, 1], [1, 1], 256);
        for dims in [longest, dims([1, 1, (1 << 31) - 1], [1, 1], 256)] {
            assert!(taken(1, || fwd_rung(DType::F32, dims)));
            assert!(taken(1, || bwd_rung(DType::F32, dims)));
        }
        for dims in [
            windowed([65_535, 1], [1, 1], 128),
            windowed([1, 1], [65_535, 65_535], 128),
            windowed([1, 1 << 30], [1, 1], 128),
            dims([1, 1, 1 << 30], [1, 1], 128),
        ] {
            assert!(taken(2, || fwd_rung(DType::F32, dims)));
            assert!(taken(2, || bwd_rung(DType::F32, dims)));
            assert!(taken(3, || fwd_rung(DType::BF16, dims)));
            assert!(taken(3, || bwd_rung(DType::BF16, dims)));
        }
        assert!(taken(3, || fwd_rung(DType::BF16, dims([1, 1, 33], [1, 1], 8))));
        assert!(taken(4, || fwd_rung(DType::F32, dims([1, 8, 32], [1, 1], 128))));
        assert!(taken(4, || fwd_rung(DType::F32, dims([1, 1, 1 << 30], [1, 1], 128))));
        assert!(taken(4, || bwd_rung(DType::F32, dims([1, 8, 32], [65_535, 65_535], 128))));
        assert!(taken(4, || bwd_rung(DType::F32, dims([1, 1 << 30, 32], [1, 1], 128))));
    }

    #[test]
    fn production_takes_the_rung_of_its_case() {
        let case = |dtype, dims| (fwd_rung(dtype, dims), bwd_rung(dtype, dims));
        let window = windowed([4, 512], [8, 8], 64);
        let (latents, all) = (dims([4, 512, 8], [8, 8], 64), dims([4, 512, 512], [8, 8], 64));
        let one_token = dims([1, 1, 256], [32, 32], 64);
        assert_eq!(case(DType::F32, window), (Ok(2), Ok(2)));
        assert_eq!(case(DType::F32, all), (Ok(2), Ok(2)));
        assert_eq!(case(DType::BF16, window), (Ok(3), Ok(3)));
        assert_eq!(case(DType::BF16, all), (Ok(3), Ok(3)));
        for dtype in [DType::F32, DType::BF16] {
            assert_eq!(case(dtype, latents), (Ok(2), Ok(4)));
            assert_eq!(case(dtype, one_token).0, Ok(4));
        }
    }

    #[test]
    fn the_parts_of_the_queries_are_whole_sixteens_and_none_is_empty() {
        for case in [
            dims([1, 1, 1], [1, 1], 4),
            dims([2, 150, 9], [4, 2], 16),
            dims([64, 1024, 8], [8, 8], 64),
        ] {
            let (n_chunks, rows_per_chunk) = chunks(case);
            let rows = case.t * (case.h / case.g);
            assert_eq!(rows_per_chunk % KEYS_PER_BLOCK, 0);
            assert!((n_chunks - 1) * rows_per_chunk < rows && rows <= n_chunks * rows_per_chunk);
        }
    }
}
