//! Clients that people use, unchanged, against `ltm serve`: the `openai` package and lm-evaluation-harness. Needs a Python
//! with both, which `LTM_PYTHON` names: `cargo xtask clients` makes one.

mod command;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use command::{good, json, ltm};
use serde_json::json;

/// Passages of the last-word task.
const PASSAGES: usize = 100;

/// A server that is ended with the test.
struct Server {
    process: Child,
    address: String,
}

impl Server {
    fn start(runs: &[&str]) -> Self {
        let args = [&["serve"][..], runs, &["--port", "0"]].concat();
        let mut process = ltm(&args).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut address = String::new();
        let mut output = BufReader::new(process.stdout.take().expect("asked for"));
        output.read_line(&mut address).expect("its first line is its address");
        Self { process, address: address.trim().into() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn clients_get_what_ltm_computes() {
    let Some(python) = std::env::var_os("LTM_PYTHON") else {
        eprintln!("skipped: LTM_PYTHON names no Python; `cargo xtask clients` makes one");
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let config = config.display().to_string();
    for (name, n_latents) in [("latents", "model.n_latents=4"), ("plain", "model.n_latents=0")] {
        let dir = format!("run.dir={}", path(name));
        let set = [&dir, n_latents, "train.steps=20", "model.init_std=0.2"];
        let set: Vec<&str> = set.iter().flat_map(|set| ["--set", *set]).collect();
        good(&[&["train", &config, "--no-samples"][..], &set].concat());
    }
    // Passages of the models' own words, of one length.
    let samples = path("samples.jsonl");
    let count = PASSAGES.to_string();
    let written = ["--max-tokens", "12", "--no-stop", "--count", &count, "--out", &samples];
    good(&[&["generate", &path("plain")][..], &written].concat());
    let texts: Vec<String> = fs::read_to_string(&samples)
        .expect("written")
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .map(|line| line["text"].as_str().expect("a text").replace("<|endoftext|>", " the "))
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let lines: String =
        texts.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect();
    let passages = path("passages.jsonl");
    fs::write(&passages, &lines).expect("writable");
    // What `ltm` computes: of the last words, and of the first text as a whole.
    let last_words = json(&["eval", &path("plain"), &passages, "--format", "lambada"]);
    let first = path("first.jsonl");
    fs::write(&first, json!({ "text": texts[0] }).to_string()).expect("writable");
    let whole = ["eval", &path("latents"), &first, "--protocol", "prequential:4:8"];
    let whole = json(&whole);
    let expected = path("expected.json");
    let case = json!({ "passages": passages, "last_words": last_words, "first": texts[0], "whole": whole });
    fs::write(&expected, case.to_string()).expect("writable");
    let server = Server::start(&[&path("latents"), &path("plain")]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/check.py");
    let mut check = Command::new(python);
    check.arg(script).args([&server.address, &expected]).current_dir(folder.path());
    check
        .env("HF_HUB_OFFLINE", "1")
        .env("HF_DATASETS_OFFLINE", "1")
        .env("HF_HOME", path("hf-home"));
    let out = check.env("PYTHONDONTWRITEBYTECODE", "1").output().expect("the interpreter starts");
    let [stdout, stderr] = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(out.status.success(), "{:?}\n{stdout}\n{stderr}", out.status);
    println!("{stdout}");
}
