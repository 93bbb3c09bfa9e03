#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batches;
mod documents;
mod error;
mod fingerprint;
#[cfg(all(test, feature = "gpt2"))]
mod fuzz;
#[cfg(any(feature = "parquet", feature = "tokenizer-json"))]
mod guard;
mod layout;
mod memory;
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
#[cfg(feature = "gpt2")]
pub use tokenizer::Gpt2;
#[cfg(feature = "tokenizer-json")]
pub use tokenizer::TokenizerJson;
pub use tokenizer::{Bytes, SharedTokenizer, Tokenizer, TokenizerSpec, Words};
pub use writer::CorpusWriter;

// What the signatures above take and return.
pub use ltm_files;
