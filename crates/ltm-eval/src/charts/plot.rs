//! Line charts of a run's metrics: [`Chart`] with what such a chart needs.

use std::path::Path;

use super::chart::{Axis, Chart, Mark, Series};
use crate::Result;

/// Draws named series of points as lines and writes the SVG to `path`.
///
/// A point that is not finite breaks its line; a series without a finite point is only named in the legend.
///
/// # Errors
/// [`Error::Plot`](crate::Error::Plot) when it cannot be drawn, [`Error::File`](crate::Error::File) when it cannot be
/// written.
pub fn line_chart(
    path: &Path,
    title: &str,
    x_label: &str,
    y_label: &str,
    series: &[(String, Vec<(f64, f64)>)],
) -> Result<()> {
    let mark = |(x, y): &(f64, f64)| Mark { x: *x, y: *y, error: 0.0 };
    let series = series.iter().map(|(name, points)| Series {
        name: name.clone(),
        marks: points.iter().map(mark).collect(),
        dots: false,
    });
    let chart = Chart {
        title: title.into(),
        x_label: x_label.into(),
        y_label: y_label.into(),
        axis: Axis::Linear,
        series: series.collect(),
        levels: Vec::new(),
        size: (900, 520),
    };
    chart.write(path).map(|_| ())
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
