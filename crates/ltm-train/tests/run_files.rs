//! The files of a run one by one: what a checkpoint holds, which ones are kept, and what is there but cannot be read.

use std::fs;
use std::path::{Path, PathBuf};

use ltm_autodiff::AdamWState;
use ltm_kernels::Buffer;
use ltm_model::{Weights, param_table};
use ltm_testkit::copy_folder;
use ltm_train::checkpoint::{self, Found, State};
use ltm_train::config::RowKind;
use ltm_train::data::{Rows, Split, storyworld};
use ltm_train::eval::scores;
use ltm_train::metrics::{METRICS_FILE, tokens_seen};
use ltm_train::{Checkpoint, Config, Error, Run, Start, Trained, run_data};
use serde_json::{Value, json};

fn config(dir: &Path, set: &[&str]) -> Config {
    let place = format!("run.dir='{}'", dir.display());
    let set: Vec<String> =
        [place.as_str(), "model.dim=8"].iter().chain(set).map(ToString::to_string).collect();
    Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &set).expect("good")
}

/// Moments whose numbers tell which they are of.
fn moments(config: &Config) -> Vec<AdamWState> {
    let specs = param_table(&config.model);
    let numbers = |base: usize, len: usize| Buffer::from_vec(vec![base as f32; len]);
    let of = |(idx, spec): (usize, &ltm_model::ParamSpec)| AdamWState {
        m: numbers(2 * idx, spec.len()),
        v: numbers(2 * idx + 1, spec.len()),
        step: 0,
    };
    specs.iter().enumerate().map(of).collect()
}

fn save(config: &Config, step: u64, tokenizer: Option<&[u8]>) -> Result<PathBuf, Error> {
    let state = State {
        step,
        seed: config.run.seed,
        batches: step.wrapping_mul(config.train.micro_batches as u64),
        kl_balance: None,
        tokenizer: storyworld::tokenizer().spec(),
        data: None,
        files: Default::default(),
    };
    let weights = Weights::init(&config.model, 1).expect("good");
    checkpoint::save(config, &weights, &moments(config), &Default::default(), &state, tokenizer)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .expect("listable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

fn refused(result: Result<impl Sized, Error>, parts: &[&str]) {
    let error = result.err().expect("refused").to_string();
    for part in parts {
        assert!(error.contains(part), "`{part}` is not in {error}");
    }
}

#[test]
fn a_checkpoint_holds_what_was_saved_and_replaces_half_of_one() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let config = config(&run, &[]);
    let half = run.join("checkpoints/step-5");
    fs::create_dir_all(&half).expect("creatable");
    fs::write(half.join("model.safetensors"), "half").expect("writable");
    fs::write(half.join("left over"), "half").expect("writable");
    let dir = save(&config, 5, Some(b"a tokenizer")).expect("saved");
    assert_eq!(dir, half);
    let files = [
        "config.toml",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&dir), files);
    assert_eq!(names(&run.join("checkpoints")), ["step-5"], "nothing temporary is left");
    assert_eq!(fs::read_to_string(run.join("latest")).expect("there"), "checkpoints/step-5\n");
    let found = Checkpoint::load(&run).expect("whole");
    assert_eq!(
        (found.dir.as_path(), found.state.step, found.state.batches),
        (dir.as_path(), 5, 10)
    );
    assert_eq!(found.config, config);
    assert!(found.weights == Weights::init(&config.model, 1).expect("good"));
    let read = found.moments().expect("whole");
    assert_eq!(read.len(), param_table(&config.model).len());
    for (read, saved) in read.iter().zip(moments(&config)) {
        let numbers = |buffer: &Buffer| buffer.to_f32().expect("numbers");
        assert_eq!(numbers(&read.m), numbers(&saved.m));
        assert_eq!(numbers(&read.v), numbers(&saved.v));
        assert_eq!(read.step, 5);
    }
    // Sizes and checksums of all other files.
    assert!(found.state.files.keys().eq(files.iter().filter(|name| **name != "state.json")));
    for (name, checksum) in &found.state.files {
        let content = fs::read(dir.join(name)).expect("readable");
        let expected = (content.len() as u64, crc32c::crc32c(&content));
        assert_eq!((checksum.bytes, checksum.crc32c), expected, "{name}");
    }
}

#[test]
fn a_checkpoint_of_weights_alone_is_used_and_not_resumed() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let config = config(&run, &[]);
    let weights = Weights::init(&config.model, 1).expect("good");
    let whole = save(&config, 4, None).expect("saved");
    let state = Checkpoint::load(&whole).expect("whole").state;
    let state = State { step: 5, batches: 10, files: Default::default(), ..state };
    let dir =
        checkpoint::save(&config, &weights, &[], &Default::default(), &state, None).expect("saved");
    assert_eq!(names(&dir), ["config.toml", "model.safetensors", "state.json"]);
    let found = Checkpoint::load(&run).expect("usable, and the newest");
    assert_eq!(found.dir, dir);
    assert!(found.weights == weights);
    refused(found.moments(), &["optimizer.safetensors", "weights alone", "not trained further"]);
    // Without the optimiser's file of one that was saved with it, a checkpoint is not whole.
    fs::remove_dir_all(&dir).expect("removable");
    fs::remove_file(whole.join("optimizer.safetensors")).expect("removable");
    refused(Checkpoint::load(&run), &["step-4/optimizer.safetensors"]);
}

#[test]
fn the_newest_and_the_good_checkpoint_stay() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let config = config(&run, &[]);
    for step in [1, 2, 3, 4, 10] {
        save(&config, step, None).expect("saved");
    }
    let checkpoints = run.join("checkpoints");
    fs::create_dir(checkpoints.join("step-90")).expect("creatable");
    fs::write(checkpoints.join("notes"), "mine").expect("writable");
    let all = names(&checkpoints);
    checkpoint::prune(&run, 5, None).expect("pruned");
    assert_eq!(names(&checkpoints), all, "five are kept, and what is no checkpoint does not count");
    checkpoint::prune(&run, 2, Some(&checkpoints.join("step-1"))).expect("pruned");
    assert_eq!(names(&checkpoints), ["notes", "step-1", "step-10", "step-4", "step-90"]);
    checkpoint::prune(&run, 1, None).expect("pruned");
    assert_eq!(names(&checkpoints), ["notes", "step-10", "step-90"]);
}

#[test]
fn a_copied_checkpoint_belongs_to_the_run_that_it_is_in() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let saved = save(&config(&run, &[]), 5, None).expect("saved");
    let [loose, moved] =
        ["elsewhere/step-5", "other/checkpoints/step-5"].map(|name| temp.path().join(name));
    for copy in [&loose, &moved] {
        fs::create_dir_all(copy.parent().expect("a folder")).expect("creatable");
        copy_folder(&saved, copy);
    }
    let whole = |dir: &Path| fs::canonicalize(dir).expect("there");
    for (place, expected) in [
        (&saved, run.clone()),
        (&run, run.clone()),
        (&loose, run.clone()),
        (&moved, temp.path().join("other")),
    ] {
        let found = Checkpoint::load(place).expect("whole");
        assert_eq!(whole(&found.config.run.dir), whole(&expected), "{place:?}");
    }
}

#[test]
fn what_is_there_and_cannot_be_read_is_not_taken_for_nothing() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path();
    let Found { newest, ignored } = checkpoint::newest(&dir.join("none")).expect("nothing yet");
    assert!(newest.is_none() && ignored.is_empty());
    checkpoint::prune(&dir.join("none"), 1, None).expect("nothing to remove");
    refused(checkpoint::locate(&dir.join("none")), &["none", "open"]);
    refused(
        checkpoint::locate(dir),
        &["expected a checkpoint, or a run's folder", "found neither"],
    );
    fs::write(dir.join("checkpoints"), "a file").expect("writable");
    refused(checkpoint::newest(dir), &["checkpoints", "list"]);
    refused(checkpoint::locate(dir), &["checkpoints", "list"]);
    refused(checkpoint::prune(dir, 1, None), &["checkpoints", "list"]);

    let metrics = dir.join("metrics.jsonl");
    refused(tokens_seen(&metrics), &["metrics.jsonl", "read"]);
    let lines = "{\"step\":1,\"loss\":1.0,\"tokens\":40}\n{\"eval\":{},\"step\":1}\n\
                 {\"step\":2,\"loss\":1.0,\"tokens\":2}\n";
    fs::write(&metrics, lines).expect("writable");
    assert_eq!(tokens_seen(&metrics).expect("readable"), 42);

    assert!(scores::read(dir).expect("no scores").is_empty());
    fs::create_dir(dir.join("scores.jsonl")).expect("creatable");
    refused(scores::read(dir), &["scores.jsonl", "read"]);
}

#[test]
fn counters_and_moments_of_another_run_are_refused_by_name() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [run, other] = ["run", "other"].map(|name| temp.path().join(name));
    let dir = save(&config(&run, &[]), 5, None).expect("saved");
    let wide = save(&config(&other, &["model.dim=16"]), 5, None).expect("saved");
    // Without checksums, as earlier versions wrote them.
    let state_file = dir.join("state.json");
    let text = fs::read_to_string(&state_file).expect("readable");
    let mut state: Value = serde_json::from_str(&text).expect("JSON");
    state["files"] = json!({});
    fs::write(&state_file, state.to_string()).expect("writable");
    fs::copy(wide.join("optimizer.safetensors"), dir.join("optimizer.safetensors"))
        .expect("copied");
    let moments = || Checkpoint::load(&dir).expect("its weights are whole").moments();
    refused(moments(), &["optimizer.safetensors", "m.", "expected F32 [", ", 8]", ", 16]"]);
    fs::write(dir.join("optimizer.safetensors"), "none").expect("writable");
    refused(moments(), &["optimizer.safetensors", "a whole safetensors file"]);
    let model = dir.join("model.safetensors");
    fs::copy(&model, dir.join("optimizer.safetensors")).expect("copied");
    refused(moments(), &["optimizer.safetensors", "a tensor of this name"]);
    // Two micro-batches of so many steps are more than any counter holds.
    let last = save(&config(&temp.path().join("last"), &[]), u64::MAX, None).expect("saved");
    refused(Checkpoint::load(&last), &["state.json", "batches", "a number of 64 bits"]);
    // The words of a model with a smaller vocabulary.
    let mut small = config(&temp.path().join("small"), &[]);
    small.model.vocab_size -= 1;
    let dir = save(&small, 5, None).expect("saved");
    let expected = format!("a tokenizer with {} ids, as in the model", small.model.vocab_size);
    refused(Checkpoint::load(&dir), &["state.json", "tokenizer", &expected, "found words"]);
    assert!(storyworld::tokenizer().vocab_size() > small.model.vocab_size);
}

/// The values of a tag in an event file, in their order; see `metrics/tensorboard.rs` for the encoding.
fn scalars(events: &[u8], tag: &str) -> Vec<f32> {
    let field = [&[0x0a, tag.len() as u8], tag.as_bytes(), &[0x15]].concat();
    let places = events.windows(field.len()).enumerate().filter(|(_, bytes)| *bytes == field);
    let number = |at: usize| f32::from_le_bytes(events[at..at + 4].try_into().expect("4 bytes"));
    places.map(|(at, _)| number(at + field.len())).collect()
}

#[test]
fn tensorboard_has_the_numbers_of_the_metrics() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let set = [
        "data.documents=12",
        "data.val_documents=4",
        "train.steps=3",
        "infer.steps=2",
        "train.eval_every=2",
    ];
    let config = config(&temp.path().join("run"), &set);
    let dir = config.run.dir.clone();
    let summary = Run::new(config, Start::Fresh).expect("ready").run(&mut ()).expect("trained");
    let events = names(&dir).into_iter().find(|name| name.starts_with("events.out.tfevents."));
    let events = fs::read(dir.join(events.expect("an event file"))).expect("readable");
    let metrics = fs::read_to_string(dir.join(METRICS_FILE)).expect("there");
    let lines: Vec<Value> =
        metrics.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let numbers = |of: &dyn Fn(&Value) -> Option<f64>| -> Vec<f32> {
        lines.iter().filter_map(of).map(|number| number as f32).collect()
    };
    for key in ["loss", "kl", "bound_fitted_noise", "grad_norm", "lr"] {
        let expected = numbers(&|line| line[key].as_f64());
        assert_eq!(expected.len(), 3, "{key}");
        assert_eq!(scalars(&events, &format!("train/{key}")), expected, "{key}");
    }
    for (name, protocol) in [
        ("reconstruction", "reconstruction"),
        ("elbo-fitted-noise", "elbo-fitted-noise"),
        ("elbo", "elbo:2"),
    ] {
        let expected = numbers(&|line| line["eval"][protocol]["nats_per_token"].as_f64());
        assert_eq!(expected.len(), 2, "after the second step and the last");
        assert_eq!(scalars(&events, &format!("val/{name}")), expected, "{name}");
    }
    // A step takes less than the run: its tokens per second are more than those over all of that time.
    let tokens = numbers(&|line| line["tokens"].as_f64());
    let rates = scalars(&events, "train/tokens_per_second");
    assert_eq!(rates.len(), 3);
    for (rate, tokens) in rates.iter().zip(tokens) {
        let least = tokens / summary.seconds as f32;
        assert!(rate.is_finite() && *rate > least, "{rate}, more than {least}");
    }
}

#[test]
fn a_changed_rate_is_a_jump_only_between_steps_that_were_taken_and_steps_to_take() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    for (taken, jumps) in [(0, false), (2, true), (3, false)] {
        let dir = temp.path().join(taken.to_string());
        let set = ["data.documents=12", "data.val_documents=4", "train.steps=3", "train.warmup=1"];
        save(&config(&dir, &set), taken, None).expect("saved");
        let lines: String = (1..=taken).map(|step| format!("{{\"step\":{step}}}\n")).collect();
        fs::write(dir.join(METRICS_FILE), lines).expect("writable");
        let changed = config(&dir, &[&set[..], &["train.lr=1e-3", "train.lr_min=1e-4"]].concat());
        let run = Run::new(changed, Start::Resume).expect("resumed");
        let changes = run.changes();
        assert_eq!(changes.jump.map(|jump| jump.step), jumps.then_some(taken + 1), "after {taken}");
        let keys: Vec<&str> = changes.keys.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["train.lr", "train.lr_min"]);
    }
}

#[test]
fn a_run_is_not_resumed_on_other_words_of_the_same_number() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [one, other] = ["one", "other"].map(|name| temp.path().join(name));
    let stories = storyworld::Parameters { seed: 1, documents: 12, val_documents: 4 };
    storyworld::write(&one, &stories).expect("written");
    copy_folder(&one, &other);
    let sidecar = other.join("meta.json");
    let text = fs::read_to_string(&sidecar).expect("readable");
    assert!(text.contains("\"tom\""));
    fs::write(&sidecar, text.replace("\"tom\"", "\"zoe\"")).expect("writable");
    let run = temp.path().join("run");
    let on = |data: &Path| {
        let path = format!("data.path='{}'", data.display());
        config(&run, &[&path, "data.rows=documents", "train.steps=3", "train.warmup=1"])
    };
    save(&on(&one), 2, None).expect("saved");
    fs::write(run.join(METRICS_FILE), "{\"step\":1}\n{\"step\":2}\n").expect("writable");
    for start in [Start::Resume, Start::ResumeOnChangedData, Start::FreshOrResume] {
        let parts = [
            "step-2",
            "expected the tokenizer of the data, words with `zoe` as id",
            "found words with `tom` as id",
        ];
        refused(Run::new(on(&other), start), &parts);
    }
    Run::new(on(&one), Start::Resume).expect("the same words");
}

#[test]
fn a_trained_model_becomes_a_run_without_training_or_places() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let config = config(&run, &["train.clip=inf", "infer.start=prior"]);
    save(&config, 4, None).expect("saved");
    let trained = Trained::try_from(Checkpoint::load(&run).expect("whole")).expect("usable");
    let (out, moved) = (temp.path().join("out"), temp.path().join("moved"));
    let dir = trained.write_run(&out).expect("written");
    assert_eq!(names(&dir), ["config.toml", "model.safetensors", "state.json"]);
    for file in [dir.join("config.toml"), out.join("config.toml"), dir.join("state.json")] {
        let text = fs::read_to_string(&file).expect("readable");
        assert!(!text.contains(&temp.path().display().to_string()), "{text}");
    }
    fs::rename(&out, &moved).expect("renamed");
    let found = Checkpoint::load(&moved).expect("a run");
    assert!(found.weights == trained.weights);
    assert_eq!((found.state.step, found.state.batches), (4, 8));
    let mut placed = config.clone();
    (placed.run.dir, placed.data.rows) = (moved.clone(), Some(RowKind::Documents));
    assert_eq!(found.config, placed);
    refused(found.moments(), &["weights alone"]);
    // The corpus is generated where it is needed.
    let val = run_data::open(&found.config, Split::Val).expect("generated");
    assert!(val.per_epoch() > 0 && moved.join("data").is_dir());
    refused(trained.write_run(&moved), &["moved", "a new or empty folder"]);
    // One trained on files has none.
    let mut filed = Checkpoint::load(&run).expect("whole");
    filed.config.data.path = Some("/a/corpus".into());
    let filed = Trained::try_from(filed).expect("usable");
    assert_eq!(filed.config.data.row_kind(), Rows::Windows);
    assert!(!filed.has_corpus() && trained.has_corpus());
    filed.write_run(&out).expect("written");
    let found = Checkpoint::load(&out).expect("a run");
    refused(run_data::open(&found.config, Split::Val), &["data.path", "no corpus"]);
}
