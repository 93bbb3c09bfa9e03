#![doc = include_str!("../README.md")]

mod buffer;
#[allow(unsafe_code)]
pub mod cuda;
mod device;
mod dtype;
mod error;
mod host;
pub mod ops;
pub mod program;
pub mod registry;
mod shape;
mod simd;

/// Crates whose types appear in signatures: [`Element`] requires `bytemuck::Pod`, and a [`Buffer`]
/// of [`DType::BF16`] contains `half::bf16`.
pub use {bytemuck, half};

pub use buffer::{Buffer, Element, Float};
pub use device::Device;
pub use dtype::DType;
pub use error::{Error, Result};
pub use shape::Cost;
pub use simd::peak;
