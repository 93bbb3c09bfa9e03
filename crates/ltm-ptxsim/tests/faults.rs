//! Planted faults: each is one line of a small kernel, beside the line that is right. The right twin
//! passes in every mode with every seed; the fault is caught in the modes the test states.

#![expect(clippy::result_large_err, reason = "a fault is the rare case and tells all")]

use ltm_ptxsim::{
    AsyncCopies, Fault, FaultKind, LaunchConfig, Memory, Module, Options, Program, launch,
};

use AsyncCopies::{Deferred, Eager};

/// A kernel over `out` (`%rd1`) and `x` (`%rd2`), with thread `%r1`, block `%r2`, this thread's word
/// of both at `%rd3` and `%rd4`, and its word of the shared `tile` at `%r4`.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.0
.target sm_80
.address_size 64
.visible .entry planted(.param .u64 out, .param .u64 x)
{{
    .reg .pred %p<4>;
    .reg .b32 %r<24>;
    .reg .b64 %rd<16>;
    .shared .align 16 .b8 tile[1024];
    ld.param.u64 %rd1, [out];
    ld.param.u64 %rd2, [x];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mad.lo.s32 %r3, %r2, %r3, %r1;
    mul.wide.s32 %rd5, %r3, 4;
    add.s64 %rd3, %rd1, %rd5;
    add.s64 %rd4, %rd2, %rd5;
    shl.b32 %r5, %r1, 2;
    mov.u32 %r6, tile;
    add.s32 %r4, %r6, %r5;
{body}
    ret;
}}
"
    )
}

/// Runs over 256 words `x[i] = i`, of which `written` are written; returns `out`'s 64 words.
fn run(
    body: &str,
    grid: u32,
    written: usize,
    shared: u32,
    options: &Options,
) -> Result<Vec<u32>, Fault> {
    let memory = Memory::new(1 << 20);
    let program = Program::parse(&kernel(body)).expect("the text is PTX");
    let module = Module::load(program, &memory).expect("no variables");
    let (out, x) = (memory.alloc(256).expect("room"), memory.alloc(1024).expect("room"));
    let data: Vec<u8> = (0..written as u32).flat_map(u32::to_le_bytes).collect();
    memory.write(x, &data).expect("allocated");
    let params = [out.to_le_bytes(), x.to_le_bytes()].concat();
    let block = [64 / grid.min(2), 1, 1];
    let config = LaunchConfig { grid: [grid, 1, 1], block, dynamic_shared_bytes: shared };
    launch(&module, "planted", config, &params, &memory, options)?;
    let mut bytes = vec![0; 256];
    memory.read(out, &mut bytes).expect("allocated");
    Ok(bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Puts `right` and `wrong` in the place of `SITE`, and expects `expected(i)` in `out` of the right
/// one; the wrong one is caught with one of `kinds` in each of `modes`, with some seed.
fn check(
    body: &str,
    right: &str,
    wrong: &str,
    grid: u32,
    kinds: &[FaultKind],
    modes: &[AsyncCopies],
    expected: impl Fn(u32) -> u32,
) {
    let expected: Vec<u32> = (0..64).map(expected).collect();
    for mode in [Eager, Deferred] {
        let mut caught = None;
        for seed in 0..6 {
            let options = Options { seed, async_copies: mode, ..Options::default() };
            let out = run(&body.replace("SITE", right), grid, 256, 0, &options);
            assert_eq!(out.expect("the right twin is sound"), expected, "{mode:?}, seed {seed}");
            let outcome = run(&body.replace("SITE", wrong), grid, 256, 0, &options);
            caught = caught.or(outcome.err());
        }
        if modes.contains(&mode) {
            tells(&caught.unwrap_or_else(|| panic!("{mode:?} misses {wrong:?}")), kinds);
        }
    }
}

/// A fault is of one of these kinds, and its text says where.
fn tells(fault: &Fault, kinds: &[FaultKind]) {
    assert!(kinds.contains(&fault.kind), "{fault}");
    let text = fault.to_string();
    assert!(text.contains("`planted`") && text.contains("PTX line"), "{text}");
    assert!(fault.ptx_line > 0 && text.contains(&fault.ptx_text), "{text}");
    if let Some(address) = fault.address {
        assert!(text.contains(&format!("{address:#x}")) && text.contains("thread ("), "{text}");
    }
}

/// Writes this thread's word of `tile` and reads the one of the mirrored thread into `out`.
const MIRROR: &str = "
    ld.global.u32 %r7, [%rd4];
    st.shared.u32 [%r4], %r7;
    SITE
    sub.s32 %r8, %r6, %r5;
    ld.shared.u32 %r9, [%r8+252];
    st.global.u32 [%rd3], %r9;";

#[test]
fn a_missing_syncthreads() {
    let kinds = [FaultKind::SharedRace, FaultKind::Uninitialised];
    check(MIRROR, "bar.sync 0;", "", 1, &kinds, &[Eager, Deferred], |i| 63 - i);
}

/// Checks a fault that is a race within one warp, and that its text names both lanes.
fn check_lanes(body: &str, right: &str, wrong: &str, expected: impl Fn(u32) -> u32) {
    check(body, right, wrong, 1, &[FaultKind::SharedRace], &[Eager, Deferred], expected);
    let wrong = body.replace("SITE", wrong);
    let fault = run(&wrong, 1, 256, 0, &Options::default()).expect_err("caught above");
    assert!(fault.detail.contains("lane"), "{fault}");
    // Where races are not looked for, the lanes of a warp run together and nothing is noticed.
    let blind = Options { races: false, ..Options::default() };
    assert!(run(&wrong, 1, 256, 0, &blind).is_ok());
}

/// Hands each thread's word to the lane beside it.
const NEIGHBOUR: &str = "
    st.shared.u32 [%r4], %r3;
    SITE
    xor.b32 %r8, %r5, 4;
    add.s32 %r8, %r6, %r8;
    ld.shared.u32 %r9, [%r8];
    st.global.u32 [%rd3], %r9;";

#[test]
fn a_missing_syncwarp() {
    check_lanes(NEIGHBOUR, "bar.warp.sync -1;", "", |i| i ^ 1);
    // Lanes that wait for each other in a shuffle have met as well.
    check_lanes(NEIGHBOUR, "shfl.sync.bfly.b32 %r7, %r3, 1, 31, -1;", "", |i| i ^ 1);
    check_lanes(NEIGHBOUR, "setp.eq.u32 %p1, %r1, 0; vote.sync.any.pred %p2, %p1, -1;", "", |i| {
        i ^ 1
    });
}

#[test]
fn a_syncwarp_that_leaves_a_lane_out() {
    // Both halves of the warp meet in the right one, in the wrong one odd and even lanes.
    let halves = |split: &str| {
        format!(
            "{split} setp.eq.u32 %p1, %r7, 0; @%p1 bra HALF; bar.warp.sync %r10; bra MET;
HALF: bar.warp.sync %r11; MET:"
        )
    };
    let right = "and.b32 %r7, %r1, 16; mov.u32 %r10, 0xffff0000; mov.u32 %r11, 0xffff;";
    let wrong = "and.b32 %r7, %r1, 1; mov.u32 %r10, 0xaaaaaaaa; mov.u32 %r11, 0x55555555;";
    check_lanes(NEIGHBOUR, &halves(right), &halves(wrong), |i| i ^ 1);
}

#[test]
fn lanes_that_run_together_again_have_not_met() {
    let body = "
    and.b32 %r7, %r1, 1;
    setp.eq.u32 %p1, %r7, 0;
    @%p1 bra EVEN;
    st.shared.u32 [%r4], %r3;
EVEN:
    SITE
    or.b32 %r8, %r5, 4;
    add.s32 %r8, %r6, %r8;
    ld.shared.u32 %r9, [%r8];
    st.global.u32 [%rd3], %r9;";
    check_lanes(body, "bar.warp.sync -1;", "", |i| i | 1);
}

#[test]
fn a_word_overwritten_before_its_reader_has_met() {
    let body = "
    st.shared.u32 [%r4], %r3;
    bar.warp.sync -1;
    xor.b32 %r8, %r5, 4;
    add.s32 %r8, %r6, %r8;
    ld.shared.u32 %r9, [%r8];
    SITE
    st.shared.u32 [%r4], %r9;
    st.global.u32 [%rd3], %r9;";
    check_lanes(body, "bar.warp.sync -1;", "", |i| i ^ 1);
}

#[test]
fn different_values_to_one_address_at_once() {
    // All lanes of a warp write the warp's word.
    let body = "
    shr.u32 %r7, %r1, 5;
    shl.b32 %r8, %r7, 2;
    add.s32 %r8, %r6, %r8;
    SITE
    st.shared.u32 [%r8], %r9;
    bar.warp.sync -1;
    ld.shared.u32 %r9, [%r8];
    st.global.u32 [%rd3], %r9;";
    check_lanes(body, "mov.u32 %r9, %r7;", "mov.u32 %r9, %r1;", |i| i / 32);
}

#[test]
fn an_atomic_beside_a_plain_access() {
    // One word of each half of a warp, cleared by one lane, is added to by all and read by all.
    let body = |before: &str, after: &str| {
        format!(
            "
    shr.u32 %r7, %r1, 4;
    shl.b32 %r8, %r7, 2;
    add.s32 %r8, %r6, %r8;
    and.b32 %r7, %r1, 15;
    setp.eq.u32 %p1, %r7, 0;
    mov.u32 %r9, 0;
    @%p1 st.shared.u32 [%r8], %r9;
    {before}
    atom.shared.add.u32 %r10, [%r8], 1;
    {after}
    ld.shared.u32 %r9, [%r8];
    st.global.u32 [%rd3], %r9;"
        )
    };
    let met = "bar.warp.sync -1;";
    check_lanes(&body("SITE", met), met, "", |_| 16);
    check_lanes(&body(met, "SITE"), met, "", |_| 16);
    let halves = "shr.u32 %r7, %r1, 4; and.b32 %r7, %r7, 1; setp.eq.u32 %p1, %r7, 0;
@%p1 bra LOW; bar.warp.sync 0xffff0000; bra MET; LOW: bar.warp.sync 0xffff; MET:";
    check_lanes(&body(met, "SITE"), halves, "", |_| 16);
}

#[test]
fn an_atomic_beside_another_warps_plain_access() {
    let body = "
    setp.eq.u32 %p1, %r1, 0;
    mov.u32 %r9, 0;
    @%p1 st.shared.u32 [%r6], %r9;
    bar.sync 0;
    atom.shared.add.u32 %r10, [%r6], 1;
    SITE
    ld.shared.u32 %r9, [%r6];
    st.global.u32 [%rd3], %r9;";
    let kinds = [FaultKind::SharedRace];
    check(body, "bar.sync 0;", "bar.warp.sync -1;", 1, &kinds, &[Eager, Deferred], |_| 64);
}

#[test]
fn a_matrix_loaded_before_its_rows_are_there() {
    // A warp's 32 words are eight rows of 16 bytes: the matrix that it loads, as its words lie.
    let body = "
    st.shared.u32 [%r4], %r3;
    SITE
    and.b32 %r7, %r1, 7;
    shl.b32 %r7, %r7, 4;
    and.b32 %r8, %r5, 128;
    add.s32 %r7, %r7, %r8;
    add.s32 %r7, %r7, %r6;
    ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r9}, [%r7];
    st.global.u32 [%rd3], %r9;";
    check_lanes(body, "bar.warp.sync -1;", "", |i| i);
}

/// Two copies in flight; the second one's word goes to `out`.
const COPIES: &str = "
    cp.async.ca.shared.global [%r4], [%rd4], 4;
    cp.async.commit_group;
    cp.async.ca.shared.global [%r4+256], [%rd4+256], 4;
    cp.async.commit_group;
    SITE
    ld.shared.u32 %r9, [%r4+256];
    st.global.u32 [%rd3], %r9;";

#[test]
fn a_missing_wait_for_a_copy() {
    let kinds = [FaultKind::PendingCopy, FaultKind::Uninitialised];
    check(COPIES, "cp.async.wait_group 0;", "", 1, &kinds, &[Deferred], |i| 64 + i);
}

#[test]
fn a_wait_that_is_off_by_one() {
    let kinds = [FaultKind::PendingCopy, FaultKind::Uninitialised];
    let (right, wrong) = ("cp.async.wait_group 0;", "cp.async.wait_group 1;");
    check(COPIES, right, wrong, 1, &kinds, &[Deferred], |i| 64 + i);
}

#[test]
fn a_copy_over_what_is_still_read() {
    let body = "
    cp.async.ca.shared.global [%r4], [%rd4], 4;
    cp.async.wait_all;
    bar.sync 0;
    sub.s32 %r8, %r6, %r5;
    ld.shared.u32 %r9, [%r8+252];
    SITE
    cp.async.ca.shared.global [%r4], [%rd4+256], 4;
    cp.async.wait_all;
    st.global.u32 [%rd3], %r9;";
    check(body, "bar.sync 0;", "", 1, &[FaultKind::SharedRace], &[Eager], |i| 63 - i);
}

#[test]
fn a_missing_row_bound() {
    let body = "
    SITE
    @%p1 bra DONE;
    ld.global.u32 %r7, [%rd4];
    st.global.u32 [%rd3], %r7;
DONE:";
    let (right, wrong) = ("setp.ge.s32 %p1, %r3, 64;", "setp.ge.s32 %p1, %r3, 65536;");
    check(body, right, wrong, 3, &[FaultKind::OutOfBounds], &[Eager, Deferred], |i| i);
}

#[test]
fn a_wrong_stride() {
    let body = "
    SITE
    mul.wide.s32 %rd6, %r7, 4;
    add.s64 %rd7, %rd2, %rd6;
    ld.global.u32 %r8, [%rd7];
    st.global.u32 [%rd3], %r8;";
    let (right, wrong) = ("mul.lo.s32 %r7, %r3, 4;", "mul.lo.s32 %r7, %r3, 5;");
    check(body, right, wrong, 1, &[FaultKind::OutOfBounds], &[Eager, Deferred], |i| 4 * i);
}

#[test]
fn a_race_between_blocks() {
    let body = "
    shl.b32 %r7, %r2, 7;
    SITE
    add.s32 %r7, %r7, %r5;
    mul.wide.s32 %rd6, %r7, 1;
    add.s64 %rd7, %rd1, %rd6;
    st.global.u32 [%rd7], %r3;
    st.global.u32 [%rd7], %r3;";
    let kinds = [FaultKind::GlobalRace];
    check(body, "", "mov.u32 %r7, 0;", 2, &kinds, &[Eager, Deferred], |i| i);
}

#[test]
fn a_misaligned_vector_load() {
    let body = "
    shl.b32 %r7, %r1, 4;
    cvt.u64.u32 %rd6, %r7;
    add.s64 %rd7, %rd2, %rd6;
    SITE
    st.global.u32 [%rd3], %r8;";
    let right = "ld.global.v4.u32 {%r8, %r9, %r10, %r11}, [%rd7];";
    let wrong = "ld.global.v4.u32 {%r8, %r9, %r10, %r11}, [%rd4];";
    check(body, right, wrong, 1, &[FaultKind::Misaligned], &[Eager, Deferred], |i| 4 * i);
}

#[test]
fn shared_memory_that_nobody_wrote() {
    let body = "
    SITE
    @%p1 st.shared.u32 [%r4], %r3;
    bar.sync 0;
    ld.shared.u32 %r9, [%r4];
    st.global.u32 [%rd3], %r9;";
    let (right, wrong) = ("setp.lt.s32 %p1, %r1, 64;", "setp.lt.s32 %p1, %r1, 63;");
    check(body, right, wrong, 1, &[FaultKind::Uninitialised], &[Eager, Deferred], |i| i);
}

#[test]
fn a_barrier_for_half_a_warp() {
    let body = "
    setp.lt.s32 %p1, %r1, 16;
    @%p1 bra HALF;
    SITE
    bra DONE;
HALF:
    add.s32 %r3, %r3, 0;
DONE:
    bar.sync 0;
    st.global.u32 [%rd3], %r3;";
    let kinds = [FaultKind::Deadlock, FaultKind::DivergentSync];
    check(body, "", "bar.sync 1;", 1, &kinds, &[Eager, Deferred], |i| i);
}

#[test]
fn global_memory_that_nobody_wrote() {
    let body = "ld.global.u32 %r7, [%rd4]; st.global.u32 [%rd3], %r7;";
    assert!(run(body, 1, 64, 0, &Options::default()).is_ok());
    let fault = run(body, 1, 63, 0, &Options::default()).expect_err("one word is missing");
    tells(&fault, &[FaultKind::Uninitialised]);
}

/// Expects the first fault at a register of that name and a thread.
fn check_register(body: &str, right: &str, wrong: &str, at: (&str, u32), expected: fn(u32) -> u32) {
    let kinds = [FaultKind::UnwrittenRegister];
    check(body, right, wrong, 1, &kinds, &[Eager, Deferred], expected);
    let fault = run(&body.replace("SITE", wrong), 1, 256, 0, &Options::default());
    let fault = fault.expect_err("caught above");
    assert!(fault.detail.contains(&format!("register {} is", at.0)), "{fault}");
    assert!(fault.ptx_text.contains(at.0), "{fault}");
    assert_eq!(fault.thread, Some([at.1, 0, 0]), "{fault}");
}

#[test]
fn a_register_that_nobody_wrote() {
    let body = "
    SITE
    add.s32 %r8, %r7, %r3;
    st.global.u32 [%rd3], %r8;";
    check_register(body, "mov.u32 %r7, 1;", "", ("%r7", 0), |i| i + 1);
    // Only some lanes write it.
    let wrong = "setp.ne.u32 %p1, %r1, 5; @%p1 mov.u32 %r7, 1;";
    let right = "setp.eq.u32 %p1, %r1, 5; mov.u32 %r7, 1; @%p1 mov.u32 %r7, 1;";
    check_register(body, right, wrong, ("%r7", 5), |i| i + 1);
    let wrong = "setp.eq.u32 %p1, %r1, 37; @%p1 bra SKIP; mov.u32 %r7, 1; SKIP:";
    check_register(body, right, wrong, ("%r7", 37), |i| i + 1);
}

#[test]
fn a_predicate_that_nobody_wrote() {
    let body = "
    SITE
    @!%p2 add.s32 %r3, %r3, 1;
    st.global.u32 [%rd3], %r3;";
    let (right, wrong) = ("setp.lt.u32 %p2, %r1, 0;", "setp.lt.u32 %p1, %r1, 0;");
    check_register(body, right, wrong, ("%p2", 0), |i| i + 1);
    let body = "
    SITE
    selp.u32 %r8, %r3, %r7, %p1;
    add.s32 %r8, %r8, 1;
    st.global.u32 [%rd3], %r8;";
    // What a select passes over need not be there.
    let (right, wrong) = ("setp.lt.u32 %p1, %r1, 64;", "setp.lt.u32 %p1, %r1, 40;");
    check_register(body, right, wrong, ("%r8", 40), |i| i + 1);
}

#[test]
fn a_sum_that_starts_from_nothing() {
    let body = "
    mov.u32 %r9, 0;
    SITE
LOOP:
    add.s32 %r8, %r8, %r3;
    add.s32 %r9, %r9, 1;
    setp.lt.u32 %p1, %r9, 3;
    @%p1 bra LOOP;
    st.global.u32 [%rd3], %r8;";
    check_register(body, "mov.u32 %r8, 0;", "", ("%r8", 0), |i| 3 * i);
}

#[test]
fn a_copy_of_what_nobody_wrote_is_no_use_of_it() {
    // As compilers leave it: one way sets the value, the other copies what it never uses.
    let body = "
    setp.lt.u32 %p1, %r1, 40;
    mov.u32 %r9, %r8;
    @%p1 bra FIRST;
    mov.u32 %r9, %r3;
FIRST:
    mov.b64 %rd6, {%r9, %r3};
    mov.b64 {%r10, %r11}, %rd6;
    @%p1 mov.u32 %r10, %r3;
    SITE
    st.global.u32 [%rd3], %r10;";
    let kinds = [FaultKind::UnwrittenRegister];
    check(body, "", "mov.u32 %r10, %r9;", 1, &kinds, &[Eager, Deferred], |i| i);
}

#[test]
fn too_much_shared_memory() {
    let options = Options::default();
    let most = options.device.shared_per_block_optin - 1024;
    let body = "st.global.u32 [%rd3], %r3;";
    assert!(run(body, 1, 256, most, &options).is_ok());
    let fault = run(body, 1, 256, most + 1, &options).expect_err("over the limit");
    assert_eq!(fault.kind, FaultKind::Limit, "{fault}");
}

#[test]
fn an_allocation_that_was_freed() {
    let memory = Memory::new(1 << 20);
    let body = "ld.global.u32 %r7, [%rd4]; st.global.u32 [%rd3], %r7;";
    let program = Program::parse(&kernel(body)).expect("the text is PTX");
    let module = Module::load(program, &memory).expect("no variables");
    let (out, x) = (memory.alloc(256).expect("room"), memory.alloc(256).expect("room"));
    memory.write(x, &[1; 256]).expect("allocated");
    let params = [out.to_le_bytes(), x.to_le_bytes()].concat();
    let config = LaunchConfig { grid: [1; 3], block: [64, 1, 1], dynamic_shared_bytes: 0 };
    let run = || launch(&module, "planted", config, &params, &memory, &Options::default());
    assert!(run().is_ok());
    memory.free(x).expect("allocated");
    tells(&run().expect_err("freed"), &[FaultKind::UseAfterFree]);
}

#[test]
fn swapped_fragment_rows_give_wrong_numbers() {
    // A (16,16) and B (16,8), both bf16: A's row r is all r + 1, B is all ones.
    let body = "
    shr.u32 %r7, %r1, 2;
    add.s32 %r8, %r7, 1;
    cvt.rn.f32.s32 %f1, %r8;
    cvt.rn.bf16x2.f32 %r9, %f1, %f1;
    add.s32 %r8, %r7, 9;
    cvt.rn.f32.s32 %f1, %r8;
    cvt.rn.bf16x2.f32 %r10, %f1, %f1;
    mov.b32 %r11, 0x3f803f80;
    mov.f32 %f2, 0f00000000;
    mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
        {%f3, %f4, %f5, %f6}, {SITE}, {%r11, %r11}, {%f2, %f2, %f2, %f2};
    cvt.rzi.s32.f32 %r12, %f3;
    st.global.u32 [%rd3], %r12;";
    let body = format!("    .reg .f32 %f<8>;\n{body}");
    // The element of the first accumulator: row lane / 4, so 16 products of (row + 1) by 1.
    let expected: Vec<u32> = (0..64).map(|i| 16 * (i % 32 / 4 + 1)).collect();
    let right = body.replace("SITE", "%r9, %r10, %r9, %r10");
    let wrong = body.replace("SITE", "%r10, %r9, %r10, %r9");
    for async_copies in [Eager, Deferred] {
        let options = Options { async_copies, ..Options::default() };
        let out = |body: &str| run(body, 2, 256, 0, &options).expect("no rule is broken");
        assert_eq!(out(&right), expected);
        assert_ne!(out(&wrong), expected);
    }
}
