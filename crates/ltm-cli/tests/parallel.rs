//! Several processes under `mpiexec`: they compute what one computes, to the bit, and lose nothing when one is killed.
//!
//! `LTM_MPIEXEC` names the launcher; `cargo xtask test` finds or installs one. `LTM_KILLS` sets the number of kills.
#![cfg(target_os = "linux")]

mod command;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use command::{bad, good, ltm};

/// The launcher; otherwise prints that the test is skipped.
fn mpiexec() -> Option<PathBuf> {
    let named = std::env::var_os("LTM_MPIEXEC").map(PathBuf::from);
    if named.is_none() {
        // Past the test harness, which would keep it to itself.
        let _ = writeln!(std::io::stderr(), "not run: no mpiexec (set LTM_MPIEXEC)");
    }
    named
}

/// A call of `ltm` by this many processes.
fn together(mpiexec: &Path, processes: usize, args: &[&str]) -> Command {
    let bin = mpiexec.parent().expect("a launcher lies in a folder");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths(std::iter::once(bin.into()).chain(std::env::split_paths(&path)));
    let mut command = Command::new(mpiexec);
    command.args(["-n", &processes.to_string(), env!("CARGO_BIN_EXE_ltm")]).args(args);
    command.env("PATH", path.expect("paths")).env("LTM_TIMEOUT", "60");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Standard output of a call that must succeed.
fn good_together(mpiexec: &Path, processes: usize, args: &[&str]) -> String {
    let output = together(mpiexec, processes, args).output().expect("starts");
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{processes} processes, {args:?}: {stderr}");
    if processes > 1 {
        assert!(stderr.contains(&format!("{processes} processes by mpiexec")), "{stderr}");
    }
    stdout
}

/// Checks that a call fails, and that it names these parts.
fn bad_together(mpiexec: &Path, processes: usize, args: &[&str], parts: &[&str]) {
    let output = together(mpiexec, processes, args).output().expect("starts");
    let (_, stderr) = texts(&output);
    assert!(!output.status.success() && !stderr.contains("panicked"), "{args:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: `{part}` is not in\n{stderr}");
    }
}

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../ltm-train/tests/tiny.toml");

/// The arguments of a training in `dir`, of four micro-batches a step.
fn training<'a>(dir: &'a str, set: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["train", TINY, "--no-samples"];
    let common = ["train.micro_batches=4", "train.batch=1", "train.schedule_steps=12"];
    for set in [dir].iter().chain(&common).chain(set) {
        args.extend(["--set", set]);
    }
    args
}

fn run_dir(dir: &Path) -> String {
    format!("run.dir={}", dir.display())
}

/// What a run is judged by, after `step` steps.
fn files(dir: &Path, step: u64) -> Vec<(String, Vec<u8>)> {
    let checkpoint = format!("checkpoints/step-{step}");
    let names = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let mut names: Vec<_> = names.iter().map(|name| format!("{checkpoint}/{name}")).collect();
    names.extend(["metrics.jsonl", "latest"].map(String::from));
    for more in ["scores.jsonl", &format!("{checkpoint}/posteriors.safetensors")] {
        if dir.join(more).exists() {
            names.push(more.into());
        }
    }
    names.into_iter().map(|name| (name.clone(), fs::read(dir.join(&name)).expect(&name))).collect()
}

fn assert_same(dir: &Path, expected: &Path, step: u64, what: &str) {
    let (found, expected) = (files(dir, step), files(expected, step));
    assert_eq!(found.len(), expected.len(), "{what}");
    for ((name, found), (_, expected)) in found.iter().zip(&expected) {
        if name.ends_with("state.json") {
            // It records the paths and sizes of its run.
            continue;
        }
        assert!(found == expected, "{what}: {name} differs");
    }
}

/// Whatever is learned: fits with kept posteriors, an encoder with prefixes, importance weights, trajectories.
const LEARNING: &[&[&str]] = &[
    &["infer.start=given"],
    &[
        "model.encoder_width=12",
        "infer.start=encoder",
        "infer.steps=1",
        "train.prefix_weight=0.5",
        "train.prefix_block=8",
        "train.importance_samples=2",
        "infer.kl_target=3.0",
    ],
    &["train.slow_gradient=trajectory", "infer.noise=fixed"],
    &["model.n_latents=0", "infer.steps=0"],
];

#[test]
fn two_and_four_processes_write_what_one_writes() {
    let Some(mpiexec) = mpiexec() else { return };
    let temp = tempfile::tempdir().expect("a temporary folder");
    for (case, set) in LEARNING.iter().enumerate() {
        let dir = |processes: usize| temp.path().join(format!("{case}-{processes}"));
        let one = run_dir(&dir(1));
        good(&training(&one, set));
        for processes in [2, 4] {
            let name = run_dir(&dir(processes));
            let stdout = good_together(&mpiexec, processes, &training(&name, set));
            assert_same(&dir(processes), &dir(1), 6, &format!("{set:?}, {processes} processes"));
            assert_eq!(stdout.matches("checkpoint  ").count(), 1, "one process prints: {stdout}");
        }
    }
}

#[test]
fn a_run_is_resumed_by_any_number_of_processes() {
    let Some(mpiexec) = mpiexec() else { return };
    let temp = tempfile::tempdir().expect("a temporary folder");
    let (straight, changing) = (temp.path().join("straight"), temp.path().join("changing"));
    let name = run_dir(&straight);
    good(&training(&name, &["infer.start=given", "train.steps=12"]));
    let name = run_dir(&changing);
    for (processes, steps) in [(1, 3), (2, 6), (4, 9), (1, 12)] {
        let steps = format!("train.steps={steps}");
        let mut args = training(&name, &["infer.start=given", &steps]);
        if changing.exists() {
            args.push("--resume");
        }
        good_together(&mpiexec, processes, &args);
    }
    // What an evaluation after every part adds to the metrics is not in the straight run's.
    for name in ["model.safetensors", "optimizer.safetensors", "posteriors.safetensors"] {
        let read = |dir: &Path| fs::read(dir.join("checkpoints/step-12").join(name)).expect(name);
        assert!(read(&changing) == read(&straight), "{name}");
    }
}

#[test]
fn other_verbs_give_what_one_process_gives() {
    let Some(mpiexec) = mpiexec() else { return };
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run");
    let name = run_dir(&run);
    good(&training(&name, &[]));
    let run = run.to_str().expect("text");
    let eval = ["eval", run, "--json", "--protocol", "elbo:2", "--protocol", "prequential:24:2"];
    assert_eq!(good_together(&mpiexec, 2, &eval), good(&eval).0);
    let eval = [&eval[..], &["--sequences", "3"]].concat();
    assert_eq!(good_together(&mpiexec, 4, &eval), good(&eval).0, "fewer batches than processes");
    for more in [&["--count", "5"][..], &["--count", "3", "--rethink", "1"], &["--count", "1"]] {
        let generate = [&["generate", run, "--max-tokens", "20", "--json"], more].concat();
        assert_eq!(good_together(&mpiexec, 2, &generate), good(&generate).0, "{more:?}");
    }
    bad_together(&mpiexec, 2, &["eval", run, "--convergence"], &["one process"]);

    let sweep = |dir: &str| {
        let (file, dir) = (temp.path().join(format!("{dir}.toml")), temp.path().join(dir));
        let grid = "[[grid]]\n\"model.n_latents\" = [2, 4]\n\"infer.steps\" = [1, 2]\n";
        let text = format!(
            "base = {TINY:?}\ndir = {dir:?}\neval_sequences = 2\n[budget]\nsteps = 2\n{grid}"
        );
        fs::write(&file, text).expect("written");
        file.to_str().expect("text").to_owned()
    };
    let (one, two) = (sweep("one"), sweep("two"));
    let table = |text: String| {
        let lines = text.lines().filter(|line| line.starts_with("infer.steps"));
        lines.map(String::from).collect::<Vec<_>>()
    };
    let expected = table(good(&["sweep", &one]).0);
    assert_eq!(expected.len(), 4);
    assert_eq!(table(good_together(&mpiexec, 2, &["sweep", &two])), expected);
    let again = good_together(&mpiexec, 2, &["sweep", &two]);
    assert_eq!(table(again), expected, "nothing is left to do");
}

#[test]
fn what_cannot_be_done_together_is_refused_and_says_why() {
    let Some(mpiexec) = mpiexec() else { return };
    let temp = tempfile::tempdir().expect("a temporary folder");
    let name = run_dir(&temp.path().join("run"));
    let uneven = training(&name, &["train.micro_batches=3"]);
    bad_together(&mpiexec, 2, &uneven, &["train.micro_batches", "multiple of 2", "found 3"]);
    let missing = training(&name, &["data.path=/nowhere"]);
    bad_together(&mpiexec, 2, &missing, &["/nowhere"]);
    assert!(!temp.path().join("run").exists(), "a refused run leaves nothing");
    // Two programs of one job that were not given the same configuration.
    let [one, other] = ["train.lr=1e-3", "train.lr=2e-3"].map(|rate| training(&name, &[rate]));
    let mut command = together(&mpiexec, 1, &one);
    command.args([":", "-n", "1", env!("CARGO_BIN_EXE_ltm")]).args(&other);
    let output = command.output().expect("starts");
    let (_, stderr) = texts(&output);
    assert!(!output.status.success() && stderr.contains("configuration of rank 0"), "{stderr}");
}

#[test]
fn half_an_identity_is_refused() {
    let refused = |variables: &[(&str, &str)], parts: &[&str]| {
        let mut command = ltm(&["train", TINY]);
        for (name, value) in variables {
            command.env(name, value);
        }
        let output = command.output().expect("starts");
        let (_, stderr) = texts(&output);
        assert!(!output.status.success(), "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "`{part}` is not in {stderr}");
        }
    };
    refused(&[("RANK", "0")], &["WORLD_SIZE", "not set"]);
    refused(&[("WORLD_SIZE", "2")], &["RANK"]);
    refused(&[("RANK", "2"), ("WORLD_SIZE", "2")], &["RANK", "below 2"]);
    refused(&[("RANK", "0"), ("WORLD_SIZE", "2")], &["MPI", "mpiexec -n"]);
    refused(
        &[("PMI_RANK", "0"), ("PMI_SIZE", "2"), ("LTM_MPI_LIBRARY", "/nowhere.so")],
        &["LTM_MPI_LIBRARY", "/nowhere.so"],
    );
    bad(&["eval", "/nowhere"], 1, &["/nowhere"]);
}

/// The process of this rank in the job that a launcher started.
fn process_of(launcher: &Child, rank: usize) -> Option<u32> {
    let wanted = format!("PMI_RANK={rank}");
    let mut family = vec![launcher.id()];
    let mut found = None;
    let processes: Vec<(u32, u32)> = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
            Some((pid, parent))
        })
        .collect();
    while let Some(parent) = family.pop() {
        for (pid, _) in processes.iter().filter(|(_, of)| *of == parent) {
            family.push(*pid);
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let is_it = environment.split(|byte| *byte == 0).any(|pair| pair == wanted.as_bytes());
            if is_it && program == Path::new(env!("CARGO_BIN_EXE_ltm")) {
                found = Some(*pid);
            }
        }
    }
    found
}

fn has_checkpoint(dir: &Path) -> bool {
    fs::read_to_string(dir.join("latest")).is_ok()
}

fn kill(pid: u32) {
    let status = Command::new("kill").args(["-9", &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "process {pid} is gone");
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// A rank that is killed ends the others, and what is resumed ends as if nothing had happened.
#[test]
fn killed_ranks_end_the_job_and_lose_nothing() {
    let Some(mpiexec) = mpiexec() else { return };
    let temp = tempfile::tempdir().expect("a temporary folder");
    let set = [
        "train.steps=60",
        "train.checkpoint_every=3",
        "train.eval_every=0",
        "train.schedule_steps=60",
    ];
    let straight = temp.path().join("straight");
    let name = run_dir(&straight);
    good(&training(&name, &set));

    let kills = number("LTM_KILLS", 4);
    let mut random = number("LTM_KILL_SEED", 1);
    let (mut done, mut runs) = (0, 0);
    while done < kills {
        let dir = temp.path().join(format!("run-{runs}"));
        let name = run_dir(&dir);
        runs += 1;
        for attempt in 0.. {
            let mut args = training(&name, &set);
            if has_checkpoint(&dir) {
                args.push("--resume");
            }
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let processes = [2, 4][(random >> 40) as usize % 2];
            let mut child = together(&mpiexec, processes, &args).spawn().expect("starts");
            let mut killed = None;
            if done < kills && attempt < 6 {
                let wait = Duration::from_millis(150 + (random >> 33) % 700);
                std::thread::sleep(wait);
                let rank = (random >> 45) as usize % processes;
                if let Some(pid) = process_of(&child, rank)
                    && child.try_wait().expect("a child").is_none()
                {
                    kill(pid);
                    killed = Some(Instant::now());
                    done += 1;
                }
            }
            let output = child.wait_with_output().expect("ends");
            let (_, stderr) = texts(&output);
            assert!(!stderr.contains("panicked"), "{stderr}");
            match killed {
                Some(then) => {
                    let took = then.elapsed();
                    assert!(took < Duration::from_secs(10), "the others went on for {took:?}");
                }
                None => assert!(output.status.success(), "{stderr}"),
            }
            if output.status.success() {
                break;
            }
        }
        assert_same(&dir, &straight, 60, &format!("after {done} kills"));
    }
}
