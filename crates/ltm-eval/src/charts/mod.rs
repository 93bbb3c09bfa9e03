//! Charts as SVG: of a run's metrics, and of any numbers with their errors. Scores nothing.

mod chart;
mod curves;
mod plot;

pub use chart::{Axis, Chart, Mark, Series, stacked_bars};
pub(crate) use curves::{Curves, curves};
pub use curves::{PLOTS, draw};
pub use plot::line_chart;
