#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod completions;
mod continuation;
mod engine;
mod error;
mod explorations;
mod explorer;
mod guard;
mod metrics;
mod models;
mod server;
mod shared;
mod status;
mod thoughts;
mod tokens;

pub use error::{Error, Result};
pub use server::{Options, Server};

// What the signatures above take and return.
pub use ltm_eval;
