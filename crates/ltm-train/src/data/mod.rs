//! From text to batches: tokenizers, shards of token ids, windows over them, and a synthetic corpus
//! whose exact likelihood is known. Knows nothing of models or training.

pub mod batches;
mod documents;
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
pub use fingerprint::{Difference, Fingerprint};
pub use prepare::{Limit, Notice, PrepareOptions, load, prepare};
pub use shard::{Corpus, Meta, Shard, Split, SplitMeta};
pub(crate) use source::objects;
pub use source::{Format, Malformed, ReadOptions};
pub use tokenizer::Tokenizer;
