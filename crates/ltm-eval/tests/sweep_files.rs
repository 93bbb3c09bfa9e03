//! A sweep's file and its results, one by one: how points are named and placed, what is recorded of each, and which
//! files are refused or left alone.

use std::fs;
use std::path::Path;

use ltm_eval::sweep::{Point, PointResult, Seeds, SweepObserver, SweepSummary, read_results};
use ltm_eval::{Error, Sweep};
use ltm_train::data::{Split, chosen, storyworld};
use ltm_train::{Config, Next, Observer, flops};
use serde_json::Value;

/// Writes a sweep's file, with the tiny configuration next to it, and reads it.
fn load(dir: &Path, text: &str, overrides: &[&str]) -> Result<Sweep, Error> {
    fs::write(dir.join("tiny.toml"), include_str!("../../ltm-train/tests/tiny.toml"))
        .expect("writable");
    let file = dir.join("sweep.toml");
    let head = format!("dir = {:?}\n", dir.join("sweep"));
    fs::write(&file, head + text).expect("writable");
    Sweep::load(&file, &overrides.iter().map(ToString::to_string).collect::<Vec<_>>(), None)
}

fn names(sweep: &Sweep) -> Vec<&str> {
    sweep.points.iter().map(|point| point.name.as_str()).collect()
}

#[test]
fn every_point_is_a_run_of_each_seed_on_one_corpus() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let text =
        "base = \"tiny.toml\"\n[budget]\ntokens = 3000\n[[grid]]\n\"infer.steps\" = [1, 2]\n";
    let plain = load(temp.path(), text, &[]).expect("without seeds");
    let few = load(temp.path(), &format!("seeds = 2\n{text}"), &[]).expect("two seeds");
    let expected =
        ["infer.steps=1", "infer.steps=2", "infer.steps=1,seed=2", "infer.steps=2,seed=2"];
    assert_eq!(names(&few), expected);
    // The runs of the own seed are what they are without seeds: such a sweep can be extended.
    for (seeded, plain) in few.points.iter().zip(&plain.points) {
        assert_eq!((&seeded.config, &seeded.placed), (&plain.config, &plain.placed));
    }
    let last = few.points.last().expect("four");
    assert_eq!((last.config.run.seed, last.placed.run.seed), (2, 2));
    assert_eq!(last.config.train.steps, plain.points[1].config.train.steps);
    assert_eq!(last.placed.data.path, plain.points[1].placed.data.path);
    assert_eq!(last.settings["run.seed"].as_integer(), Some(2));
    // The command's seeds replace the file's.
    let file = temp.path().join("sweep.toml");
    let listed = Sweep::load(&file, &[], Some(&Seeds::List(vec![7, 1]))).expect("two others");
    assert_eq!(names(&listed)[..3], ["infer.steps=1,seed=7", "infer.steps=2,seed=7", expected[0]]);
    assert_eq!(listed.points[0].placed.data.path, last.placed.data.path);
    for (seeds, part) in [("0", "found 0"), ("[3, 3]", "3 twice"), ("\"a\"", "seeds")] {
        let error = load(temp.path(), &format!("seeds = {seeds}\n{text}"), &[]).expect_err(seeds);
        assert!(error.to_string().contains(part), "{error}");
    }
    let axis = format!("seeds = 2\n{text}\"run.seed\" = [1, 2]\n");
    let error = load(temp.path(), &axis, &[]).expect_err("seeds twice").to_string();
    assert!(error.contains("`run.seed`") && error.contains("sweep.toml"), "{error}");
}

#[test]
fn points_are_named_by_what_varies_and_by_what_their_grid_is_called() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let base = "base = \"tiny.toml\"\n";
    for (grid, expected) in [
        ("", &["base"][..]),
        // Without a name, settings are part of the name too; with one, only what varies.
        ("[[grid]]\n\"infer.steps\" = 5\n\"model.window\" = 8\n", &["infer.steps=5,window=8"]),
        ("[[grid]]\nname = \"a/b c\"\n\"infer.steps\" = 5\n", &["a-b-c"]),
        (
            "[[grid]]\nname = \"x\"\n\"infer.steps\" = 5\n\"run.seed\" = [1, 2]\n",
            &["x,seed=1", "x,seed=2"],
        ),
        ("[[grid]]\nbase = \"tiny.toml\"\n\"infer.noise\" = [\"fixed\"]\n", &["tiny,noise=fixed"]),
        // Keys of several sections keep theirs.
        (
            "[[grid]]\n\"train.lr\" = [0.01]\n\"infer.lr\" = [0.2]\n",
            &["infer.lr=0.2,train.lr=0.01"],
        ),
        ("[[grid]]\n\"train.weight_decay\" = [0.5]\n", &["train.weight_decay=0.5"]),
        ("[[grid]]\n\"train.betas\" = [[0.5, 0.6]]\n", &["betas=-0.5--0.6-"]),
    ] {
        let sweep = load(temp.path(), &format!("{base}{grid}"), &[]).expect(grid);
        assert_eq!(names(&sweep), expected, "{grid}");
    }
    // The base may be part of the file; what it lacks and what it cannot be is refused.
    let tiny: toml::Table = include_str!("../../ltm-train/tests/tiny.toml").parse().expect("TOML");
    let inline = toml::Table::from_iter([("base".to_string(), toml::Value::Table(tiny))]);
    let sweep = load(temp.path(), &inline.to_string(), &[]).expect("its own base");
    assert_eq!((names(&sweep), sweep.points[0].config.train.steps), (vec!["base"], 6));
    for (text, parts) in [
        ("", ["base = \"FILE\"", "found none"]),
        ("base = 3\n", ["a configuration file or its tables", "found 3"]),
        ("base = \"tiny.toml\"\n[[grid]]\nname = 3\n", ["grid.name", "expected a string, found 3"]),
        ("base = \"tiny.toml\"\nprotocols = [\"elbow\"]\n", ["protocols", "elbow"]),
        ("base = \"tiny.toml\"\n[set]\nsteps = 3\n", ["section.key", "`steps`"]),
        (
            "base = \"tiny.toml\"\n[budget]\nflops = inf\n",
            ["[budget]: expected at least 1", "found inf"],
        ),
        (
            "base = \"tiny.toml\"\n[budget]\ntokens = 0.5\n",
            ["[budget]: expected at least 1", "found 0.5"],
        ),
    ] {
        let error = load(temp.path(), text, &[]).expect_err(text).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(error.contains("sweep.toml"), "{error}");
    }
}

#[test]
fn settings_of_all_points_grids_and_overrides_apply_in_this_order() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let text = "base = \"tiny.toml\"\n[set]\n\"infer.steps\" = 7\ntrain.clip = 0.5\n\
                [[grid]]\n\"infer.steps\" = [8, 9]\n[[grid]]\nname = \"other\"\n";
    let sweep = load(temp.path(), text, &["train.clip=0.25"]).expect("good");
    let steps: Vec<usize> = sweep.points.iter().map(|point| point.config.infer.steps).collect();
    assert_eq!(steps, [8, 9, 7]);
    assert!(sweep.points.iter().all(|point| point.config.train.clip == 0.25));
    let settings: Vec<String> =
        sweep.points.iter().map(|point| point.settings.to_string().trim().to_string()).collect();
    assert_eq!(settings, ["\"infer.steps\" = 8", "\"infer.steps\" = 9", ""]);
    // What is not set.
    let protocols: Vec<String> = sweep.protocols.iter().map(ToString::to_string).collect();
    assert_eq!(protocols, ["reconstruction", "elbo-fitted-noise", "elbo:8", "iwae:8"]);
    assert_eq!(sweep.eval_sequences, 256);
    // Points are scored at their end: on the way only where they say so, and then as they say.
    let train = |point: &Point| (point.placed.train.eval_every, point.placed.train.eval_sequences);
    assert_eq!(train(&sweep.points[0]), (0, 2));
    let text = "base = \"tiny.toml\"\n[set]\n\"train.eval_every\" = 3\n";
    let sweep = load(temp.path(), text, &[]).expect("good");
    assert_eq!(train(&sweep.points[0]), (3, 4));
    // Every point is in the sweep's folder, on the sweep's corpus.
    let placed = &sweep.points[0].placed;
    assert_eq!(placed.run.dir, temp.path().join("sweep/points/base"));
    let corpus = temp.path().join("sweep/data/storyworld-64-8-seed1");
    assert_eq!(placed.data.path.as_ref(), Some(&corpus));
    assert_eq!(sweep.points[0].config.data.path, None);
}

#[test]
fn budgets_are_spent_to_the_last_step() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let base = "base = \"tiny.toml\"\n";
    let steps = |text: &str| {
        load(temp.path(), &format!("{base}{text}"), &[]).expect(text).points[0].config.train.steps
    };
    let config = load(temp.path(), base, &[]).expect("good").points[0].config.clone();
    let per_step = flops::count(&config).expect("counted").per_slow_step;
    for (share, expected) in [(10.0, 10), (10.01, 11), (0.5, 1)] {
        assert_eq!(
            steps(&format!("[budget]\nflops = {}\n", share * per_step)),
            expected,
            "{share}"
        );
    }
    // Stories of this seed, as far as they fit into a row; two rows in each of two micro-batches.
    let rows: f64 =
        (0..64).map(|index| storyworld::sample(1, index).tokens.len().min(60) as f64).sum::<f64>()
            / 64.0;
    let set = "[set]\n\"train.seq_len\" = 60\n";
    for (share, expected) in [(9.99, 10), (10.01, 11)] {
        let budget = format!("[budget]\ntokens = {}\n", share * 4.0 * rows);
        assert_eq!(steps(&format!("{budget}{set}")), expected, "{share}");
    }
    // Rows of a folder: windows are full, documents are as long as they are.
    let data = temp.path().join("data");
    let stories = storyworld::Parameters { seed: 1, documents: 20, val_documents: 2 };
    storyworld::write(&data, &stories).expect("written");
    for rows in ["windows", "documents"] {
        let set = format!("[set]\n\"data.path\" = {data:?}\n\"data.rows\" = \"{rows}\"\n");
        let sweep = load(temp.path(), &format!("{base}{set}"), &[]).expect("good");
        let Point { config, placed, .. } = &sweep.points[0];
        assert_eq!(
            placed.data.path.as_ref(),
            Some(&data),
            "a corpus of one's own stays where it is"
        );
        let batches = ltm_train::run_data::open(config, Split::Train).expect("opened");
        let per_row = match rows {
            "windows" => 96.0,
            _ => batches.corpus().len() as f64 / batches.rows() as f64,
        };
        for (share, expected) in [(9.99, 10), (10.01, 11)] {
            let budget = format!("[budget]\ntokens = {}\n", share * 4.0 * per_row);
            assert_eq!(steps(&format!("{budget}{set}")), expected, "{rows} {share}");
        }
    }
}

/// What an observer is told, in order.
#[derive(Default)]
struct Watch(Vec<String>);

impl Observer for Watch {}

impl SweepObserver for Watch {
    fn point_started(&mut self, point: &Point, done: usize, all: usize) -> Next {
        self.0.push(format!("{} {done}/{all}", point.name));
        Next::Continue
    }

    fn scoring(&mut self, done: u64, all: u64) -> Next {
        self.0.push(format!("scored {done}/{all}"));
        Next::Continue
    }

    fn point_finished(&mut self, result: &PointResult) {
        self.0.push(format!("finished {}", result.point.name));
    }
}

/// The lines of a sweep's results.
fn lines(summary: &SweepSummary) -> Vec<Value> {
    assert!(summary.finished);
    let lines = summary.results.iter().map(|result| serde_json::from_str(result.json()));
    lines.collect::<Result<_, _>>().expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().expect("a list").iter().map(number).collect()
}

fn close(found: f64, expected: f64, what: &str) {
    // Nats of sequences are recorded to a millionth.
    assert!(
        (found - expected).abs() <= 1e-6 * expected.abs().max(1.0),
        "{what}: {found}, not {expected}"
    );
}

#[test]
fn a_line_records_the_numbers_of_its_point() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let text = "base = \"tiny.toml\"\nprotocols = [\"reconstruction\", \"elbo:2\"]\neval_sequences = 2\n\
                [budget]\nsteps = 2\n[[grid]]\n\"model.n_latents\" = [4, 0]\n[[grid]]\nname = \"langevin\"\n\
                \"infer.method\" = \"langevin\"\n\"infer.lr\" = 0.05\n";
    let sweep = load(temp.path(), text, &[]).expect("good");
    let mut watch = Watch::default();
    let results = lines(&sweep.run(&mut watch).expect("runs"));
    let scored = |n: u64| (0..=n).map(move |done| format!("scored {done}/{n}"));
    let mut expected = Vec::new();
    for (idx, (name, scores)) in
        [("n_latents=4", 2), ("n_latents=0", 1), ("langevin", 1)].iter().enumerate()
    {
        expected.push(format!("{name} {idx}/3"));
        expected.extend(scored(*scores));
        expected.push(format!("finished {name}"));
    }
    assert_eq!(watch.0, expected);
    for (line, point) in results.iter().zip(&sweep.points) {
        assert_eq!(line["name"], point.name.as_str());
        let config: &Config = &point.config;
        let counted = flops::count(config).expect("counted");
        close(number(&line["training_flops"]), 2.0 * counted.per_slow_step, "FLOPs");
        close(number(&line["flops_per_token"]), counted.per_token, "FLOPs per token");
        close(number(&line["flops_per_token_formula"]), counted.formula_per_token, "formula");
        assert_eq!(line["parameters"], config.model.param_count());
        assert_eq!((&line["steps"], &line["eval_sequences"]), (&2.into(), &2.into()));
        assert!(number(&line["seconds"]) > 0.0);
        // Of the 8 stories after the first 64 of this seed, and what they are worth to whoever knows how they are made.
        let drawn = chosen(2, 8).into_iter();
        let stories: Vec<_> = drawn.map(|row| storyworld::sample(1, 64 + row)).collect();
        let lengths: Vec<f64> = stories.iter().map(|story| story.tokens.len() as f64).collect();
        assert_eq!(numbers(&line["sequence_tokens"]), lengths);
        let exact: Vec<f64> = stories.iter().map(|story| -story.log_prob).collect();
        for (found, exact) in numbers(&line["true_entropy"]["nats"]).into_iter().zip(exact) {
            close(found, exact, "exact nats");
        }
        let documents = storyworld::ENTROPY_DOCUMENTS;
        let entropy = storyworld::true_entropy(1, documents).expect("enough");
        close(number(&line["true_entropy"]["nats_per_token"]), entropy.nats_per_token, "entropy");
        close(
            number(&line["true_entropy"]["standard_error"]),
            entropy.nats_per_token_se,
            "its error",
        );
        assert_eq!(line["true_entropy"]["documents"], documents);
        // All nats over all tokens are each protocol's number.
        let tokens: f64 = lengths.iter().sum();
        for (protocol, nats) in line["nats"].as_object().expect("by protocol") {
            let score = &line["evaluation"][protocol];
            close(
                numbers(nats).iter().sum::<f64>() / tokens,
                number(&score["nats_per_token"]),
                protocol,
            );
            assert_eq!((number(&score["tokens"]), &score["sequences"]), (tokens, &2.into()));
        }
        // A story of the training split twice in each of two micro-batches and steps.
        let metrics =
            fs::read_to_string(point.placed.run.dir.join("metrics.jsonl")).expect("there");
        let trained = metrics.lines().filter_map(|line| {
            serde_json::from_str::<Value>(line).expect("JSON")["tokens"].as_u64()
        });
        assert_eq!(line["tokens"].as_u64(), Some(trained.sum()));
        assert!(line["samples"]["from_nothing"].is_string(), "{}", line["samples"]);
        let given = line["samples"]["given"].as_str().expect("a prompt");
        let story =
            ltm_train::data::Tokenizer::decode(&*storyworld::tokenizer(), &stories[0].tokens);
        assert!(!given.is_empty() && story.starts_with(given), "{given} does not begin {story}");
    }
    let [fitted, baseline, langevin] = &results[..] else { panic!("three points") };
    // Before each of three fast steps and after the last, whose numbers are those of the scores.
    let trace = fitted["trace"].as_array().expect("a trace");
    assert_eq!(
        trace.iter().map(|at| number(&at["step"])).collect::<Vec<_>>(),
        [0.0, 1.0, 2.0, 3.0]
    );
    let last = &trace[3];
    close(
        number(&last["nll"]),
        number(&fitted["evaluation"]["reconstruction"]["nats_per_token"]),
        "NLL",
    );
    let tokens: f64 = numbers(&fitted["sequence_tokens"]).iter().sum();
    let kl: f64 = numbers(&fitted["latents"]["kl_per_layer_nats_per_sequence"]).iter().sum();
    close(number(&last["kl"]), 2.0 * kl / tokens, "KL");
    for at in trace {
        assert!((3.0..8.0).contains(&number(&at["nll"])) && number(&at["kl"]) > 0.0, "{at}");
    }
    assert_eq!(fitted["left_out"], serde_json::json!({}));
    // Protocols that do not apply are listed with the reason, and the point's own take their place.
    for (line, out, own) in [
        (baseline, &["elbo:2", "reconstruction"][..], "autoregressive"),
        (langevin, &["elbo:2"], "reconstruction"),
    ] {
        let left_out = line["left_out"].as_object().expect("reasons");
        assert_eq!(left_out.keys().collect::<Vec<_>>(), out);
        assert!(
            left_out.values().all(|reason| reason.as_str().is_some_and(|text| text.len() > 10))
        );
        assert_eq!(
            line["evaluation"].as_object().expect("scores").keys().collect::<Vec<_>>(),
            [own]
        );
        assert!(line["latents"].is_null());
    }
    assert_eq!(baseline["trace"], serde_json::json!([]));

    // Asked for what suits it, a model without latents is not scored twice.
    let text = text.replace("\"reconstruction\", ", "\"autoregressive\", ");
    let mut sweep = load(temp.path(), &text, &[]).expect("good");
    sweep.dir = temp.path().join("second");
    sweep.points.remove(0);
    sweep.points.truncate(1);
    for point in &mut sweep.points {
        point.placed.run.dir = temp.path().join("second/points").join(&point.name);
    }
    let results = lines(&sweep.run(&mut Watch::default()).expect("runs"));
    let scores: Vec<&String> =
        results[0]["evaluation"].as_object().expect("scores").keys().collect();
    assert_eq!(scores, ["autoregressive"]);
}

#[test]
fn results_are_read_line_by_line_and_only_none_is_none() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path();
    let path = dir.join("results.jsonl");
    assert!(read_results(dir).expect("none yet").is_empty());
    for (text, expected) in [
        ("", Ok(0)),
        ("{\"name\":\"a\"}\n{\"name\":\"b\"}\n", Ok(2)),
        ("{\"name\":\"a\"}\n{\"name\":\"b\"}", Ok(2)),
        ("{\"name\":\"a\"}\n{\"name\":\"b", Ok(1)),
        ("{\"name\":\"a\"}\n{\"nam\":\"b\"}", Ok(1)),
        ("{\"name\":\"a\"}\n\n", Err("line 2")),
        ("{\"nam\":\"a\"}\n{\"name\":\"b\"}\n", Err("line 1")),
        ("{\"name\":\"a\"}\n{\"name\":1}\n", Err("line 2")),
    ] {
        fs::write(&path, text).expect("writable");
        match (read_results(dir), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.len(), expected, "{text}"),
            (Err(error), Err(line)) => {
                let error = error.to_string();
                let parts = ["results.jsonl", line, "the result of a point, with its `name`"];
                assert!(parts.iter().all(|part| error.contains(part)), "{error}");
            }
            (found, _) => panic!("{text}: {found:?}"),
        }
    }
    // What is there and cannot be read is not taken for none, by whoever would replace it.
    fs::remove_file(&path).expect("removable");
    fs::create_dir(&path).expect("creatable");
    let mut sweep = load(dir, "base = \"tiny.toml\"\n", &[]).expect("good");
    sweep.dir = dir.into();
    let errors = [
        read_results(dir).expect_err("a folder"),
        sweep.forget(false).expect_err("a folder"),
        sweep.run(&mut Watch::default()).expect_err("a folder"),
    ];
    for error in errors {
        assert!(error.to_string().contains("results.jsonl"), "{error}");
    }
    assert!(path.is_dir() && !dir.join("sweep").exists());
}
