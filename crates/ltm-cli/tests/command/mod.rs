//! Calls of the command that must succeed, or fail in so many words.

#![allow(dead_code, reason = "each test file uses a part")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A call without anything to read.
pub fn ltm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ltm"));
    command.args(args).stdin(Stdio::null());
    command
}

fn output(args: &[&str]) -> Output {
    ltm(args).output().expect("the command starts")
}

/// Standard output and standard error of a call that must succeed.
pub fn good(args: &[&str]) -> (String, String) {
    let out = output(args);
    let [stdout, stderr] =
        [out.stdout, out.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(out.status.success(), "{args:?}: {:?}\n{stderr}", out.status);
    (stdout, stderr)
}

/// Checks the exit status of a call that must fail, and that it names these parts.
pub fn bad(args: &[&str], status: i32, parts: &[&str]) {
    let out = output(args);
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(status), "{args:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}\n{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: `{part}` is not in\n{stderr}");
    }
}

/// What a call with `--json` prints.
pub fn json(args: &[&str]) -> Value {
    let (text, _) = good(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
