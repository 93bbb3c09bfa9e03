//! Helpers that `cpu.rs` files share: compile a loop for the processor at hand, lane-wise
//! reductions, a vectorisable exponential, matrix products. Knows slices and strides, never an op.
//!
//! Every helper but [`dispatch`] and [`gemm()`] is inlined into its caller and vectorised there, so
//! wrap the whole body of a task once, inside the rayon closure:
//! `simd::dispatch(#[inline(always)] || { … simd::dot(a, b) … })`.
//! Results do not depend on the instruction set chosen, except those of [`gemm()`].

#[cfg(target_arch = "x86_64")]
mod amx;
mod exp;
mod gemm;
mod lanes;
pub mod peak;
mod product;

pub(crate) use exp::{exp, exp_slice};
pub(crate) use gemm::{Mat, MatMut, Threads, gemm};
pub(crate) use lanes::{axpy, dot, max, scale, sum};
pub(crate) use product::{Factor, gemm_bf16};

/// Runs `body` compiled for the widest instruction set that the processor has.
///
/// Mark the closure `#[inline(always)]`, and what it calls too: a call that is not inlined is
/// compiled for the baseline. Write the closure in the call itself: the attribute is not stable
/// elsewhere.
#[inline(always)]
pub(crate) fn dispatch<R>(body: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(body)
}
