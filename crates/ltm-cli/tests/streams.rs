//! Output streams that end early: a reader that leaves, a full disk.

#![cfg(target_os = "linux")]

mod command;

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use command::{good, ltm};

fn tiny() -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("crates/ltm-train/tests/tiny.toml").display().to_string()
}

/// A run of the tiny model, in a folder of its own.
fn trained() -> (tempfile::TempDir, String) {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run").display().to_string();
    let set = format!("run.dir={run}");
    good(&["train", &tiny(), "--no-samples", "--set", &set, "--set", "train.steps=2"]);
    (temp, run)
}

#[derive(Clone, Copy, Debug)]
enum Stream {
    Out,
    Err,
}

fn pipe(command: &mut Command, stream: Stream) -> &mut Command {
    match stream {
        Stream::Out => command.stdout(Stdio::piped()).stderr(Stdio::piped()),
        Stream::Err => command.stdout(Stdio::null()).stderr(Stdio::piped()),
    }
}

/// Reads `bytes` of a stream, closes it, and waits: the exit status, and what the other stream said.
fn close_after(mut child: Child, stream: Stream, bytes: u64) -> (ExitStatus, String) {
    let mut ignored = Vec::new();
    match stream {
        Stream::Out => {
            let pipe = child.stdout.take().expect("piped");
            pipe.take(bytes).read_to_end(&mut ignored).expect("readable");
        }
        Stream::Err => {
            let pipe = child.stderr.take().expect("piped");
            pipe.take(bytes).read_to_end(&mut ignored).expect("readable");
        }
    }
    let out = child.wait_with_output().expect("waited for");
    (out.status, String::from_utf8_lossy(&out.stderr).into_owned())
}

/// Calls that print, most of them without a model, and how many bytes they print at least.
fn printing(run: &str) -> Vec<Vec<String>> {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-model/tests/fixtures/tiny.safetensors");
    let corpus = format!("{run}/data");
    let prompt = "on a sunny morning, tom went";
    [
        &["--help"][..],
        &["--version"],
        &["help", "train"],
        &["completions", "bash"],
        &["config", "show", &tiny()],
        &["config", "check", &tiny()],
        &["data", "inspect", &corpus],
        &["parity", &fixture.display().to_string()],
        &["eval", run, "--sequences", "1", "--protocol", "reconstruction"],
        &["eval", run, "--sequences", "1", "--protocol", "reconstruction", "--json"],
        &["generate", run, "--count", "9", "--max-tokens", "2", "--prompt", prompt],
        &["generate", run, "--count", "9", "--max-tokens", "2", "--json"],
        &["think", run, "--text", prompt],
        &["think", run, "--text", prompt, "--json"],
        &["probe", "between", run, "--from", prompt, "--to", prompt, "--max-tokens", "2"],
        &["report", run],
    ]
    .iter()
    .map(|args| args.iter().map(ToString::to_string).collect())
    .collect()
}

#[test]
fn a_reader_that_leaves_ends_printing_quietly() {
    let (_temp, run) = trained();
    for args in printing(&run) {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let len = good(&args).0.len() as u64;
        assert!(len > 0, "{args:?} prints nothing");
        // Before the first byte, and in every tenth of the output.
        let places: Vec<u64> = match len {
            0..64 => vec![0],
            _ => (0..10).map(|tenth| tenth * len / 10).collect(),
        };
        for (tenth, bytes) in places.into_iter().enumerate() {
            let child = pipe(&mut ltm(&args), Stream::Out).spawn().expect("starts");
            let (status, said) = close_after(child, Stream::Out, bytes);
            assert_eq!(status.code(), Some(0), "{args:?} closed after {bytes} of {len}: {said}");
            assert!(!said.contains("panicked") && !said.contains("error"), "{args:?}: {said}");
            // Messages are few and short.
            if tenth % 5 > 0 {
                continue;
            }
            let child = pipe(&mut ltm(&args), Stream::Err).spawn().expect("starts");
            let (status, _) = close_after(child, Stream::Err, bytes);
            assert_eq!(status.code(), Some(0), "{args:?}: standard error closed after {bytes}");
        }
    }
}

#[test]
fn a_full_disk_is_an_error() {
    let (_temp, run) = trained();
    for args in printing(&run) {
        let full = || File::options().write(true).open("/dev/full").expect("Linux has it");
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let out = ltm(&args).stdout(full()).output().expect("starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.contains("error: cannot write to standard output: No space left"), "{said}");
        let status = ltm(&args).stdout(Stdio::null()).stderr(full()).status().expect("starts");
        assert_eq!(status.code(), Some(0), "{args:?}: messages are not needed");
    }
    // Errors and their exit status do not need a stream either.
    for (args, code) in [(&["eval", "/no/such/run"][..], 1), (&["no-such-verb"], 2)] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let status = ltm(args).stderr(full).status().expect("starts");
        assert_eq!(status.code(), Some(code), "{args:?}");
    }
}

/// Training writes nothing that it needs: it goes on to its last checkpoint, and what it could not print is an error
/// at its end.
#[test]
fn training_goes_on_without_its_streams() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let full = || Stdio::from(File::options().write(true).open("/dev/full").expect("Linux has it"));
    let closed = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let tiny = tiny();
    let streams: [(&str, Stdio, Stdio, i32); 4] = [
        ("err-full", Stdio::null(), full(), 0),
        ("err-closed", Stdio::null(), closed(), 0),
        ("out-full", full(), Stdio::null(), 1),
        ("both-closed", closed(), closed(), 0),
    ];
    for (name, out, err, code) in streams {
        let dir = temp.path().join(name);
        let set = format!("run.dir={}", dir.display());
        let every = ["--set", "train.eval_every=1", "--set", "train.checkpoint_every=1000"];
        let steps = ["--set", "train.steps=4", "--set", &set, "--no-samples"];
        let args = [&["train", &tiny][..], &every, &steps].concat();
        let status = ltm(&args).stdout(out).stderr(err).status().expect("starts");
        assert_eq!(status.code(), Some(code), "{name}");
        assert!(dir.join("checkpoints/step-4").exists(), "{name}");
        let metrics = fs::read_to_string(dir.join("metrics.jsonl")).expect("metrics");
        assert!(metrics.lines().count() >= 4, "{name}: {metrics}");
    }
}
