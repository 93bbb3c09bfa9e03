//! One folder per op: contract in `mod.rs`, plain loops in `reference.rs`, the fast CPU
//! implementation in `cpu.rs`.
#![expect(clippy::too_many_arguments, reason = "an op names each of its buffers")]

pub mod adamw;
pub mod attention;
pub mod binary;
mod blocks;
pub mod cast;
pub mod cross_entropy;
pub mod elementwise;
pub mod embedding;
pub mod gaussian_kl;
mod launch;
pub mod matmul;
mod parallel;
pub mod philox;
pub mod reduce;
pub mod reparam;
pub mod rms_norm;
pub mod rope;
pub mod slice;
pub mod softmax;
pub mod strided;
pub mod swiglu;
#[cfg(test)]
pub(crate) mod testing;
pub mod unary;
