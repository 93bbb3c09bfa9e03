#![doc = include_str!("../README.md")]

mod engine;
mod error;
mod group;
mod identity;
mod rendezvous;
pub mod tree;

pub use error::{Error, Result};
pub use group::{Group, Sum};
pub use identity::{Identity, Launcher};
