//! What a run reports: lines of JSON, TensorBoard events, charts. Knows nothing of what is measured.

pub mod chart;
mod curves;
pub mod jsonl;
pub mod plot;
pub mod tensorboard;

pub use chart::{Axis, Chart, Mark, Series, stacked_bars};
pub use curves::draw;
pub(crate) use curves::{Curves, curves};
pub use jsonl::JsonlWriter;
pub use plot::line_chart;
pub use tensorboard::EventWriter;
