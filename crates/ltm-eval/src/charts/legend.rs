//! The legend under a chart. Knows no axis.

use plotters::prelude::*;

use super::style::Drawn;

/// One line of a legend.
pub(super) struct LegendEntry {
    pub(super) name: String,
    pub(super) color: RGBColor,
    pub(super) dashed: bool,
}

/// A legend under a chart, in as many columns as its longest name leaves room for.
pub(super) struct Legend {
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

    pub(super) fn new(mut entries: Vec<LegendEntry>, width: u32) -> Self {
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

    pub(super) fn height(&self) -> u32 {
        match self.entries.len().div_ceil(self.columns) as u32 {
            0 => 0,
            rows => Self::ROW * rows + 8,
        }
    }

    pub(super) fn draw(&self, area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>) -> Drawn {
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

#[cfg(test)]
mod tests {
    use super::super::{Axis, Chart, Mark, Series};

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
                marks: [1.0, 2.0].map(|x| Mark { x, y: 1.0 / x, error: 0.05 }).into(),
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
            let dir = tempfile::tempdir().expect("a temporary folder");
            let svg = chart.write(&dir.path().join("a.svg")).expect("drawn");
            let boxes = boxes(&svg, &names);
            for (idx, a) in boxes.iter().enumerate() {
                assert!(a[1] <= 540.0 && a[2] >= 360.0, "{length}: {a:?} is outside the legend");
                let apart =
                    |b: &[f64; 3]| (a[2] - b[2]).abs() >= 13.0 || a[1] < b[0] || b[1] < a[0];
                assert!(boxes[idx + 1..].iter().all(apart), "{length}: {boxes:?}");
            }
        }
    }
}
