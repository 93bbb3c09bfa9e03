//! The model that ships: small, usable right after the clone, with latents that save more than they cost.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{good, json};

/// Bytes of a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    entries
        .map(|entry| match entry.file_type().expect("a kind").is_dir() {
            // What an evaluation generates here is not part of the model.
            true if entry.file_name() == "data" => 0,
            true => size(&entry.path()),
            false => entry.metadata().expect("readable").len(),
        })
        .sum()
}

fn model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/storyworld")
}

#[test]
fn it_is_small_and_names_no_other_machine() {
    assert!(size(&model()) < 3 << 20);
    for file in ["config.toml", "checkpoints/step-32000/state.json"] {
        let text = fs::read_to_string(model().join(file)).expect("there");
        assert!(!text.contains('/'), "{file} names a path");
    }
}

#[test]
fn its_latents_save_more_than_they_cost() {
    let model = model().display().to_string();
    let text = "one sunny morning , tom went to the river";
    let (shown, _) = good(&["think", &model, "--text", text, "--json"]);
    let last = shown.lines().last().expect("the bounds");
    let bounds: serde_json::Value = serde_json::from_str(last).expect("JSON");
    let of = |key: &str| bounds[key].as_f64().unwrap_or_else(|| panic!("{key} in {bounds}"));
    assert!(of("mean_bound") + 3.0 < of("prior_bound"), "{bounds}");
    let story = json(&["generate", &model, "--prompt", "one sunny morning", "--seed", "1"]);
    assert!(story["tokens"].as_u64().is_some_and(|tokens| tokens > 20), "{story}");
}
