//! Instructions on random operands, against plain Rust. Knows a kernel of one warp that loads three
//! operands a lane and stores one result; must not know how the simulator computes.

mod conversions;
mod floats;
mod integers;
mod lanes;

use ltm_ptxsim::{FaultKind, LaunchConfig, Memory, Module, Options, Program, launch};
use proptest::collection::vec;
use proptest::prelude::*;

/// Three operands of every lane.
type Operands = Vec<[u64; 3]>;

/// Runs `body` on one warp, with the operands in `%rd1` to `%rd3`, their lower parts in `%r1` to
/// `%r3` and `%h1` to `%h3`, the lane in `%r0`; gives what it leaves in `%rd4`, which starts as 0.
fn run(body: &str, operands: &[[u64; 3]]) -> Result<Vec<u64>, FaultKind> {
    let ptx = format!(
        ".version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 x, .param .u64 out)
{{
    .reg .pred %p<8>;
    .reg .b16 %h<8>;
    .reg .b32 %r<16>;
    .reg .b64 %rd<16>;
    ld.param.u64 %rd5, [x];
    ld.param.u64 %rd6, [out];
    mov.u32 %r0, %tid.x;
    mad.wide.u32 %rd5, %r0, 24, %rd5;
    mad.wide.u32 %rd6, %r0, 8, %rd6;
    ld.global.u64 %rd1, [%rd5];
    ld.global.u64 %rd2, [%rd5+8];
    ld.global.u64 %rd3, [%rd5+16];
    mov.b64 {{%r1, %r4}}, %rd1;
    mov.b64 {{%r2, %r4}}, %rd2;
    mov.b64 {{%r3, %r4}}, %rd3;
    mov.b32 {{%h1, %h4}}, %r1;
    mov.b32 {{%h2, %h4}}, %r2;
    mov.b32 {{%h3, %h4}}, %r3;
    mov.u64 %rd4, 0;
    {body}
    st.global.u64 [%rd6], %rd4;
    ret;
}}
"
    );
    let memory = Memory::new(1 << 20);
    let program = Program::parse(&ptx).unwrap_or_else(|error| panic!("{error}"));
    let module = Module::load(program, &memory).expect("no variables");
    let bytes: Vec<u8> = operands.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let x = memory.alloc(bytes.len() as u64).expect("room");
    let out = memory.alloc(8 * operands.len() as u64).expect("room");
    memory.write(x, &bytes).expect("allocated");
    let params = [x.to_le_bytes(), out.to_le_bytes()].concat();
    let block = [operands.len() as u32, 1, 1];
    let config = LaunchConfig { grid: [1; 3], block, dynamic_shared_bytes: 0 };
    launch(&module, "k", config, &params, &memory, &Options::default())
        .map_err(|fault| fault.kind)?;
    let mut result = vec![0; 8 * operands.len()];
    memory.read(out, &mut result).expect("allocated");
    let word = |bytes: &[u8]| bytes.iter().rev().fold(0, |x, byte| x << 8 | u64::from(*byte));
    Ok(result.chunks_exact(8).map(word).collect())
}

/// The registers that hold operands of so many bits, and how a result of so many becomes `%rd4`.
fn register(bits: u32) -> &'static str {
    match bits {
        16 => "%h",
        32 => "%r",
        _ => "%rd",
    }
}

/// Runs `op d, a, b, c` with `n` operands of `from` bits and a result of `to` bits; `rest` stands
/// behind them. Expects the result of `expected`, whose bits above `to` do not count.
fn check(
    op: &str,
    (to, from): (u32, [u32; 3]),
    n: usize,
    rest: &str,
    operands: &[[u64; 3]],
    expected: impl Fn([u64; 3]) -> u64,
) {
    let names: Vec<_> = (0..n).map(|i| format!("{}{}", register(from[i]), i + 1)).collect();
    let (names, d) = (names.join(", "), register(to));
    let leave = match to {
        16 => "cvt.u64.u16 %rd4, %h7;",
        32 => "cvt.u64.u32 %rd4, %r7;",
        _ => "mov.b64 %rd4, %rd7;",
    };
    let got = run(&format!("{op} {d}7, {names}{rest}; {leave}"), operands).expect(op);
    for (x, got) in operands.iter().zip(got) {
        let expected = expected(*x) & u64::MAX >> (64 - to);
        assert_eq!(got, expected, "{op}{rest} of {x:x?}: {got:#x}, expected {expected:#x}");
    }
}

/// Any 64 bits, with small numbers and the ends of each type more often than chance has them.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        3 => any::<u64>(),
        2 => 0u64..80,
        1 => (0u32..64, -1i64..2).prop_map(|(bit, off)| (1u64 << bit).wrapping_add_signed(off)),
        1 => (0u64..4).prop_map(|x| x.wrapping_neg()),
    ]
}

fn words() -> impl Strategy<Value = Operands> {
    vec([word(), word(), word()], 32)
}
