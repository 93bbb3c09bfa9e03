//! `ltm export` and `ltm import`: a model that leaves a run and comes back scores as before, whatever became of its folder.

mod command;

use std::fs;
use std::path::Path;

use command::{bad, good, json};

/// A folder with a corpus file and two runs: one of generated stories, one of the file's bytes.
struct Runs {
    folder: tempfile::TempDir,
}

impl Runs {
    fn new() -> Self {
        let runs = Self { folder: tempfile::tempdir().expect("a temporary folder") };
        let book = runs.path("book.txt");
        fs::write(&book, "a small dog saw a cat. ".repeat(60)).expect("writable");
        let data = runs.path("data");
        good(&["data", "prepare", &book, "--tokenizer", "bytes", "--out", &data]);
        runs.train("stories", &[]);
        runs.train("bytes", &["--set", &format!("data.path={data}")]);
        runs
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn train(&self, name: &str, more: &[&str]) {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
        let (config, dir) = (config.display().to_string(), format!("run.dir={}", self.path(name)));
        let sets = ["--set", &dir, "--set", "train.steps=2", "--set", "model.encoder_width=8"];
        good(&[&["train", &config, "--no-samples"][..], &sets, more].concat());
    }

    /// The scores of a file by a run.
    fn scores(&self, run: &str) -> serde_json::Value {
        let (run, book) = (self.path(run), self.path("book.txt"));
        json(&["eval", &run, &book, "--protocol", "elbo:2", "--protocol", "prequential:24:2"])
    }
}

#[test]
fn an_exported_model_comes_back_and_scores_as_before() {
    let runs = Runs::new();
    let [out, back, light] = ["out", "back", "light"].map(|name| runs.path(name));
    let bytes = runs.path("bytes");
    let (said, _) = good(&["export", &bytes, &out]);
    assert!(said.contains("parameters after 2 steps"), "{said}");
    // Nothing of the run is needed any more.
    let scores = runs.scores("bytes");
    good(&["export", &bytes, &light, "--format", "run"]);
    fs::remove_dir_all(&bytes).expect("removable");
    fs::remove_dir_all(runs.path("data")).expect("removable");
    let (_, noted) = good(&["import", &out, "--out", &back]);
    assert!(noted.contains("no corpus"), "{noted}");
    assert_eq!(runs.scores("back"), scores);
    assert_eq!(runs.scores("light"), scores);
    for run in [&back, &light] {
        bad(&["eval", run], 2, &["data.path", "no corpus"]);
        bad(&["train", &format!("{run}/config.toml"), "--resume"], 2, &["data.path"]);
        good(&["generate", run, "--prompt", "a small", "--max-tokens", "3"]);
    }
    bad(&["export", &light, &out], 1, &["out", "a new or empty folder"]);
    bad(
        &["export", &light, &runs.path("o"), "--format", "run", "--protocol", "elbo"],
        2,
        &["--protocol"],
    );
    bad(
        &["export", &light, &runs.path("o"), "--protocol", "elbo"],
        2,
        &["protocol", "prequential"],
    );
    bad(&["import", &out, "--out", &runs.path("o"), "--tokenizer", "bytes"], 2, &["--tokenizer"]);
    let weights = format!("{out}/model.safetensors");
    bad(&["import", &weights, "--out", &runs.path("o")], 2, &["--config", "--tokenizer"]);
    // The file alone, with what it does not contain.
    let config = runs.path("model.toml");
    fs::copy(format!("{light}/config.toml"), &config).expect("copied");
    let args = ["--config", &config, "--tokenizer", "bytes", "--set", "train.warmup=1", "--out"];
    good(&[&["import", &weights][..], &args, &[&runs.path("weights")]].concat());
    assert_eq!(runs.scores("weights"), scores);
}

#[test]
fn a_run_of_generated_stories_finds_them_again() {
    let runs = Runs::new();
    let (run, light) = (runs.path("stories"), runs.path("light"));
    let eval = |run: &str| json(&["eval", run, "--protocol", "elbo:2", "--sequences", "6"]);
    let scores = eval(&run);
    good(&["export", &run, &light, "--format", "run"]);
    let size: u64 = fs::read_dir(format!("{light}/checkpoints/step-2"))
        .expect("a checkpoint")
        .map(|entry| entry.expect("an entry").metadata().expect("a file").len())
        .sum();
    let weights = fs::metadata(format!("{light}/checkpoints/step-2/model.safetensors"));
    assert!(size < weights.expect("there").len() + 20_000, "weights alone: {size} bytes");
    fs::remove_dir_all(&run).expect("removable");
    assert_eq!(eval(&light), scores);
}
