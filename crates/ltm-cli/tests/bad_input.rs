//! Bad input for every verb: one clear error, exit status 1 (2 for usage and configuration), and no panic.

mod command;

use std::fs;
use std::path::{Path, PathBuf};

use command::{good, ltm};

fn tiny() -> String {
    let root: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("crates/ltm-train/tests/tiny.toml").display().to_string()
}

/// Runs a call that must fail: one error that does not repeat itself, and the expected status.
fn check(args: &[&str], statuses: &[i32], part: &str) {
    let out = ltm(args).output().expect("the command starts");
    let said = String::from_utf8_lossy(&out.stderr);
    let code = out.status.code();
    assert!(code.is_some_and(|code| statuses.contains(&code)), "{args:?}: {code:?}\n{said}");
    assert!(!said.contains("panicked"), "{args:?}\n{said}");
    assert_eq!(said.matches("error: ").count(), 1, "{args:?}\n{said}");
    assert!(said.contains(part), "{args:?}: `{part}` is not in\n{said}");
    assert!(said.matches("os error").count() <= 1, "{args:?} gives a cause twice:\n{said}");
    assert!(!said.contains("Some(") && !said.contains("Err("), "{args:?} prints a dump:\n{said}");
    assert!(said.len() < 4000, "{args:?} prints {} bytes", said.len());
}

/// Every verb that reads something, with `PATH` where the input is named.
const READERS: &[&[&str]] = &[
    &["train", "PATH"],
    &["config", "show", "PATH"],
    &["config", "check", "PATH"],
    &["sweep", "PATH"],
    &["sweep", "PATH", "--list"],
    &["report", "PATH"],
    &["compare", "PATH", "RUN"],
    &["eval", "PATH"],
    &["eval", "RUN", "PATH"],
    &["generate", "PATH"],
    &["generate", "RUN", "--prompt-file", "PATH"],
    &["generate", "RUN", "--reference", "PATH"],
    &["think", "PATH", "--text", "x"],
    &["probe", "layers", "PATH"],
    &["probe", "between", "PATH", "--from", "a", "--to", "b"],
    &["probe", "swap", "PATH", "--from", "a", "--to", "b"],
    &["parity", "PATH"],
    &["data", "prepare", "PATH", "--tokenizer", "bytes", "--out", "OUT"],
    &["data", "inspect", "PATH"],
];

#[test]
fn every_verb_refuses_paths_that_cannot_be_read() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run").display().to_string();
    let set = format!("run.dir={run}");
    let sets = ["--set", &set, "--set", "train.steps=2", "--set", "model.n_latents=4"];
    good(&[&["train", &tiny(), "--no-samples"][..], &sets].concat());
    let write = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        fs::write(&path, bytes).expect("writable");
        path
    };
    let folder = temp.path().join("folder");
    fs::create_dir(&folder).expect("a folder");
    let garbage: Vec<u8> =
        (0..4096_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let inputs = [
        temp.path().join("missing"),
        folder,
        write("empty", b""),
        write("garbage", &garbage),
        write("\u{1f4a9} blank 'quoted'", b"\xff\xfe\x00"),
        write("nested.txt", b"x").join("below-a-file"),
    ];
    let out = temp.path().join("out").display().to_string();
    for input in &inputs {
        let name = input.file_name().expect("a name").to_string_lossy();
        let path = input.display().to_string();
        for verb in READERS {
            if verb.contains(&"--prompt-file") && name == "empty" {
                continue; // An empty prompt is none.
            }
            let args: Vec<&str> = verb
                .iter()
                .map(|arg| match *arg {
                    "PATH" => &path,
                    "RUN" => &run,
                    "OUT" => &out,
                    other => other,
                })
                .collect();
            let statuses: &[i32] = match &*name {
                "missing" | "folder" | "below-a-file" => &[1],
                _ if ["train", "config", "sweep"].contains(&verb[0]) => &[2],
                _ => &[1],
            };
            check(&args, statuses, &name);
        }
        assert!(!Path::new(&out).join("meta.json").exists(), "a corpus of {path}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn paths_need_not_be_utf8() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let temp = tempfile::tempdir().expect("a temporary folder");
    let name = OsStr::from_bytes(b"bad-\xff-name");
    let file = temp.path().join(name);
    fs::write(&file, "text\n").expect("writable");
    let out = temp.path().join("corpus");
    let status = ltm(&["data", "prepare", "--tokenizer", "bytes", "--val-fraction", "0", "--out"])
        .args([&out, &file])
        .status();
    assert!(status.expect("starts").success());
    for verb in [&["eval"][..], &["generate"], &["train"], &["config", "show"], &["parity"]] {
        let out = ltm(verb).arg(temp.path().join("no").join(name)).output().expect("starts");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && said.contains("bad-\u{fffd}-name"), "{said}");
    }
    // A run may be in such a folder too.
    let (folder, tiny) = (temp.path().join("folder").join(name), tiny());
    fs::create_dir_all(&folder).expect("creatable");
    let train = ["train", &tiny, "--no-samples", "--set", "run.dir=run", "--set"];
    let resumed = [&train[..], &["train.steps=3", "--resume"]].concat();
    for args in [&[&train[..], &["train.steps=2"]].concat(), &resumed] {
        let out = ltm(args).current_dir(&folder).output().expect("starts");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    let out = ltm(&["report"]).arg(folder.join("run")).output().expect("starts");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    // Text arguments must be UTF-8.
    let out = ltm(&["generate", "x", "--prompt"]).arg(name).output().expect("starts");
    assert_eq!(out.status.code(), Some(2), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn numbers_that_cannot_be_meant_are_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let run = temp.path().join("run").display().to_string();
    let set = format!("run.dir={run}");
    good(&["train", &tiny(), "--no-samples", "--set", &set, "--set", "train.steps=2"]);
    let text = "on a sunny morning";
    let huge = "18446744073709551615";
    for (args, part) in [
        (&["generate", "--count", "0"][..], "--count"),
        (&["generate", "--count", "-1"], "--count"),
        (&["generate", "--temperature", "NaN"], "--temperature"),
        (&["generate", "--temperature", "-1"], "--temperature"),
        (&["generate", "--temperature", "inf"], "--temperature"),
        (&["generate", "--top-p", "0"], "--top-p: expected more than 0 and at most 1, found 0"),
        (&["generate", "--top-p", "1.5"], "--top-p"),
        (&["generate", "--top-p", "nan"], "--top-p"),
        (&["generate", "--max-tokens", "-3"], "--max-tokens"),
        (&["generate", "--seed", "99999999999999999999"], "--seed"),
        (&["generate", "--device", "gpu"], "gpu"),
        (&["generate", "--device", "cuda:99"], "cuda:99"),
        (&["generate", "--set", "infer.lr=nan"], "lr"),
        (&["generate", "--set", "infer.steps=-1"], "steps"),
        (&["generate", "--set", "nonsense"], "nonsense"),
        (&["generate", "--set", "a.b=c"], "unknown section `a`"),
        (&["think", "--text", ""], "--text"),
        (&["think", "--text", text, "--steps", "99999999999999999999"], "--steps"),
        (&["probe", "layers", "--sequences", "-1"], "--sequences"),
        (&["probe", "between", "--from", text, "--to", text, "--steps", "1"], "--steps"),
        (&["probe", "between", "--from", "", "--to", text], "--from"),
        (&["probe", "swap", "--from", text, "--to", text, "--layer", huge], "--layer"),
        (&["probe", "swap", "--from", text, "--to", text, "--layer", "0"], "--layer"),
        (&["eval", "--protocol", "elbo:0"], "elbo:0"),
        (&["eval", "--protocol", "iwae:99999999999999999999"], "iwae"),
        (&["eval", "--protocol", "prequential:0:2"], "prequential"),
        (&["eval", "--protocol", "prequential:200:1"], "prequential:200:1: `stride`"),
        (&["eval", "--protocol", "elbo:18446744073709551615"], "samples"),
        (&["eval", "--protocol", ""], "protocol"),
        (&["eval", "--sequences", "1e3"], "--sequences"),
        (&["eval", "--set", "infer.steps=1e30"], "steps"),
    ] {
        // The run is the first argument that is not a verb.
        let at = args.iter().position(|arg| arg.starts_with("--")).expect("an option");
        let args = [&args[..at], &[&run], &args[at..]].concat();
        // Options and configurations are refused with 2; what only the model can refuse may be 1.
        let late = ["gpu", "cuda:99"];
        let statuses: &[i32] = if late.contains(&part) { &[1, 2] } else { &[2] };
        check(&args, statuses, part);
    }
    // Huge but possible numbers work.
    let wide = ["--sequences", huge, "--protocol", "reconstruction", "--seed", huge];
    good(&[&["eval", &run][..], &wide].concat());
    good(&["generate", &run, "--top-k", huge, "--seed", huge, "--max-tokens", "1"]);
}

#[test]
fn unknown_keys_and_values_are_refused_with_the_closest_name() {
    for (set, parts) in [
        ("trian.steps=3", "trian"),
        ("train.stepz=3", "steps"),
        ("train.steps=three", "`train.steps`"),
        ("train.steps=nan", "`train.steps`"),
        ("train.lr=nan", "train.lr"),
        ("train.lr=inf", "train.lr"),
        ("train.batch=0", "train.batch"),
        ("train.batch=99999999999999999999", "train.batch"),
        ("model.dim=9223372036854775807", "model.dim"),
        ("data.val_fraction=nan", "data.val_fraction"),
        ("model.n_heads=[]", "model.n_heads"),
        ("=", "="),
        ("train.=1", "train"),
    ] {
        check(&["config", "check", &tiny(), "--set", set], &[2], parts);
    }
}
