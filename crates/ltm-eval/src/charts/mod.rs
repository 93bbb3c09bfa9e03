//! Charts as SVG: of a run's metrics, and of any numbers with their errors. Scores nothing.

mod bars;
mod chart;
mod curves;
mod legend;
mod plot;
mod rows;
mod scale;
mod scores;
mod style;

pub use bars::stacked_bars;
pub use chart::{Axis, Chart, Mark, Series};
pub(crate) use curves::{Curves, curves};
pub use curves::{PLOTS, draw};
pub use plot::line_chart;
pub use scores::{Bar, bars};
