//! From text to batches: tokenisers, shards of token ids, windows over them, and a synthetic corpus
//! whose exact likelihood is known. Knows nothing of models or training.

pub mod batches;
mod mmap;
pub mod prepare;
pub mod shard;
mod source;
pub mod storyworld;
pub mod tokenizer;
mod writer;

pub use batches::{Batch, BatchOptions, Batches, Order, Rows};
pub use prepare::{Malformed, PrepareOptions, prepare};
pub use shard::{Corpus, Meta, Split, SplitMeta};
pub use tokenizer::Tokenizer;
