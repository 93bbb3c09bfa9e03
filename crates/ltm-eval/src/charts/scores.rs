//! Bars with error bars, as SVG. Knows nothing of what is measured.

use std::path::Path;

use ltm_files::write_whole;
use plotters::prelude::*;

use super::rows::{names_width, rows};
use super::style::{Drawn, SERIES_COLORS, plot_error};
use crate::Result;

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// What it is of.
    pub name: String,
    /// Its length.
    pub value: f64,
    /// The standard error of that, drawn to both sides; 0 draws none.
    pub error: f64,
}

/// Horizontal bars from 0, the first on top, each with its number: writes the SVG to `path` and returns its text.
///
/// # Errors
/// [`Error::Plot`](crate::Error::Plot) when it cannot be drawn, [`Error::File`](crate::Error::File) when it cannot be
/// written.
pub fn bars(path: &Path, title: &str, x_label: &str, bars: &[Bar]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, title, x_label, bars).map_err(plot_error(path))?;
    write_whole(path, svg.as_bytes())?;
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, x_label: &str, bars: &[Bar]) -> Drawn {
    const ROW: u32 = 40;
    let names: Vec<&str> = bars.iter().map(|bar| bar.name.as_str()).collect();
    let width = names_width(names.iter().copied()) + 560;
    let size = (width, 120 + ROW * bars.len() as u32);
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    area.fill(&WHITE)?;
    let finite = |bar: &&Bar| bar.value.is_finite();
    let end = |bar: &Bar| bar.value + if bar.error.is_finite() { bar.error } else { 0.0 };
    let most = bars.iter().filter(finite).map(end).fold(0.0, f64::max);
    let most = if most > 0.0 { 1.2 * most } else { 1.0 };
    let n = bars.len() as f64;
    let mut chart = rows(&area, [title, x_label], &names, most)?;
    for (row, bar) in bars.iter().enumerate().filter(|(_, bar)| finite(bar)) {
        let color = SERIES_COLORS[row % SERIES_COLORS.len()];
        let (y, Bar { value, error, .. }) = (n - row as f64 - 0.5, bar);
        let filled = Rectangle::new([(0.0, y + 0.3), (*value, y - 0.3)], color.filled());
        chart.draw_series([filled])?;
        if error.is_finite() && *error > 0.0 {
            let ends = [(value - error, y), (value + error, y)];
            chart.draw_series([PathElement::new(ends, BLACK.stroke_width(2))])?;
        }
        let label = format!("{value:.3}");
        let at = (end(bar) + 0.01 * most, y + 0.12);
        chart.draw_series([Text::new(label, at, ("sans-serif", 13))])?;
    }
    area.present()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_have_names_numbers_and_errors() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("scores.svg");
        let bar = |name: &str, value, error| Bar { name: name.into(), value, error };
        let drawn = [bar("one", 1.25, 0.1), bar("two", 0.5, 0.0), bar("three", f64::NAN, 0.1)];
        let svg = bars(&path, "scores", "nats", &drawn).expect("drawn");
        for text in ["one", "two", "three", "1.250", "0.500", "scores", "nats"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(!svg.contains("NaN"));
        assert_eq!(std::fs::read_to_string(&path).expect("written"), svg);
        assert!(bars(&path, "scores", "nats", &[]).expect("drawn").contains("scores"));
    }
}
