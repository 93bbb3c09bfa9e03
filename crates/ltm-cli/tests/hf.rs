//! Exported models in PyTorch: the numbers of `ltm` and of the recorded fixtures, and lm-evaluation-harness without a
//! network. Needs a Python with `transformers` and `lm-eval`, which `LTM_PYTHON` names: `cargo xtask hf` makes one.

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use command::{good, json};
use serde_json::{Value, json};

const STRIDE: usize = 16;
const SAMPLES: usize = 3;
const MAX_TOKENS: usize = 24;

/// The interpreter, and a folder for a test's files.
struct Python {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Python {
    /// `None`, with a word, where no interpreter is named.
    fn new() -> Option<Self> {
        let Some(program) = std::env::var_os("LTM_PYTHON") else {
            eprintln!("skipped: LTM_PYTHON names no Python; `cargo xtask hf` makes one");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        Some(Self { program: program.into(), folder })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, content: &str) -> String {
        fs::write(self.path(name), content).expect("writable");
        self.path(name)
    }

    /// Runs it without a network: whatever is not in the folders is not found.
    fn run<'a>(&self, args: impl IntoIterator<Item = &'a str>) {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(self.folder.path());
        for offline in ["HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env(offline, "1");
        }
        command.env("HF_HOME", self.path("hf-home")).env("PYTHONDONTWRITEBYTECODE", "1");
        let out = command.output().expect("the interpreter starts");
        let [stdout, stderr] = [&out.stdout, &out.stderr].map(|text| String::from_utf8_lossy(text));
        assert!(out.status.success(), "{:?}\n{stdout}\n{stderr}", out.status);
        println!("{stdout}");
    }

    fn check(&self, args: &[&str]) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hf/check.py");
        let script = script.display().to_string();
        self.run([script.as_str()].into_iter().chain(args.iter().copied()));
    }

    /// Trains a small model on `data` and exports it; returns its run and its model.
    fn train(&self, name: &str, data: &str, set: &[&str]) -> [String; 2] {
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
        let (run, model) = (self.path(&format!("{name}-run")), self.path(name));
        let mut args =
            vec!["train".to_string(), config.display().to_string(), "--no-samples".into()];
        let dir = format!("run.dir={run}");
        let more = ["train.steps=20", "model.init_std=0.2", "data.rows=documents", &dir, data];
        for set in more.iter().chain(set) {
            args.extend(["--set".into(), set.to_string()]);
        }
        good(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let protocol = format!("prequential:{STRIDE}:{SAMPLES}");
        good(&["export", &run, &model, "--protocol", &protocol]);
        [run, model]
    }

    /// Compares an exported run with what `ltm` computes of these documents.
    fn compare(&self, [run, model]: &[String; 2], documents: &[String], kind: Kind) {
        let file = self.write("documents.jsonl", &lines(documents));
        let scores = format!("{model}.scores.jsonl");
        let protocols = match kind {
            Kind::Plain => vec!["autoregressive".to_string()],
            _ => vec![format!("elbo:{SAMPLES}"), format!("prequential:{STRIDE}:{SAMPLES}")],
        };
        let mut eval = vec!["eval", run, &file, "--per-document", &scores];
        eval.extend(protocols.iter().flat_map(|protocol| ["--protocol", protocol]));
        good(&eval);
        let first: Vec<&str> = documents[1].split(' ').take(5).collect();
        let prompt = first.join(" ");
        let most = MAX_TOKENS.to_string();
        let greedy = json(&[
            "generate",
            run,
            "--prompt",
            &prompt,
            "--temperature",
            "0",
            "--max-tokens",
            &most,
        ]);
        let encoded = format!("{model}.safetensors");
        if kind == Kind::Encoded {
            good(&["think", run, "--text", &prompt, "--steps", "0", "--save", &encoded]);
        }
        let case = json!({
            "model": model, "scores": scores, "documents": documents, "prompt": prompt,
            "stride": STRIDE, "samples": SAMPLES, "max_tokens": MAX_TOKENS, "greedy": greedy["text"],
            "closed_form": kind == Kind::Gaussian,
            "encoded": if kind == Kind::Encoded { Value::from(encoded) } else { Value::Null },
            "saved": format!("{model}-saved"),
        });
        self.check(&["run", &self.write("case.json", &case.to_string())]);
        // What `save_pretrained` writes is a model, too.
        let again = format!("{model}-again");
        good(&["import", &format!("{model}-saved"), "--out", &again]);
        let shown =
            |run: &str| good(&["eval", run, &file, "--protocol", &protocols[0], "--json"]).0;
        assert_eq!(shown(&again), shown(run));
    }
}

/// What is compared of a model besides its scores.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// The KL of a posterior from the standard normal prior.
    Gaussian,
    /// What an encoder predicts.
    Encoded,
    /// Nothing: there are no latents.
    Plain,
}

/// Documents as JSON lines.
fn lines(documents: &[String]) -> String {
    documents.iter().map(|text| json!({ "text": text }).to_string() + "\n").collect()
}

/// Documents that any tokenizer has ids for.
fn documents() -> Vec<String> {
    let text = |i: usize| format!("a small dog number {i} saw {} naïve cats, unbelievably.", 7 * i);
    (1..=6).map(text).collect()
}

/// A corpus of these documents by a tokenizer; returns the setting that names it.
fn corpus(python: &Python, name: &str, tokenizer: &[&str]) -> String {
    let file = python.write(&format!("{name}.jsonl"), &lines(&documents()));
    let out = python.path(name);
    good(&[&["data", "prepare", &file, "--out", &out][..], tokenizer].concat());
    format!("data.path={out}")
}

#[test]
fn stories_with_a_drawn_start_agree() {
    let Some(python) = Python::new() else { return };
    let model = python.train("stories", "infer.noise=fixed", &["infer.init_log_var_std=0.1"]);
    let texts = (0..4).map(|seed| {
        let args = ["generate", &model[0], "--prompt", "one sunny morning", "--max-tokens", "40"];
        let text = json(&[&args[..], &["--no-stop", "--seed", &seed.to_string()]].concat());
        text["text"].as_str().expect("text").replace("<|endoftext|>", "").replace("  ", " ")
    });
    let texts: Vec<String> = texts.collect();
    // As the words are joined by the tokenizer.
    let texts: Vec<String> = texts.iter().map(|text| text.trim().to_string()).collect();
    python.compare(&model, &texts, Kind::Gaussian);
}

#[test]
fn an_encoder_a_learned_prior_and_a_map_agree() {
    let Some(python) = Python::new() else { return };
    let data = corpus(&python, "bytes", &["--tokenizer", "bytes"]);
    let parts = ["model.encoder_width=8", "model.prior_layers=2", "model.map_layers=1"];
    let model = python.train("parts", &data, &[&parts[..], &["infer.start=encoder"]].concat());
    python.compare(&model, &documents(), Kind::Encoded);
    harness(&python, &model[1]);
}

#[test]
fn columns_own_units_and_early_stops_agree_over_a_part_of_gpt2() {
    let Some(python) = Python::new() else { return };
    let data = corpus(&python, "subset", &["--tokenizer", "gpt2", "--min-count", "3"]);
    let infer = ["infer.rank=2", "infer.units=posterior", "infer.stop_window=2", "infer.steps=6"];
    let model = python.train("columns", &data, &[&infer[..], &["infer.start=prior"]].concat());
    python.compare(&model, &documents(), Kind::Gaussian);
}

#[test]
fn a_model_without_latents_over_a_tokenizer_s_file_agrees() {
    let Some(python) = Python::new() else { return };
    // Any tokenizer.json: that of the bytes.
    let bytes = corpus(&python, "bytes", &["--tokenizer", "bytes"]);
    let [_, model] = python.train("first", &bytes, &[]);
    let file = format!("{model}/tokenizer.json");
    let data = corpus(&python, "file", &["--tokenizer", &file]);
    let model = python.train("plain", &data, &["model.n_latents=0"]);
    python.compare(&model, &documents(), Kind::Plain);
}

/// Multiple choice, rolling log-likelihoods and generation by lm-evaluation-harness, from local files.
fn harness(python: &Python, model: &str) {
    let tasks = python.path("tasks");
    fs::create_dir(&tasks).expect("a folder");
    let problem = |text: &String| {
        let (question, _) = text.split_at(20);
        json!({ "question": question, "text": text, "choices": [" dog", " zzz"], "answer": 0 })
    };
    let problems: String =
        documents().iter().take(3).map(|text| problem(text).to_string() + "\n").collect();
    let data = python.write("tasks/problems.jsonl", &problems);
    let task = |name: &str, more: &str| {
        let text = format!(
            "task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {data}\ntest_split: train\n{more}"
        );
        python.write(&format!("tasks/{name}.yaml"), &text);
    };
    task(
        "choice",
        "output_type: multiple_choice\ndoc_to_text: '{{question}}'\ndoc_to_choice: '{{choices}}'\n\
         doc_to_target: answer\nmetric_list:\n  - metric: acc\n",
    );
    task(
        "rolling",
        "output_type: loglikelihood_rolling\ndoc_to_text: ''\ndoc_to_target: '{{text}}'\n\
         metric_list:\n  - metric: bits_per_byte\n",
    );
    task(
        "writes",
        "output_type: generate_until\ndoc_to_text: '{{question}}'\ndoc_to_target: '{{text}}'\n\
         generation_kwargs:\n  until: ['.']\n  max_gen_toks: 4\nmetric_list:\n  - metric: exact_match\n",
    );
    let out = python.path("harness");
    // A rolling task puts a separator before a text itself.
    for (names, more) in [("choice,writes", ""), ("rolling", ",add_bos_token=False")] {
        let args = format!("pretrained={model},trust_remote_code=True{more}");
        let call = ["-m", "lm_eval", "--model", "hf", "--model_args", &args, "--tasks", names];
        let local = ["--include_path", &tasks, "--device", "cpu", "--batch_size", "2"];
        let kept = ["--log_samples", "--output_path", &out];
        python.run(call.into_iter().chain(local).chain(kept));
    }
    let files = fs::read_dir(&out).expect("results").flatten().flat_map(|folder| {
        fs::read_dir(folder.path()).expect("a folder").flatten().map(|entry| entry.path())
    });
    let files: Vec<PathBuf> = files.collect();
    let of = |start: &str| {
        let named = |path: &&PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
        };
        let found = files.iter().find(named);
        found.unwrap_or_else(|| panic!("{start} is not among {files:?}")).display().to_string()
    };
    for name in ["rolling", "choice"] {
        python.check(&[name, model, &of(&format!("samples_{name}"))]);
    }
    assert!(fs::read_to_string(of("samples_writes")).expect("samples").lines().count() == 3);
}

#[test]
fn fixtures_agree() {
    let Some(python) = Python::new() else { return };
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-model/tests/fixtures");
    let folder = std::env::var_os("LTM_FIXTURES").map_or_else(own, PathBuf::from);
    let mut files: Vec<PathBuf> =
        fs::read_dir(&folder).expect("fixtures").flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    assert!(files.len() >= 2, "fixtures in {}", folder.display());
    for path in files {
        let path = path.display().to_string();
        let name = Path::new(&path).file_stem().expect("a name").to_string_lossy().into_owned();
        let folder = python.path(&name);
        fs::create_dir(&folder).expect("a folder");
        python.check(&["fixture", &path, &folder]);
        let [weights, config, tokenizer] = ["weights.safetensors", "model.toml", "tokenizer.json"]
            .map(|name| format!("{folder}/{name}"));
        let (run, model) = (format!("{folder}/run"), format!("{folder}/model"));
        let args = ["--config", &config, "--tokenizer", &tokenizer, "--out", &run];
        good(&[&["import", &weights][..], &args].concat());
        good(&["export", &run, &model]);
        python.check(&["weights", &path, &model]);
    }
}
