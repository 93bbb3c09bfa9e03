//! The `ptxsim` command, as people call it.

#![cfg(feature = "cli")]

use std::process::{Command, Output};

const ADD: &str = "tests/kernels.ptx";

fn ptxsim(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ptxsim"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(args).output().expect("it starts")
}

/// Expects this exit status, and texts on stdout and stderr.
fn check(args: &[&str], status: i32, stdout: &[&str], stderr: &[&str]) {
    let output = ptxsim(args);
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}{err}");
    for part in stdout {
        assert!(out.contains(part), "no `{part}` on stdout: {out}");
    }
    for part in stderr {
        assert!(err.contains(part), "no `{part}` on stderr: {err}");
    }
    assert!(!stderr.is_empty() || err.is_empty(), "{err}");
}

#[test]
fn a_kernel_runs_and_its_buffers_are_printed() {
    let args =
        ["run", ADD, "--entry", "add", "--block", "64", "--arg", "f32:50=iota", "-a", "f32:50=2"];
    let args = [&args[..], &["-a", "f32:50=-1", "-a", "u32=50", "--show", "3"]].concat();
    check(&args, 0, &["arg 0: f32 × 50", "arg 2: f32 × 50", "changed: "], &[]);
    let printed = String::from_utf8_lossy(&ptxsim(&args).stdout).into_owned();
    assert!(!printed.contains("integer"), "{printed}");
    check(&[&args[..], &["--counters"]].concat(), 0, &["integer", "occupancy"], &[]);
}

#[test]
fn a_fault_is_printed_and_sets_the_status() {
    let args = ["run", ADD, "-e", "scale", "-b", "64", "-a", "f32:50=1"];
    check(
        &args,
        1,
        &["arg 0: f32 × 50"],
        &["error: OutOfBounds in kernel `scale`", "PTX line", "thread (50, 0, 0)"],
    );
}

#[test]
fn wrong_arguments_are_explained() {
    check(&["run", ADD], 1, &[], &["several kernels; choose one with --entry: add, scale, staged"]);
    check(
        &["run", ADD, "-e", "nowhere"],
        1,
        &[],
        &["no kernel `nowhere`; it has: add, scale, staged"],
    );
    check(&["run", ADD, "-e", "scale"], 1, &[], &["takes 1 arguments of 8 bytes, found 0 --arg"]);
    check(
        &["run", ADD, "-e", "scale", "-a", "i32=1"],
        1,
        &[],
        &["argument 0 of kernel `scale` has 8 bytes, its --arg has 4"],
    );
    check(&["run", "/nowhere.ptx"], 1, &[], &["cannot read /nowhere.ptx"]);
    check(&["run", ADD, "-a", "f99:1"], 2, &[], &["unknown type `f99`, expected one of i8"]);
    check(&["run", ADD, "-g", "1,2,3,4"], 2, &[], &["one to three numbers"]);
    check(&["run", "Cargo.toml"], 1, &[], &["error: Cargo.toml: PTX line 1"]);
}

#[test]
fn help_shows_how_arguments_are_written() {
    check(
        &["run", "--help"],
        0,
        &["i32:1024=iota", "Examples:", "Exit status", "[default: 1]"],
        &[],
    );
    check(&["--help"], 0, &["run", "list"], &[]);
    check(&["list", ADD], 0, &["add  4 arguments of 8, 8, 8, 4 bytes"], &[]);
}

#[test]
fn kernels_print_to_stdout() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("hello.ptx");
    let text = ".version 8.0\n.target sm_80\n.address_size 64
.extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.global .align 1 .b8 format[7] = {104, 101, 108, 108, 111, 10, 0};
.visible .entry hello() { .reg .b32 %r<2>; .reg .b64 %rd<2>; mov.u64 %rd1, format;
call (%r1), vprintf, (%rd1, 0); ret; }";
    std::fs::write(&file, text).expect("the folder takes files");
    check(&["run", file.to_str().expect("text"), "--block", "2"], 0, &["hello\nhello\n"], &[]);
}

#[test]
fn cuda_files_are_compiled_where_nvrtc_is_found() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("k.cu");
    let text = "extern \"C\" __global__ void k(float *x, int n) {\n  int i = threadIdx.x;\n  if (i < n) x[i] *= SCALE;\n}\n";
    std::fs::write(&file, text).expect("the folder takes files");
    let file = file.to_str().expect("text");
    let output = ptxsim(&["run", file, "-D", "SCALE=2.0f", "-a", "f32:4=iota", "-a", "i32=4"]);
    let err = String::from_utf8_lossy(&output.stderr);
    if err.contains("NVRTC, which was not found") {
        assert_eq!(output.status.code(), Some(1));
        return eprintln!("skipped: no NVRTC");
    }
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(out.contains("arg 0: f32 × 4, 3 changed: 0, 2, 4, 6"), "{out}{err}");
    check(
        &["run", file, "-D", "SCALE=2.0f", "-a", "f32:3=iota", "-a", "i32=4"],
        1,
        &[],
        &["OutOfBounds", "k.cu:3"],
    );
    check(
        &["run", file, "-a", "f32:3=iota", "-a", "i32=4"],
        1,
        &[],
        &["NVRTC cannot compile", "SCALE"],
    );
}
