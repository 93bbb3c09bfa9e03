//! Helpers shared by `cpu.rs` files: compiling a loop for the host's instruction set, reductions, a
//! vectorisable exponential, matrix products. Knows slices and strides; must not know any op.
//!
//! All helpers except [`dispatch`] and [`gemm()`] are inlined into their caller and vectorised
//! there, so wrap the whole body of a task once, inside the rayon closure:
//! `simd::dispatch(#[inline(always)] || { … simd::dot(a, b) … })`.
//! Results do not depend on the instruction set chosen, except those of [`gemm()`].

#[cfg(target_arch = "x86_64")]
mod amx;
mod exp;
mod gemm;
mod lanes;
pub mod peak;
mod product;
mod rows;

pub(crate) use exp::{exp, exp_slice, tanh};
pub use gemm::Write;
pub(crate) use gemm::{Mat, MatMut, SMALL, Threads, gemm};
pub(crate) use lanes::{axpy, dot, max, scale, sum};
pub(crate) use product::{Factor, gemm_bf16};
pub(crate) use rows::{DEPTH, rows};

/// Runs `body` compiled for the widest instruction set of the host.
///
/// Mark the closure and everything it calls `#[inline(always)]`: a call that is not inlined is
/// compiled for the baseline. Write the closure inside the call, the only place where the attribute
/// is stable on closures.
#[inline(always)]
pub(crate) fn dispatch<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}
