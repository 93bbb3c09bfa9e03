//! `ltm config` from outside: what it shows, explains, documents and refuses.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use command::{bad, good};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn file(name: &str) -> String {
    root().join(name).display().to_string()
}

#[test]
fn the_reference_of_keys_is_up_to_date() {
    let reference = good(&["config", "reference"]).0;
    let path = root().join("docs/configuration.md");
    let kept = fs::read_to_string(&path).expect("docs/configuration.md");
    assert!(kept == reference, "run `ltm config reference > docs/configuration.md`");
    let schema: serde_json::Value =
        serde_json::from_str(&good(&["config", "schema"]).0).expect("JSON");
    assert_eq!(schema["properties"]["train"]["properties"]["lr"]["default"], 1e-3);
}

#[test]
fn show_prints_every_key_with_its_meaning_and_the_memory() {
    let config = file("configs/ltm-small.toml");
    let shown = good(&["config", "show", &config]).0;
    for part in
        ["peak memory of training, estimated: ", "optimizer state: 307.0", "# precision is not set"]
    {
        assert!(shown.contains(part), "`{part}` is not in\n{shown}");
    }
    let explained = good(&["config", "show", &config, "--explain"]).0;
    assert!(explained.contains("# Peak learning rate of the weights"), "{explained}");
    assert!(explained.contains("# Default: a tenth of `train.lr`."), "{explained}");
    let temp = tempfile::tempdir().expect("a temporary folder");
    let copy = temp.path().join("copy.toml");
    fs::write(&copy, &explained).expect("written");
    assert_eq!(good(&["config", "show", &copy.display().to_string()]).0, shown);
}

#[test]
fn every_configuration_of_the_project_is_accepted() {
    for folder in ["configs", "configs/baselines"] {
        for entry in fs::read_dir(root().join(folder)).expect("listable").flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "toml") {
                good(&["config", "check", &entry.path().display().to_string()]);
            }
        }
    }
}

#[test]
fn absurd_extents_are_refused_or_shown_without_their_memory() {
    let config = file("configs/quickstart.toml");
    let started = Instant::now();
    for set in ["train.batch=4000000000", "train.steps=many", "run.device=gpu", "train.lr_min=1"] {
        let name = set.split('=').next().expect("a key");
        bad(
            &["config", "check", &config, "--set", set],
            2,
            &["quickstart.toml", name, "expected", "found"],
        );
    }
    // A batch that no machine holds: terabytes are stated, not asked for.
    let large =
        ["--set", "train.batch=100000", "--set", "model.dim=8192", "--set", "model.n_heads=64"];
    let shown = good(&[&["config", "show", &config][..], &large].concat()).0;
    assert!(shown.contains("000.") || shown.contains("GB"), "{shown}");
    let grid = "base = \"BASE\"\ndir = \"x\"\n[[grid]]\n\"train.batch\" = [100000]\n\"model.dim\" = 8192\n";
    let temp = tempfile::tempdir().expect("a temporary folder");
    let sweep = temp.path().join("sweep.toml");
    fs::write(&sweep, grid.replace("BASE", &config)).expect("written");
    good(&["sweep", &sweep.display().to_string(), "--list"]);
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
