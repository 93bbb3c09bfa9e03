//! Charts with error bars, chosen ticks, reference lines and stacked bars, as SVG. Knows nothing of what is
//! measured.
//!
//! Pure black and white are ink and paper: a page may recolour them by a style sheet, and leave the rest.

use std::path::Path;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;

use super::plot::{COLORS, range};
use crate::files::write_whole;
use crate::{Error, Result};

/// A number with its standard error.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Where it stands.
    pub x: f64,
    /// The number.
    pub y: f64,
    /// Its standard error, drawn as a bar to both sides; 0 for none.
    pub error: f64,
}

/// Marks that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// In the order in which a line joins them.
    pub marks: Vec<Mark>,
    /// Whether every mark has a dot; else there is only the line.
    pub dots: bool,
}

/// How values go along the x axis, and where its ticks are.
#[derive(Clone, Debug, PartialEq)]
pub enum Axis {
    /// Evenly, with ticks that suit the range.
    Linear,
    /// By ratio, with a tick at each power of ten, or more where there are few. Values must be positive.
    Log,
    /// These values and no other, equally far from each other, each with a tick.
    Values(Vec<f64>),
}

/// One chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The line above it.
    pub title: String,
    /// What runs along the x axis, with its unit.
    pub x_label: String,
    /// What runs along the y axis, with its unit.
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

type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Chart {
    /// Draws the chart and writes the SVG to `path`; returns its text. What is not finite is left out.
    ///
    /// # Errors
    /// [`Error::Plot`] when it cannot be drawn, [`Error::Io`] when it cannot be written.
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
        // A level far from every mark would press them together: it stays in the legend alone.
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
            Axis::Linear => (range(placed), Vec::new()),
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

    /// Where a value stands along the axis; `None` where it has no place.
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
        // Room for a legend below, two names a row.
        let names = self.series.len() + self.levels.len();
        let legend_rows = if names > 1 { names.div_ceil(2) } else { 0 };
        let legend_height = 20 * legend_rows as u32;
        let (width, height) = (self.size.0, self.size.1 + legend_height);
        let area = SVGBackend::with_string(svg, (width, height)).into_drawing_area();
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
        let mut entries: Vec<(&str, RGBColor, bool)> = Vec::new();
        for (series, color) in self.series.iter().zip(COLORS.into_iter().cycle()) {
            entries.push((&series.name, color, false));
            let line = color.stroke_width(2);
            let at = |mark: &Mark| self.place(mark.x).map(|x| (x, mark.y));
            let points: Vec<(f64, f64)> =
                series.marks.iter().filter_map(at).filter(|point| point.1.is_finite()).collect();
            chart.draw_series(LineSeries::new(points.iter().copied(), line))?;
            if series.dots {
                chart.draw_series(
                    points.iter().map(|point| Circle::new(*point, 4, color.filled())),
                )?;
            }
            let bars = series.marks.iter().filter(|mark| mark.y.is_finite() && bar(mark) > 0.0);
            let bars = bars.filter_map(|mark| Some((self.place(mark.x)?, mark.y, bar(mark))));
            chart.draw_series(
                bars.map(|(x, y, bar)| PathElement::new([(x, y - bar), (x, y + bar)], line)),
            )?;
        }
        // Levels begin where the series' colours end.
        let colors = COLORS.into_iter().rev().cycle();
        let far: Vec<String> = self
            .levels
            .iter()
            .map(|(name, y)| format!("{name}: {}, off the chart", short(*y)))
            .collect();
        for (((name, y), far), color) in self.levels.iter().zip(&far).zip(colors) {
            if y.is_finite() && !y_range.contains(y) {
                entries.push((far, color, true));
            } else if y.is_finite() {
                entries.push((name, color, true));
                let ends = x_ends.map(|x| (x, *y));
                chart.draw_series(DashedLineSeries::new(ends, 7, 5, color.stroke_width(2)))?;
            }
        }
        if names > 1 {
            let places = [64, 32 + width as i32 / 2]
                .into_iter()
                .flat_map(|x| (0..legend_rows as i32).map(move |row| (x, 20 * row + 8)));
            for ((name, color, dashed), (x, y)) in entries.into_iter().zip(places) {
                let dash =
                    if dashed { vec![(x, x + 9), (x + 15, x + 24)] } else { vec![(x, x + 24)] };
                for (from, to) in dash {
                    lower.draw(&PathElement::new([(from, y), (to, y)], color.stroke_width(2)))?;
                }
                let style = ("sans-serif", 13).into_font().color(&BLACK);
                lower.draw(&Text::new(name.to_string(), (x + 30, y - 6), style))?;
            }
        }
        area.present()
    }
}

/// Stacked horizontal bars, one a name: writes the SVG to `path` and returns its text.
///
/// # Errors
/// [`Error::Plot`] when it cannot be drawn, [`Error::Io`] when it cannot be written.
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
    let area = SVGBackend::with_string(svg, (names_width + 620, height)).into_drawing_area();
    area.fill(&WHITE)?;
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
    let mut chart = ChartBuilder::on(&area)
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
    for (part, color) in (0..parts.len()).zip(COLORS.into_iter().cycle()) {
        let rectangle = |(row, (_, values)): (usize, &(String, Vec<f64>))| {
            let from = sum(&values[..part.min(values.len())]);
            let to = sum(&values[..(part + 1).min(values.len())]);
            let y = rows - row as f64;
            Rectangle::new([(from, y - 0.18), (to, y - 0.82)], color.filled())
        };
        chart
            .draw_series(bars.iter().enumerate().map(rectangle))?
            .label(&parts[part])
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
    }
    if !parts.is_empty() {
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE)
            .border_style(GREY.mix(0.4))
            .label_font(("sans-serif", 13))
            .draw()?;
    }
    area.present()
}

const GREY: RGBColor = RGBColor(128, 128, 128);

fn plot_error(path: &Path) -> impl FnOnce(DrawingAreaErrorKind<std::io::Error>) -> Error + '_ {
    move |source| Error::Plot { path: path.into(), source: Box::new(source) }
}

/// A range with ticks where one wants them; with none, where they suit the range.
struct Ticked {
    range: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ticked {
    fn new(range: std::ops::Range<f64>, ticks: Vec<f64>) -> Self {
        Self { range: range.into(), ticks }
    }
}

impl Ranged for Ticked {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.range.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        if self.ticks.is_empty() { self.range.key_points(hint) } else { self.ticks.clone() }
    }

    fn range(&self) -> std::ops::Range<f64> {
        self.range.range()
    }
}

/// Half the length of a mark's error bar.
fn bar(mark: &Mark) -> f64 {
    if mark.error.is_finite() { mark.error } else { 0.0 }
}

/// Ticks, as logarithms: at powers of ten, and at 2 and 5 times those where the range has few.
fn log_ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.floor() as i32, range.end.ceil() as i32);
    let steps: &[f64] = match last - first {
        ..=2 => &[1.0, 2.0, 5.0],
        _ => &[1.0],
    };
    let all =
        (first..=last).flat_map(|power| steps.iter().map(move |s| f64::from(power) + s.log10()));
    all.filter(|tick| range.contains(tick)).take(64).collect()
}

/// A number in a few characters.
fn short(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-3..1e5).contains(&size) {
        return format!("{x:.0e}");
    }
    // Three digits behind the point at most, without zeros at the end.
    let text = format!("{x:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".into() } else { text.into() }
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
    fn a_log_axis_has_its_powers_and_leaves_out_what_has_no_place() {
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

    #[test]
    fn numbers_are_short() {
        for (x, expected) in [
            (0.0, "0"),
            (-0.0001, "-1e-4"),
            (16.0, "16"),
            (1.25, "1.25"),
            (2.0e13, "2e13"),
            (99_999.0, "99999"),
            (0.0125, "0.013"),
        ] {
            assert_eq!(short(x), expected);
        }
    }
}
