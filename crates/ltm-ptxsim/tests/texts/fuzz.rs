//! Texts made by chance: none of them panics, hangs, or takes memory without bound.
//!
//! `PTXSIM_FUZZ_SECONDS` makes each test go on for so long, from seed `PTXSIM_FUZZ_SEED` (0), which a
//! failure prints with the text. `cargo test -p ltm-ptxsim --test texts fuzz` runs them alone.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ltm_ptxsim::{LaunchConfig, Memory, Module, Options, Program, launch};
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use crate::kernel;

/// Texts of one test where no time is set.
const SHORT: u64 = 400;

/// Seeds that once failed, which are tried first.
const SEEDS: [u64; 0] = [];

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Runs a text made from each of many seeds.
fn for_seeds(make: impl Fn(&mut TestRng) -> String) {
    let seconds = variable("PTXSIM_FUZZ_SECONDS");
    let first = variable("PTXSIM_FUZZ_SEED").unwrap_or(0);
    let start = Instant::now();
    let goes_on = |n: u64| match seconds {
        Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
        None => n < SHORT,
    };
    let seeds = SEEDS.into_iter().chain(first..).enumerate();
    for (_, seed) in seeds.take_while(|(n, _)| goes_on(*n as u64)) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let text = make(&mut TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let begun = Instant::now();
        if catch_unwind(AssertUnwindSafe(|| try_text(&text))).is_err() {
            panic!("PTXSIM_FUZZ_SEED={seed} panics on:\n{text}");
        }
        let took = begun.elapsed();
        assert!(
            took < Duration::from_secs(20),
            "PTXSIM_FUZZ_SEED={seed} takes {took:?} on:\n{text}"
        );
    }
}

/// Parses, loads and launches what a text has; errors and faults are fine.
fn try_text(text: &str) {
    let Ok(program) = Program::parse(text) else { return };
    let memory = Memory::new(1 << 24);
    let names: Vec<_> = program.entries().iter().map(|entry| entry.name.clone()).collect();
    let Ok(module) = Module::load(program, &memory) else { return };
    let Ok(out) = memory.alloc(4096) else { return };
    let _ = memory.write(out, &[0; 4096]);
    let params: Vec<u8> = out.to_le_bytes().repeat(16);
    let options = Options { max_steps: 20_000, ..Options::default() };
    let config = LaunchConfig { grid: [2, 1, 1], block: [40, 1, 1], dynamic_shared_bytes: 64 };
    for name in names.iter().take(4) {
        let _ = launch(&module, name, config, &params, &memory, &options);
    }
}

fn below(rng: &mut TestRng, n: usize) -> usize {
    (rng.next_u64() % n.max(1) as u64) as usize
}

fn pick<'a, T: ?Sized>(rng: &mut TestRng, list: &[&'a T]) -> &'a T {
    list[below(rng, list.len())]
}

/// Valid texts to start from: those of the other tests and a long kernel.
fn valid() -> Vec<String> {
    let body = "
.shared .align 16 .b8 s[1024]; .local .align 8 .b8 l[64]; .reg .v4 .b32 v;
mov.u32 %r3, s; mad.lo.u32 %r3, %r1, 4, %r3; st.shared.u32 [%r3], %r1; bar.sync 0;
setp.lt.u32 %p1, %r1, 16; @!%p1 bra L; { .reg .b32 t; mov.u32 t, 5; add.u32 %r4, t, %r1; }
L: shfl.sync.bfly.b32 %r5|%p2, %r1, 3, 31, -1; vote.sync.ballot.b32 %r6, %p1, -1;
redux.sync.add.u32 %r7, %r1, -1; match.any.sync.b32 %r8, %r6, -1;
sub.cc.u32 %r9, %r1, 3; subc.u32 %r10, 0, 0; bfe.u32 %r11, %r9, 3, 7; prmt.b32 %r12, %r9, %r10, 0x1234;
cvt.rn.f32.u32 %f1, %r9; fma.rn.f32 %f2, %f1, %f1, 0f3F800000; ex2.approx.f32 %f3, %f2;
ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r13}, [s]; cp.async.ca.shared.global [%r3], [%rd2], 4;
cp.async.commit_group; cp.async.wait_group 0; membar.gl; atom.global.add.u32 %r14, [%rd1], 1;
st.local.v2.u32 [l+8], {%r9, %r10}; ld.local.u64 %rd5, [l+8]; mov.b64 {%r15, %r16}, %rd5;
ld.global.v4.u32 v, [%rd1]; st.global.u32 [%rd2], v.w; brx.idx %r17, TABLE; M: lop3.b32 %r18, %r9, %r10, %r11, 150;
TABLE: .branchtargets L, M; call (%r2), f, (%r1); set.lt.u32.f32 %r19, %f1, %f2;";
    let f = ".file 1 \"a.cu\"\n.global .u32 g[2][2] = {{1}, {2, 3}};\n.const .u64 t[1] = {g+4};
.func (.reg .u32 y) f(.reg .u32 x) { .loc 1 2 3, function_name a, inlined_at 1 4 5\nadd.u32 y, x, 1; ret; }";
    vec![kernel(f, body), include_str!("../kernels.ptx").into(), kernel("", "")]
}

const PARTS: [&str; 60] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    ";",
    ",",
    ":",
    "|",
    "!",
    "@",
    "-",
    "+",
    "~",
    "?",
    "<",
    ">",
    "=",
    "\"",
    "/*",
    "*/",
    "//",
    "\n",
    "0",
    "1",
    "-1",
    "0xffffffffffffffff",
    "4294967295",
    "0f7F800000",
    "0d7FF0000000000000",
    "1e999",
    "99999999999999999999",
    "%r1",
    "%r99",
    "%p1",
    "%rd1",
    "%tid.x",
    "%clock64",
    "_",
    "s",
    "L",
    "f",
    ".reg",
    ".b32",
    ".b128",
    ".pred",
    ".local",
    ".shared",
    ".param",
    ".entry",
    ".func",
    ".loc",
    ".file",
    ".align",
    ".v4",
    "call",
    "bra",
    "ret",
    "exit",
];

const OPCODES: [&str; 40] = [
    "add.u32",
    "add.cc.s64",
    "mov.b64",
    "mov.b128",
    "mov.pred",
    "ld.global.v4.u32",
    "ld.param.u64",
    "st.shared.b8",
    "st.param.b32",
    "atom.global.cas.b64",
    "red.shared.inc.u32",
    "shfl.sync.up.b32",
    "vote.sync.any.pred",
    "redux.sync.xor.b32",
    "match.all.sync.b64",
    "bar.sync",
    "bar.red.popc.u32",
    "bar.warp.sync",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16",
    "cp.async.cg.shared.global",
    "cp.async.wait_group",
    "cvt.rni.s32.f64",
    "cvt.rn.bf16x2.f32",
    "setp.lt.and.f32",
    "set.eq.f16x2.f16x2",
    "selp.b64",
    "slct.f32.s32",
    "bfi.b64",
    "shf.l.clamp.b32",
    "shl.b16",
    "shr.s64",
    "div.s32",
    "rem.s64",
    "bfe.s32",
    "prmt.b32",
    "brx.idx",
    "fma.rn.f16x2",
    "tanh.approx.f32",
    "isspacep.shared",
];

fn operand(rng: &mut TestRng) -> String {
    let number = below(rng, 12);
    match below(rng, 12) {
        0..=2 => format!("%r{number}"),
        3 => format!("%rd{number}"),
        4 => format!("%f{}", number % 8),
        5 => format!("%p{}", number % 8),
        6 => format!("!%p{}", number % 8),
        7 => format!("[%rd1+{}]", 4 * number),
        8 => format!("[%r{number}]"),
        9 => format!("{{%r{number}, %r1, %r2, %r3}}"),
        10 => pick(rng, &PARTS[24..46]).to_owned(),
        _ => (rng.next_u64() >> below(rng, 64)).to_string(),
    }
}

#[test]
fn texts_with_changed_characters() {
    let valid = valid();
    for_seeds(|rng| {
        let mut text: Vec<u8> = valid[below(rng, valid.len())].clone().into_bytes();
        for _ in 0..=below(rng, 6) {
            let at = below(rng, text.len());
            match below(rng, 4) {
                0 => drop(text.remove(at)),
                1 => text[at] = rng.next_u64() as u8,
                2 => {
                    let to = below(rng, text.len());
                    text.swap(at, to);
                }
                _ => {
                    let part = pick(rng, &PARTS).bytes().collect::<Vec<_>>();
                    text.splice(at..at, part);
                }
            }
        }
        String::from_utf8_lossy(&text).into_owned()
    });
}

#[test]
fn texts_with_changed_words() {
    let valid = valid();
    for_seeds(|rng| {
        let text = &valid[below(rng, valid.len())];
        let mut words: Vec<String> =
            text.split_inclusive([' ', ',', ';', '\n']).map(str::to_owned).collect();
        for _ in 0..=below(rng, 6) {
            let (at, from) = (below(rng, words.len()), below(rng, words.len()));
            match below(rng, 4) {
                0 => drop(words.remove(at)),
                1 => words[at] = words[from].clone(),
                2 => words.swap(at, from),
                _ => words.insert(at, pick(rng, &PARTS).to_owned()),
            }
        }
        words.concat()
    });
}

#[test]
fn instructions_with_operands_by_chance() {
    for_seeds(|rng| {
        let mut body = String::new();
        for i in 0..1 + below(rng, 12) {
            let guard = if below(rng, 4) == 0 { "@%p1 " } else { "" };
            let n = below(rng, 6);
            let operands: Vec<_> = (0..n).map(|_| operand(rng)).collect();
            body += &format!("{guard}{} {};\nL{i}: ", pick(rng, &OPCODES), operands.join(", "));
        }
        kernel("", &format!("setp.eq.u32 %p1, %r1, 3; mov.u32 %r2, 4; mov.u32 %r3, 0;\n{body}"))
    });
}

#[test]
fn words_by_chance() {
    for_seeds(|rng| {
        let n = below(rng, 60);
        let words: Vec<_> = (0..n)
            .map(|_| if below(rng, 3) == 0 { pick(rng, &OPCODES) } else { pick(rng, &PARTS) })
            .collect();
        format!(".version 8.0\n.target sm_80\n.visible .entry k() {{\n{}\n}}\n", words.join(" "))
    });
}
