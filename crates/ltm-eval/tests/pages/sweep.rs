//! The page of a sweep, from results that are written here: what its charts, tables and sentences make of them.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_eval::report;
use ltm_train::Config;
use serde_json::{Map, Value, json};

use crate::lines::{nats, score, write_lines};
use crate::picture::{Picture, Scale};
use crate::tables::{list_after, plain, table_after};

const TINY: &str = include_str!("../../../ltm-train/tests/tiny.toml");

/// A line of a sweep's results; scores are a protocol, its nats per token and how much is the point's own.
fn point(name: &str, set: &[&str], scores: &[(&str, f64, f64)]) -> Value {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let config = Config::parse(TINY, Path::new("tiny.toml"), &set).expect("good");
    let mut config = serde_json::to_value(config).expect("plain values");
    let run = config["run"].as_object_mut().expect("a section");
    run.remove("dir");
    run.remove("device");
    let (mut evaluation, mut by_sequence) = (Map::new(), Map::new());
    for (protocol, per_token, own) in scores {
        evaluation.insert(protocol.to_string(), score(*per_token));
        by_sequence.insert(protocol.to_string(), json!(nats(*per_token, *own)));
    }
    json!({
        "name": name, "settings": {}, "config": config, "protocols": ["elbo:8"], "eval_sequences": 4,
        "parameters": 1234, "steps": 6, "tokens": 67890, "training_flops": 3.25e12,
        "flops_per_token": 2.5e6, "flops_per_token_formula": 3.75e6, "seconds": null,
        "evaluation": evaluation, "left_out": {}, "nats": by_sequence, "sequence_tokens": [2, 3, 2, 3],
        "latents": null, "trace": [], "samples": { "none": "not shown" },
        "true_entropy": {
            "nats_per_token": 0.9, "standard_error": 0.01, "documents": 100, "nats": nats(0.9, 0.0),
        },
    })
}

/// Six points of latents and fast steps, one more that has latents of its own, one more with a window of its own, two
/// without latents.
fn points() -> Vec<Value> {
    let mut points = Vec::new();
    for (name, latents, steps, elbo, fitted, own) in [
        ("n4-s4", 4, 4, 2.0, 1.9, 0.0),
        ("n4-s16", 4, 16, 1.5, 1.2, 1.0),
        ("n4-s64", 4, 64, 1.0, 0.7, 2.0),
        ("n8-s4", 8, 4, 1.8, 1.7, 4.0),
        ("n8-s16", 8, 16, 1.793, 0.85, 5.0),
        ("n8-s64", 8, 64, 1.9, 0.6, 6.0),
        ("n6-s4", 6, 4, 1.912, 1.8, 8.0),
        ("narrow", 4, 4, 1.95, 1.85, 7.0),
    ] {
        let set = [
            format!("model.n_latents={latents}"),
            format!("infer.steps={steps}"),
            format!("model.window={}", if name == "narrow" { 8 } else { 16 }),
        ];
        let set = [set[0].as_str(), set[1].as_str(), set[2].as_str(), "infer.noise=fresh"];
        let far = 0.95 + own / 100.0;
        let mut scores = vec![
            ("reconstruction", far, own + 1.0),
            ("elbo-fitted-noise", fitted, own),
            ("elbo:8", elbo, own),
        ];
        if name == "n4-s64" {
            scores.push(("iwae:8", 1.1, own));
        }
        let mut line = point(name, &set, &scores);
        line["training_flops"] = (1e9 * f64::from(steps)).into();
        points.push(line);
    }
    points[0]["latents"] = json!({
        "sequences": 4, "kl_per_layer_nats_per_sequence": [1.25, 0.5],
        "kl_per_latent_nats_per_sequence": [0.75, 0.5, 0.25, 0.25], "worth_nats_per_token": 0.1234,
        "worth_standard_error": 0.01, "refitted_sequences": 4, "mean_signal_variance": 0.5,
        "mean_noise_variance": 0.5, "mean_signal_share": 0.256,
    });
    points[0]["trace"] = json!([
        { "step": 0, "nll": 3.0, "kl": 0.5 },
        { "step": 1, "nll": 2.0, "kl": 1.0 },
        { "step": 2, "nll": 1.5, "kl": 2.0 },
    ]);
    points[0]["seconds"] = json!(12.4);
    points[0]["samples"] =
        json!({ "from_nothing": "a <b>", "given": "once", "written": "upon & on" });
    let set = ["model.n_latents=0", "infer.steps=4", "infer.noise=fresh"];
    let mut base = point("base", &set, &[("autoregressive", 1.7, 9.0)]);
    base["training_flops"] = 8e9.into();
    points.push(base);
    let narrow = [&set[..], &["model.window=8"]].concat();
    points.push(point("autoregressive-8", &narrow, &[("autoregressive", 1.9, 9.0)]));
    points
}

/// A folder with these results.
fn write(dir: &Path, lines: &[Value]) -> PathBuf {
    fs::create_dir_all(dir).expect("creatable");
    write_lines(&dir.join("results.jsonl"), lines);
    dir.into()
}

/// The page of one sweep with these results, and the folder of its charts.
fn page(lines: &[Value]) -> (String, tempfile::TempDir) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sweep = write(&temp.path().join("study"), lines);
    let out = temp.path().join("page");
    let mut progress = Vec::new();
    let path = report::write(&[sweep], &out, &mut |done, all| progress.push((done, all)));
    let path = path.expect("written");
    assert_eq!(
        (path.as_path(), progress),
        (out.join("index.html").as_path(), vec![(0, 1), (1, 1)])
    );
    (fs::read_to_string(path).expect("there"), temp)
}

#[test]
fn charts_have_every_point_at_its_setting_next_to_its_peers() {
    let (html, temp) = page(&points());
    let out = temp.path().join("page");
    let mut files: Vec<String> = fs::read_dir(&out)
        .expect("listable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .filter(|name| name.ends_with(".svg"))
        .collect();
    files.sort();
    let expected = [
        "fast-loop-n4-s4.svg",
        "fast-steps-elbo-8.svg",
        "fast-steps-elbo-fitted-noise.svg",
        "fast-steps-reconstruction.svg",
        "flops-elbo-8.svg",
        "flops-elbo-fitted-noise.svg",
        "flops-iwae-8.svg",
        "kl-per-layer.svg",
        "latents-elbo-8.svg",
        "latents-elbo-fitted-noise.svg",
        "latents-reconstruction.svg",
    ];
    assert_eq!(
        files, expected,
        "no chart of a setting that does not vary, nor of FLOPs for no bound"
    );
    assert!(files.iter().all(|file| html.contains(&format!("<a href=\"{file}\">{file}</a>"))));

    let [four, eight] = ["4 latents", "8 latents"];
    let few = ["4 fast steps", "16 fast steps", "64 fast steps"];
    let entropy = "true entropy: 0.9";
    let baselines = ["base (autoregressive): 1.7", "autoregressive-8: 1.9"];
    let published = "elbo-fitted-noise (published bound, noise seen by the fit)";
    for (file, title, x_label, ticks, curves, levels) in [
        (
            "fast-steps-elbo-8",
            "elbo:8 (valid bound)",
            "fast steps",
            &["4", "16", "64"],
            &[
                (four, &[[4.0, 2.0], [16.0, 1.5], [64.0, 1.0]][..]),
                (eight, &[[4.0, 1.8], [16.0, 1.793], [64.0, 1.9]]),
            ][..],
            &[entropy, baselines[0], baselines[1]][..],
        ),
        (
            "fast-steps-elbo-fitted-noise",
            published,
            "fast steps",
            &["4", "16", "64"],
            &[
                (four, &[[4.0, 1.9], [16.0, 1.2], [64.0, 0.7]]),
                (eight, &[[4.0, 1.7], [16.0, 0.85], [64.0, 0.6]]),
            ],
            &[entropy],
        ),
        (
            "fast-steps-reconstruction",
            "reconstruction (not a bound)",
            "fast steps",
            &["4", "16", "64"],
            &[
                (four, &[[4.0, 0.95], [16.0, 0.96], [64.0, 0.97]]),
                (eight, &[[4.0, 0.99], [16.0, 1.0], [64.0, 1.01]]),
            ],
            &[entropy],
        ),
        (
            "latents-elbo-8",
            "elbo:8 (valid bound)",
            "latents",
            &["4", "6", "8"],
            &[
                (few[0], &[[4.0, 2.0], [6.0, 1.912], [8.0, 1.8]]),
                (few[1], &[[4.0, 1.5], [8.0, 1.793]]),
                (few[2], &[[4.0, 1.0], [8.0, 1.9]]),
            ],
            &[entropy, baselines[0], baselines[1]],
        ),
    ] {
        let picture = Picture::of_file(&out.join(format!("{file}.svg")));
        let labels = [&picture.title, &picture.x_label, &picture.y_label];
        assert_eq!(labels, [title, x_label, "nats per token"]);
        let found: Vec<&str> = picture.x_ticks.iter().map(|tick| tick.1.as_str()).collect();
        assert_eq!(found, ticks);
        let names: Vec<&str> =
            curves.iter().map(|curve| curve.0).chain(levels.iter().copied()).collect();
        assert_eq!(picture.legend(), names, "{file}");
        for (name, expected) in curves {
            picture.assert_close(&picture.dots(name, Scale::Ticks), expected, Scale::Ticks);
            let bars = picture.bars(name, Scale::Ticks);
            let [low, high] = [1, 2].map(|i| bars.iter().map(|bar| bar[i]).collect::<Vec<_>>());
            let ends =
                |sign: f64| expected.iter().map(|at| at[1] + sign * 0.125).collect::<Vec<_>>();
            picture.assert_heights(&low, &ends(-1.0));
            picture.assert_heights(&high, &ends(1.0));
        }
        for level in levels {
            let height: f64 =
                level.rsplit(' ').next().and_then(|y| y.parse().ok()).expect("a number");
            picture.assert_heights(&[picture.level(level).expect("drawn")], &[height]);
        }
    }
}

#[test]
fn charts_of_flops_kl_and_the_fast_loop_have_the_recorded_numbers() {
    let (_, temp) = page(&points());
    let picture = |name: &str| Picture::of_file(&temp.path().join("page").join(name));
    // Points that differ in fast steps are joined, others are alone; baselines are next to valid bounds only.
    let [four, eight] = [("4 latents", [2.0, 1.5, 1.0]), ("8 latents", [1.8, 1.793, 1.9])];
    let joined = |nats: [f64; 3]| [[4e9, nats[0]], [16e9, nats[1]], [64e9, nats[2]]];
    let chart = picture("flops-elbo-8.svg");
    assert_eq!(
        (chart.title.as_str(), chart.x_label.as_str()),
        ("elbo:8 (valid bound)", "training FLOPs")
    );
    let names =
        ["4 latents", "8 latents", "n6-s4", "narrow", "base (autoregressive)", "autoregressive-8"];
    assert_eq!(chart.legend(), [&names[..], &["true entropy: 0.9"]].concat());
    for (name, nats) in [four, eight] {
        chart.assert_close(&chart.dots(name, Scale::Log), &joined(nats), Scale::Log);
        assert_eq!(chart.lines(name, Scale::Log).len(), 1);
    }
    for (name, at) in [
        (names[2], [4e9, 1.912]),
        (names[3], [4e9, 1.95]),
        (names[4], [8e9, 1.7]),
        (names[5], [3.25e12, 1.9]),
    ] {
        chart.assert_close(&chart.dots(name, Scale::Log), &[at], Scale::Log);
    }
    let chart = picture("flops-elbo-fitted-noise.svg");
    assert_eq!(chart.legend(), ["4 latents", "8 latents", "n6-s4", "narrow", "true entropy: 0.9"]);
    let chart = picture("flops-iwae-8.svg");
    assert_eq!(chart.legend()[..1], ["n4-s64"]);

    let chart = picture("kl-per-layer.svg");
    assert_eq!(chart.title, "KL of the posterior from the prior, by layer");
    assert_eq!(chart.x_label, "nats per sequence");
    for (part, from, to) in [("layer 1", 0.0, 1.25), ("layer 2", 1.25, 1.75)] {
        let [(name, start, end)] = &chart.segments(part)[..] else { panic!("one bar") };
        let close = (start - from).abs() <= 0.01 && (end - to).abs() <= 0.01;
        assert!(name == "n4-s4" && close, "{part}: {start} to {end}");
    }

    let chart = picture("fast-loop-n4-s4.svg");
    assert_eq!((chart.title.as_str(), chart.x_label.as_str()), ("n4-s4", "fast step"));
    for (name, heights) in [
        ("NLL at the sample", [3.0, 2.0, 1.5]),
        ("KL", [0.5, 1.0, 2.0]),
        ("their sum", [3.5, 3.0, 3.5]),
    ] {
        let expected: Vec<[f64; 2]> = (0..3).map(|i| [i as f64, heights[i]]).collect();
        chart.assert_close(&chart.lines(name, Scale::Even)[0], &expected, Scale::Even);
        assert!(chart.dots(name, Scale::Even).is_empty());
    }
}

#[test]
fn tables_show_what_was_recorded_and_omit_columns_without_numbers() {
    let mut lines = points();
    lines.push(json!({ "name": "wild", "error": "step 2: the loss is <not> finite" }));
    let (html, _temp) = page(&lines);
    assert!(html.contains("<h2>Sweep study</h2>"));
    let table = table_after(&html, "All points");
    let head = [
        "point",
        "autoregressive nats per token",
        "elbo:8 nats per token",
        "iwae:8 nats per token",
        "elbo-fitted-noise optimistic nats per token",
        "reconstruction not a bound nats per token",
        "KL nats per sequence",
        "worth of latents nats per token",
        "signal share",
        "parameters",
        "slow steps",
        "tokens",
        "training FLOPs",
        "MFLOP per token, counted",
        "MFLOP per token, formula",
        "seconds",
    ];
    assert_eq!(table[0], head);
    assert_eq!(table.len(), 11, "the failed point has no row");
    let first = "n4-s4||2.0000 ± 0.1250||1.9000 ± 0.1250|0.9500 ± 0.1250|1.75|0.1234|0.26|1234|6|67890|4.00e9|\
                 2.50|3.75|12";
    assert_eq!(table[1].join("|"), first);
    let base = "base|1.7000 ± 0.1250||||||||1234|6|67890|8.00e9|2.50|3.75|";
    assert_eq!(table[9].join("|"), base);
    assert!(
        html.contains("<span title=\"perplexity 7.389\">2.0000 ± 0.1250</span>"),
        "e² per token"
    );
    let text = plain(&html);
    for part in [
        "True entropy of the corpus: 0.9000 ± 0.0100 nats per token.",
        "wild failed: step 2: the loss is <not> finite",
        "without a prompta <b>\nprompt",
        "continuationupon & on",
    ] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let samples = html.split_once("<h3>Samples</h3>").expect("a section").1;
    assert_eq!(samples.matches("<summary>").count(), 1, "only points with samples");

    // Without numbers there are no columns, and without latents no sections on them.
    let (html, _temp) = page(&lines[8..9].iter().map(without_numbers).collect::<Vec<_>>());
    let table = table_after(&html, "All points");
    let rows: Vec<String> = table.iter().map(|row| row.join("|")).collect();
    let expected = [
        "point|autoregressive nats per token|parameters|slow steps|tokens",
        "base|1.7000|1234|6|67890",
    ];
    assert_eq!(rows, expected);
    for absent in
        ["Samples", "Information in the latents", "The fast loop", "True entropy", "<h3>Scores"]
    {
        assert!(!html.contains(absent), "{absent} is in\n{html}");
    }
}

/// A point with a score of one sequence, and as few other numbers as there can be.
fn without_numbers(line: &Value) -> Value {
    let mut line = line.clone();
    for key in ["training_flops", "flops_per_token", "flops_per_token_formula", "true_entropy"] {
        line.as_object_mut().expect("an object").remove(key);
    }
    line["evaluation"]["autoregressive"]["standard_error"] = Value::Null;
    line
}

#[test]
fn comparisons_of_one_seed_are_listed_without_a_verdict() {
    let (html, _temp) = page(&points());
    let steps = table_after(&html, "All comparisons of fast steps");
    let head = [
        "protocol",
        "noise",
        "setting",
        "fast steps",
        "difference",
        "in standard errors",
        "the score",
    ];
    assert_eq!(steps[0], head);
    let rows: Vec<String> = steps[1..].iter().map(|row| row.join("|")).collect();
    let expected = [
        "elbo-fitted-noise|fresh|4 latents|4 → 16|-0.7000 ± 0.0100|-70.0|one seed",
        "elbo-fitted-noise|fresh|4 latents|16 → 64|-0.5000 ± 0.0100|-50.0|one seed",
        "elbo-fitted-noise|fresh|4 latents|4 → 64|-1.2000 ± 0.0200|-60.0|one seed",
        "elbo-fitted-noise|fresh|8 latents|4 → 16|-0.8500 ± 0.0100|-85.0|one seed",
        "elbo-fitted-noise|fresh|8 latents|16 → 64|-0.2500 ± 0.0100|-25.0|one seed",
        "elbo-fitted-noise|fresh|8 latents|4 → 64|-1.1000 ± 0.0200|-55.0|one seed",
        "elbo:8|fresh|4 latents|4 → 16|-0.5000 ± 0.0100|-50.0|one seed",
        "elbo:8|fresh|4 latents|16 → 64|-0.5000 ± 0.0100|-50.0|one seed",
        "elbo:8|fresh|4 latents|4 → 64|-1.0000 ± 0.0200|-50.0|one seed",
        "elbo:8|fresh|8 latents|4 → 16|-0.0070 ± 0.0100|-0.7|one seed",
        "elbo:8|fresh|8 latents|16 → 64|+0.1070 ± 0.0100|+10.7|one seed",
        "elbo:8|fresh|8 latents|4 → 64|+0.1000 ± 0.0200|+5.0|one seed",
    ];
    assert_eq!(rows, expected);
    let latents = table_after(&html, "All comparisons of latents");
    let rows: Vec<String> = latents[1..].iter().map(|row| row.join("|")).collect();
    let valid = [
        "elbo:8|fresh|4 fast steps|4 → 6|-0.0880 ± 0.0800|-1.1|one seed",
        "elbo:8|fresh|4 fast steps|6 → 8|-0.1120 ± 0.0400|-2.8|one seed",
        "elbo:8|fresh|4 fast steps|4 → 8|-0.2000 ± 0.0400|-5.0|one seed",
        "elbo:8|fresh|16 fast steps|4 → 8|+0.2930 ± 0.0400|+7.3|one seed",
        "elbo:8|fresh|64 fast steps|4 → 8|+0.9000 ± 0.0400|+22.5|one seed",
    ];
    assert_eq!(rows[rows.len() - 5..], valid);
    assert_eq!(rows.len(), 10);
}

#[test]
fn findings_come_first_and_all_sentences_after_them() {
    let (html, _temp) = page(&points());
    let first = list_after(&html, "<ol class=\"findings\">");
    let best = "The best scores: 1.0000 (elbo:8, n4-s64) with latents, 1.7000 (autoregressive, base) without, a \
                difference of -0.7000 ± 0.0700 nats per token (-10.0 standard errors); one seed, no verdict: train \
                more with ltm sweep FILE --seeds 3.";
    let steps = "Do more fast steps lower the score? Under the valid bound elbo:8 with fresh noise: one seed, no \
                 verdict: train more with ltm sweep FILE --seeds 3. Under the published bound elbo-fitted-noise with \
                 fresh noise: one seed, no verdict: train more with ltm sweep FILE --seeds 3.";
    let latents = "Do more latents lower the score? Under the valid bound elbo:8 with fresh noise: one seed, no ";
    assert_eq!(first[..2], [best, steps]);
    assert!(first.len() == 3 && first[2].starts_with(latents), "{first:?}");

    let all = list_after(&html, "All findings in words");
    for sentence in [
        "Do more fast steps lower the score under elbo-fitted-noise with fresh noise (the published bound, fitted \
         with fresh noise)? One seed, no verdict: train more with ltm sweep FILE --seeds 3. The largest difference in standard errors is from 4 to 64 \
         (4 latents): -1.2000 ± 0.0200 nats per token (-60.0 standard errors).",
        "Do more fast steps lower the score under elbo:8 with fresh noise (a valid bound)? One seed, no \
         verdict: train more with ltm sweep FILE --seeds 3. The largest difference in standard errors is from \
         4 to 64 (4 latents): -1.0000 ± 0.0200 nats per token (-50.0 standard errors).",
        "Under autoregressive the best of 2 points, base, is 0.8000 ± 0.0900 nats per token above the true entropy \
         of the same texts; none is below it.",
        "Under elbo:8 the best of 8 points, n4-s64, is 0.1000 ± 0.0200 nats per token above the true entropy of the \
         same texts; none is below it.",
        "Under elbo-fitted-noise 2 of 8 points are below the true entropy of the same texts, n8-s64 by 0.3000 ± \
         0.0600 nats per token: this protocol is not a bound.",
        "Under reconstruction none of 8 points is below the true entropy of the same texts; the lowest, n4-s4, is \
         0.0500 ± 0.0100 nats per token above it.",
        "The best valid bound with latents, 1.0000 (elbo:8, n4-s64), is to be compared with 1.7000 (autoregressive, \
         base) without latents: a difference of 0.7000 ± 0.0700 nats per token; one seed, no verdict: train more \
         with ltm sweep FILE --seeds 3.",
        "The best valid bound with latents, 1.0000 (elbo:8, n4-s64), is to be compared with 1.9000 (autoregressive, \
         autoregressive-8) without latents: a difference of 0.9000 ± 0.0700 nats per token; one seed, no verdict: \
         train more with ltm sweep FILE --seeds 3.",
    ] {
        assert!(
            all.iter().any(|found| found == sentence),
            "`{sentence}` is not in\n{}",
            all.join("\n")
        );
    }
}

/// Two seeds of a point, which score as much below and above these numbers.
fn seeds(name: &str, set: &[&str], scores: &[(&str, f64, f64)]) -> [Value; 2] {
    [(1, -0.01, ""), (2, 0.01, ",seed=2")].map(|(seed, moved, suffix)| {
        let seed = format!("run.seed={seed}");
        let set = [set, &[seed.as_str()]].concat();
        let scores: Vec<_> =
            scores.iter().map(|(protocol, nats, own)| (*protocol, nats + moved, *own)).collect();
        point(&format!("{name}{suffix}"), &set, &scores)
    })
}

#[test]
fn seeds_decide_between_models_with_and_without_latents() {
    // Two means of two numbers with a variance of 0.0002: a standard error of 0.0141, of which 4.3 are beyond chance.
    for (without, finding, relation, difference) in [
        (1.7, "Latents lower the best score: 1.0000", "is below 1.7000", "0.7000 ± 0.0141"),
        (
            1.05,
            "The best models with and without latents do not differ clearly:",
            "is not clearly different from 1.0500",
            "0.0500 ± 0.0141",
        ),
        (
            0.5,
            "No model with latents reaches the best one without:",
            "is above 0.5000",
            "0.5000 ± 0.0141",
        ),
    ] {
        let with = ["model.n_latents=4"];
        let mut lines: Vec<Value> = Vec::new();
        lines.extend(seeds(
            "with",
            &with,
            &[("elbo:8", 1.0, 2.0), ("elbo-fitted-noise", 0.1, 2.0)],
        ));
        lines.push(point("worse", &with, &[("elbo:8", 3.0, 2.0)]));
        let none = ["model.n_latents=0"];
        lines.extend(seeds("without", &none, &[("autoregressive", without, 9.0)]));
        lines.push(point("worst", &none, &[("autoregressive", 4.0, 9.0)]));
        let (html, _temp) = page(&lines);
        let first = list_after(&html, "<ol class=\"findings\">");
        assert!(first[0].starts_with(finding), "{first:?}");
        let all = list_after(&html, "All findings in words");
        let sentence = all
            .iter()
            .find(|text| text.contains("(autoregressive, without (2 seeds))"))
            .expect("one");
        assert!(sentence.contains(relation) && sentence.contains(difference), "{sentence}");
        assert!(!html.contains("All comparisons of"), "nothing varies but the seed");
        let means = table_after(&html, "Means over seeds");
        let names: Vec<&str> = means[1..].iter().map(|row| row[0].as_str()).collect();
        assert_eq!(names, ["with (2 seeds)", "worse", "without (2 seeds)", "worst"]);
        assert!(means[1].iter().any(|cell| cell == "1.0000 ± 0.0100"), "{means:?}");
        assert_eq!(table_after(&html, "All points").len(), 7);
    }
    // Scored on other rows, an error is that of independent samples, and the truth of these rows is not known.
    let mut other = point("without", &["model.n_latents=0"], &[("autoregressive", 0.5, 9.0)]);
    other["sequence_tokens"] = json!([3, 2, 2, 3]);
    let (html, _temp) =
        page(&[point("with", &["model.n_latents=4"], &[("elbo:8", 1.0, 2.0)]), other]);
    // Twice 0.125, added as squares.
    assert!(
        plain(&html)
            .contains("a difference of +0.5000 ± 0.1768 nats per token (+2.8 standard errors)")
    );
}

#[test]
fn sources_of_one_page_keep_their_names_and_files_apart() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let lines = points();
    let [one, other, third] =
        ["a/study", "b/study", "third"].map(|name| write(&temp.path().join(name), &lines[..3]));
    let inputs = [one.clone(), other.clone(), third];
    let out = temp.path().join("page");
    let mut progress = Vec::new();
    let path = report::write(&inputs, &out, &mut |done, all| progress.push((done, all)));
    assert_eq!(progress, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    let html = fs::read_to_string(path.expect("written")).expect("there");
    for name in [&*one.to_string_lossy(), &*other.to_string_lossy(), "third"] {
        assert!(html.contains(&format!("<h2>Sweep {name}</h2>")), "{name}");
    }
    for prefix in ["1-", "2-", "3-"] {
        assert!(out.join(format!("{prefix}fast-steps-elbo-8.svg")).exists(), "{prefix}");
    }
    // What cannot be a source is refused before anything is written.
    for (content, part) in [
        ("{\"name\": \"a\"}\n[1]\n{\"name\": \"b\"}\n", "line 2"),
        ("{\"name\": 3}\n", "line 1"),
        ("{\"na\n{}\n", "line 1"),
    ] {
        let dir = write(&temp.path().join("bad"), &[]);
        fs::write(dir.join("results.jsonl"), content).expect("writable");
        let error = report::write(&[dir], &temp.path().join("none"), &mut |_, _| ());
        let error = error.expect_err(content).to_string();
        assert!(error.contains("results.jsonl") && error.contains(part), "{error}");
        assert!(!temp.path().join("none").exists());
    }
    // A file that is there and cannot be read is not the same as none.
    let dir = temp.path().join("odd");
    fs::create_dir_all(dir.join("results.jsonl")).expect("creatable");
    let error =
        report::write(&[dir], &temp.path().join("none"), &mut |_, _| ()).expect_err("a folder");
    let error = error.to_string();
    assert!(error.contains("results.jsonl") && error.contains("read"), "{error}");
}

#[test]
fn claims_and_charts_are_about_means_over_seeds() {
    let lines: Vec<Value> = [(4, 2.0), (16, 1.98), (64, 1.0)]
        .into_iter()
        .flat_map(|(steps, nats)| {
            let set = format!("infer.steps={steps}");
            seeds(&format!("s{steps}"), &[&set, "infer.noise=fresh"], &[("elbo:8", nats, 1.0)])
        })
        .collect();
    let (html, temp) = page(&lines);
    let rows = table_after(&html, "All comparisons of fast steps");
    let rows: Vec<String> = rows[1..].iter().map(|row| row.join("|")).collect();
    let expected = [
        "elbo:8|fresh||4 → 16|-0.0200 ± 0.0141|-1.4|unclear",
        "elbo:8|fresh||16 → 64|-0.9800 ± 0.0141|-69.3|falls",
        "elbo:8|fresh||4 → 64|-1.0000 ± 0.0141|-70.7|falls",
    ];
    assert_eq!(rows, expected);
    let first = list_after(&html, "<ol class=\"findings\">");
    assert!(first[0].contains("elbo:8 with fresh noise: yes, in 1 of 1 comparisons"), "{first:?}");
    let picture = Picture::of_file(&temp.path().join("page/fast-steps-elbo-8.svg"));
    let curve = &picture.legend()[0];
    let expected = [[4.0, 2.0], [16.0, 1.98], [64.0, 1.0]];
    picture.assert_close(&picture.dots(curve, Scale::Ticks), &expected, Scale::Ticks);
}
