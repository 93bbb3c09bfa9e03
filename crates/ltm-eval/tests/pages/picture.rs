//! An SVG chart as a reader sees it: what the axes say about the place of a dot, a line, a bar or a box.

use std::path::Path;

/// How places along the x axis are read.
#[derive(Clone, Copy, Debug)]
pub enum Scale {
    /// In proportion between two ticks.
    Even,
    /// In proportion between the logarithms of two ticks.
    Log,
    /// As the label of the tick that is there.
    Ticks,
}

/// A chart's elements, in pixels.
#[derive(Debug)]
pub struct Picture {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    pub size: [f64; 2],
    pub x_ticks: Vec<(f64, String)>,
    pub y_ticks: Vec<(f64, String)>,
    /// The legend from left to right and from top to bottom.
    pub names: Vec<Name>,
    dots: Vec<(String, [f64; 2])>,
    lines: Vec<Line>,
    boxes: Vec<(String, [f64; 4])>,
}

/// An entry of a legend.
#[derive(Debug)]
pub struct Name {
    pub text: String,
    pub at: [f64; 2],
    color: String,
}

#[derive(Debug)]
struct Line {
    color: String,
    width: f64,
    points: Vec<[f64; 2]>,
}

/// A segment of a stacked bar: the row's name, and where the segment begins and ends.
pub type Segment = (String, f64, f64);

impl Picture {
    pub fn of_file(path: &Path) -> Self {
        Self::of(&std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path:?}: {e}")))
    }

    pub fn of(svg: &str) -> Self {
        let mut picture = Self {
            title: String::new(),
            x_label: String::new(),
            y_label: String::new(),
            size: [0.0; 2],
            x_ticks: Vec::new(),
            y_ticks: Vec::new(),
            names: Vec::new(),
            dots: Vec::new(),
            lines: Vec::new(),
            boxes: Vec::new(),
        };
        for element in svg.split('<').skip(1) {
            let (tag, text) = element.split_once('>').expect("a whole tag");
            let number = |key: &str| attribute(tag, key).parse::<f64>().expect(key);
            match tag.split_whitespace().next().unwrap_or_default() {
                "svg" => picture.size = ["width", "height"].map(number),
                "circle" => {
                    picture.dots.push((attribute(tag, "fill").into(), ["cx", "cy"].map(number)));
                }
                "rect" => {
                    let extent = ["x", "y", "width", "height"].map(number);
                    picture.boxes.push((attribute(tag, "fill").into(), extent));
                }
                "polyline" => {
                    let point = |text: &str| {
                        let (x, y) = text.split_once(',').expect("two numbers");
                        [x, y].map(|number| number.parse().expect("a number"))
                    };
                    picture.lines.push(Line {
                        color: attribute(tag, "stroke").into(),
                        width: number("stroke-width"),
                        points: attribute(tag, "points").split_whitespace().map(point).collect(),
                    });
                }
                "text" => picture.put_text(tag, text.trim()),
                _ => {}
            }
        }
        let color = |name: &Name, line: &&Line| {
            let starts = [name.at[0] - 30.0, name.at[1] + 6.0];
            line.width == 3.0 && line.points[0] == starts
        };
        for name in &mut picture.names {
            let line = picture.lines.iter().find(|line| color(name, line));
            name.color = line.unwrap_or_else(|| panic!("{name:?} has no line")).color.clone();
        }
        picture
    }

    fn put_text(&mut self, tag: &str, text: &str) {
        let at = ["x", "y"].map(|key| attribute(tag, key).parse::<f64>().expect(key));
        let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        match (attribute(tag, "text-anchor"), attribute(tag, "dy")) {
            _ if tag.contains("transform") => self.y_label = text,
            ("middle", "-0.5ex") => self.x_label = text,
            ("middle", _) if self.title.is_empty() => self.title = text,
            ("middle", _) => self.x_ticks.push((at[0], text)),
            ("end", _) => self.y_ticks.push((at[1], text)),
            _ => self.names.push(Name { text, at, color: String::new() }),
        }
    }

    /// The texts of the legend.
    pub fn legend(&self) -> Vec<&str> {
        self.names.iter().map(|name| name.text.as_str()).collect()
    }

    /// Left, right, top and bottom of the area that the axes enclose.
    pub fn frame(&self) -> [f64; 4] {
        let axes: Vec<&Line> = self.lines.iter().filter(|line| line.width == 1.0).collect();
        let longest = |i: usize| {
            let span = |line: &&&Line| (line.points[1][i] - line.points[0][i]) as i64;
            let line = axes.iter().max_by_key(span).expect("an axis");
            [line.points[0][i], line.points[1][i]]
        };
        let ([left, right], [top, bottom]) = (longest(0), longest(1));
        [left, right, top, bottom]
    }

    fn color(&self, name: &str) -> &str {
        let found = self.names.iter().find(|entry| entry.text == name);
        &found.unwrap_or_else(|| panic!("`{name}` is not in {:?}", self.legend())).color
    }

    /// The dots of a series, as the axes say.
    pub fn dots(&self, name: &str, scale: Scale) -> Vec<[f64; 2]> {
        let color = self.color(name);
        let dots = self.dots.iter().filter(|(own, _)| own == color);
        dots.map(|(_, at)| self.read(*at, scale)).collect()
    }

    /// The lines of a series, as the axes say.
    pub fn lines(&self, name: &str, scale: Scale) -> Vec<Vec<[f64; 2]>> {
        let lines = self.drawn(name).filter(|line| line.points.len() > 1 && !is_upright(line));
        lines.map(|line| line.points.iter().map(|at| self.read(*at, scale)).collect()).collect()
    }

    /// The error bars of a series as the axes say: a place, the lower and the upper end.
    pub fn bars(&self, name: &str, scale: Scale) -> Vec<[f64; 3]> {
        let bars = self.drawn(name).filter(|line| is_upright(line));
        let ends = bars.map(|line| [0, 1].map(|i| self.read(line.points[i], scale)));
        ends.map(|[[x, a], [_, b]]| [x, a.min(b), a.max(b)]).collect()
    }

    /// The height of a dashed line that goes from side to side; `None` where it is not drawn.
    pub fn level(&self, name: &str) -> Option<f64> {
        let dashes: Vec<&[f64; 2]> = self.drawn(name).flat_map(|line| &line.points).collect();
        let first = dashes.first()?;
        assert!(dashes.iter().all(|at| at[1] == first[1]), "{name}: {dashes:?}");
        let [left, right, ..] = self.frame();
        let ends = [first[0], dashes[dashes.len() - 1][0]];
        assert!(ends[0] - left <= 12.0 && right - ends[1] <= 12.0, "{name}: {ends:?}");
        Some(self.read_y(first[1]))
    }

    /// The segments of stacked bars, as the axes say.
    pub fn segments(&self, name: &str) -> Vec<Segment> {
        let color = self.color(name);
        let of = |[x, y, width, height]: [f64; 4]| {
            let middle = y + height / 2.0;
            let near = |(at, _): &&(f64, String)| (at - middle).abs() <= 3.0;
            let row = self.y_ticks.iter().find(near).expect("a name at the bar");
            let read = |x: f64| self.read([x, middle], Scale::Even)[0];
            assert!(x + width <= self.frame()[1], "a bar ends inside the axes");
            (row.1.clone(), read(x), read(x + width))
        };
        let boxes = self.boxes.iter().filter(|(own, _)| own == color);
        boxes.map(|(_, extent)| of(*extent)).collect()
    }

    /// Everything that is drawn of a series is inside the axes.
    pub fn assert_inside(&self, name: &str) {
        let [left, right, top, bottom] = self.frame();
        let color = self.color(name);
        let dots = self.dots.iter().filter(|(own, _)| own == color).map(|(_, at)| at);
        for at in dots.chain(self.drawn(name).flat_map(|line| &line.points)) {
            let inside = (left..=right).contains(&at[0]) && (top..=bottom).contains(&at[1]);
            assert!(inside, "{name}: {at:?} is outside of {:?}", self.frame());
        }
    }

    /// The share of the axes' width and height that the dots and bars take.
    pub fn spread(&self) -> [f64; 2] {
        let [left, right, top, bottom] = self.frame();
        let bars = self.lines.iter().filter(|line| line.width == 2.0 && is_upright(line));
        let dots = self.dots.iter().map(|(_, at)| at);
        let all: Vec<&[f64; 2]> = dots.chain(bars.flat_map(|line| &line.points)).collect();
        let span = |i: usize| {
            let values = all.iter().map(|at| at[i]);
            values.clone().fold(0.0, f64::max) - values.fold(f64::INFINITY, f64::min)
        };
        [span(0) / (right - left), span(1) / (bottom - top)]
    }

    /// The places agree, as far as pixels tell.
    pub fn assert_close(&self, found: &[[f64; 2]], expected: &[[f64; 2]], scale: Scale) {
        assert_eq!(found.len(), expected.len(), "{}: {found:?}, {expected:?}", self.title);
        let mapped = |x: f64| if matches!(scale, Scale::Log) { x.log10() } else { x };
        let (x_pixel, y_pixel) = (self.x_pixel(scale), self.y_pixel());
        for (found, expected) in found.iter().zip(expected) {
            // A place and two ticks are rounded to half a pixel each.
            let x = (mapped(found[0]) - mapped(expected[0])).abs() <= 2.0 * x_pixel + 1e-9;
            let y = (found[1] - expected[1]).abs() <= 2.0 * y_pixel;
            assert!(x && y, "{}: {found:?} is not {expected:?}", self.title);
        }
    }

    /// The heights agree, as far as pixels tell.
    pub fn assert_heights(&self, found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len(), "{found:?}, {expected:?}");
        for (found, expected) in found.iter().zip(expected) {
            let close = (found - expected).abs() <= 2.0 * self.y_pixel();
            assert!(close, "{}: {found} is not {expected}", self.title);
        }
    }

    fn drawn(&self, name: &str) -> impl Iterator<Item = &Line> {
        let color = self.color(name);
        self.lines.iter().filter(move |line| line.width == 2.0 && line.color == color)
    }

    fn read(&self, at: [f64; 2], scale: Scale) -> [f64; 2] {
        let x = match scale {
            Scale::Even => proportion(&self.x_ticks, at[0], |x| x),
            Scale::Log => 10f64.powf(proportion(&self.x_ticks, at[0], f64::log10)),
            Scale::Ticks => {
                let near = |(tick, _): &&(f64, String)| (tick - at[0]).abs() <= 1.0;
                let tick = self.x_ticks.iter().find(near);
                value(&tick.unwrap_or_else(|| panic!("no tick at {at:?}")).1)
            }
        };
        [
            x,
            if self.y_ticks.iter().all(|tick| tick.1.parse::<f64>().is_ok()) {
                self.read_y(at[1])
            } else {
                at[1]
            },
        ]
    }

    fn read_y(&self, y: f64) -> f64 {
        proportion(&self.y_ticks, y, |y| y)
    }

    fn x_pixel(&self, scale: Scale) -> f64 {
        match scale {
            Scale::Even => pixel(&self.x_ticks, |x| x),
            Scale::Log => pixel(&self.x_ticks, f64::log10),
            Scale::Ticks => 0.0,
        }
    }

    fn y_pixel(&self) -> f64 {
        pixel(&self.y_ticks, |y| y)
    }
}

fn is_upright(line: &Line) -> bool {
    line.points.len() == 2 && line.points[0][0] == line.points[1][0]
}

fn attribute<'a>(tag: &'a str, key: &str) -> &'a str {
    let value = tag.split_once(&format!(" {key}=\"")).map_or("", |(_, rest)| rest);
    value.split('"').next().unwrap_or_default()
}

fn value(text: &str) -> f64 {
    text.parse().unwrap_or_else(|_| panic!("`{text}` is no number"))
}

/// The two ticks that are farthest apart.
fn ends(ticks: &[(f64, String)], map: impl Fn(f64) -> f64) -> [(f64, f64); 2] {
    assert!(ticks.len() > 1, "{ticks:?}");
    [&ticks[0], &ticks[ticks.len() - 1]].map(|(at, text)| (*at, map(value(text))))
}

fn proportion(ticks: &[(f64, String)], at: f64, map: impl Fn(f64) -> f64) -> f64 {
    let [(from, low), (to, high)] = ends(ticks, map);
    low + (high - low) * (at - from) / (to - from)
}

/// What a pixel is worth.
fn pixel(ticks: &[(f64, String)], map: impl Fn(f64) -> f64) -> f64 {
    let [(from, low), (to, high)] = ends(ticks, map);
    ((high - low) / (to - from)).abs()
}
