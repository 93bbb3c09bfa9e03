//! Ranges of axes, their ticks, and numbers as labels. Draws nothing.

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::coord::types::RangedCoordf64;

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

/// A range with given ticks; without any, with ticks that suit the range.
pub(super) struct Ticked {
    range: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ticked {
    pub(super) fn new(range: std::ops::Range<f64>, ticks: Vec<f64>) -> Self {
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

/// Ticks at the whole numbers of a range that has few of them; none otherwise.
pub(super) fn whole_ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
    let (first, last) = (range.start.ceil(), range.end.floor());
    if last - first > 12.0 {
        return Vec::new();
    }
    (first as i64..=last as i64).map(|tick| tick as f64).collect()
}

/// Ticks, as logarithms: at powers of ten, and at 2 and 5 times those if the range has few.
pub(super) fn log_ticks(range: &std::ops::Range<f64>) -> Vec<f64> {
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
pub(super) fn short(x: f64) -> String {
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

    #[test]
    fn only_few_whole_numbers_are_ticks() {
        for (range, expected) in [(0.9..3.1, vec![1.0, 2.0, 3.0]), (0.0..40.0, vec![])] {
            assert_eq!(whole_ticks(&range), expected);
        }
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
