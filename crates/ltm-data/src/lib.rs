#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batches;
mod documents;
mod error;
mod fingerprint;
#[cfg(test)]
mod fuzz;
mod pipeline;
mod positioned;
pub mod prepare;
pub mod shard;
mod source;
pub mod storyworld;
pub mod tokenizer;
mod writer;

pub use batches::{Batch, BatchOptions, Batches, Order, Rows};
pub use documents::{Document, documents};
pub use error::{Error, Result};
pub use fingerprint::{Difference, Fingerprint};
pub use prepare::{Limit, Notice, PrepareOptions, load, prepare};
pub use shard::{Corpus, Meta, Shard, Split, SplitMeta};
pub use source::{Format, Malformed, Place, ReadOptions, objects};
pub use tokenizer::Tokenizer;

// What the signatures above take and return.
pub use ltm_files;
