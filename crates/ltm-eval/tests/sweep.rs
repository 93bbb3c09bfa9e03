//! Sweeps from outside: points of a file, a run interrupted and resumed, failures, and changed files.

use std::fs;
use std::path::Path;

use ltm_eval::sweep::{Point, PointResult, SweepObserver, read_results};
use ltm_eval::{Error, Sweep};
use ltm_train::{Next, Observer, StepReport};
use serde_json::Value;

/// Writes a sweep's file over the tiny configuration and reads it.
fn load(dir: &Path, top: &str, grids: &str) -> Result<Sweep, Error> {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let text = format!(
        "base = {base:?}\ndir = {:?}\nprotocols = [\"elbo:2\", \"reconstruction\"]\n\
         eval_sequences = 3\n{top}\n{grids}",
        dir.join("sweep")
    );
    let file = dir.join("sweep.toml");
    fs::write(&file, text).expect("writable");
    Sweep::load(&file, &[], None)
}

const GRIDS: &str = "[[grid]]\n\"model.n_latents\" = [2, 4]\ninfer.noise = [\"fresh\", \"fixed\"]\n\
                     [[grid]]\nname = \"window\"\n\"model.n_latents\" = 0\nmodel.window = [4]\n";

#[derive(Default)]
struct Watch {
    /// Stops after this step of the point of this name.
    stop: Option<(&'static str, u64)>,
    point: String,
    finished: Vec<String>,
}

impl Observer for Watch {
    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        let at = self.stop.is_some_and(|(name, step)| self.point == name && report.step == step);
        if at { Next::Stop } else { Next::Continue }
    }
}

impl SweepObserver for Watch {
    fn point_started(&mut self, point: &Point, _done: usize, _all: usize) -> Next {
        self.point = point.name.clone();
        Next::Continue
    }

    fn point_finished(&mut self, result: &PointResult) {
        self.finished.push(result.point.name.clone());
    }
}

fn names(sweep: &Sweep) -> Vec<&str> {
    sweep.points.iter().map(|point| point.name.as_str()).collect()
}

#[test]
fn grids_make_named_points_with_the_budgets_steps() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sweep = load(temp.path(), "[budget]\nsteps = 7", GRIDS).expect("good");
    let expected = [
        "noise=fresh,n_latents=2",
        "noise=fresh,n_latents=4",
        "noise=fixed,n_latents=2",
        "noise=fixed,n_latents=4",
        "window,window=4",
    ];
    assert_eq!(names(&sweep), expected);
    assert!(sweep.points.iter().all(|point| point.config.train.steps == 7));
    let last = &sweep.points[4];
    assert_eq!((last.config.model.n_latents, last.config.model.window), (0, 4));
    assert!(last.placed.run.dir.ends_with("sweep/points/window,window=4"));
    let corpora: Vec<_> = sweep.points.iter().map(|p| p.placed.data.path.clone()).collect();
    assert!(corpora[0].is_some() && corpora.iter().all(|corpus| *corpus == corpora[0]));

    // Four rows a slow step, each of fewer tokens than its 96 positions.
    let sweep = load(temp.path(), "[budget]\ntokens = 10_000", GRIDS).expect("good");
    let steps = sweep.points[0].config.train.steps;
    assert!((10_000 / (4 * 96) + 1..1000).contains(&steps), "{steps}");
    assert!(sweep.points.iter().all(|point| point.config.train.steps == steps));

    // The same operations are fewer steps where a step computes more.
    let sweep = load(temp.path(), "[budget]\nflops = 1e9", GRIDS).expect("good");
    let steps = |idx: usize| sweep.points[idx].config.train.steps;
    assert!(steps(0) >= steps(1) && steps(1) < steps(4), "{} {} {}", steps(0), steps(1), steps(4));
}

#[test]
fn files_that_cannot_work_are_refused_by_name() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let values: Vec<usize> = (0..1000).collect();
    let many = format!("[[grid]]\n\"model.n_latents\" = {values:?}\n\"run.seed\" = {values:?}");
    for (top, grids, parts) in [
        ("[budget]\nsteps = 1\ntokens = 5", "", &["[budget]", "one of"][..]),
        ("[budget]\nsteps = 0", "", &["[budget]", "at least 1"]),
        ("[budgte]\nsteps = 1", "", &["budgte"]),
        ("", "[[grid]]\n\"model.n_latents\" = []", &["model.n_latents", "no values"]),
        ("", "[[grid]]\n\"model.n_latnets\" = [2]", &["model.n_latnets", "n_latents"]),
        ("", "[[grid]]\n\"model.n_latents\" = [3]", &["n_latents", "multiple"]),
        ("", "[[grid]]\nn_latents = [2]", &["section.key", "n_latents"]),
        ("", "[[grid]]\nbase = \"no.toml\"", &["no.toml"]),
        ("", "[[grid]]\nname = \"..\"\n\"model.n_latents\" = 2", &["grid.name", "found `..`"]),
        ("", "[[grid]]\nname = \"\"\n\"model.n_latents\" = 2", &["grid.name", "found ``"]),
        ("", many.as_str(), &["at most 100000 points", "found 1000000"]),
        ("", "[[grid]]\n\"run.seed\" = 1\n[[grid]]\n\"run.seed\" = 1", &["two points", "`name`"]),
    ] {
        let error = load(temp.path(), top, grids).expect_err(grids).to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in {error}");
        }
    }
    assert_eq!(fs::read_dir(temp.path()).expect("listable").count(), 1, "nothing is written");
}

#[test]
fn interrupted_and_resumed_gives_the_lines_of_never_stopping() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = |name: &str| {
        let dir = temp.path().join(name);
        fs::create_dir(&dir).expect("creatable");
        dir
    };
    let whole = load(&dir("whole"), "[budget]\nsteps = 3", GRIDS).expect("good");
    let summary = whole.run(&mut Watch::default()).expect("runs");
    assert!(summary.finished && summary.results.len() == 5);

    let parted = load(&dir("parted"), "[budget]\nsteps = 3", GRIDS).expect("good");
    let at = ("noise=fresh,n_latents=4", 1);
    let mut watch = Watch { stop: Some(at), ..Watch::default() };
    let summary = parted.run(&mut watch).expect("runs");
    assert!(!summary.finished);
    assert_eq!(watch.finished, ["noise=fresh,n_latents=2"]);
    // A process that died within a write leaves half a line.
    let path = parted.dir.join("results.jsonl");
    let text = fs::read_to_string(&path).expect("there") + "{\"name\": \"noi";
    fs::write(&path, text).expect("writable");
    let mut watch = Watch::default();
    assert!(parted.run(&mut watch).expect("runs").finished);
    assert_eq!(watch.finished, names(&parted)[1..]);

    let lines = |sweep: &Sweep| -> Vec<Value> {
        let results = read_results(&sweep.dir).expect("readable");
        let mut lines: Vec<Value> =
            results.iter().map(|r| serde_json::from_str(r.json()).expect("JSON")).collect();
        for line in &mut lines {
            assert!(line["seconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
            line["seconds"] = Value::Null;
        }
        lines
    };
    let whole = lines(&whole);
    assert_eq!(whole, lines(&parted));
    for line in &whole[..4] {
        assert_eq!(line["sequence_tokens"].as_array().map(Vec::len), Some(3));
        assert_eq!(line["nats"]["elbo:2"].as_array().map(Vec::len), Some(3));
        assert_eq!(line["trace"].as_array().map(Vec::len), Some(4), "{line}");
        assert!(line["evaluation"]["reconstruction"]["nats_per_token"].is_f64());
        assert_eq!(
            line["latents"]["kl_per_layer_nats_per_sequence"].as_array().map(Vec::len),
            Some(2)
        );
        assert!(line["samples"]["written"].is_string() && line["tokens"].as_u64() > Some(0));
        let tokens: f64 =
            line["sequence_tokens"].as_array().expect("3").iter().flat_map(Value::as_f64).sum();
        let exact = line["true_entropy"]["nats"].as_array().expect("3");
        let exact = exact.iter().flat_map(Value::as_f64).sum::<f64>() / tokens;
        // No bound of an untrained model comes near the exact likelihood of the same stories.
        assert!(line["evaluation"]["elbo:2"]["nats_per_token"].as_f64() > Some(exact + 0.5));
    }
    let baseline = &whole[4];
    let protocols: Vec<_> = baseline["evaluation"].as_object().expect("one").keys().collect();
    assert!(
        protocols.iter().all(|protocol| protocol.starts_with("autoregressive")),
        "{protocols:?}"
    );
    assert!(baseline["latents"].is_null());
}

#[test]
fn a_failed_point_has_a_line_and_a_changed_file_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let grids = "[[grid]]\n\"train.lr\" = [1e38, 1e-3]\ntrain.lr_min = 0.0\n";
    let steps = "[budget]\nsteps = 4";
    let sweep = load(temp.path(), steps, grids).expect("good");
    let results = sweep.run(&mut Watch::default()).expect("runs").results;
    let failure = results[0].outcome.as_ref().expect_err("it diverges");
    assert!(failure.contains("not finite"), "{failure}");
    assert!(results[1].outcome.as_ref().is_ok_and(|found| !found.evaluation.is_empty()));
    let mut watch = Watch::default();
    sweep.run(&mut watch).expect("runs");
    assert!(watch.finished.is_empty(), "every point has its line");

    let refused = |sweep: Sweep, parts: &[&str]| {
        let error = sweep.run(&mut Watch::default()).expect_err("changed").to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in {error}");
        }
    };
    let changed = load(temp.path(), "[budget]\nsteps = 5", grids).expect("good");
    refused(changed, &["results.jsonl", "point `", "train.steps: 4 → 5"]);
    let mut changed = load(temp.path(), steps, grids).expect("good");
    changed.eval_sequences = 2;
    refused(changed, &["eval_sequences: 3 → 2", "other settings"]);

    // Without its line a run's folder still tells; scored anew, its line comes back as it was.
    sweep.forget(false).expect("forgotten");
    assert!(read_results(&sweep.dir).expect("readable").is_empty());
    let changed = load(temp.path(), "[budget]\nsteps = 5", grids).expect("good");
    refused(changed, &["config.toml", "train.steps"]);
    let again = sweep.run(&mut Watch::default()).expect("runs").results;
    assert_eq!(again[1].json(), results[1].json());
    let mut watch = Watch::default();
    sweep.forget(true).expect("forgotten");
    sweep.run(&mut watch).expect("runs");
    assert_eq!(watch.finished, [again[0].point.name.as_str()]);
}
