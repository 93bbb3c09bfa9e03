//! The page of runs and their comparison, from folders whose numbers are written here.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_eval::report::{self, Comparison};
use ltm_model::Weights;
use ltm_testkit::copy_folder;
use ltm_train::Config;
use ltm_train::checkpoint::{self, State};
use ltm_train::data::storyworld;
use serde_json::{Value, json};

use crate::lines::{TOKENS, evaluation, nats, step, write_lines};
use crate::picture::{Picture, Scale};
use crate::tables::{list_after, plain, table_after};

const TINY: &str = include_str!("../../../ltm-train/tests/tiny.toml");

/// A run's folder with a checkpoint after `steps` steps and these metrics.
fn run(dir: &Path, steps: u64, set: &[&str], metrics: &[Value]) -> PathBuf {
    let place = format!("run.dir='{}'", dir.display());
    let set: Vec<String> =
        [place.as_str(), "model.dim=8"].iter().chain(set).map(ToString::to_string).collect();
    let config = Config::parse(TINY, Path::new("tiny.toml"), &set).expect("good");
    let weights = Weights::init(&config.model, 1).expect("good");
    let state = State {
        step: steps,
        seed: config.run.seed,
        batches: steps * config.train.micro_batches as u64,
        tokenizer: storyworld::tokenizer().spec(),
        data: None,
        kl_balance: None,
        files: Default::default(),
    };
    checkpoint::save(&config, &weights, &[], &Default::default(), &state, None).expect("saved");
    write_lines(&dir.join("metrics.jsonl"), metrics);
    dir.into()
}

/// The scores of a run's sequences by `elbo:8`, of texts with these checksums; one of overlapping rows counts for none.
fn write_scores(dir: &Path, step: u64, nats: &[f64], digest: u64) {
    let row = |(index, (nats, tokens)): (usize, (&f64, f64))| {
        json!({
            "index": index, "stride": null, "tokens": tokens as u64, "bytes": 10, "digest": digest + index as u64,
            "kl": 0.5, "scores": { "elbo:8": { "nats": nats, "sampling_error": 0.0 } }, "step": step,
        })
    };
    let mut rows: Vec<Value> = nats.iter().zip(TOKENS).enumerate().map(row).collect();
    let mut overlapping = rows[0].clone();
    overlapping["stride"] = 4.into();
    rows.push(overlapping);
    write_lines(&dir.join("scores.jsonl"), &rows);
}

/// Three runs: the second is better than the first by a paired half, the third was scored on other texts.
fn runs(root: &Path) -> [PathBuf; 3] {
    let metrics = |elbo: f64, kl: Option<f64>| {
        vec![
            step(1, 3.0, kl),
            evaluation(1, &[("elbo:8", 2.5), ("reconstruction", 1.25)]),
            step(2, 2.0, kl),
            evaluation(2, &[("elbo:8", elbo), ("reconstruction", 1.0)]),
        ]
    };
    let a = run(&root.join("a"), 2, &[], &metrics(2.0, Some(0.5)));
    let b = run(&root.join("b"), 2, &["infer.steps=5"], &metrics(1.5, Some(1.0)));
    let other = ["infer.noise=fixed", "train.schedule_steps=6"];
    let c = run(&root.join("c"), 2, &other, &metrics(1.9, None));
    write_scores(&a, 2, &nats(2.0, 0.0), 7);
    write_scores(&b, 2, &nats(1.5, 5.0), 7);
    write_scores(&c, 2, &nats(1.9, 1.0), 8);
    [a, b, c]
}

fn write(inputs: &[PathBuf], out: &Path) -> String {
    let path = report::write(inputs, out, &mut |_, _| ()).expect("written");
    fs::read_to_string(path).expect("there")
}

#[test]
fn runs_are_compared_with_the_first_row_by_row_where_that_is_possible() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let runs = runs(temp.path());
    let out = temp.path().join("page");
    let html = write(&runs, &out);
    assert!(html.contains("<h2>Comparison of runs</h2>") && !html.contains("<h2>Run"));
    let expected = [
        "Lowest under elbo:8 (valid bound): b, 1.5000 ± 0.1250 nats per token.",
        "Its difference to the baseline a is -0.5000 ± 0.0500 nats per token (paired), over sequences: these are two \
         runs, and other seeds may differ by more.",
        "The configurations differ in infer.noise, infer.steps, train.schedule_steps.",
    ];
    assert_eq!(list_after(&html, "<ol class=\"findings\">"), expected);

    let table = table_after(&html, "Differences by protocol");
    let head = [
        "run",
        "nats per token",
        "perplexity",
        "sequences",
        "difference",
        "in standard errors",
        "standard error",
    ];
    assert_eq!(table[0], head);
    let rows: Vec<String> = table[1..].iter().map(|row| row.join("|")).collect();
    let expected = [
        "a|2.0000 ± 0.1250|7.389|4|||baseline",
        "b|1.5000 ± 0.1250|4.482|4|-0.5000 ± 0.0500|-10.0|paired",
        "c|1.9000 ± 0.1250|6.686|4|-0.1000 ± 0.1768|-0.6|not paired",
    ];
    assert_eq!(rows, expected);
    for verdict in ["class=\"falls\"", "class=\"rises\"", "class=\"unclear\""] {
        assert!(!html.contains(verdict), "two runs decide nothing: {verdict}");
    }
    let captions: Vec<&str> = html
        .split("<caption>")
        .skip(1)
        .map(|rest| rest.split("</caption>").next().expect("an end"))
        .collect();
    let expected = ["<code>elbo:8</code>: valid bound", "<code>reconstruction</code>: not a bound"];
    assert_eq!(captions, expected);
    let settings = table_after(&html, "Settings that differ");
    let rows: Vec<String> = settings.iter().map(|row| row.join("|")).collect();
    let expected = [
        "key|a|b|c",
        "infer.noise|\"fresh\"|\"fresh\"|\"fixed\"",
        "infer.steps|3|5|3",
        "train.schedule_steps|not set|not set|6",
    ];
    assert_eq!(rows, expected);
    let scores = table_after(&html, "<h3>Scores</h3>");
    let column = |name: &str| {
        let idx = scores[0].iter().position(|head| head == name).expect(name);
        scores[1..].iter().map(|row| row[idx].clone()).collect::<Vec<_>>()
    };
    assert_eq!(column("run"), ["a", "b", "c"]);
    assert_eq!(column("slow steps"), ["2", "2", "2"]);
    assert_eq!(column("tokens"), ["80", "80", "80"]);

    // One chart for all: the bound where there is one, otherwise the loss; each protocol has its own.
    for (file, title, curves) in [
        (
            "training",
            "Training batches, NLL + KL",
            [[[1.0, 3.5], [2.0, 2.5]], [[1.0, 4.0], [2.0, 3.0]], [[1.0, 3.0], [2.0, 2.0]]],
        ),
        (
            "validation-elbo-8",
            "elbo:8 (valid bound)",
            [[[1.0, 2.5], [2.0, 2.0]], [[1.0, 2.5], [2.0, 1.5]], [[1.0, 2.5], [2.0, 1.9]]],
        ),
        (
            "validation-reconstruction",
            "reconstruction (not a bound)",
            [[[1.0, 1.25], [2.0, 1.0]], [[1.0, 1.25], [2.0, 1.0]], [[1.0, 1.25], [2.0, 1.0]]],
        ),
    ] {
        let picture = Picture::of_file(&out.join(format!("{file}.svg")));
        assert_eq!((picture.title.as_str(), picture.x_label.as_str()), (title, "slow step"));
        assert_eq!(picture.legend(), ["a", "b", "c"]);
        for (name, expected) in ["a", "b", "c"].iter().zip(curves) {
            picture.assert_close(&picture.dots(name, Scale::Even), &expected, Scale::Even);
        }
    }
    // A report reads: no corpus is generated, and what needs one is omitted.
    assert!(runs.iter().all(|run| !run.join("data").exists()));
    assert!(!html.contains("The fast loop") && !html.contains("<h3>Samples</h3>"));
}

#[test]
fn findings_on_runs_say_what_the_numbers_allow() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [a, b, c] = runs(temp.path());
    let findings = |inputs: &[&PathBuf]| {
        let inputs: Vec<PathBuf> = inputs.iter().map(|path| (*path).clone()).collect();
        let html = write(&inputs, &temp.path().join("page"));
        list_after(&html, "<ol class=\"findings\">")
    };
    let found = findings(&[&b, &a]);
    assert_eq!(found[1], "No run scores below the baseline b.");
    assert_eq!(found[2], "The configurations differ in infer.steps only.");
    let found = findings(&[&a, &c]);
    let expected = "Its difference to the baseline a is -0.1000 ± 0.1768 nats per token (not paired), over \
                    sequences: these are two runs";
    assert!(found[1].starts_with(expected), "{found:?}");
    // A run that goes on has the scores of an earlier step, which are not those of its rows.
    write_scores(&b, 1, &nats(1.5, 5.0), 7);
    let found = findings(&[&a, &b]);
    assert!(found[1].contains("-0.5000 ± 0.1768 nats per token (not paired)"), "{found:?}");
    // The same run twice, each scored on one sequence.
    let copy = temp.path().join("copy");
    let one = |nats: f64| {
        let mut line = evaluation(2, &[("elbo:8", nats)]);
        line["eval"]["elbo:8"]["standard_error"] = Value::Null;
        line["eval"]["elbo:8"]["tokens"] = 2.into();
        line
    };
    for (dir, nats) in [(&a, 2.0), (&copy, 1.5)] {
        if dir == &copy {
            copy_folder(&a, &copy);
        }
        write_lines(
            &dir.join("metrics.jsonl"),
            &[step(1, 2.0, None), step(2, 2.0, None), one(nats)],
        );
        write_scores(dir, 2, &[2.0 * nats], 7);
    }
    let found = findings(&[&a, &copy]);
    let expected = [
        "Lowest under elbo:8 (valid bound): copy, 1.5000 nats per token.",
        "One sequence is too few for a standard error.",
        "The configurations do not differ.",
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_run_alone_has_its_curves_fast_loop_and_samples() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [a, ..] = runs(temp.path());
    let stories = storyworld::Parameters { seed: 1, documents: 64, val_documents: 8 };
    storyworld::write(&a.join("data"), &stories).expect("written");
    // Eight hundred steps are drawn as means of two, seven hundred and ninety-nine of an odd number as well.
    let mut lines: Vec<Value> = (1..=800).map(|i| step(i, (i % 2) as f64 * 2.0, None)).collect();
    lines.push(evaluation(800, &[("elbo:8", 2.0), ("iwae:8", 1.5), ("reconstruction", 1.0)]));
    write_lines(&a.join("metrics.jsonl"), &lines);
    let out = temp.path().join("page");
    let html = write(std::slice::from_ref(&a), &out);
    assert!(html.contains("<h2>Run a</h2>") && !html.contains("Settings that differ"));
    assert!(!html.contains("<ol class=\"findings\">"));
    let picture = |name: &str| Picture::of_file(&out.join(name));
    let training = picture("training.svg");
    assert_eq!(training.title, "Training batches");
    assert_eq!(training.legend(), ["loss"], "there is no KL");
    for (file, title, names) in [
        ("validation.svg", "Validation split, valid bounds", &["elbo:8", "iwae:8"][..]),
        ("validation-other.svg", "Validation split, not valid bounds", &["reconstruction"]),
    ] {
        let picture = picture(file);
        assert_eq!((picture.title.as_str(), picture.legend()), (title, names.to_vec()));
    }
    // Before each of the three fast steps and after the last.
    let trace = picture("fast-loop-a.svg");
    let steps: Vec<f64> =
        trace.lines("KL", Scale::Even)[0].iter().map(|at| at[0].round()).collect();
    assert_eq!(steps, [0.0, 1.0, 2.0, 3.0]);
    assert!(html.contains("<h3>Samples</h3>") && plain(&html).contains("continuation"));

    // Among several, long curves are thinned to at most 400 means over consecutive steps.
    let b = temp.path().join("b");
    let html = write(&[a.clone(), b], &out);
    assert!(html.contains("Comparison of runs"));
    let thinned = picture("training.svg");
    let line = &thinned.lines("a", Scale::Even)[0];
    assert_eq!(line.len(), 400);
    thinned.assert_heights(&line.iter().map(|at| at[1]).collect::<Vec<_>>(), &[1.0; 400]);
    thinned.assert_close(&[line[0], line[399]], &[[1.5, 1.0], [799.5, 1.0]], Scale::Even);
}

#[test]
fn a_comparison_reads_runs_or_scores_them_again() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [a, b, c] = runs(temp.path());
    let comparison =
        Comparison::read(&[a.clone(), b, c], &[], 0, &mut |_, _, _| panic!("no scoring"));
    let json = comparison.expect("read").to_json();
    assert_eq!(json["runs"], json!(["a", "b", "c"]));
    assert_eq!(json["settings"]["train.schedule_steps"], json!({ "a": null, "b": null, "c": 6 }));
    let rows = &json["protocols"]["elbo:8"]["runs"];
    assert_eq!(json["protocols"]["elbo:8"]["status"], "valid bound");
    assert!(rows[0].get("difference").is_none());
    assert_eq!(
        [
            &rows[1]["run"],
            &rows[1]["nats_per_token"],
            &rows[1]["standard_error"],
            &rows[1]["sequences"]
        ],
        [&json!("b"), &json!(1.5), &json!(0.125), &json!(4)]
    );
    let close = |found: &Value, expected: f64| {
        let found = found.as_f64().expect("a number");
        assert!((found - expected).abs() <= 1e-9, "{found} is not {expected}");
    };
    close(&rows[1]["perplexity"], 1.5_f64.exp());
    close(&rows[1]["difference"]["nats_per_token"], -0.5);
    close(&rows[1]["difference"]["standard_error"], 0.05);
    assert_eq!(
        [&rows[1]["difference"]["paired"], &rows[2]["difference"]["paired"]],
        [&json!(true), &json!(false)]
    );

    let stories = storyworld::Parameters { seed: 1, documents: 64, val_documents: 8 };
    storyworld::write(&a.join("data"), &stories).expect("written");
    let twin = temp.path().join("twin");
    copy_folder(&a, &twin);
    let mut seen = Vec::new();
    let protocols = ["elbo:2".parse().expect("a protocol")];
    let comparison = Comparison::read(&[a.clone(), twin], &protocols, 3, &mut |run, done, all| {
        seen.push((run, done, all));
    });
    let comparison = comparison.expect("scored");
    // Three rows in batches of two.
    assert_eq!(seen, [(0, 0, 2), (0, 1, 2), (0, 2, 2), (1, 0, 2), (1, 1, 2), (1, 2, 2)]);
    assert_eq!(comparison.names(), ["a", "twin"]);
    let [table] = &comparison.tables()[..] else { panic!("one protocol") };
    assert_eq!((table.protocol.as_str(), table.rows[0].sequences), ("elbo:2", 3));
    let difference = table.rows[1].difference.expect("scored on the same rows");
    assert_eq!((difference.nats_per_token, difference.paired), (0.0, true));

    // What cannot be compared is named.
    let sweep = temp.path().join("sweep");
    fs::create_dir(&sweep).expect("creatable");
    let empty = temp.path().join("empty");
    fs::create_dir(&empty).expect("creatable");
    fs::write(sweep.join("results.jsonl"), "{\"name\": \"a\"}\n").expect("writable");
    for (dirs, parts) in [
        (vec![a.clone()], ["`runs`", "at least two", "found 1"]),
        (vec![], ["`runs`", "at least two", "found 0"]),
        (vec![a.clone(), sweep], ["sweep", "metrics.jsonl", "name one of its runs"]),
        (vec![a.clone(), empty], ["empty", "metrics.jsonl", "found none"]),
    ] {
        let error =
            Comparison::read(&dirs, &[], 0, &mut |_, _, _| ()).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    // Scores that are there and cannot be read are not the same as none.
    let (scores, twin) = (a.join("scores.jsonl"), temp.path().join("twin"));
    let read = || Comparison::read(&[twin.clone(), a.clone()], &[], 0, &mut |_, _, _| ());
    fs::write(&scores, "half").expect("writable");
    let error = read().expect_err("half a line").to_string();
    assert!(error.contains("scores.jsonl") && error.contains("line 1"), "{error}");
    fs::remove_file(&scores).expect("removable");
    assert!(!read().expect("none").tables()[0].rows[1].difference.expect("two runs").paired);
    fs::create_dir(&scores).expect("creatable");
    let error = read().expect_err("a folder").to_string();
    assert!(error.contains("scores.jsonl") && error.contains("read"), "{error}");
}
