#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod baselines;
#[cfg(feature = "charts")]
pub mod charts;
pub mod corpus;
mod error;
pub mod explore;
pub mod hf;
pub mod measured;
pub mod parity;
pub mod probe;
#[cfg(feature = "charts")]
pub mod report;
pub mod samples;
pub mod suites;
pub mod sweep;
pub mod text;
pub mod think;
#[cfg(test)]
mod tiny;

pub use error::{Error, Result};
pub use sweep::Sweep;

// What the signatures above take and return.
pub use ltm_train::{self, ltm_model, ltm_vi};
