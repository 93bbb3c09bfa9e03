//! Colours, and how drawing fails: what all charts share. Draws nothing.

use std::path::Path;

use plotters::prelude::*;

use crate::Error;

/// Colours of series that most eyes can tell apart (Okabe and Ito 2008, without the yellow, which is faint on white,
/// and with a purple).
pub(super) const SERIES_COLORS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 60, 160),
    RGBColor(140, 86, 75),
];

/// Colours of reference lines, which are dashed.
pub(super) const LEVEL_COLORS: [RGBColor; 3] =
    [RGBColor(0, 0, 0), RGBColor(120, 120, 120), RGBColor(150, 30, 30)];

/// Colour of the lines behind a chart.
pub(super) const GREY: RGBColor = RGBColor(128, 128, 128);

/// What drawing returns.
pub(super) type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// For `map_err`: the chart of this file could not be drawn.
pub(super) fn plot_error(
    path: &Path,
) -> impl FnOnce(DrawingAreaErrorKind<std::io::Error>) -> Error + '_ {
    move |source| Error::Plot { path: path.into(), source: Box::new(source) }
}
