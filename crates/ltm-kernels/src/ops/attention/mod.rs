//! Softmax attention with grouped heads, over all keys or within a causal window. Knows shapes and masks;
//! must not know how queries are computed.

mod cpu;
mod cuda;
pub mod reference;
mod tiles;

#[cfg(test)]
mod tests;

use crate::shape::{check_dims, check_len, on_float};
use crate::{Buffer, Cost, Device, Float, Result};

const OP: &str = "attention";

/// Which keys a query sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mask {
    /// All keys of its sequence, as where tokens attend to latents.
    None,
    /// Those of the token itself and of the `W - 1` tokens before it; fewer at the start of a
    /// sequence. There is one key per query.
    Window(usize),
}

/// Extents and mask of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AttentionDims {
    /// Sequences.
    pub b: usize,
    /// Queries per sequence.
    pub t: usize,
    /// Keys and values per sequence.
    pub t_k: usize,
    /// Query heads.
    pub h: usize,
    /// Key and value heads: a divisor of `h`. Query head `i` reads head `i / (h / g)`.
    pub g: usize,
    /// Width of a head.
    pub d: usize,
    /// Which keys a query sees.
    pub mask: Mask,
}

impl AttentionDims {
    /// Refuses an extent of 0, a `g` that does not divide `h`, a window of 0 or over another number
    /// of keys than of queries, and products that overflow.
    ///
    /// # Errors
    /// [`crate::Error::Dims`].
    pub fn validate(&self) -> Result<()> {
        let Self { b, t, t_k, h, g, d, mask } = *self;
        check_dims(OP, ![b, t, t_k, h, g, d].contains(&0), || {
            format!(
                "every extent must be at least 1, got b {b}, t {t}, t_k {t_k}, h {h}, g {g}, d {d}"
            )
        })?;
        check_dims(OP, h % g == 0, || format!("g must divide h, got h {h}, g {g}"))?;
        if let Mask::Window(w) = mask {
            check_dims(OP, w > 0, || "a window is 0, it must be at least 1".into())?;
            check_dims(OP, t_k == t, || {
                format!("a window needs one key per query, got t {t}, t_k {t_k}")
            })?;
        }
        let keys = self.most_keys();
        let flops =
            [b, t, keys, h, d].iter().try_fold(10usize, |product, x| product.checked_mul(*x));
        check_dims(OP, flops.is_some(), || {
            format!(
                "10 * b * t * keys * h * d overflows with b {b}, t {t}, keys {keys}, h {h}, d {d}"
            )
        })
    }

    /// Elements of [`bwd`]'s scratch.
    pub fn scratch_len(&self, device: &Device) -> usize {
        match device {
            Device::Cpu => cpu::scratch_len(*self),
            Device::Cuda(_) => cuda::scratch_len(*self),
        }
    }

    /// Cost of [`fwd`]: two products over the visible pairs; the score matrix is not stored.
    pub fn cost_fwd(&self) -> Cost {
        Cost::new(4 * self.pair_elements(), 2 * self.q_len() + 2 * self.kv_len() + self.lse_len())
    }

    /// Cost of [`bwd`] with all gradients: the five products that are necessary.
    pub fn cost_bwd(&self) -> Cost {
        Cost::new(10 * self.pair_elements(), 4 * self.q_len() + 4 * self.kv_len() + self.lse_len())
    }

    /// The largest number of keys that a query sees.
    fn most_keys(&self) -> usize {
        match self.mask {
            Mask::None => self.t_k,
            Mask::Window(w) => w.min(self.t),
        }
    }

    /// `B * H * D` times the number of visible pairs of query and key.
    fn pair_elements(&self) -> usize {
        let Self { b, t, h, d, mask, .. } = *self;
        let keys = self.most_keys();
        // In a window, queries at the start of a sequence see fewer.
        let missing = if mask == Mask::None { 0 } else { keys * (keys - 1) / 2 };
        b * h * d * (t * keys - missing)
    }

    fn q_len(&self) -> usize {
        self.b * self.t * self.h * self.d
    }

    fn kv_len(&self) -> usize {
        self.b * self.t_k * self.g * self.d
    }

    fn lse_len(&self) -> usize {
        self.b * self.t * self.h
    }
}

/// `out[b,t,h,:] = sum_j p_j v[b,j,:]` with `p = softmax_j(scale * q[b,t,h,:]·k[b,j,:])` over the
/// `j` that the mask lets query `t` see: `0..T_k`, or `max(0,t-W+1)..=t`.
///
/// # Shapes
/// `q (B,T,H,D)`, `k` and `v (B,T_k,G,D)` → `out (B,T,H,D)`, `lse (B,T,H)`, the log-sum-exp of the
/// scaled scores, which [`bwd`] reads. `scale` is usually `1/sqrt(D)`. f32 or f64; on CUDA f32 or
/// bf16, with `lse` and [`bwd`]'s scratch f32 in both cases.
///
/// Inputs must be finite: in a window, a NaN or infinity at a position may affect queries up to 63
/// positions away from those that see it.
///
/// # Errors
/// [`crate::Error::Dims`] from [`AttentionDims::validate`], [`crate::Error::Shape`] when a buffer
/// disagrees with `dims`, [`crate::Error::DType`] when the buffers do not share one float type,
/// [`crate::Error::Unsupported`] when no CUDA kernel takes these `dims`.
///
/// # Source
/// Vaswani et al. 2017, equation 1, with the sliding window of Beltagy et al. 2020; online softmax
/// of Milakov and Gimelshein 2018.
pub fn fwd(
    device: &Device,
    out: &mut Buffer,
    lse: &mut Buffer,
    q: &Buffer,
    k: &Buffer,
    v: &Buffer,
    scale: f64,
    dims: AttentionDims,
) -> Result<()> {
    dims.validate()?;
    for (arg, got, expected) in [
        ("out", out.len(), dims.q_len()),
        ("lse", lse.len(), dims.lse_len()),
        ("q", q.len(), dims.q_len()),
        ("k", k.len(), dims.kv_len()),
        ("v", v.len(), dims.kv_len()),
    ] {
        check_len(OP, arg, got, expected)?;
    }
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, lse, q, k, v, scale, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            let (out, lse) = (out.as_mut_slice::<T>()?, lse.as_mut_slice()?);
            let (q, k, v) = (q.as_slice()?, k.as_slice()?, v.as_slice()?);
            cpu::fwd::<T>(out, lse, q, k, v, T::from_f64(scale), dims);
            Ok(())
        }),
    }
}

/// Gradients of [`fwd`]'s `out` with respect to the requested inputs; each is overwritten.
///
/// # Shapes
/// `dout` and `out (B,T,H,D)`, `lse (B,T,H)`, `q`, `k`, `v` as in [`fwd`] → `dq (B,T,H,D)`, `dk`
/// and `dv (B,T_k,G,D)`; `scratch` holds [`AttentionDims::scratch_len`] elements of any content.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// Dao et al. 2022 (FlashAttention), algorithm 4: probabilities are rebuilt from `lse`.
pub fn bwd(
    device: &Device,
    dq: Option<&mut Buffer>,
    dk: Option<&mut Buffer>,
    dv: Option<&mut Buffer>,
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
    dims.validate()?;
    let wanted = |x: &Option<&mut Buffer>, expected| x.as_ref().map_or(expected, |x| x.len());
    for (arg, got, expected) in [
        ("dq", wanted(&dq, dims.q_len()), dims.q_len()),
        ("dk", wanted(&dk, dims.kv_len()), dims.kv_len()),
        ("dv", wanted(&dv, dims.kv_len()), dims.kv_len()),
        ("scratch", scratch.len(), dims.scratch_len(device)),
        ("dout", dout.len(), dims.q_len()),
        ("out", out.len(), dims.q_len()),
        ("lse", lse.len(), dims.lse_len()),
        ("q", q.len(), dims.q_len()),
        ("k", k.len(), dims.kv_len()),
        ("v", v.len(), dims.kv_len()),
    ] {
        check_len(OP, arg, got, expected)?;
    }
    match device {
        Device::Cuda(context) => {
            let gradients = cuda::Gradients { dq, dk, dv };
            cuda::bwd(context, gradients, scratch, dout, out, lse, q, k, v, scale, dims)
        }
        Device::Cpu => on_float!(dout.dtype(), T => {
            let dq = dq.map(Buffer::as_mut_slice::<T>).transpose()?;
            let dk = dk.map(Buffer::as_mut_slice::<T>).transpose()?;
            let dv = dv.map(Buffer::as_mut_slice::<T>).transpose()?;
            let (dout, out, lse) = (dout.as_slice()?, out.as_slice()?, lse.as_slice()?);
            let (q, k, v) = (q.as_slice()?, k.as_slice()?, v.as_slice()?);
            let scratch = scratch.as_mut_slice()?;
            cpu::bwd::<T>(dq, dk, dv, scratch, dout, out, lse, q, k, v, T::from_f64(scale), dims);
            Ok(())
        }),
    }
}
