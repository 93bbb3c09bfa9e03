//! What a run reports: lines of JSON, TensorBoard events, charts. Knows nothing of what is measured.

pub mod chart;
pub mod jsonl;
pub mod plot;
pub mod tensorboard;

pub use chart::{Axis, Chart, Mark, Series, stacked_bars};
pub use jsonl::JsonlWriter;
pub use plot::line_chart;
pub use tensorboard::EventWriter;
