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

pub use error::{Error, Result};
pub use grad::grad;
pub use graph::{Call, Grads, Graph, Io, Kind, Operation, Spec, UpdateRate, Value};
pub use optim::AdamWState;
pub use plan::{NodeCount, Plan, count};
pub use precision::Precision;
pub use store::Store;
