//! Stacked bars, as SVG. Knows nothing of what is measured.

use std::path::Path;

use ltm_files::write_whole;
use plotters::prelude::*;

use super::legend::{Legend, LegendEntry};
use super::rows::{names_width, rows};
use super::style::{Drawn, SERIES_COLORS, plot_error};
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
    let names: Vec<&str> = bars.iter().map(|(name, _)| name.as_str()).collect();
    let height = 120 + ROW * bars.len() as u32;
    let width = names_width(names.iter().copied()) + 620;
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
    let n = bars.len() as f64;
    let mut chart = rows(&upper, [title, x_label], &names, most)?;
    for (part, color) in (0..parts.len()).zip(SERIES_COLORS.into_iter().cycle()) {
        let rectangle = |(row, (_, values)): (usize, &(String, Vec<f64>))| {
            let from = sum(&values[..part.min(values.len())]);
            let to = sum(&values[..(part + 1).min(values.len())]);
            let y = n - row as f64;
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
