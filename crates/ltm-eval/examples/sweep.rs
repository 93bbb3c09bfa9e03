//! A sweep over the number of latents of a tiny model, and the page about it:
//! `cargo run -p ltm-eval --example sweep [FOLDER]`, in a temporary folder unless one is given.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use ltm_eval::sweep::{PointResult, SweepObserver};
use ltm_eval::{Sweep, report};
use ltm_train::Observer;

/// Every point of a sweep starts from it.
const BASE: &str = r#"
[data]
corpus = "storyworld"
documents = 64
val_documents = 8
[model]
dim = 16
n_layers = 2
n_heads = 2
max_seq_len = 96
window = 16
n_latents = 4
[infer]
steps = 4
[train]
steps = 6
batch = 2
seq_len = 96
lr = 2e-3
lr_min = 2e-4
warmup = 2
"#;

/// Its folder comes before it.
const SWEEP: &str = r#"
base = "base.toml"
protocols = ["elbo:2"]
eval_sequences = 4
[[grid]]
"model.n_latents" = [2, 4]
"#;

struct Progress;

impl Observer for Progress {}

impl SweepObserver for Progress {
    fn point_finished(&mut self, result: &PointResult) {
        println!("{}", result.json());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let temporary = tempfile::tempdir()?;
    let folder = std::env::args_os().nth(1).map(PathBuf::from);
    println!("{}", run(folder.as_deref().unwrap_or(temporary.path()))?.display());
    Ok(())
}

/// Trains and scores every point in `folder`, or continues where it was stopped; the path of the page.
fn run(folder: &Path) -> Result<PathBuf, Box<dyn Error>> {
    fs::write(folder.join("base.toml"), BASE)?;
    let file = folder.join("sweep.toml");
    fs::write(&file, format!("dir = {:?}\n{SWEEP}", folder.join("points")))?;
    let sweep = Sweep::load(&file, &[], None)?;
    let summary = sweep.run(&mut Progress)?;
    assert!(summary.finished && summary.results.iter().all(|result| result.outcome.is_ok()));
    Ok(report::write(&[sweep.dir], &folder.join("report"), &mut |_, _| {})?)
}

#[test]
fn runs() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let page = run(folder.path()).expect("a good example");
    assert!(fs::read_to_string(page).expect("written").contains("n_latents=4"));
}
