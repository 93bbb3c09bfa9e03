//! What a run reports: lines of JSON, TensorBoard events. Knows nothing of what is measured.

pub mod jsonl;
pub mod tensorboard;

pub use jsonl::{JsonlWriter, tokens_seen};
pub use tensorboard::EventWriter;
