//! Attention to latents on CUDA: chooses rung and kernel instance, launches, and divides queries
//! among partial sums. Knows the kernels' contracts; must not know how queries are computed.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{CrossAttentionDims, OP};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::{Buffer, DType, Result};

/// Rows per block of the warp-per-row kernels.
const ROWS_PER_WARP_BLOCK: usize = 4;
/// Queries per block of the kernels with shared keys.
const ROWS_PER_BLOCK: usize = 32;
/// Keys per block of the kernel that sums over queries, and queries per iteration.
const KEYS_PER_BLOCK: usize = 16;
/// Target number of blocks: fills a large device a few times over; more partial sums would only
/// cost memory.
const ENOUGH_BLOCKS: usize = 1024;
/// Maximum blocks along y or z.
const MOST_BLOCKS: usize = 65_535;

/// The requested gradients, as in [`super::bwd`].
pub(super) struct Gradients<'a> {
    pub dq: Option<&'a mut Buffer>,
    pub dk: Option<&'a mut Buffer>,
    pub dv: Option<&'a mut Buffer>,
}

/// Elements of [`super::bwd`]'s scratch: delta, then the partial sums of keys and values.
pub(super) fn scratch_len(dims: CrossAttentionDims) -> usize {
    partials_start(dims) + chunks(dims).0 * 2 * dims.b * dims.z * dims.g * dims.d
}

/// Where the partial sums begin in scratch: after delta, at a multiple of 16 bytes.
fn partials_start(dims: CrossAttentionDims) -> usize {
    (dims.b * dims.t * dims.h).next_multiple_of(4)
}

/// The number of parts into which a key's queries are divided, and the queries per part. Both
/// depend only on the dims, so the order of the sums does too.
fn chunks(dims: CrossAttentionDims) -> (usize, usize) {
    let rows = dims.t * (dims.h / dims.g);
    let most = ENOUGH_BLOCKS.div_ceil(dims.b * dims.g * dims.z.div_ceil(KEYS_PER_BLOCK));
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
    dims: CrossAttentionDims,
) -> Result<()> {
    let dtype = q.dtype();
    cuda::check_activation(dtype)?;
    let mut args = vec![out.arg_mut(context, dtype)?, lse.arg_mut(context, DType::F32)?];
    for x in [q, k, v] {
        args.push(x.arg(context, dtype)?);
    }
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let (rows, sharing) = (b * t * h, t * (h / g));
    let rung = fwd_rung(dims)?;
    args.push(Arg::F32(scale as f32));
    if rung == 1 {
        args.push(Arg::extent(OP, b)?);
    }
    for extent in [t, h, g, d, z] {
        args.push(Arg::extent(OP, extent)?);
    }
    let width = instance(d);
    let (symbol, geometry) = match rung {
        1 => (format!("cross_attention_fwd_{dtype}_v1"), warps_geometry(rows)),
        2 => (
            format!("cross_attention_fwd_d{width}_{dtype}_v2"),
            geometry([sharing.div_ceil(ROWS_PER_BLOCK), b * g, 1], 256),
        ),
        _ => (format!("cross_attention_fwd_d{width}_{dtype}_v3"), geometry([rows, 1, 1], 128)),
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
    dims: CrossAttentionDims,
) -> Result<()> {
    let dtype = q.dtype();
    cuda::check_activation(dtype)?;
    let Gradients { dq, dk, dv } = gradients;
    let address = |x: Option<&mut Buffer>| x.map(|x| x.arg_mut(context, dtype)).transpose();
    let (dq, dk, dv) = (address(dq)?, address(dk)?, address(dv)?);
    let delta = scratch.arg_mut(context, DType::F32)?;
    let Arg::Ptr(scratch_address) = delta else {
        unreachable!("a buffer's argument is an address")
    };
    let partials = Arg::Ptr(scratch_address + partials_start(dims) as u64 * 4);
    let dout = dout.arg(context, dtype)?;
    let out = out.arg(context, dtype)?;
    let mut inputs = vec![dout, lse.arg(context, DType::F32)?, delta];
    for x in [q, k, v] {
        inputs.push(x.arg(context, dtype)?);
    }
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let (rows, keys, sharing) = (b * t * h, b * z * g, t * (h / g));
    let rung = bwd_rung(dims)?;
    let extents = |extents: &[usize]| {
        let args: Result<Vec<Arg>> = extents.iter().map(|&x| Arg::extent(OP, x)).collect();
        args
    };
    inputs.push(Arg::F32(scale as f32));
    let (with_b, without_b) = (extents(&[b, t, h, g, d, z])?, extents(&[t, h, g, d, z])?);
    let launch = |symbol: &str, geometry, args: &[Arg]| {
        // SAFETY: as in `fwd`, with `bwd_rung`; scratch holds delta and all partial sums, `super::bwd`
        // checked its length; a null gradient is one that the kernel may be called without.
        unsafe { context.launch(symbol, geometry, args) }
    };

    let row_args = [&[delta, dout, out], &extents(&[rows, d])?[..]].concat();
    launch(&format!("cross_attention_bwd_delta_{dtype}_v1"), warps_geometry(rows), &row_args)?;
    let width = instance(d);
    if let Some(dq) = dq {
        if rung == 1 {
            let args = [&[dq], &inputs[..], &with_b].concat();
            launch(&format!("cross_attention_bwd_dq_{dtype}_v1"), warps_geometry(rows), &args)?;
        } else {
            let args = [&[dq], &inputs[..], &without_b].concat();
            let grid = [sharing.div_ceil(ROWS_PER_BLOCK), b * g, 1];
            let symbol = format!("cross_attention_bwd_dq_d{width}_{dtype}_v2");
            launch(&symbol, geometry(grid, 256), &args)?;
        }
    }
    if dk.is_none() && dv.is_none() {
        return Ok(());
    }
    let outputs = [dk, dv].map(|x| x.unwrap_or(Arg::Ptr(0)));
    if rung == 1 {
        let args = [&outputs, &inputs[..], &with_b].concat();
        return launch(&format!("cross_attention_bwd_dkv_{dtype}_v1"), warps_geometry(keys), &args);
    }
    let (n_chunks, rows_per_chunk) = chunks(dims);
    let args = [&[partials], &inputs[..], &with_b, &extents(&[rows_per_chunk])?[..]].concat();
    let grid = [n_chunks, z.div_ceil(KEYS_PER_BLOCK), b * g];
    let symbol = format!("cross_attention_bwd_dkv_d{width}_{dtype}_v2");
    launch(&symbol, geometry(grid, 256), &args)?;
    let sum_args =
        [&outputs, &[partials, Arg::F32(scale as f32)], &extents(&[n_chunks, keys * d])?[..]];
    let symbol = format!("cross_attention_bwd_sum_{dtype}_v2");
    launch(&symbol, geometry([(keys * d).div_ceil(256), 2, 1], 256), &sum_args.concat())
}

fn fwd_rung(dims: CrossAttentionDims) -> Result<u32> {
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let (rows, sharing) = (b * t * h, t * (h / g));
    let split = [
        ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
        ("[P2] B*T*H < 2^31", fits(rows)),
        ("[P3] T*(H/G) <= 8, Z >= 32", sharing <= 8 && z >= 32),
    ];
    let shared = [
        ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
        ("[P2] B*G <= 65535, B*T*H < 2^31", b * g <= MOST_BLOCKS && fits(rows)),
    ];
    let naive = [("[P1] D <= 256", d <= 256), ("[P2] B*T*H < 2^31", fits(rows))];
    cuda::choose(OP, &[Rung(3, &split), Rung(2, &shared), Rung(1, &naive)])
}

fn bwd_rung(dims: CrossAttentionDims) -> Result<u32> {
    let CrossAttentionDims { b, t, z, h, g, d } = dims;
    let (rows, keys) = (b * t * h, b * z * g);
    let blocks_fit = b * g <= MOST_BLOCKS && z <= MOST_BLOCKS;
    let shared = [
        ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
        (
            "[P2] B*G <= 65535, Z <= 65535, B*T*H < 2^31, B*Z*G*D < 2^31",
            blocks_fit && fits(rows) && fits(keys * d),
        ),
    ];
    let naive = [
        ("[P1] D <= 256", d <= 256),
        ("[P2] B*T*H < 2^31, B*Z*G < 2^31", fits(rows) && fits(keys)),
    ];
    cuda::choose(OP, &[Rung(2, &shared), Rung(1, &naive)])
}

/// Whether `n` fits the 32-bit integers of the kernels.
fn fits(n: usize) -> bool {
    i32::try_from(n).is_ok()
}

fn width_fits(d: usize) -> bool {
    d.is_multiple_of(4) && d <= 128
}

/// The narrowest instance of the kernels with shared or split keys that supports head width `d`.
fn instance(d: usize) -> usize {
    if d <= 64 { 64 } else { 128 }
}

/// One warp per row.
fn warps_geometry(rows: usize) -> Geometry {
    geometry([rows.div_ceil(ROWS_PER_WARP_BLOCK), 1, 1], ROWS_PER_WARP_BLOCK * 32)
}

/// Converts a grid extent; the `needs` of the rungs bound it.
fn geometry(grid: [usize; 3], threads: usize) -> Geometry {
    Geometry { grid: grid.map(|n| n as u32), block: [threads as u32, 1, 1], smem_bytes: 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal, taken};

    fn dims([b, t, z]: [usize; 3], [h, g]: [usize; 2], d: usize) -> CrossAttentionDims {
        CrossAttentionDims { b, t, z, h, g, d }
    }

    #[test]
    fn each_need_is_refused_and_its_limit_taken() {
        let (v1, v2, v3) = ("fwd_v1_naive.cu", "fwd_v2_shared_keys.cu", "fwd_v3_split_keys.cu");
        let fwd = |file, dims| refusal(OP, file, || fwd_rung(dims));
        let mut shown = vec![
            fwd(v1, dims([1, 1, 1], [1, 1], 257)),
            fwd(v1, dims([1 << 11, 1 << 15, 1], [32, 1], 1)),
            fwd(v2, dims([1, 1, 1], [1, 1], 6)),
            fwd(v2, dims([1, 1, 1], [1, 1], 132)),
            fwd(v2, dims([8, 1, 1], [8192, 8192], 4)),
            fwd(v2, dims([1 << 11, 1 << 15, 1], [32, 1], 4)),
            fwd(v3, dims([1, 1, 32], [1, 1], 6)),
            fwd(v3, dims([1, 1, 32], [1, 1], 132)),
            fwd(v3, dims([1 << 28, 8, 32], [1, 1], 4)),
            fwd(v3, dims([1, 9, 32], [1, 1], 4)),
            fwd(v3, dims([1, 1, 31], [1, 1], 4)),
        ];
        let (v1, v2) = ("bwd_v1_naive.cu", "bwd_v2_shared_keys.cu");
        let bwd = |file, dims| refusal(OP, file, || bwd_rung(dims));
        shown.extend([
            bwd(v1, dims([1, 1, 1], [1, 1], 257)),
            bwd(v1, dims([1 << 11, 1 << 15, 1], [32, 1], 1)),
            bwd(v1, dims([1 << 11, 1, 1 << 15], [32, 32], 1)),
            bwd(v2, dims([1, 1, 1], [1, 1], 6)),
            bwd(v2, dims([1, 1, 1], [1, 1], 132)),
            bwd(v2, dims([8, 1, 1], [8192, 8192], 4)),
            bwd(v2, dims([1, 1, 65_536], [1, 1], 4)),
            bwd(v2, dims([1 << 11, 1 << 15, 1], [32, 1], 4)),
            bwd(v2, dims([1, 1, 1 << 15], [1 << 14, 1 << 14], 4)),
        ]);
        assert_eq!(shown.into_iter().collect::<BTreeSet<_>>(), needs(OP));

        let longest = dims([1, (1 << 31) - 1, 1], [1, 1], 256);
        assert!(taken(1, || fwd_rung(longest)) && taken(1, || bwd_rung(longest)));
        let most_heads = dims([1, 1, 65_535], [65_535, 65_535], 128);
        assert!(taken(2, || fwd_rung(most_heads)));
        assert!(taken(2, || bwd_rung(dims([1, 1, 65_535], [128, 128], 128))));
        assert!(taken(3, || fwd_rung(dims([1, 8, 32], [1, 1], 128))));
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
