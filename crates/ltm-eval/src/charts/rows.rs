//! The frame of horizontal bars: one named row each, from top to bottom. Draws no bar.

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use super::scale::{Ticked, short};
use super::style::GREY;

/// Axes for horizontal bars.
pub(super) type Rows<'a, 'b> =
    ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, Ticked>>;

/// Width of the longest of these names, with a margin.
pub(super) fn names_width<'n>(names: impl Iterator<Item = &'n str>) -> u32 {
    24 + 7 * names.map(|name| name.chars().count()).max().unwrap_or(0) as u32
}

/// Draws title, axes and names. Row `i` is centred at `names.len() - i - 0.5`, and x goes from 0 to `most`.
pub(super) fn rows<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    [title, x_label]: [&str; 2],
    names: &[&str],
    most: f64,
) -> Result<Rows<'a, 'b>, DrawingAreaErrorKind<std::io::Error>> {
    let n = names.len() as f64;
    // A tick in the middle of each row.
    let middles: Vec<f64> = (0..names.len()).map(|row| row as f64 + 0.5).collect();
    let name = |y: &f64| {
        let row = (n - *y - 0.5).round().max(0.0) as usize;
        names.get(row).map_or(String::new(), ToString::to_string)
    };
    let text = |x: &f64| short(*x);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(names_width(names.iter().copied()))
        .build_cartesian_2d(0.0..most, Ticked::new(0.0..n.max(1.0), middles))?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .x_label_formatter(&text)
        .y_label_formatter(&name)
        .disable_y_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.25))
        .label_style(("sans-serif", 13))
        .draw()?;
    Ok(chart)
}
