//! Whole modules as text: what is accepted, what is refused, and what they compute. Knows how to run
//! a kernel whose only argument is a buffer of words.

mod accepted;
mod between_blocks;
mod builtins;
mod fuzz;
mod instructions;
mod masks;
mod refused;

use ltm_ptxsim::{
    Fault, FaultKind, LaunchConfig, Memory, Module, Options, Output, Program, launch,
};
use std::sync::{Arc, Mutex};

/// What a run of kernel `k` left.
#[derive(Debug)]
struct Ran {
    /// The words of its buffer.
    words: Vec<u32>,
    /// What it printed.
    printed: String,
}

/// How many words the buffer has, which starts as zeros.
const WORDS: usize = 128;

/// Runs kernel `k` of a text on a buffer of zeros.
fn run_on(ptx: &str, grid: u32, threads: u32, options: Options) -> Result<Ran, Box<Fault>> {
    let memory = Memory::new(1 << 24);
    let program = Program::parse(ptx).unwrap_or_else(|error| panic!("{error}\n{ptx}"));
    let module = Module::load(program, &memory).expect("there is room");
    let out = memory.alloc(4 * WORDS as u64).expect("there is room");
    memory.write(out, &[0; 4 * WORDS]).expect("allocated");
    let config =
        LaunchConfig { grid: [grid, 1, 1], block: [threads, 1, 1], dynamic_shared_bytes: 0 };
    let printed = Arc::new(Mutex::new(String::new()));
    let sink = printed.clone();
    let output = Output::new(move |text| sink.lock().expect("no print panics").push_str(text));
    let options = Options { output, ..options };
    launch(&module, "k", config, &out.to_le_bytes(), &memory, &options)?;
    let mut bytes = [0; 4 * WORDS];
    memory.read(out, &mut bytes).expect("allocated");
    let words = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let printed = printed.lock().expect("no print panics").clone();
    Ok(Ran { words: words.collect(), printed })
}

fn run(ptx: &str, threads: u32) -> Result<Ran, Box<Fault>> {
    run_on(ptx, 1, threads, Options::default())
}

const HEAD: &str = ".version 8.2\n.target sm_80\n.address_size 64\n";

/// A kernel of these statements, with the buffer's address in `%rd1`, the thread in `%r1`, and the
/// address of the thread's word in `%rd2`; `before` is put before the kernel.
fn kernel(before: &str, body: &str) -> String {
    format!(
        "{HEAD}{before}
.visible .entry k(.param .u64 o) {{
.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<24>; .reg .f32 %f<8>; .reg .b64 %rd<12>;
ld.param.u64 %rd1, [o];
mov.u32 %r1, %tid.x;
mul.wide.u32 %rd2, %r1, 4; add.u64 %rd2, %rd1, %rd2;
{body}
ret;
}}
"
    )
}

/// Expects `%r2` of thread 0 to be this after some statements.
fn computes(before: &str, body: &str, expected: u32) {
    let ptx = kernel(before, &format!("{body}\nst.global.u32 [%rd1], %r2;"));
    let ran = run(&ptx, 1).unwrap_or_else(|fault| panic!("{fault}\n{ptx}"));
    assert_eq!(ran.words[0], expected, "{body}");
}

/// Expects `%r2` of every thread of one warp to be this.
fn each_computes(body: &str, expected: impl Fn(u32) -> u32) {
    let ptx = kernel("", &format!("{body}\nst.global.u32 [%rd2], %r2;"));
    let ran = run(&ptx, 32).unwrap_or_else(|fault| panic!("{fault}\n{ptx}"));
    let expected: Vec<u32> = (0..32).map(expected).collect();
    assert_eq!(&ran.words[..32], expected, "{body}");
}

/// Expects a fault of this kind, whose text holds these parts.
fn faults(ptx: &str, grid: u32, threads: u32, kind: FaultKind, parts: &[&str]) {
    let fault = run_on(ptx, grid, threads, Options::default()).expect_err(ptx);
    let text = fault.to_string();
    assert_eq!(fault.kind, kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

/// Expects the text to be refused, with an error that holds these parts.
fn refused(ptx: &str, parts: &[&str]) {
    let error = Program::parse(ptx).expect_err(ptx).to_string();
    for part in parts {
        assert!(error.contains(part), "no `{part}` in: {error}");
    }
}
