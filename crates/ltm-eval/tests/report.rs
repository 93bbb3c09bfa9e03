//! The page of a sweep and of a run, from outside.
#![cfg(feature = "charts")]

use std::fs;
use std::path::Path;

use ltm_eval::sweep::SweepObserver;
use ltm_eval::{Sweep, report};
use ltm_train::{Observer, Run, Start};

struct Quiet;

impl Observer for Quiet {}
impl SweepObserver for Quiet {}

fn sweep(dir: &Path) -> Sweep {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let text = format!(
        "base = {base:?}\ndir = {:?}\nprotocols = [\"elbo:2\", \"elbo-fitted-noise\"]\n\
         eval_sequences = 4\n[budget]\nsteps = 1\n[set]\n\"train.lr_min\" = 0.0\n\
         [[grid]]\n\"infer.steps\" = [1, 2]\n\"infer.noise\" = [\"fixed\", \"fresh\"]\n\
         [[grid]]\n\"model.n_latents\" = [0]\n[[grid]]\nname = \"wild\"\n\"train.lr\" = 1e38\n\
         \"train.warmup\" = 0\n\"train.steps\" = 1\n",
        dir.join("sweep <1>")
    );
    let file = dir.join("sweep.toml");
    fs::write(&file, text).expect("writable");
    Sweep::load(&file, &[], None).expect("good")
}

#[test]
fn a_page_shows_every_point_and_stands_alone() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sweep = sweep(temp.path());
    sweep.run(&mut Quiet).expect("runs");
    let runs = [("run<b>", 1), ("other", 2)].map(|(name, steps)| {
        let mut config = sweep.points[0].placed.clone();
        config.run.dir = temp.path().join(name);
        config.infer.steps = steps;
        let dir = config.run.dir.clone();
        Run::new(config, Start::Fresh).expect("ready").run(&mut Quiet).expect("runs");
        dir
    });

    let out = temp.path().join("page");
    let [run, other] = runs;
    let inputs = [sweep.dir.clone(), run.clone(), other];
    let page = report::write(&inputs, &out, &mut |_, _| {}).expect("written");
    let html = fs::read_to_string(page).expect("there");
    for part in [
        "Sweep sweep &lt;1&gt;",
        "<ol class=\"findings\">",
        "Comparison of runs",
        "Lowest under <code>elbo:2</code> (valid bound)",
        "The configurations differ in <code>infer.steps</code> only.",
        "<td class=\"text\">paired</td>",
        "run&lt;b&gt;",
        "noise=fixed,infer.steps=1",
        "n_latents=0",
        "<code>elbo:2</code>",
        "optimistic",
        "Do more fast steps lower the score under <code>elbo-fitted-noise</code> with fixed noise (the \
         published protocol)?",
        "above the true entropy",
        "True entropy of the corpus",
        "<strong>wild</strong> failed",
        "not finite",
        "Information in the latents",
        "Training batches, NLL + KL",
        "without a prompt<pre>",
    ] {
        assert!(html.contains(part), "`{part}` is not in\n{html}");
    }
    for loaded in ["src=", "<script", "<link", "@import", "url("] {
        assert!(!html.contains(loaded), "{loaded} would load something");
    }
    let alone = report::write(&[run], &temp.path().join("alone"), &mut |_, _| {}).expect("written");
    let alone = fs::read_to_string(alone).expect("there");
    assert!(alone.contains("Run run&lt;b&gt;") && !alone.contains("Comparison of runs"), "{alone}");
    // Every chart of the page is a file next to it too.
    let files: Vec<String> = fs::read_dir(&out)
        .expect("listable")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".svg"))
        .collect();
    assert_eq!(html.matches("<svg").count(), files.len());
    assert!(files.iter().all(|file| html.contains(&format!("href=\"{file}\""))), "{files:?}");
    assert!(files.iter().any(|file| file.starts_with("1-fast-steps-elbo-2")), "{files:?}");
    assert!(files.iter().any(|file| file == "2-training.svg"), "{files:?}");
}

#[test]
fn a_folder_that_is_neither_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let write = || report::write(&[temp.path().into()], &temp.path().join("out"), &mut |_, _| {});
    let error = write().expect_err("empty").to_string();
    assert!(error.contains("results.jsonl") && error.contains("metrics.jsonl"), "{error}");
    assert!(!temp.path().join("out").exists());
    fs::write(temp.path().join("results.jsonl"), "").expect("writable");
    assert!(write().expect_err("no line").to_string().contains("one line per point"));
}
