//! Causal attention within a window on CUDA: chooses rung and kernel instance, and launches. Knows
//! the kernels' contracts; must not know how queries are computed.
#![expect(unsafe_code, reason = "kernels take addresses")]

use super::{OP, SelfAttentionDims};
use crate::cuda::{self, Arg, Context, Geometry, Rung};
use crate::{Buffer, DType, Result};

/// Rows per block of the warp-per-row kernels.
const ROWS_PER_BLOCK: usize = 4;
/// Queries, or keys, per block of the tiled kernels.
const TILE: usize = 64;
/// Maximum blocks along y or z.
const MOST_BLOCKS: usize = 65_535;

/// The requested gradients, as in [`super::bwd`].
pub(super) struct Gradients<'a> {
    pub dq: Option<&'a mut Buffer>,
    pub dk: Option<&'a mut Buffer>,
    pub dv: Option<&'a mut Buffer>,
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
    dims: SelfAttentionDims,
) -> Result<()> {
    let dtype = q.dtype();
    cuda::check_activation(dtype)?;
    let mut args = vec![out.arg_mut(context, dtype)?, lse.arg_mut(context, DType::F32)?];
    for x in [q, k, v] {
        args.push(x.arg(context, dtype)?);
    }
    let rung = rung(dtype, dims)?;
    push_scalars(&mut args, rung, scale, dims)?;
    let (symbol, geometry) = match rung {
        1 => (format!("self_attention_fwd_{dtype}_v1"), rows_geometry(dims.b * dims.t * dims.h)),
        2 => (
            format!("self_attention_fwd_d{}_{dtype}_v2", shared_instance(dims.d)),
            shared_geometry(dims.h, dims),
        ),
        _ => {
            let width = instance(dims.d);
            let smem_bytes = 5 * TILE * (width + 8) * 2;
            (
                format!("self_attention_fwd_d{width}_{dtype}_v3"),
                tiles_geometry(dims.h, smem_bytes, dims),
            )
        }
    };
    // SAFETY: the rung's needs hold, `rung` checked them; `super::fwd` checked the lengths, `arg` and
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
    dims: SelfAttentionDims,
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
    let rung = rung(dtype, dims)?;
    push_scalars(&mut inputs, rung, scale, dims)?;

    let rows = dims.b * dims.t * dims.h;
    let row_args = [delta, dout, out, Arg::extent(OP, rows)?, Arg::extent(OP, dims.d)?];
    // SAFETY: as in `fwd`; scratch holds `B*T*H` elements, `super::bwd` checked it.
    unsafe {
        let symbol = format!("self_attention_bwd_delta_{dtype}_v1");
        context.launch(&symbol, rows_geometry(rows), &row_args)?;
    }
    let launch = |part: &str, outputs: &[Arg], heads: usize| {
        let (symbol, geometry) = match rung {
            1 => (
                format!("self_attention_bwd_{part}_{dtype}_v1"),
                rows_geometry(dims.b * dims.t * heads),
            ),
            2 => (
                format!("self_attention_bwd_{part}_d{}_{dtype}_v2", shared_instance(dims.d)),
                shared_geometry(heads, dims),
            ),
            _ => {
                let width = instance(dims.d);
                let streamed = if width == 128 { 32 } else { 64 };
                let smem_bytes = (2 * TILE + 4 * streamed) * (width + 8) * 2 + 16 * streamed;
                (
                    format!("self_attention_bwd_{part}_d{width}_{dtype}_v3"),
                    tiles_geometry(heads, smem_bytes, dims),
                )
            }
        };
        let args = [outputs, &inputs].concat();
        // SAFETY: as in `fwd`; the kernel for keys and values takes null for what is not wanted.
        unsafe { context.launch(&symbol, geometry, &args) }
    };
    if let Some(dq) = dq {
        launch("dq", &[dq], dims.h)?;
    }
    if dk.is_some() || dv.is_some() {
        let null = Arg::Ptr(0);
        launch("dkv", &[dk.unwrap_or(null), dv.unwrap_or(null)], dims.g)?;
    }
    Ok(())
}

/// Forward and backward have the same rungs.
fn rung(dtype: DType, dims: SelfAttentionDims) -> Result<u32> {
    let SelfAttentionDims { b, t, h, d, .. } = dims;
    let rows_fit = i32::try_from(b * t * h).is_ok();
    cuda::choose(
        OP,
        &[
            Rung(
                3,
                &[
                    ("[P1] D % 8 == 0, D <= 128", d % 8 == 0 && d <= 128),
                    (
                        "[P2] H <= 65535, B <= 65535, B*T*H < 2^31",
                        h <= MOST_BLOCKS && b <= MOST_BLOCKS && rows_fit,
                    ),
                    ("[P3] bf16", dtype == DType::BF16),
                ],
            ),
            Rung(
                2,
                &[
                    ("[P1] D % 4 == 0, D <= 128", d % 4 == 0 && d <= 128),
                    (
                        "[P2] H <= 65535, B <= 65535, B*T*H < 2^31",
                        h <= MOST_BLOCKS && b <= MOST_BLOCKS && rows_fit,
                    ),
                ],
            ),
            Rung(1, &[("[P1] D <= 256", d <= 256), ("[P2] B*T*H < 2^31", rows_fit)]),
        ],
    )
}

/// Scale and extents; the tiled kernels take the sequence from the grid.
fn push_scalars(args: &mut Vec<Arg>, rung: u32, scale: f64, dims: SelfAttentionDims) -> Result<()> {
    let SelfAttentionDims { b, t, h, g, d, w } = dims;
    args.push(Arg::F32(scale as f32));
    if rung == 1 {
        args.push(Arg::extent(OP, b)?);
    }
    // A window longer than the sequence has the same effect as the whole sequence, and may not fit
    // 32 bits.
    for extent in [t, h, g, d, w.min(t)] {
        args.push(Arg::extent(OP, extent)?);
    }
    Ok(())
}

/// One warp per row. `rung` has checked the number of rows.
fn rows_geometry(rows: usize) -> Geometry {
    Geometry {
        grid: [rows.div_ceil(ROWS_PER_BLOCK) as u32, 1, 1],
        block: [ROWS_PER_BLOCK as u32 * 32, 1, 1],
        smem_bytes: 0,
    }
}

/// One block per tile and head of a sequence. `rung` has checked the extents.
fn tiles_geometry(heads: usize, smem_bytes: usize, dims: SelfAttentionDims) -> Geometry {
    Geometry {
        grid: [dims.t.div_ceil(TILE) as u32, heads as u32, dims.b as u32],
        block: [128, 1, 1],
        smem_bytes: smem_bytes as u32,
    }
}

/// One block per 32 rows and head of a sequence. `rung` has checked the extents.
fn shared_geometry(heads: usize, dims: SelfAttentionDims) -> Geometry {
    Geometry {
        grid: [dims.t.div_ceil(32) as u32, heads as u32, dims.b as u32],
        block: [256, 1, 1],
        smem_bytes: 0,
    }
}

/// The narrowest instance of the kernels with shared rows that supports head width `d`.
fn shared_instance(d: usize) -> usize {
    if d <= 64 { 64 } else { 128 }
}

/// The narrowest instance of the tiled kernels that supports head width `d`.
fn instance(d: usize) -> usize {
    match d {
        0..=32 => 32,
        33..=64 => 64,
        _ => 128,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::ops::testing::{needs, refusal, taken};

    fn dims([b, t, h]: [usize; 3], d: usize) -> SelfAttentionDims {
        SelfAttentionDims { b, t, h, g: 1, d, w: 1 }
    }

    #[test]
    fn each_need_is_refused_and_its_limit_taken() {
        let long = [1 << 11, 1 << 15, 32];
        let mut shown = BTreeSet::new();
        for file in ["fwd_v1_naive.cu", "bwd_v1_naive.cu"] {
            let refused = |dims| refusal(OP, file, || rung(DType::F32, dims));
            shown.extend([dims([1, 1, 1], 257), dims(long, 1)].map(refused));
        }
        for file in ["fwd_v2_shared_keys.cu", "bwd_v2_shared_rows.cu"] {
            let refused = |dims| refusal(OP, file, || rung(DType::F32, dims));
            let widths = [dims([1, 1, 1], 6), dims([1, 1, 1], 132)];
            shown.extend(widths.map(refused));
            let rows = [dims([65_536, 1, 1], 4), dims([1, 1, 65_536], 4), dims(long, 4)];
            shown.extend(rows.map(refused));
        }
        for file in ["fwd_v3_tensor_cores.cu", "bwd_v3_tensor_cores.cu"] {
            let refused = |dtype, dims| refusal(OP, file, || rung(dtype, dims));
            let widths = [dims([1, 1, 1], 12), dims([1, 1, 1], 136)];
            shown.extend(widths.map(|dims| refused(DType::BF16, dims)));
            let rows = [dims([65_536, 1, 1], 8), dims([1, 1, 65_536], 8), dims(long, 8)];
            shown.extend(rows.map(|dims| refused(DType::BF16, dims)));
            shown.insert(refused(DType::F32, dims([1, 1, 1], 8)));
        }
        assert_eq!(shown, needs(OP));

        assert!(taken(1, || rung(DType::F32, dims([1, (1 << 31) - 1, 1], 256))));
        for most in [dims([65_535, 1, 1], 128), dims([1, 1, 65_535], 128)] {
            assert!(taken(2, || rung(DType::F32, most)) && taken(3, || rung(DType::BF16, most)));
        }
    }
}
