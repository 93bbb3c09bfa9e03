//! Charts: what is drawn where.

use std::fs;

use ltm_eval::charts::{self, Axis, Chart, Mark, Series, line_chart, stacked_bars};

use crate::lines::{evaluation, step, write_lines};
use crate::picture::{Picture, Scale};

fn series(name: &str, marks: &[(f64, f64, f64)], dots: bool) -> Series {
    let mark = |&(x, y, error): &(f64, f64, f64)| Mark { x, y, error };
    Series { name: name.into(), marks: marks.iter().map(mark).collect(), dots }
}

fn chart(axis: Axis, series: Vec<Series>, levels: &[(&str, f64)]) -> Chart {
    Chart {
        title: "bounds".into(),
        x_label: "fast steps".into(),
        y_label: "nats per token".into(),
        axis,
        series,
        levels: levels.iter().map(|(name, y)| (name.to_string(), *y)).collect(),
        size: (540, 360),
    }
}

fn draw(chart: &Chart) -> Picture {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("a.svg");
    let svg = chart.write(&path).expect("drawn");
    assert_eq!(fs::read_to_string(path).expect("there"), svg);
    Picture::of(&svg)
}

#[test]
fn dots_lines_error_bars_and_levels_are_where_the_axes_say() {
    // The ends of bars are the highest and the lowest of all.
    let falling = [(4.0, 1.5, 0.25), (16.0, 1.0, 0.0), (64.0, 0.5, 0.25)];
    let back = [(64.0, 1.5, f64::INFINITY), (4.0, 1.25, 0.5)];
    for (axis, scale) in [
        (Axis::Values(vec![4.0, 16.0, 64.0]), Scale::Ticks),
        (Axis::Linear, Scale::Even),
        (Axis::Log, Scale::Log),
    ] {
        // One mark has no place on any of these axes.
        let marks = [&falling[..], &[(f64::NAN, 9.0, 1.0)]].concat();
        let both = vec![series("falling", &marks, true), series("back", &back, true)];
        let levels = [("entropy", 0.75), ("far", 100.0), ("unknown", f64::NAN)];
        let picture = draw(&chart(axis, both, &levels));
        let labels = [&picture.title, &picture.x_label, &picture.y_label];
        assert_eq!(labels, ["bounds", "fast steps", "nats per token"]);
        let legend = ["falling", "back", "entropy: 0.75", "far: 100, off the chart"];
        assert_eq!(picture.legend(), legend);
        for (name, marks) in [("falling", &falling[..]), ("back", &back[..])] {
            let places: Vec<[f64; 2]> = marks.iter().map(|(x, y, _)| [*x, *y]).collect();
            picture.assert_close(&picture.dots(name, scale), &places, scale);
            let lines = picture.lines(name, scale);
            assert_eq!(lines.len(), 1, "{lines:?}");
            picture.assert_close(&lines[0], &places, scale);
            picture.assert_inside(name);
            let with_bars = marks.iter().filter(|(_, _, error)| *error > 0.0 && error.is_finite());
            let ends = |sign: f64| {
                let end = move |&(x, y, error): &(f64, f64, f64)| [x, y + sign * error];
                with_bars.clone().map(end).collect::<Vec<_>>()
            };
            let bars = picture.bars(name, scale);
            let [low, high] = [1, 2].map(|i| bars.iter().map(move |bar| [bar[0], bar[i]]));
            picture.assert_close(&low.collect::<Vec<_>>(), &ends(-1.0), scale);
            picture.assert_close(&high.collect::<Vec<_>>(), &ends(1.0), scale);
        }
        picture.assert_heights(&[picture.level("entropy: 0.75").expect("drawn")], &[0.75]);
        assert_eq!(picture.level("far: 100, off the chart"), None);
        // Marks fill the chart, except for a little room; the first and last of a few values have more.
        let [width, height] = picture.spread();
        let least = if matches!(scale, Scale::Ticks) { 0.6 } else { 0.85 };
        assert!((least..1.0).contains(&width) && (0.85..1.0).contains(&height), "{width} {height}");
    }
}

#[test]
fn a_level_is_drawn_unless_that_would_flatten_the_curves() {
    for scale in [1.0, 0.01] {
        for (level, drawn) in [(2.0, true), (5.0, true), (8.0, false), (-1.0, true), (-4.0, false)]
        {
            // The marks take two units.
            let marks = [(1.0, scale, 0.0), (2.0, 3.0 * scale, 0.0)];
            let levels = [("level", scale * level)];
            let picture = draw(&chart(Axis::Linear, vec![series("a", &marks, true)], &levels));
            let name = picture.legend()[1].to_string();
            assert_eq!(name.ends_with(", off the chart"), !drawn, "{name}");
            match picture.level(&name) {
                Some(found) if drawn => picture.assert_heights(&[found], &[scale * level]),
                found => assert!(!drawn && found.is_none(), "{name}"),
            }
            picture.assert_inside("a");
        }
    }
}

#[test]
fn a_mark_without_a_place_breaks_the_line_and_a_lone_one_has_a_dot() {
    let gap = [(1.0, 1.0, 0.0), (2.0, 2.0, 0.0), (3.0, f64::NAN, 0.1), (4.0, 1.5, 0.0)];
    for (dots, expected) in [(true, 3), (false, 1)] {
        let picture = draw(&chart(Axis::Linear, vec![series("a", &gap, dots)], &[]));
        let lines = picture.lines("a", Scale::Even);
        assert_eq!(lines.len(), 1, "{lines:?}");
        picture.assert_close(&lines[0], &[[1.0, 1.0], [2.0, 2.0]], Scale::Even);
        let dots = picture.dots("a", Scale::Even);
        assert_eq!(dots.len(), expected, "{dots:?}");
        picture.assert_close(&dots[expected - 1..], &[[4.0, 1.5]], Scale::Even);
        assert_eq!(picture.bars("a", Scale::Even), [[0.0; 3]; 0]);
    }
    // Equal numbers are in the middle.
    let picture = draw(&chart(Axis::Linear, vec![series("a", &[(7.0, 2.5, 0.0)], true)], &[]));
    picture.assert_inside("a");
    assert_eq!(picture.x_ticks.iter().map(|tick| tick.1.as_str()).collect::<Vec<_>>(), ["7"]);
}

#[test]
fn ticks_suit_the_numbers() {
    let labels = |axis: Axis, xs: &[f64]| {
        let marks: Vec<_> = xs.iter().map(|x| (*x, 1.0 / x, 0.0)).collect();
        let picture = draw(&chart(axis, vec![series("a", &marks, true)], &[]));
        picture.x_ticks.into_iter().map(|(_, label)| label).collect::<Vec<_>>()
    };
    let to = |last: i32| (1..=last).map(f64::from).collect::<Vec<_>>();
    let all: Vec<String> = (1..=13).map(|x| x.to_string()).collect();
    assert_eq!(labels(Axis::Linear, &to(13)), all, "few whole numbers have a tick each");
    assert!(labels(Axis::Linear, &to(14)).len() < 14);
    let between = labels(Axis::Linear, &[0.5, 1.5, 2.5]);
    assert!(between.iter().any(|label| label.contains('.')), "{between:?}");
    for (xs, expected) in [
        (vec![1.5, 60.0], &["2", "5", "10", "20", "50"][..]),
        (vec![3.0, 600.0], &["10", "100"]),
        (vec![1.0, 1e4], &["1", "10", "100", "1000", "10000"]),
        (vec![1e9, 1e12], &["1e9", "1e10", "1e11", "1e12"]),
        (vec![0.002, 0.004], &["0.002"]),
    ] {
        assert_eq!(labels(Axis::Log, &xs), expected, "{xs:?}");
    }
    let values = vec![4.0, 16.0, 0.5];
    assert_eq!(labels(Axis::Values(values.clone()), &values), ["4", "16", "0.5"]);
}

#[test]
fn a_legend_takes_few_rows_and_cuts_long_names() {
    let named = |names: &[String]| {
        let all = names.iter().map(|name| series(name, &[(1.0, 1.0, 0.0), (2.0, 2.0, 0.0)], true));
        draw(&chart(Axis::Linear, all.collect(), &[]))
    };
    let rows = |picture: &Picture| {
        let mut rows: Vec<i64> = picture.names.iter().map(|name| name.at[1] as i64).collect();
        rows.dedup();
        rows.len()
    };
    for (length, expected) in [(1, 1), (20, 4), (60, 8)] {
        let names: Vec<String> = (0..8).map(|i| format!("{i:m>length$}")).collect();
        let picture = named(&names);
        assert_eq!(
            (rows(&picture), picture.legend()),
            (expected, names.iter().map(|n| n.as_str()).collect())
        );
        let [width, height] = picture.size;
        assert_eq!((width, height), (540.0, 360.0 + 20.0 * expected as f64 + 8.0));
        assert!(picture.names.iter().all(|name| name.at[1] > 360.0 && name.at[1] + 13.0 < height));
    }
    let picture = named(&["x".repeat(100)]);
    let shown = picture.legend()[0];
    assert!(shown.ends_with("x…") && (60..70).contains(&shown.chars().count()), "{shown}");
    assert_eq!(named(&[]).size, [540.0, 360.0], "no names take no room");
}

#[test]
fn stacked_bars_begin_where_the_ones_before_them_end() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("kl.svg");
    let parts = ["layer 1", "layer 2", "layer 3"].map(String::from);
    let long = "a name that is long enough to need more room than a short one has";
    let bars = [
        ("one".to_string(), vec![1.0, 2.0, 0.5]),
        (long.into(), vec![f64::NAN, 1.5]),
        ("none".into(), vec![]),
    ];
    let svg = stacked_bars(&path, "KL", "nats per sequence", &parts, &bars).expect("drawn");
    assert_eq!(fs::read_to_string(&path).expect("there"), svg);
    let picture = Picture::of(&svg);
    assert_eq!((picture.title.as_str(), picture.x_label.as_str()), ("KL", "nats per sequence"));
    assert_eq!(picture.legend(), parts);
    let names: Vec<&str> = picture.y_ticks.iter().rev().map(|tick| tick.1.as_str()).collect();
    assert_eq!(names, ["one", long, "none"], "from top to bottom");
    for (part, expected) in parts.iter().zip([
        [(0.0, 1.0), (0.0, 0.0), (0.0, 0.0)],
        [(1.0, 3.0), (0.0, 1.5), (0.0, 0.0)],
        [(3.0, 3.5), (1.5, 1.5), (0.0, 0.0)],
    ]) {
        let found = picture.segments(part);
        assert_eq!(
            found.iter().map(|one| one.0.as_str()).collect::<Vec<_>>(),
            ["one", long, "none"]
        );
        for ((name, from, to), expected) in found.iter().zip(expected) {
            // A pixel is less than a hundredth.
            let close = (from - expected.0).abs() <= 0.02 && (to - expected.1).abs() <= 0.02;
            assert!(close, "{part} of {name}: {from} to {to}, not {expected:?}");
        }
    }
    let [left, ..] = picture.frame();
    assert!(left >= 7.0 * long.len() as f64, "the names have room");
}

#[test]
fn a_runs_charts_have_its_numbers_and_replace_what_a_killed_process_left() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path();
    let missing = charts::draw(dir).expect_err("no metrics").to_string();
    assert!(missing.contains("metrics.jsonl"), "{missing}");
    write_lines(&dir.join("metrics.jsonl"), &[]);
    assert_eq!(charts::draw(dir).expect("nothing to draw"), [dir; 0]);
    write_lines(&dir.join("metrics.jsonl"), &[step(1, 3.0, None), step(2, 2.5, None)]);
    assert_eq!(charts::draw(dir).expect("drawn"), [dir.join("plots/train.svg")]);

    let plots = dir.join("plots");
    fs::write(plots.join(".val.svg.x.ltm-tmp"), "half").expect("writable");
    fs::write(plots.join("mine.svg"), "mine").expect("writable");
    write_lines(
        &dir.join("metrics.jsonl"),
        &[
            step(1, 3.0, Some(0.25)),
            evaluation(1, &[("elbo:8", 2.75), ("reconstruction", 2.0)]),
            step(2, 2.5, Some(0.5)),
            step(3, 2.0, Some(1.0)),
            evaluation(3, &[("elbo:8", 2.25), ("reconstruction", 1.5)]),
        ],
    );
    assert_eq!(charts::draw(dir).expect("drawn"), ["train.svg", "val.svg"].map(|f| plots.join(f)));
    let mut files: Vec<_> = fs::read_dir(&plots)
        .expect("listable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    files.sort();
    assert_eq!(files, ["mine.svg", "train.svg", "val.svg"]);
    for (file, title, curves) in [
        (
            "train.svg",
            "Training batches",
            &[
                ("loss", &[[1.0, 3.0], [2.0, 2.5], [3.0, 2.0]][..]),
                ("kl", &[[1.0, 0.25], [2.0, 0.5], [3.0, 1.0]]),
                ("bound_fitted_noise", &[[1.0, 3.25], [2.0, 3.0], [3.0, 3.0]]),
            ][..],
        ),
        (
            "val.svg",
            "Validation split",
            &[
                ("elbo:8", &[[1.0, 2.75], [3.0, 2.25]]),
                ("reconstruction", &[[1.0, 2.0], [3.0, 1.5]]),
            ],
        ),
    ] {
        let picture = Picture::of_file(&plots.join(file));
        let labels = [&picture.title, &picture.x_label, &picture.y_label];
        assert_eq!(labels, [title, "step", "nats per token"]);
        assert_eq!(picture.legend(), curves.iter().map(|curve| curve.0).collect::<Vec<_>>());
        for (name, expected) in curves {
            let lines = picture.lines(name, Scale::Even);
            assert_eq!(lines.len(), 1, "{name}: {lines:?}");
            picture.assert_close(&lines[0], expected, Scale::Even);
            assert!(picture.dots(name, Scale::Even).is_empty());
        }
    }
}

#[test]
fn a_line_chart_is_large_and_a_lone_point_is_visible() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("a.svg");
    let curves = [("a".to_string(), vec![(1.0, 2.0), (2.0, 4.0)]), ("b".into(), vec![(1.5, 3.0)])];
    line_chart(&path, "title", "step", "nats", &curves).expect("drawn");
    let picture = Picture::of_file(&path);
    assert!(picture.size[0] == 900.0 && picture.size[1] >= 520.0, "{:?}", picture.size);
    picture.assert_close(
        &picture.lines("a", Scale::Even)[0],
        &[[1.0, 2.0], [2.0, 4.0]],
        Scale::Even,
    );
    picture.assert_close(&picture.dots("b", Scale::Even), &[[1.5, 3.0]], Scale::Even);
    assert!(picture.dots("a", Scale::Even).is_empty());
}
