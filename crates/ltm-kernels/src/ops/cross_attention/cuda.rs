//! Attention to latents on CUDA: which rung, which instance, the launches, how queries are divided
//! among partial sums. Knows the kernels' contracts, not how queries came about.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{CrossAttentionDims, OP};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::{Buffer, DType, Result};

/// Rows that a block of the warp-per-row kernels computes.
const ROWS_PER_WARP_BLOCK: usize = 4;
/// Queries that a block of the kernels with shared keys computes.
const ROWS_PER_BLOCK: usize = 32;
/// Keys of a block that sums over queries, and queries that it takes at a time.
const KEYS_PER_BLOCK: usize = 16;
/// Blocks that fill a large device a few times over; more partial sums only cost memory.
const ENOUGH_BLOCKS: usize = 1024;
/// The most blocks along y or z.
const MOST_BLOCKS: usize = 65_535;

/// The gradients asked for, as [`super::bwd`] takes them.
pub(super) struct Gradients<'a> {
    pub dq: Option<&'a mut Buffer>,
    pub dk: Option<&'a mut Buffer>,
    pub dv: Option<&'a mut Buffer>,
}

/// Elements of [`super::bwd`]'s scratch: delta, then the partial sums of keys and values.
pub(super) fn scratch_len(dims: CrossAttentionDims) -> usize {
    partials_start(dims) + chunks(dims).0 * 2 * dims.b * dims.z * dims.g * dims.d
}

/// Where the partial sums begin in scratch: behind delta, at a multiple of 16 bytes.
fn partials_start(dims: CrossAttentionDims) -> usize {
    (dims.b * dims.t * dims.h).next_multiple_of(4)
}

/// Parts into which the queries of a key are divided, and queries of a part. They depend on the
/// dims alone, so the order of the sums does too.
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
    let rung = cuda::choose(
        OP,
        &[
            Rung(
                3,
                &[
                    ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
                    ("[P2] B*T*H < 2^31", fits(rows)),
                    ("[P3] T*(H/G) <= 8, Z >= 32", sharing <= 8 && z >= 32),
                ],
            ),
            Rung(
                2,
                &[
                    ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
                    ("[P2] B*G <= 65535, B*T*H < 2^31", b * g <= MOST_BLOCKS && fits(rows)),
                ],
            ),
            Rung(1, &[("[P1] D <= 256", d <= 256), ("[P2] B*T*H < 2^31", fits(rows))]),
        ],
    )?;
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
    // SAFETY: the rung's needs hold, `choose` checked them; `super::fwd` checked the lengths, `arg` and
    // `arg_mut` devices and types; allocations are aligned to 256 bytes.
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
    let rung = cuda::choose(
        OP,
        &[
            Rung(
                2,
                &[
                    ("[P1] D % 4 == 0, D <= 128", width_fits(d)),
                    (
                        "[P2] B*G <= 65535, Z <= 65535, B*T*H < 2^31, B*Z*G*D < 2^31",
                        b * g <= MOST_BLOCKS && z <= MOST_BLOCKS && fits(rows) && fits(keys * d),
                    ),
                ],
            ),
            Rung(
                1,
                &[
                    ("[P1] D <= 256", d <= 256),
                    ("[P2] B*T*H < 2^31, B*Z*G < 2^31", fits(rows) && fits(keys)),
                ],
            ),
        ],
    )?;
    let extents = |extents: &[usize]| {
        let args: Result<Vec<Arg>> = extents.iter().map(|&x| Arg::extent(OP, x)).collect();
        args
    };
    inputs.push(Arg::F32(scale as f32));
    let (with_b, without_b) = (extents(&[b, t, h, g, d, z])?, extents(&[t, h, g, d, z])?);
    let launch = |symbol: &str, geometry, args: &[Arg]| {
        // SAFETY: as in `fwd`; scratch holds delta and all partial sums, `super::bwd` checked its
        // length; a null gradient is one that the kernel may be called without.
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

/// Whether kernels that count in 32 bits can count to `n`.
fn fits(n: usize) -> bool {
    i32::try_from(n).is_ok()
}

fn width_fits(d: usize) -> bool {
    d.is_multiple_of(4) && d <= 128
}

/// The narrowest instance of the kernels with shared or split keys that holds a head of width `d`.
fn instance(d: usize) -> usize {
    if d <= 64 { 64 } else { 128 }
}

/// A warp a row.
fn warps_geometry(rows: usize) -> Geometry {
    geometry([rows.div_ceil(ROWS_PER_WARP_BLOCK), 1, 1], ROWS_PER_WARP_BLOCK * 32)
}

/// The rungs' needs bound every extent of a grid.
fn geometry(grid: [usize; 3], threads: usize) -> Geometry {
    Geometry { grid: grid.map(|n| n as u32), block: [threads as u32, 1, 1], smem_bytes: 0 }
}
