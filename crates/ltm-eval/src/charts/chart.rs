//! Charts with error bars, chosen ticks, reference lines and stacked bars, as SVG. Knows nothing of what is
//! measured. The text in them is text, so no font is needed to draw one.
//!
//! Pure black and white are text and background: a page may recolour them by a style sheet.

use std::path::Path;

use ltm_files::write_whole;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::series::DashedLineSeries;

use crate::{Error, Result};

/// Colours of series that most eyes can tell apart (Okabe and Ito 2008, without the yellow, which is faint on white,
/// and with a purple).
const COLORS: [RGBColor; Chart::MOST_SERIES] = [
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
const LEVEL_COLORS: [RGBColor; 3] =
    [RGBColor(0, 0, 0), RGBColor(120, 120, 120), RGBColor(150, 30, 30)];

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

type Drawn = std::result::Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Chart {
    /// Series that one chart can show so that they are told apart; see [`panels`](Self::panels).
    pub const MOST_SERIES: usize = 8;

    /// The same as charts of at most [`MOST_SERIES`](Self::MOST_SERIES) series, on the same y axis where there are
    /// several.
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
    /// [`Error::Plot`] when it cannot be drawn, [`Error::File`] when it cannot be written.
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
        let colors = COLORS.into_iter().cycle();
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

/// One line of a legend.
struct LegendEntry {
    name: String,
    color: RGBColor,
    dashed: bool,
}

/// A legend under a chart, in as many columns as its longest name leaves room for.
struct Legend {
    entries: Vec<LegendEntry>,
    columns: usize,
    column_width: u32,
}

impl Legend {
    const ROW: u32 = 20;
    /// Left margin, and the line before a name.
    const MARGIN: u32 = 24;
    const LINE: u32 = 34;
    /// Of 13 pixels high letters, on average and rounded up.
    const LETTER: u32 = 7;

    fn new(mut entries: Vec<LegendEntry>, width: u32) -> Self {
        let most =
            (width.saturating_sub(2 * Self::MARGIN + Self::LINE) / Self::LETTER).max(8) as usize;
        for LegendEntry { name, .. } in &mut entries {
            if name.chars().count() > most {
                *name = name.chars().take(most - 1).chain(['…']).collect();
            }
        }
        let longest = entries.iter().map(|entry| entry.name.chars().count()).max().unwrap_or(0);
        let column_width = Self::LINE + Self::LETTER * (longest as u32 + 2);
        let columns = (width.saturating_sub(Self::MARGIN) / column_width).max(1) as usize;
        Self { entries, columns, column_width }
    }

    fn height(&self) -> u32 {
        match self.entries.len().div_ceil(self.columns) as u32 {
            0 => 0,
            rows => Self::ROW * rows + 8,
        }
    }

    fn draw(&self, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn {
        for (idx, LegendEntry { name, color, dashed }) in self.entries.iter().enumerate() {
            let x = (Self::MARGIN + self.column_width * (idx % self.columns) as u32) as i32;
            let y = (Self::ROW * (idx / self.columns) as u32 + 8) as i32;
            let dash = if *dashed { vec![(x, x + 9), (x + 15, x + 24)] } else { vec![(x, x + 24)] };
            for (from, to) in dash {
                area.draw(&PathElement::new([(from, y), (to, y)], color.stroke_width(3)))?;
            }
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            area.draw(&Text::new(name.clone(), (x + 30, y - 6), style))?;
        }
        Ok(())
    }
}

/// Stacked horizontal bars, one per name: writes the SVG to `path` and returns its text.
///
/// # Errors
/// [`Error::Plot`] when it cannot be drawn, [`Error::File`] when it cannot be written.
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
    let named = parts.iter().zip(COLORS.into_iter().cycle());
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
    for (part, color) in (0..parts.len()).zip(COLORS.into_iter().cycle()) {
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

const GREY: RGBColor = RGBColor(128, 128, 128);

fn plot_error(path: &Path) -> impl FnOnce(DrawingAreaErrorKind<std::io::Error>) -> Error + '_ {
    move |source| Error::Plot { path: path.into(), source: Box::new(source) }
}

/// The range of some numbers with a little room, never empty.
fn range(numbers: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (min, max) =
        numbers.fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), x| (min.min(x), max.max(x)));
    if min > max {
        return 0.0..1.0;
    }
    // Halved first: the span of two huge numbers need not be finite.
    let room = (0.1 * (max / 2.0 - min / 2.0)).max(1e-9 * min.abs().max(max.abs())).max(1e-12);
    min - room..max + room
}

/// A range with given ticks; without any, with ticks that suit the range.
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

/// Ticks at the whole numbers of a range that has few of them; none otherwise.
fn whole_ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.ceil(), range.end.floor());
    if last - first > 12.0 {
        return Vec::new();
    }
    (first as i64..=last as i64).map(|tick| tick as f64).collect()
}

/// Ticks, as logarithms: at powers of ten, and at 2 and 5 times those if the range has few.
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
    // At most three decimals, without trailing zeros.
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
    fn few_whole_numbers_have_no_ticks_between_them() {
        let svg = svg(Axis::Linear, marks(&[1.0, 2.0, 3.0]), vec![]);
        assert!(svg.contains(">\n2\n<") && !svg.contains(">\n1.5\n<"), "{svg}");
        for (range, expected) in [(0.9..3.1, vec![1.0, 2.0, 3.0]), (0.0..40.0, vec![])] {
            assert_eq!(whole_ticks(&range), expected);
        }
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

    /// Left, right and top of each text of the legend, in the order of the SVG, by the width of its letters.
    fn boxes(svg: &str, names: &[String]) -> Vec<[f64; 3]> {
        let number = |tag: &str, key: &str| -> f64 {
            let value =
                tag.split(&format!(" {key}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            value.and_then(|value| value.parse().ok()).expect(key)
        };
        let text = |name: &String| {
            let (before, _) = svg.split_once(&format!(">\n{name}\n<")).expect(name);
            let tag = &before[before.rfind("<text").expect("a text")..];
            let x = number(tag, "x");
            [x, x + 7.0 * name.chars().count() as f64, number(tag, "y")]
        };
        names.iter().map(text).collect()
    }

    #[test]
    fn names_of_a_legend_neither_overlap_nor_leave_the_chart() {
        for length in [1, 12, 40, 60] {
            let names: Vec<String> = (0..8).map(|i| format!("{i}{}", "m".repeat(length))).collect();
            let one = |name: &String| Series {
                name: name.clone(),
                marks: marks(&[1.0, 2.0]),
                dots: true,
            };
            let chart = Chart {
                title: "t".into(),
                x_label: "x".into(),
                y_label: "y".into(),
                axis: Axis::Linear,
                series: names.iter().map(one).collect(),
                levels: vec![("entropy".into(), 0.5)],
                size: (540, 360),
            };
            let mut svg = String::new();
            chart.draw(&mut svg).expect("drawn");
            let boxes = boxes(&svg, &names);
            for (idx, a) in boxes.iter().enumerate() {
                assert!(a[1] <= 540.0 && a[2] >= 360.0, "{length}: {a:?} is outside the legend");
                let apart =
                    |b: &[f64; 3]| (a[2] - b[2]).abs() >= 13.0 || a[1] < b[0] || b[1] < a[0];
                assert!(boxes[idx + 1..].iter().all(apart), "{length}: {boxes:?}");
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
