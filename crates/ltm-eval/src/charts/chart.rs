//! Charts with error bars, chosen ticks and reference lines, as SVG. Knows nothing of what is measured. The text in them is
//! text, so no font is needed to draw one.
//!
//! Pure black and white are text and background: a page may recolour them by a style sheet.

use std::path::Path;

use ltm_files::write_whole;
use plotters::coord::ranged1d::Ranged as _;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;

use super::legend::{Legend, LegendEntry};
use super::scale::{Ticked, log_ticks, range, short, whole_ticks};
use super::style::{Drawn, GREY, LEVEL_COLORS, SERIES_COLORS, plot_error};
use crate::Result;

/// A number with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Its place along the x axis.
    pub x: f64,
    /// The number.
    pub y: f64,
    /// Its standard error, drawn as a bar to both sides; 0 draws none.
    pub error: f64,
}

/// Marks that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// In the order in which a line joins them.
    pub marks: Vec<Mark>,
    /// Whether every mark has a dot; otherwise there is only the line.
    pub dots: bool,
}

/// How values go along the x axis, and where its ticks are.
#[derive(Clone, Debug, PartialEq)]
pub enum Axis {
    /// Evenly, with ticks that suit the range: whole numbers where all values are.
    Linear,
    /// By ratio, with a tick at each power of ten, or more where there are few. Values must be positive.
    Log,
    /// These values only, equally spaced, each with a tick.
    Values(Vec<f64>),
}

/// One chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The title.
    pub title: String,
    /// Label of the x axis, with its unit.
    pub x_label: String,
    /// Label of the y axis, with its unit.
    pub y_label: String,
    /// The x axis.
    pub axis: Axis,
    /// What is drawn, in the order of the legend.
    pub series: Vec<Series>,
    /// Named heights, drawn dashed from side to side.
    pub levels: Vec<(String, f64)>,
    /// Width and height in pixels.
    pub size: (u32, u32),
}

impl Chart {
    /// Series that one chart can show so that they are told apart; see [`panels`](Self::panels).
    pub const MOST_SERIES: usize = SERIES_COLORS.len();

    /// The same as charts of at most [`MOST_SERIES`](Self::MOST_SERIES) series, each with the y axis that its series need.
    pub fn panels(self) -> Vec<Self> {
        let all = self.series.len().div_ceil(Self::MOST_SERIES).max(1);
        if all == 1 {
            return vec![self];
        }
        let each = self.series.len().div_ceil(all);
        let panel = |(idx, series): (usize, &[Series])| Self {
            title: format!("{} ({} of {all})", self.title, idx + 1),
            series: series.to_vec(),
            ..self.clone()
        };
        self.series.chunks(each).enumerate().map(panel).collect()
    }

    /// Draws the chart and writes the SVG to `path`; returns its text. A mark that is not finite is not drawn and
    /// breaks the line of its series.
    ///
    /// # Errors
    /// [`Error::Plot`](crate::Error::Plot) when it cannot be drawn, [`Error::File`](crate::Error::File) when it cannot be
    /// written.
    pub fn write(&self, path: &Path) -> Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(plot_error(path))?;
        write_whole(path, svg.as_bytes())?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Drawn {
        let marks = || self.series.iter().flat_map(|series| &series.marks);
        let shown = || marks().filter(|mark| self.place(mark.x).is_some() && mark.y.is_finite());
        let ends = shown().flat_map(|m| [m.y - bar(m), m.y + bar(m)]);
        // A level far from every mark would flatten the curves: it is named in the legend only.
        let own = range(ends.clone());
        let room = 1.5 * (own.end - own.start);
        let near = own.start - room..own.end + room;
        let levels = self.levels.iter().map(|(_, y)| *y).filter(|y| near.contains(y));
        let y_range = range(ends.chain(levels));
        let placed = shown().filter_map(|mark| self.place(mark.x));
        let (x_range, ticks) = match &self.axis {
            Axis::Values(values) => {
                let last = values.len().max(1) as f64 - 1.0;
                (-0.4..last + 0.4, (0..values.len()).map(|i| i as f64).collect())
            }
            Axis::Linear => {
                let is_whole = shown().all(|mark| mark.x.fract() == 0.0);
                let range = range(placed);
                let ticks = if is_whole { whole_ticks(&range) } else { Vec::new() };
                (range, ticks)
            }
            Axis::Log => {
                let range = range(placed);
                let ticks = log_ticks(&range);
                (range, ticks)
            }
        };
        let label = |x: &f64| match &self.axis {
            Axis::Linear => short(*x),
            Axis::Log => short(10f64.powf(*x)),
            Axis::Values(values) => {
                values.get(x.round().max(0.0) as usize).map_or(String::new(), |x| short(*x))
            }
        };
        self.draw_on(svg, Ticked::new(x_range, ticks), &label, y_range)
    }

    /// The place of a value along the axis; `None` if it has none.
    fn place(&self, x: f64) -> Option<f64> {
        let place = match &self.axis {
            Axis::Linear => x,
            Axis::Log => x.log10(),
            Axis::Values(values) => values.iter().position(|value| *value == x)? as f64,
        };
        place.is_finite().then_some(place)
    }

    fn draw_on(
        &self,
        svg: &mut String,
        x_range: Ticked,
        x_text: &dyn Fn(&f64) -> String,
        y_range: std::ops::Range<f64>,
    ) -> Drawn {
        let y_text = |y: &f64| short(*y);
        let x_ends = [x_range.range().start, x_range.range().end];
        let colors = SERIES_COLORS.into_iter().cycle();
        let mut entries: Vec<LegendEntry> = self
            .series
            .iter()
            .zip(colors.clone())
            .map(|(series, color)| LegendEntry { name: series.name.clone(), color, dashed: false })
            .collect();
        let levels = self.levels.iter().zip(LEVEL_COLORS.into_iter().cycle());
        let levels: Vec<_> = levels.filter(|((_, y), _)| y.is_finite()).collect();
        entries.extend(levels.iter().map(|((name, y), color)| {
            let off = if y_range.contains(y) { "" } else { ", off the chart" };
            LegendEntry { name: format!("{name}: {}{off}", short(*y)), color: *color, dashed: true }
        }));
        let legend = Legend::new(entries, self.size.0);
        let area = SVGBackend::with_string(svg, (self.size.0, self.size.1 + legend.height()))
            .into_drawing_area();
        area.fill(&WHITE)?;
        let (upper, lower) = area.split_vertically(self.size.1);
        let mut chart = ChartBuilder::on(&upper)
            .caption(&self.title, ("sans-serif", 17))
            .margin(10)
            .margin_right(18)
            .x_label_area_size(44)
            .y_label_area_size(60)
            .build_cartesian_2d(x_range, y_range.clone())?;
        chart
            .configure_mesh()
            .x_desc(&self.x_label)
            .y_desc(&self.y_label)
            .x_label_formatter(x_text)
            .y_label_formatter(&y_text)
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.25))
            .label_style(("sans-serif", 13))
            .draw()?;
        for (series, color) in self.series.iter().zip(colors) {
            let line = color.stroke_width(2);
            let at =
                |mark: &Mark| Some((self.place(mark.x)?, mark.y)).filter(|at| at.1.is_finite());
            for run in series.marks.split(|mark| at(mark).is_none()) {
                let points: Vec<(f64, f64)> = run.iter().filter_map(at).collect();
                if points.is_empty() {
                    continue;
                }
                chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
                if series.dots || points.len() == 1 {
                    let dot = |at: &(f64, f64)| Circle::new(*at, 4, color.filled());
                    chart.draw_series(points.iter().map(dot))?;
                }
            }
            let bars = series.marks.iter().filter(|mark| bar(mark) > 0.0);
            let bars = bars.filter_map(|mark| at(mark).map(|(x, y)| (x, y, bar(mark))));
            chart.draw_series(
                bars.map(|(x, y, bar)| PathElement::new([(x, y - bar), (x, y + bar)], line)),
            )?;
        }
        for ((_, y), color) in levels {
            if y_range.contains(y) {
                let ends = x_ends.map(|x| (x, *y));
                chart.draw_series(DashedLineSeries::new(ends, 7, 5, color.stroke_width(2)))?;
            }
        }
        legend.draw(&lower)?;
        area.present()
    }
}

/// Half the length of a mark's error bar.
fn bar(mark: &Mark) -> f64 {
    if mark.error.is_finite() { mark.error } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn svg(axis: Axis, marks: Vec<Mark>, levels: Vec<(String, f64)>) -> String {
        let chart = Chart {
            title: "bounds <&>".into(),
            x_label: "fast steps".into(),
            y_label: "nats".into(),
            axis,
            series: vec![Series { name: "24 latents".into(), marks, dots: true }],
            levels,
            size: (480, 320),
        };
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.svg");
        let svg = chart.write(&path).expect("drawn");
        assert_eq!(std::fs::read_to_string(path).expect("there"), svg);
        svg
    }

    fn marks(xs: &[f64]) -> Vec<Mark> {
        xs.iter().map(|x| Mark { x: *x, y: 1.0 / x, error: 0.05 }).collect()
    }

    #[test]
    fn values_have_their_ticks_bars_and_levels() {
        let xs = [4.0, 16.0, 64.0];
        let svg = svg(Axis::Values(xs.into()), marks(&xs), vec![("entropy".into(), 0.01)]);
        for text in ["bounds &lt;&amp;&gt;", "fast steps", "24 latents", "entropy"] {
            assert!(svg.contains(text), "{text}");
        }
        for tick in ["4", "16", "64"] {
            assert!(svg.contains(&format!(">\n{tick}\n<")), "{tick} is no tick of\n{svg}");
        }
        assert_eq!(svg.matches("<circle").count(), 3);
    }

    #[test]
    fn few_whole_numbers_have_no_ticks_between_them() {
        let svg = svg(Axis::Linear, marks(&[1.0, 2.0, 3.0]), vec![]);
        assert!(svg.contains(">\n2\n<") && !svg.contains(">\n1.5\n<"), "{svg}");
    }

    #[test]
    fn a_log_axis_has_its_powers_and_omits_what_has_no_place() {
        let svg = svg(Axis::Log, marks(&[0.0, 1e9, 1e12]), vec![]);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains("1e10") && svg.contains("1e11"), "{svg}");
        assert!(!svg.contains("NaN"));
    }

    #[test]
    fn odd_numbers_are_drawn_too() {
        let nan = Mark { x: 1.0, y: f64::NAN, error: 1.0 };
        let far = Mark { x: 2.0, y: 1.0, error: f64::INFINITY };
        for axis in [Axis::Linear, Axis::Log, Axis::Values(vec![]), Axis::Values(vec![2.0])] {
            for marks in [vec![], vec![nan], vec![nan, far], vec![far]] {
                let svg = svg(axis.clone(), marks, vec![("level".into(), f64::NAN)]);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
    }

    #[test]
    fn many_series_are_drawn_as_panels_of_at_most_eight() {
        let series: Vec<Series> =
            (0..17).map(|i| Series { name: i.to_string(), marks: vec![], dots: true }).collect();
        let chart = |n: usize| Chart {
            title: "bound".into(),
            x_label: String::new(),
            y_label: String::new(),
            axis: Axis::Linear,
            series: series[..n].to_vec(),
            levels: Vec::new(),
            size: (100, 100),
        };
        for (n, expected) in [(0, vec![0]), (8, vec![8]), (9, vec![5, 4]), (17, vec![6, 6, 5])] {
            let panels = chart(n).panels();
            assert_eq!(panels.iter().map(|p| p.series.len()).collect::<Vec<_>>(), expected);
        }
        assert_eq!(chart(9).panels()[1].title, "bound (2 of 2)");
    }
}
