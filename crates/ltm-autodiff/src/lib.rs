#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod error;
mod grad;
mod graph;
pub mod ops;
mod optim;
mod plan;
mod precision;
mod store;

/// The crate of the buffers, devices and costs that appear in signatures.
pub use ltm_kernels;

pub use error::{Error, Result};
pub use grad::grad;
pub use graph::{Call, Grads, Graph, Io, Operation, Spec, UpdateRate, Value};
pub use optim::AdamWState;
pub use plan::{NodeCount, Plan, count, plan_bytes};
pub use precision::{Kind, Precision};
pub use store::{Inputs, Parameters, Store, store_bytes};
