//! What a run reports: the lines of `metrics.jsonl` and their reader, TensorBoard events. Measures nothing.

pub mod jsonl;
pub mod line;
pub mod tensorboard;

pub use jsonl::JsonlWriter;
pub use line::{EvaluationLine, Line, METRICS_FILE, ProtocolScore, StepLine, read, tokens_seen};
pub use tensorboard::EventWriter;
