//! NVIDIA's assembler as a second opinion: what it folds instructions on constants to, and which texts
//! it accepts.
//!
//! `PTXSIM_PTXAS` and `PTXSIM_NVDISASM` name the two programs, otherwise `PATH` is searched; without
//! them the tests print `skipped: …`. `cargo xtask sim` finds or installs them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use ltm_ptxsim::{LaunchConfig, Memory, Module, Options, Program, launch};

/// A program that a variable or `PATH` names.
fn tool(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Some(path.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file())
}

fn ptxas() -> Option<PathBuf> {
    let found = tool("PTXSIM_PTXAS", "ptxas");
    if found.is_none() {
        eprintln!("skipped: no ptxas");
    }
    found
}

/// Assembles a text; the machine code is left in `cubin`.
fn assembles(ptxas: &Path, ptx: &str, cubin: &Path) -> Result<(), String> {
    let file = cubin.with_extension("ptx");
    std::fs::write(&file, ptx).expect("the temporary folder takes files");
    let mut command = Command::new(ptxas);
    command.args(["-arch", "sm_80", "-o"]).arg(cubin).arg(&file);
    let output = command.output().expect("ptxas starts");
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn text(body: &str) -> String {
    format!(
        ".version 8.2\n.target sm_80\n.address_size 64
.visible .entry k(.param .u64 o) {{
.reg .pred %p<8>; .reg .b16 %h<8>; .reg .b32 %r<16>; .reg .f32 %f<8>; .reg .f64 %d<4>; .reg .b64 %rd<8>;
ld.param.u64 %rd1, [o];
{body}
ret; }}
"
    )
}

/// Instructions that leave a number in `%r2`, on constants.
fn cases() -> Vec<String> {
    const WORDS: [&str; 7] = ["0", "1", "5", "0x7fffffff", "0x80000000", "-3", "0x12345678"];
    let mut cases = Vec::new();
    let mut binary = |forms: &[&str], words: &[&str]| {
        for form in forms {
            for a in words {
                for b in words {
                    cases.push(format!("{form} %r2, {a}, {b};"));
                }
            }
        }
    };
    binary(
        &[
            "add.s32",
            "sub.s32",
            "mul.lo.s32",
            "mul.hi.u32",
            "mul.hi.s32",
            "min.s32",
            "max.u32",
            "and.b32",
            "or.b32",
            "xor.b32",
            "mul24.lo.s32",
            "mul24.lo.u32",
            "mul24.hi.u32",
            "mul24.hi.s32",
            "add.sat.s32",
            "sub.sat.s32",
            "set.lt.u32.s32",
            "set.ge.u32.u32",
            "set.ne.s32.s32",
        ],
        &WORDS,
    );
    binary(&["shl.b32", "shr.u32", "shr.s32"], &["0x80000001", "7", "31", "32", "40"]);
    for a in WORDS {
        for form in [
            "neg.s32",
            "abs.s32",
            "not.b32",
            "popc.b32",
            "clz.b32",
            "brev.b32",
            "bfind.u32",
            "bfind.s32",
            "bfind.shiftamt.s32",
            "cnot.b32",
            "cvt.s32.s8",
            "cvt.u32.u16",
        ] {
            if form.starts_with("cvt") {
                cases.push(format!("mov.u32 %r3, {a}; {form} %r2, %r3;"));
            } else {
                cases.push(format!("{form} %r2, {a};"));
            }
        }
        for (b, c) in [("0", "4"), ("4", "8"), ("28", "8"), ("31", "1"), ("3", "0"), ("40", "4")] {
            cases.push(format!("bfe.u32 %r2, {a}, {b}, {c};"));
            cases.push(format!("bfe.s32 %r2, {a}, {b}, {c};"));
            cases.push(format!("bfi.b32 %r2, 0x5a5a5a5a, {a}, {b}, {c};"));
        }
        for b in ["0x3210", "0x7654", "0x8765", "0xf1c3"] {
            cases.push(format!("prmt.b32 %r2, {a}, 0x89abcdef, {b};"));
        }
        for b in ["1", "-1", "0x7fffffff"] {
            cases.push(format!("mad.lo.s32 %r2, {a}, {b}, 9;"));
            cases.push(format!("mad24.lo.s32 %r2, {a}, {b}, 9;"));
            cases.push(format!("mad24.hi.u32 %r2, {a}, {b}, 9;"));
            cases.push(format!("sad.s32 %r2, {a}, {b}, 9;"));
            cases.push(format!("slct.s32.s32 %r2, 1, 2, {a};"));
            cases.push(format!("lop3.b32 %r2, {a}, {b}, 0x0ff0f00f, 0x96;"));
            cases.push(format!("shf.l.wrap.b32 %r2, {a}, {b}, 13;"));
            cases.push(format!("shf.r.clamp.b32 %r2, {a}, {b}, 33;"));
            cases.push(format!("setp.lt.s32 %p1, {a}, {b}; selp.b32 %r2, 1, 2, !%p1;"));
            for (first, second) in [("add", "add"), ("sub", "sub"), ("sub", "add"), ("add", "sub")]
            {
                cases.push(format!("{first}.cc.u32 %r3, {a}, {b}; {second}c.u32 %r2, 10, 3;"));
            }
        }
    }
    let floats = [
        "0f00000000",
        "0f80000000",
        "0f3FC00000",
        "0fBF800000",
        "0f7F800000",
        "0f00000001",
        "0f4B000001",
    ];
    for a in floats {
        for b in floats {
            for form in [
                "add.rn.f32",
                "sub.rn.f32",
                "mul.rn.f32",
                "min.f32",
                "max.f32",
                "add.ftz.f32",
                "add.sat.f32",
                "add.rz.f32",
                "mul.rm.f32",
                "fma.rn.f32",
            ] {
                let c = if form.starts_with("fma") { ", 0f3F800000" } else { "" };
                cases.push(format!("{form} %f1, {a}, {b}{c}; mov.b32 %r2, %f1;"));
            }
            cases.push(format!("setp.ltu.f32 %p1, {a}, {b}; selp.b32 %r2, 1, 2, %p1;"));
            cases.push(format!("set.le.u32.f32 %r2, {a}, {b};"));
            cases.push(format!("slct.b32.f32 %r2, 1, 2, {a};"));
        }
        for form in ["cvt.rzi.s32.f32", "cvt.rni.u32.f32", "cvt.rpi.s32.f32"] {
            cases.push(format!("{form} %r2, {a};"));
        }
    }
    cases
}

/// What the simulator leaves.
fn simulated(ptx: &str, n: usize) -> Vec<u32> {
    let memory = Memory::new(1 << 24);
    let program = Program::parse(ptx).unwrap_or_else(|error| panic!("{error}"));
    let module = Module::load(program, &memory).expect("no variables");
    let out = memory.alloc(4 * n as u64).expect("there is room");
    let config = LaunchConfig { grid: [1; 3], block: [1; 3], dynamic_shared_bytes: 0 };
    launch(&module, "k", config, &out.to_le_bytes(), &memory, &Options::default())
        .unwrap_or_else(|fault| panic!("{fault}"));
    let mut bytes = vec![0; 4 * n];
    memory.read(out, &mut bytes).expect("allocated");
    bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Constants that straight-line machine code stores, by offset.
fn stored(listing: &str) -> HashMap<u32, u32> {
    let number = |text: &str| {
        let (negative, digits) =
            text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let value = u32::from_str_radix(digits.strip_prefix("0x")?, 16).ok()?;
        Some(if negative { value.wrapping_neg() } else { value })
    };
    let mut registers: HashMap<String, u32> = HashMap::new();
    let mut found = HashMap::new();
    for line in listing.lines() {
        let Some(code) = line.trim().strip_prefix("/*").and_then(|line| line.split_once("*/"))
        else {
            continue;
        };
        let code = code.1.trim().split(';').next().unwrap_or_default().trim();
        let (opcode, operands) = code.split_once(' ').unwrap_or((code, ""));
        let operands: Vec<_> = operands.split(',').map(str::trim).collect();
        let value = |operand: &str| match operand {
            "RZ" | "URZ" | "SRZ" => Some(0),
            operand => number(operand).or(registers.get(operand).copied()),
        };
        match (opcode, operands.as_slice()) {
            ("STG.E", [address, source]) => {
                let offset = address.split_once('+').map_or("0x0", |(_, offset)| offset);
                let offset = number(offset.trim_end_matches(']'));
                if let (Some(offset), Some(value)) = (offset, value(source)) {
                    found.insert(offset, value);
                }
            }
            ("MOV" | "UMOV", [d, a])
            | ("IMAD.MOV.U32" | "IMAD.MOV" | "IMAD.U32", [d, "RZ", "RZ", a]) => {
                match value(a) {
                    Some(value) => registers.insert((*d).to_owned(), value),
                    None => registers.remove(*d),
                };
            }
            ("CS2R" | "CS2R.32", [d, "SRZ"]) => {
                registers.insert((*d).to_owned(), 0);
                if let Some(n) = d.strip_prefix('R').and_then(|n| n.parse::<u32>().ok()) {
                    registers.insert(format!("R{}", n + 1), 0);
                }
            }
            _ => {
                // Any other instruction's target, and the register after it, are not known.
                for operand in operands.iter().take(2) {
                    registers.remove(*operand);
                    if let Some(n) = operand.strip_prefix('R').and_then(|n| n.parse::<u32>().ok()) {
                        registers.remove(&format!("R{}", n + 1));
                    }
                }
            }
        }
    }
    found
}

#[test]
fn instructions_on_constants() {
    let (Some(ptxas), Some(nvdisasm)) = (ptxas(), tool("PTXSIM_NVDISASM", "nvdisasm")) else {
        return eprintln!("skipped: no ptxas or no nvdisasm");
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases = cases();
    let body: String = cases
        .iter()
        .enumerate()
        .map(|(i, case)| format!("{case} st.global.u32 [%rd1+{}], %r2;\n", 4 * i))
        .collect();
    let ptx = text(&body);
    let cubin = folder.path().join("k.cubin");
    assembles(&ptxas, &ptx, &cubin).unwrap_or_else(|error| panic!("{error}"));
    let listing = Command::new(nvdisasm).arg(&cubin).output().expect("nvdisasm starts");
    let folded = stored(&String::from_utf8_lossy(&listing.stdout));
    let ours = simulated(&ptx, cases.len());
    let mut wrong = Vec::new();
    let mut n = 0;
    for (i, (case, ours)) in cases.iter().zip(ours).enumerate() {
        let Some(theirs) = folded.get(&(4 * i as u32)) else { continue };
        n += 1;
        if *theirs != ours {
            wrong.push(format!("{case} ptxas {theirs:#x}, here {ours:#x}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {n} differ:\n{}", wrong.len(), wrong.join("\n"));
    assert!(2 * n > cases.len(), "only {n} of {} were folded", cases.len());
}

#[test]
fn texts_that_are_accepted() {
    let Some(ptxas) = ptxas() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bodies = [
        "mov.u32 %r2, 1;",
        ".reg .b32 a<4>; mov.u32 a0, 1;",
        ".reg .b32 a<4>; mov.u32 a4, 1;",
        ".reg.b32 x; mov .u32 x, 1;",
        ".global .u32 g[2] = {5, 6}; ld.global.u32 %r2, [g+4];",
        ".reg .v4 .u32 v; ld.global.v4.u32 v, [%rd1]; mov.b32 %r1, v.w;",
        "vote.sync.all.pred %p1, 1, -1;",
        "selp.b32 %r1, 1, 2, !1;",
        "mov.u32 %r1, (3>2)?7:8;",
        "mov.u32 %r1, 017+0b11;",
        "mov.f32 %f1, 1.5;",
        "mov.f32 %f1, 1;",
        "mov.u32 %r99, 1;",
        "frobnicate.u32 %r1, %r2;",
        "add.s32 %r1, %r2;",
        "add.s32 %r1, %r2, %r3, %r4;",
        "mov.u32 %r1 2;",
        "{ .reg .b32 %r<2>; mov.u32 %r1, 5; bra L; L: }",
        "bra NOWHERE;",
        "@%r1 mov.u32 %r2, 1;",
        "mov.u32 %tid.x, 1;",
        "selp.b32 %r1, 1, 2, %r3;",
        "mov.u32 %r1, %unknown;",
        "atom.global.inc.u32 %r1, [%rd1], 5;",
        "atom.global.inc.s32 %r1, [%rd1], 5;",
        "add.sat.u32 %r1, %r2, %r3;",
        "mad24.lo.sat.s32 %r1, %r2, %r3, %r4;",
        "match.all.sync.b32 %r1|%p1, %r2, -1;",
        "match.any.sync.b32 %r1|%p1, %r2, -1;",
        "shfl.sync.idx.b32 %r1|%p1, %r2, 0, 31, -1;",
        "set.lt.u32.s32 %r1, %r2, %r3;",
        "set.lt.f64.s32 %d1, %r2, %r3;",
        "setp.lt.and.s32 %p1, %r2, %r3, !%p2;",
        "setp.lt.and.s32 %p1, %r2, %r3;",
        "slct.s32.f32 %r1, %r2, %r3, %f1;",
        "mov.pred %p1, !%p2;",
        "cvt.rn.s32.s64 %r1, %rd2;",
    ];
    let mut wrong = Vec::new();
    for (i, body) in bodies.iter().enumerate() {
        let ptx = text(body);
        let theirs = assembles(&ptxas, &ptx, &folder.path().join(format!("{i}.cubin")));
        let ours =
            Program::parse(&ptx).map_err(|error| error.to_string()).and_then(
                |program| match program.entry("k").and_then(|entry| entry.unsupported()) {
                    Some(error) => Err(error.to_string()),
                    None => Ok(()),
                },
            );
        if theirs.is_ok() != ours.is_ok() {
            wrong.push(format!("{body}\n  ptxas: {theirs:?}\n  here: {ours:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
