//! Processes that are killed, or that meet in one folder: nothing is lost but the steps since a checkpoint, and what is
//! resumed ends with the files of a run that was never interrupted, byte for byte.
//!
//! `LTM_KILLS` sets the number of kills, `LTM_KILL_SEED` the seed of their moments.
#![cfg(unix)]

mod command;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use command::{bad, good, ltm};

/// What a run is judged by.
const FILES: [&str; 4] = [
    "metrics.jsonl",
    "checkpoints/step-12/model.safetensors",
    "checkpoints/step-12/optimizer.safetensors",
    "latest",
];

struct Setup {
    _temp: tempfile::TempDir,
    root: PathBuf,
    set: Vec<String>,
}

impl Setup {
    /// A corpus of its own, so that no time goes into the generation of one.
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let root = temp.path().to_path_buf();
        let (text, corpus) = (root.join("text.txt"), root.join("corpus"));
        fs::write(&text, "the quick brown fox jumps over the lazy dog. ".repeat(60))
            .expect("writable");
        let [text, corpus] = [text, corpus].map(|path| path.to_str().expect("text").to_string());
        good(&[
            "data",
            "prepare",
            &text,
            "--tokenizer",
            "bytes",
            "--out",
            &corpus,
            "--val-fraction",
            "0",
        ]);
        let set = [
            &format!("data.path={corpus}")[..],
            "model.dim=8",
            "model.n_layers=1",
            "model.n_latents=1",
            "infer.steps=1",
            "train.seq_len=32",
            "train.batch=1",
            "train.micro_batches=1",
            "train.steps=12",
            "train.checkpoint_every=2",
            "train.eval_every=0",
        ];
        Self { _temp: temp, root, set: set.map(String::from).into() }
    }

    fn train(&self, dir: &Path, resume: bool) -> Command {
        let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../ltm-train/tests/tiny.toml");
        let mut command = ltm(&["train", tiny, "--no-samples", "--set"]);
        command.arg(format!("run.dir={}", dir.display()));
        for set in &self.set {
            command.args(["--set", set]);
        }
        if resume {
            command.arg("--resume");
        }
        command.env("RAYON_NUM_THREADS", "1").stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn files(&self, dir: &Path) -> Vec<Vec<u8>> {
        FILES.map(|name| fs::read(dir.join(name)).expect(name)).into()
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn has_checkpoint(dir: &Path) -> bool {
    fs::read_dir(dir.join("checkpoints")).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("step-"))
        })
    })
}

/// Hidden files of ours, anywhere under a folder.
fn hidden(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).expect("listable") {
        let path = entry.expect("readable").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            found.push(path);
        } else if path.is_dir() {
            found.extend(hidden(&path));
        }
    }
    found
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn killed_at_random_and_resumed_equals_never_interrupted() {
    let setup = Setup::new();
    let straight = setup.root.join("straight");
    let begun = Instant::now();
    let output = setup.train(&straight, false).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output));
    let whole = begun.elapsed();
    let expected = setup.files(&straight);

    let kills = number("LTM_KILLS", 4);
    let mut random = number("LTM_KILL_SEED", 1);
    let (mut done, mut runs, mut resumes) = (0, 0, 0);
    while done < kills {
        let dir = setup.root.join(format!("run-{runs}"));
        runs += 1;
        // A run that is killed again and again need not end: the last attempt is left alone.
        for attempt in 0.. {
            let resume = has_checkpoint(&dir);
            resumes += u64::from(resume);
            let mut child = setup.train(&dir, resume).spawn().expect("starts");
            if done < kills && attempt < 8 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let share = (random >> 33) as f64 / (1_u64 << 31) as f64;
                std::thread::sleep(whole.mul_f64(1.1 * share));
                child.kill().expect("killable");
                done += 1;
            }
            let output = child.wait_with_output().expect("ends");
            assert!(!text(&output).contains("panicked"), "{}", text(&output));
            if output.status.success() {
                break;
            }
            // Killed, and in no other way unsuccessful.
            assert_eq!(output.status.code(), None, "{}", text(&output));
        }
        assert_eq!(setup.files(&dir), expected, "run {runs} after {done} kills");
        assert_eq!(hidden(&dir), [""; 0].map(PathBuf::from), "leftovers");
    }
    println!("{done} kills, {runs} runs, {resumes} resumes: all equal to the uninterrupted run");
}

#[test]
fn of_two_writers_one_is_refused_and_the_other_ends_as_if_alone() {
    let setup = Setup::new();
    let straight = setup.root.join("straight");
    assert!(setup.train(&straight, false).output().expect("starts").status.success());
    let expected = setup.files(&straight);
    for trial in 0..number("LTM_WRITERS", 2) {
        let dir = setup.root.join(format!("run-{trial}"));
        let writers = [(); 2].map(|()| setup.train(&dir, false).spawn().expect("starts"));
        let outputs = writers.map(|writer| writer.wait_with_output().expect("ends"));
        let (good, bad): (Vec<_>, Vec<_>) =
            outputs.iter().partition(|output| output.status.success());
        assert_eq!((good.len(), bad.len()), (1, 1), "{}{}", text(&outputs[0]), text(&outputs[1]));
        let message = text(bad[0]);
        assert_eq!(bad[0].status.code(), Some(1), "{message}");
        let held = message.contains("in use by ") || message.contains("already contains a run");
        assert!(held, "{message}");
        assert_eq!(setup.files(&dir), expected);
    }
}

/// A run that does not end by itself, stopped by a signal after its first step.
fn stopped_by(setup: &Setup, dir: &Path, signals: &[&str], stdout: Stdio) -> Output {
    let mut command = setup.train(dir, false);
    command.stdout(stdout);
    command.args(["--set", "train.steps=1000000", "--set", "train.checkpoint_every=1000000"]);
    let child = command.spawn().expect("starts");
    let metrics = dir.join("metrics.jsonl");
    let begun = Instant::now();
    while fs::metadata(&metrics).map_or(0, |found| found.len()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "no step was taken");
        std::thread::sleep(Duration::from_millis(5));
    }
    for signal in signals {
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid[..]]).status().expect("starts").success());
        if *signal == "-USR1" {
            while !has_checkpoint(dir) {
                assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint was saved");
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
    child.wait_with_output().expect("ends")
}

/// Whether this process ignores SIGHUP, bit 0 of the mask that Linux shows.
fn ignores_hangup() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_some_and(|mask| mask.trim().ends_with(['1', '3', '5', '7', '9', 'b', 'd', 'f']))
}

#[test]
fn signals_save_and_set_the_exit_status() {
    let setup = Setup::new();
    // Under `nohup` a hangup is ignored, and the command, which inherits that, goes on.
    let hangup =
        if ignores_hangup() { (&["-HUP", "-TERM"][..], 143) } else { (&["-HUP"][..], 129) };
    for (signals, status) in [(&["-INT"][..], 130), (&["-TERM"], 143), hangup] {
        let dir = setup.root.join(format!("it's{}", signals[0]));
        let output = stopped_by(&setup, &dir, signals, Stdio::piped());
        assert_eq!(output.status.code(), Some(status), "{}", text(&output));
        assert!(has_checkpoint(&dir) && hidden(&dir).is_empty());
        assert!(text(&output).contains("saving a checkpoint"), "{}", text(&output));
        // The line that resumes it survives a shell, with the quote in the folder's name.
        let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = stdout.lines().find_map(|line| line.strip_prefix("to go on: cd "));
        let line = line.unwrap_or_else(|| panic!("{stdout}"));
        let words = shlex::split(line).expect("a shell's words");
        assert!(words.contains(&format!("run.dir={}", dir.display())), "{line}");
        assert_eq!(words.last().map(String::as_str), Some("--resume"));
    }
    // A warning saves and goes on.
    let dir = setup.root.join("warned");
    let output = stopped_by(&setup, &dir, &["-USR1", "-TERM"], Stdio::piped());
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
    // The status is that of the signal, too, where nobody reads the output.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = stopped_by(&setup, &setup.root.join("unread"), &["-TERM"], writer.into());
    assert_eq!(output.status.code(), Some(143), "{}", text(&output));
}

#[test]
fn what_cannot_be_resumed_is_refused_with_the_option_that_helps() {
    let setup = Setup::new();
    let dir = setup.root.join("run");
    let refused = |more: &[&str], status: i32, parts: &[&str]| {
        let mut command = setup.train(&dir, false);
        let output = command.args(more).output().expect("starts");
        let message = text(&output);
        assert_eq!(output.status.code(), Some(status), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    };
    refused(&["--resume"], 1, &["no checkpoint to resume from", "omit --resume"]);
    assert!(!dir.exists());
    let output = setup.train(&dir, false).output().expect("starts");
    assert!(output.status.success(), "{}", text(&output));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in ["corpus", "tokens in total", "this session took", "ltm eval", "ltm generate"] {
        assert!(stdout.contains(part), "`{part}` is not in {stdout}");
    }
    refused(&[], 1, &["already contains a run", "add --resume"]);
    refused(&["--resume", "--set", "train.steps=3"], 2, &["train.steps", "at least 12", "found 3"]);
    refused(
        &["--resume", "--set", "data.rows=documents"],
        1,
        &["data has changed", "data.rows: windows → documents", "--accept-changed-data"],
    );
    let mut command = setup.train(&dir, true);
    command.args(["--set", "train.steps=20", "--set", "infer.lr=0.2"]);
    let output = command.output().expect("starts");
    let message = text(&output);
    assert!(output.status.success(), "{message}");
    for part in ["infer.lr: 0.3 → 0.2", "learning rate of step 13", "train.schedule_steps=12"] {
        assert!(message.contains(part), "`{part}` is not in {message}");
    }
    bad(&["train", "x.toml", "--accept-changed-data"], 2, &["--resume"]);
}
