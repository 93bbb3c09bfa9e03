#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

#[cfg(feature = "charts")]
pub mod charts;
mod error;
#[cfg(feature = "charts")]
pub mod report;
pub mod suites;
pub mod sweep;

pub use error::{Error, Result};
pub use sweep::Sweep;

// What the signatures above take and return.
pub use ltm_train::{self, ltm_model, ltm_vi};
