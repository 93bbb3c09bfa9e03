//! Stacked bars, as SVG. Knows nothing of what is measured.

use std::path::Path;

use ltm_files::write_whole;
use plotters::prelude::*;

use super::legend::{Legend, LegendEntry};
use super::scale::{Ticked, short};
use super::style::{Drawn, GREY, SERIES_COLORS, plot_error};
use crate::Result;

/// Stacked horizontal bars, one per name: writes the SVG to `path` and returns its text.
///
/// # Errors
/// [`Error::Plot`](crate::Error::Plot) when it cannot be drawn, [`Error::File`](crate::Error::File) when it cannot be
/// written.
pub fn stacked_bars(
    path: &Path,
    title: &str,
    x_label: &str,
    parts: &[String],
    bars: &[(String, Vec<f64>)],
) -> Result<String> {
    let mut svg = String::new();
    draw_bars(&mut svg, title, x_label, parts, bars).map_err(plot_error(path))?;
    write_whole(path, svg.as_bytes())?;
    Ok(svg)
}

fn draw_bars(
    svg: &mut String,
    title: &str,
    x_label: &str,
    parts: &[String],
    bars: &[(String, Vec<f64>)],
) -> Drawn {
    const ROW: u32 = 26;
    let longest = bars.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0) as u32;
    let names_width = 24 + 7 * longest;
    let height = 120 + ROW * bars.len() as u32;
    let width = names_width + 620;
    let named = parts.iter().zip(SERIES_COLORS.into_iter().cycle());
    let entries =
        named.map(|(name, color)| LegendEntry { name: name.clone(), color, dashed: false });
    let legend = Legend::new(entries.collect(), width);
    let area = SVGBackend::with_string(svg, (width, height + legend.height())).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(height);
    let sum = |values: &[f64]| values.iter().filter(|v| v.is_finite()).sum::<f64>();
    let most = bars.iter().map(|(_, values)| sum(values)).fold(0.0, f64::max);
    let most = if most > 0.0 { 1.05 * most } else { 1.0 };
    let rows = bars.len() as f64;
    // Rows count from the top; a tick in the middle of each.
    let middles: Vec<f64> = (0..bars.len()).map(|row| row as f64 + 0.5).collect();
    let name = |y: &f64| {
        let row = rows - *y - 0.5;
        bars.get(row.round().max(0.0) as usize).map_or(String::new(), |(name, _)| name.clone())
    };
    let text = |x: &f64| short(*x);
    let mut chart = ChartBuilder::on(&upper)
        .caption(title, ("sans-serif", 17))
        .margin(10)
        .margin_right(24)
        .x_label_area_size(44)
        .y_label_area_size(names_width)
        .build_cartesian_2d(0.0..most, Ticked::new(0.0..rows.max(1.0), middles))?;
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
    for (part, color) in (0..parts.len()).zip(SERIES_COLORS.into_iter().cycle()) {
        let rectangle = |(row, (_, values)): (usize, &(String, Vec<f64>))| {
            let from = sum(&values[..part.min(values.len())]);
            let to = sum(&values[..(part + 1).min(values.len())]);
            let y = rows - row as f64;
            Rectangle::new([(from, y - 0.18), (to, y - 0.82)], color.filled())
        };
        chart.draw_series(bars.iter().enumerate().map(rectangle))?;
    }
    legend.draw(&lower)?;
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stack_and_are_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("kl.svg");
        let parts = ["layer 1".to_string(), "layer 2".into()];
        let bars = [
            ("one".to_string(), vec![1.0, 2.0]),
            ("two".into(), vec![f64::NAN]),
            ("three".into(), vec![]),
        ];
        let svg = stacked_bars(&path, "KL", "nats", &parts, &bars).expect("drawn");
        for text in ["one", "two", "three", "layer 1", "layer 2"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN"));
        let none = stacked_bars(&path, "KL", "nats", &[], &[]).expect("drawn");
        assert!(none.contains("KL"));
    }
}
