//! Runs that stop, move, change or break, seen from outside: what is resumed, and what is refused by name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ltm_testkit::copy_folder;
use ltm_train::data::{Split, storyworld};
use ltm_train::ltm_files::Error as FileError;
use ltm_train::metrics::METRICS_FILE;
use ltm_train::{
    Checkpoint, Config, Error, Next, Observer, Run, Start, StepReport, Summary, run_data,
};

/// A run of four steps that saves after each second one, in `dir`.
fn config(dir: &Path, set: &[&str]) -> Config {
    let mut all = vec![
        format!("run.dir='{}'", dir.display()),
        "data.documents=12".into(),
        "data.val_documents=2".into(),
        "model.dim=8".into(),
        "infer.steps=2".into(),
        "train.batch=1".into(),
        "train.micro_batches=1".into(),
        "train.steps=4".into(),
        "train.warmup=1".into(),
        "train.eval_every=0".into(),
        "train.eval_sequences=1".into(),
    ];
    all.extend(set.iter().map(ToString::to_string));
    Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &all).expect("good")
}

fn new(dir: &Path, set: &[&str], start: Start) -> Result<Run, Error> {
    Run::new(config(dir, set), start)
}

fn train(dir: &Path, set: &[&str], start: Start) -> Result<Summary, Error> {
    new(dir, set, start)?.run(&mut ())
}

fn refused(result: Result<impl Sized, Error>, parts: &[&str]) -> Error {
    let error = result.err().expect("refused");
    let message = error.to_string();
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    assert!(!message.contains("--"), "a library does not name options: {message}");
    error
}

/// Every file under a folder with its content.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("listable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            files.append(&mut snapshot(&path));
        } else {
            files.insert(path.clone(), fs::read(&path).expect("readable"));
        }
    }
    files
}

#[test]
fn a_run_is_started_once_and_resumed_only_where_it_is() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    let error = refused(new(&dir, &[], Start::Resume), &["run", "no checkpoint to resume from"]);
    assert!(matches!(error, Error::NothingToResume { .. }) && !dir.exists(), "nothing is created");
    train(&dir, &[], Start::Fresh).expect("trained");
    let before = snapshot(&dir);
    let error = refused(new(&dir, &[], Start::Fresh), &["already contains a run"]);
    assert!(matches!(error, Error::RunExists { .. }));
    let error = refused(new(&dir, &["train.steps=3"], Start::Resume), &["train.steps", "4", "3"]);
    assert!(matches!(error, Error::Field { .. }));
    refused(
        new(&dir, &["model.window=8", "train.batch=2", "run.seed=9"], Start::Resume),
        &["model.window = 16", "model.window = 8", "train.batch = 1", "run.seed = 9"],
    );
    assert_eq!(snapshot(&dir), before, "what is refused changes nothing");
}

#[test]
fn a_folder_has_one_writer() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    let first = new(&dir, &[], Start::Fresh).expect("free");
    let before = snapshot(&dir);
    for start in [Start::Fresh, Start::FreshOrResume] {
        let error = refused(new(&dir, &[], start), &["in use by process", "since"]);
        assert!(matches!(error, Error::File(FileError::Locked { .. })));
    }
    assert_eq!(snapshot(&dir), before);
    drop(first);
    new(&dir, &[], Start::Fresh).expect("free again");
}

#[test]
fn other_data_is_refused_unless_that_is_accepted() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [one, same, other] = [(1, "one"), (1, "same"), (2, "other")].map(|(seed, name)| {
        let dir = temp.path().join(name);
        let parameters = storyworld::Parameters { seed, documents: 12, val_documents: 2 };
        storyworld::write(&dir, &parameters).expect("written");
        format!("data.path='{}'", dir.display())
    });
    let dir = temp.path().join("run");
    let rows = "data.rows=documents";
    train(&dir, &[&one, rows], Start::Fresh).expect("trained");
    let before = snapshot(&dir);
    let more = "train.steps=5";
    refused(new(&dir, &[&other, rows, more], Start::Resume), &["data has changed", "seed: 1 → 2"]);
    refused(
        new(&dir, &[&one, "data.rows=windows", more], Start::Resume),
        &["data.rows: documents → windows"],
    );
    assert_eq!(snapshot(&dir), before, "what is refused changes nothing");
    let resumed = new(&dir, &[&same, rows, more], Start::Resume).expect("the same data elsewhere");
    assert!(resumed.changes().data.is_empty());
    drop(resumed);
    let resumed = new(&dir, &[&other, rows, more], Start::ResumeOnChangedData).expect("accepted");
    assert!(resumed.changes().data.iter().any(|change| change.key == "storyworld.seed"));
}

#[test]
fn generated_data_of_another_size_is_refused_or_generated_again() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&dir, &[], Start::Fresh).expect("trained");
    let set = ["data.documents=13", "train.steps=5"];
    let before = snapshot(&dir);
    let error = refused(new(&dir, &set, Start::Resume), &["storyworld.documents: 12 → 13"]);
    assert!(matches!(error, Error::DataChanged { .. }), "{error}");
    assert_eq!(snapshot(&dir), before, "what is refused changes nothing");
    // The metrics do not reach the checkpoint: refused before the stories are removed.
    let metrics = dir.join(METRICS_FILE);
    let text = fs::read(&metrics).expect("readable");
    fs::write(&metrics, "").expect("writable");
    refused(new(&dir, &set, Start::ResumeOnChangedData), &["metrics.jsonl", "last step"]);
    fs::write(&metrics, text).expect("writable");
    assert_eq!(snapshot(&dir), before, "what is refused changes nothing");
    let resumed = new(&dir, &set, Start::ResumeOnChangedData).expect("accepted");
    assert!(resumed.changes().data.iter().any(|change| change.new == "13"));
    // A run that ended before its first checkpoint has left the stories of another seed.
    drop(resumed);
    fs::remove_dir_all(dir.join("checkpoints")).expect("removable");
    refused(new(&dir, &["run.seed=2"], Start::Fresh), &["storyworld.seed = 2", "found"]);
}

#[test]
fn data_that_changed_under_the_same_sidecar_are_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&dir, &[], Start::Fresh).expect("trained");
    for name in ["train-000.bin", "val-000.bin"] {
        let shard = dir.join("data").join(name);
        let content = fs::read(&shard).expect("readable");
        let mut changed = content.clone();
        changed[0] ^= 1;
        fs::write(&shard, changed).expect("writable");
        for start in [Start::Resume, Start::ResumeOnChangedData, Start::FreshOrResume] {
            refused(new(&dir, &["train.steps=5"], start), &[name, "SHA-256", "changed or damaged"]);
        }
        fs::write(&shard, content).expect("writable");
    }
    new(&dir, &["train.steps=5"], Start::Resume).expect("as it was");
}

#[test]
fn changed_keys_are_reported_one_by_one() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&dir, &[], Start::Fresh).expect("trained");
    let set = ["train.steps=6", "infer.steps=3", "train.betas=[0.5, 0.6]", "infer.noise=fixed"];
    let set = [&set[..], &["train.slow_gradient=trajectory", "train.clip=inf"]].concat();
    let resumed = new(&dir, &set, Start::Resume).expect("resumed");
    let found: Vec<_> = resumed.changes().keys.iter().map(ToString::to_string).collect();
    let expected = [
        "infer.noise: \"fresh\" → \"fixed\"",
        "infer.steps: 2 → 3",
        "train.betas: [0.9, 0.95] → [0.5, 0.6]",
        "train.clip: 1.0 → inf",
        "train.slow_gradient: \"final\" → \"trajectory\"",
        "train.steps: 4 → 6",
    ];
    assert_eq!(found, expected);
}

#[test]
fn more_steps_state_the_jump_of_the_rate_and_a_kept_schedule_has_none() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&dir, &[], Start::Fresh).expect("trained");
    let resumed = new(&dir, &["train.steps=8"], Start::Resume).expect("resumed");
    let jump = resumed.changes().jump.expect("the cosine is stretched");
    assert_eq!((jump.step, jump.before, jump.schedule_steps), (5, 2e-4, 4));
    assert!((jump.after - config(&dir, &["train.steps=8"]).train.lr_at(4)).abs() < 1e-15);
    assert!(jump.after > 1e-3, "{jump:?}");
    drop(resumed);
    let kept = ["train.steps=8", "train.schedule_steps=4"];
    let mut resumed = new(&dir, &kept, Start::Resume).expect("resumed");
    assert_eq!(resumed.changes().jump, None);
    resumed.run(&mut ()).expect("trained");
    let metrics = fs::read_to_string(dir.join(METRICS_FILE)).expect("there");
    let last = metrics.lines().rfind(|line| line.contains("\"lr\"")).expect("steps");
    assert!(last.contains("\"step\":8") && last.contains("\"lr\":0.0002"), "{last}");
    // Stopping and resuming with nothing changed is no jump.
    let dir = temp.path().join("other");
    new(&dir, &["train.steps=8"], Start::Fresh)
        .and_then(|mut run| run.run(&mut StopAfter(3)))
        .expect("stopped");
    let resumed = new(&dir, &["train.steps=8"], Start::Resume).expect("resumed");
    assert_eq!(*resumed.changes(), Default::default());
}

struct StopAfter(u64);

impl Observer for StopAfter {
    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        if report.step >= self.0 { Next::Stop } else { Next::Continue }
    }
}

#[test]
fn a_moved_run_finds_its_own_data() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let root = temp.path();
    let parameters = storyworld::Parameters { seed: 1, documents: 12, val_documents: 2 };
    fs::create_dir(root.join("a")).expect("creatable");
    storyworld::write(&root.join("a/data"), &parameters).expect("written");
    let path = format!("data.path='{}'", root.join("a/data").display());
    for set in [&[][..], &[&path, "data.rows=documents"]] {
        let dir = root.join("a/runs/x");
        train(&dir, set, Start::Fresh).expect("trained");
        // Copied alone, it uses the data where they are; moved with everything, the data beside it.
        let alone = root.join("alone");
        copy_folder(&dir, &alone);
        fs::rename(root.join("a"), root.join("b")).expect("moved");
        copy_folder(&root.join("b"), &root.join("a"));
        for (run, corpus) in [(&alone, "a/data"), (&root.join("b/runs/x"), "b/data")] {
            for place in [run.clone(), run.join("checkpoints/step-4")] {
                let checkpoint = Checkpoint::load(&place).expect("loaded");
                let config = checkpoint.configured(&[]).expect("good");
                assert_eq!(config, checkpoint.config);
                let found = fs::canonicalize(&config.run.dir).expect("there");
                assert_eq!(found, fs::canonicalize(run).expect("there"));
                let expected = if set.is_empty() { run.join("data") } else { root.join(corpus) };
                let found = fs::canonicalize(run_data::corpus_dir(&config)).expect("there");
                assert_eq!(found, fs::canonicalize(expected).expect("there"));
                run_data::open(&config, Split::Val).expect("opened");
            }
        }
        fs::remove_dir_all(&alone).expect("removable");
        fs::remove_dir_all(root.join("b")).expect("removable");
        fs::remove_dir_all(&dir).expect("removable");
    }
}

#[test]
fn foreign_files_and_half_folders_do_not_hide_a_whole_checkpoint() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&dir, &[], Start::Fresh).expect("trained");
    let checkpoints = dir.join("checkpoints");
    fs::write(checkpoints.join("step-90"), "a file").expect("writable");
    fs::create_dir(checkpoints.join("step-91")).expect("creatable");
    copy_folder(&checkpoints.join("step-4"), &checkpoints.join("step-92"));
    copy_folder(&checkpoints.join("step-4"), &checkpoints.join("step-004"));
    copy_folder(&checkpoints.join("step-4"), &checkpoints.join("step-5"));
    fs::remove_file(checkpoints.join("step-5/optimizer.safetensors")).expect("removable");
    // Counters that disagree, and a word list with a word twice, which no checksum covers.
    for (step, batches, words) in [(70, 4, "\"tom\""), (71, 71, "\"tom\", \"tom\"")] {
        let damaged = checkpoints.join(format!("step-{step}"));
        copy_folder(&checkpoints.join("step-4"), &damaged);
        let state = fs::read_to_string(damaged.join("state.json")).expect("readable");
        let state = state.replace("\"step\": 4", &format!("\"step\": {step}"));
        let state = state.replace("\"batches\": 4", &format!("\"batches\": {batches}"));
        let state = state.replace("\"tom\"", words);
        fs::write(damaged.join("state.json"), state).expect("writable");
    }
    fs::create_dir(checkpoints.join(".step-6.tmp")).expect("creatable");
    fs::create_dir(checkpoints.join(".step-6.ab12.ltm-tmp")).expect("creatable");
    fs::write(checkpoints.join("notes.txt"), "mine").expect("writable");
    let newest = Checkpoint::load(&dir).expect("found");
    assert_eq!((newest.state.step, newest.dir.clone()), (4, checkpoints.join("step-4")));
    let mut run = new(&dir, &["train.steps=8"], Start::Resume).expect("resumed");
    let ignored: String = run.ignored().iter().map(|error| format!("{error}\n")).collect();
    for part in ["step-90", "step-91", "step-92", "found 4", "step-5", "expected 70", "tom twice"] {
        assert!(ignored.contains(part), "`{part}` is not in {ignored}");
    }
    run.run(&mut ()).expect("trained through step 5 and 6");
    let mut left: Vec<_> = fs::read_dir(&checkpoints)
        .expect("listable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("text"))
        .collect();
    left.sort();
    let expected = [
        "notes.txt",
        "step-004",
        "step-5",
        "step-6",
        "step-70",
        "step-71",
        "step-8",
        "step-90",
        "step-91",
        "step-92",
    ];
    assert_eq!(left, expected);
    // Where there is no whole one, the reason is that of the newest.
    fs::remove_dir_all(checkpoints.join("step-6")).expect("removable");
    fs::remove_dir_all(checkpoints.join("step-8")).expect("removable");
    for start in [Start::Resume, Start::Fresh, Start::FreshOrResume] {
        let parts = ["expected a whole one", "step-92", "found 4", "remove", "`run.dir`"];
        refused(new(&dir, &["train.steps=9"], start), &parts);
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_a_checkpoint_of_another_step_is_not_resumed() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [dir, other] = ["run", "other"].map(|name| temp.path().join(name));
    train(&dir, &[], Start::Fresh).expect("trained");
    train(&other, &[], Start::Fresh).expect("trained");
    let checkpoints = dir.join("checkpoints");
    let foreign = other.join("checkpoints/step-2");
    std::os::unix::fs::symlink(&foreign, checkpoints.join("step-13")).expect("linkable");
    assert_eq!(Checkpoint::load(&dir).expect("found").dir, checkpoints.join("step-4"));
    refused(Checkpoint::load(&checkpoints.join("step-13")), &["expected 13", "found 2"]);
    let set = ["train.steps=6", "train.keep_last=2"];
    train(&dir, &set, Start::Resume).expect("resumed");
    for step in ["step-4", "step-6", "step-13"] {
        assert!(checkpoints.join(step).exists(), "{step}");
    }
    assert!(foreign.exists(), "another run's checkpoints stay");
    // A link of any other name is followed.
    let link = temp.path().join("best");
    std::os::unix::fs::symlink(&foreign, &link).expect("linkable");
    assert_eq!(Checkpoint::load(&link).expect("loaded").state.step, 2);
}

#[test]
fn damage_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let whole = temp.path().join("whole");
    train(&whole, &[], Start::Fresh).expect("trained");
    let dir = temp.path().join("run");
    let file = |name: &str| dir.join("checkpoints/step-4").join(name);
    let damage = |name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        if dir.exists() {
            fs::remove_dir_all(&dir).expect("removable");
        }
        copy_folder(&whole, &dir);
        let mut bytes = fs::read(file(name)).expect("readable");
        change(&mut bytes);
        fs::write(file(name), bytes).expect("writable");
    };
    let flip = |bytes: &mut Vec<u8>| *bytes.last_mut().expect("some") ^= 1;
    damage("model.safetensors", &flip);
    refused(Checkpoint::load(&dir), &["step-4/model.safetensors", "CRC-32C", "damaged"]);
    damage("optimizer.safetensors", &flip);
    let checkpoint = Checkpoint::load(&dir).expect("the weights are whole");
    refused(checkpoint.moments(), &["step-4/optimizer.safetensors", "CRC-32C"]);
    refused(new(&dir, &["train.steps=5"], Start::Resume), &["optimizer.safetensors", "damaged"]);
    // Not damaged by its checksum, and still not weights: NaN in both files.
    for (name, tensor) in [("model.safetensors", "tensor `"), ("optimizer.safetensors", "`v.")] {
        damage(name, &|bytes| {
            let end = bytes.len();
            bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
        });
        let text = fs::read_to_string(file("state.json")).expect("readable");
        let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        state["files"] = serde_json::json!({});
        fs::write(file("state.json"), state.to_string()).expect("writable");
        let error = Checkpoint::load(&dir).and_then(|checkpoint| checkpoint.moments());
        refused(error, &[name, tensor, "finite", "NaN"]);
    }
    damage("state.json", &|bytes| {
        let text = String::from_utf8(bytes.clone()).expect("text");
        *bytes = text.replace("\"step\": 4", "\"step\": 3").into_bytes();
    });
    refused(Checkpoint::load(&file("")), &["state.json", "step", "expected 4", "found 3"]);
    assert_eq!(Checkpoint::load(&dir).expect("the one before").state.step, 2);
    for (key, value) in [("seed", 7), ("batches", 9)] {
        damage("state.json", &|bytes| {
            let mut state: serde_json::Value = serde_json::from_slice(bytes).expect("JSON");
            state[key] = value.into();
            *bytes = state.to_string().into_bytes();
        });
        refused(Checkpoint::load(&file("")), &["state.json", key, &value.to_string()]);
        assert_eq!(Checkpoint::load(&dir).expect("the one before").state.step, 2);
    }
    damage("config.toml", &|bytes| bytes.truncate(10));
    refused(Checkpoint::load(&file("")), &["step-4/config.toml", "CRC-32C", "damaged"]);
    assert_eq!(Checkpoint::load(&dir).expect("the one before").state.step, 2);
    // As older checkpoints are: without a checksum.
    let text = fs::read_to_string(file("state.json")).expect("readable");
    let mut state: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    state["files"] = serde_json::json!({});
    fs::write(file("state.json"), state.to_string()).expect("writable");
    assert_eq!(Checkpoint::load(&dir).expect("the one before").state.step, 2);
    damage("state.json", &|bytes| bytes.truncate(20));
    refused(Checkpoint::load(&file("")), &["state.json", "counters"]);
    damage("state.json", &|_| ());
    let metrics = dir.join(METRICS_FILE);
    let text = fs::read_to_string(&metrics).expect("readable");
    let cut: String = text.lines().take(3).map(|line| format!("{line}\n")).collect();
    fs::write(&metrics, cut).expect("writable");
    refused(
        new(&dir, &["train.steps=5"], Start::Resume),
        &["metrics.jsonl", "last step", "found 3"],
    );
}

/// Saves after every step, and damages the run's weights so that a later step diverges.
struct Always;

impl Observer for Always {
    fn stepped(&mut self, _report: &StepReport, _seconds: f64) -> Next {
        Next::Save
    }
}

#[test]
fn the_last_good_checkpoint_is_one_that_was_scored_finite() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    // The second step is taken at a rate that makes weights finite, but useless.
    let set = ["train.lr=1e30", "train.lr_min=0.0", "train.warmup=2", "train.weight_decay=0.0"];
    let set = [&set[..], &["train.steps=50", "train.keep_last=1", "train.eval_every=0"]].concat();
    let mut run = new(&dir, &set, Start::Fresh).expect("started");
    let error = run.run(&mut Always).expect_err("diverges");
    let Error::NonFinite { step, last_good, .. } = &error else { panic!("{error}") };
    let saved = |step: u64| dir.join(format!("checkpoints/step-{step}"));
    assert!(saved(step - 1).exists(), "{error}");
    assert_eq!(*last_good, None, "its weights gave no finite loss");
    // The same after two good steps: the second is kept, although only one checkpoint is.
    drop(run);
    fs::remove_dir_all(&dir).expect("removable");
    train(&dir, &["train.steps=2"], Start::Fresh).expect("trained");
    let set = [&set[..], &["train.warmup=1"]].concat();
    let mut run = new(&dir, &set, Start::Resume).expect("resumed");
    let error = run.run(&mut Always).expect_err("diverges");
    let Error::NonFinite { step, last_good, .. } = &error else { panic!("{error}") };
    assert_eq!((*step, last_good), (4, &Some(saved(2))), "{error}");
    assert!(saved(2).exists() && saved(3).exists());
}
