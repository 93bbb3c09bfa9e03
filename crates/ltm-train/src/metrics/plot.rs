//! Line charts as SVG. The text in them is text, so no font is needed to draw one.

use std::path::Path;

use plotters::prelude::*;

use crate::files::write_whole;
use crate::{Error, Result};

/// Colours that stay apart for most eyes (Okabe and Ito 2008), without the yellow, which is faint on white.
pub(super) const COLORS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// Draws named series of points as lines and writes the SVG to `path`.
///
/// A point that is not finite breaks its line; a series without a finite point only shows in the legend.
///
/// # Errors
/// [`Error::Plot`] when it cannot be drawn, [`Error::Io`] when it cannot be written.
pub fn line_chart(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[(String, Vec<(f64, f64)>)],
) -> Result<()> {
    let mut svg = String::new();
    draw(&mut svg, title, [x_label, y_label], series)
        .map_err(|source| Error::Plot { path: path.into(), source: Box::new(source) })?;
    write_whole(path, svg.as_bytes())
}

fn draw(
    svg: &mut String,
    title: &str,
    [x_label, y_label]: [&str; 2],
    series: &[(String, Vec<(f64, f64)>)],
) -> std::result::Result<(), DrawingAreaErrorKind<std::io::Error>> {
    let is_finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let finite = || series.iter().flat_map(|(_, points)| points).filter(is_finite);
    let x_range = range(finite().map(|point| point.0));
    let y_range = range(finite().map(|point| point.1));

    let area = SVGBackend::with_string(svg, (900, 560)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(48)
        .y_label_area_size(72)
        .build_cartesian_2d(x_range, y_range)?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .label_style(("sans-serif", 14))
        .draw()?;
    for ((name, points), color) in series.iter().zip(COLORS.into_iter().cycle()) {
        let style = color.stroke_width(2);
        let mut runs: Vec<_> = points.split(|point| !is_finite(&point)).collect();
        // At least one, which carries the name.
        let first = runs.remove(0);
        chart
            .draw_series(LineSeries::new(first.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        for run in runs {
            chart.draw_series(LineSeries::new(run.iter().copied(), style))?;
        }
    }
    if !series.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 14))
            .draw()?;
    }
    area.present()
}

/// The range of some numbers with a little room, never empty.
pub(super) fn range(numbers: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (min, max) =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)));
    if min > max {
        return 0.0..1.0;
    }
    // Halved first: the span of two huge numbers need not be finite.
    let room = (0.1 * (max / 2.0 - min / 2.0)).max(1e-9 * min.abs().max(max.abs())).max(1e-12);
    min - room..max + room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: &[(String, Vec<(f64, f64)>)]) -> String {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("loss.svg");
        line_chart(&path, "loss <&> time", "step", "nats", series).expect("drawn");
        std::fs::read_to_string(&path).expect("there")
    }

    #[test]
    fn a_chart_names_everything_and_escapes_it() {
        let line = |scale: f64| (0..50).map(|i| (f64::from(i), scale / f64::from(i + 1))).collect();
        let svg = chart(&[("train".into(), line(3.0)), ("val".into(), line(4.0))]);
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["train", "val", "step", "nats", "loss &lt;&amp;&gt; time"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
    }

    #[test]
    fn odd_series_are_drawn_too() {
        for points in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(1.0, 2.0), (2.0, 2.0)],
            vec![(f64::NAN, 1.0), (1.0, f64::INFINITY)],
            vec![(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 1.0)],
            vec![(0.0, 0.0), (0.0, 0.0)],
            vec![(0.0, 1e300), (1e300, -1e300)],
            vec![(0.0, 1e-300), (1.0, 2e-300)],
        ] {
            let svg = chart(&[("odd".into(), points)]);
            assert!(svg.contains("odd") && !svg.contains("NaN"));
        }
        assert!(chart(&[]).contains("nats"));
    }

    #[test]
    fn a_missing_folder_is_named() {
        let error =
            line_chart(Path::new("/no/such/a.svg"), "", "", "", &[]).expect_err("no folder");
        assert!(error.to_string().contains("/no/such"), "{error}");
    }
}
