#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod batches;
mod count;
mod difference;
mod documents;
mod error;
mod fingerprint;
#[cfg(all(test, feature = "gpt2"))]
mod fuzz;
#[cfg(any(feature = "parquet", feature = "tokenizer-json"))]
mod guard;
mod hash;
mod layout;
mod memory;
mod meta;
mod permutation;
mod pipeline;
mod positioned;
pub mod prepare;
mod shard;
mod source;
mod split;
mod stories;
pub mod storyworld;
pub mod tokenizer;
mod writer;

pub use batches::{Batch, BatchOptions, Batches, Order, Rows};
pub use count::count_tokens;
pub use difference::Difference;
pub use documents::{Document, documents};
pub use error::{Error, Result};
pub use fingerprint::Fingerprint;
pub use meta::{Meta, Shard, SplitMeta};
pub use permutation::chosen;
pub use prepare::{Limit, Notice, PrepareOptions, load, prepare};
pub use shard::Corpus;
pub use source::{Format, Malformed, Place, ReadOptions, gsm8k_document, gsm8k_question, objects};
pub use split::Split;
#[cfg(feature = "tokenizer-json")]
pub use tokenizer::TokenizerJson;
pub use tokenizer::{Bytes, SharedTokenizer, Tokenizer, TokenizerSpec, Words};
#[cfg(feature = "gpt2")]
pub use tokenizer::{Gpt2, Gpt2Subset};
pub use writer::CorpusWriter;

// What the signatures above take and return.
pub use ltm_files;
