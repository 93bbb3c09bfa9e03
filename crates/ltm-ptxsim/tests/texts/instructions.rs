//! Instructions that foreign kernels use, with the values that ptxas folds or the manual gives.

use ltm_ptxsim::FaultKind;

use crate::{computes, each_computes, faults, kernel, run_on};

#[test]
fn a_subtraction_leaves_the_carry_that_hardware_has() {
    computes("", "sub.cc.u32 %r3, 5, 3; addc.u32 %r2, 0, 0;", 1);
    computes("", "sub.cc.u32 %r3, 3, 5; addc.u32 %r2, 0, 0;", 0);
    computes("", "sub.cc.u32 %r3, 3, 5; subc.u32 %r2, 10, 0;", 9);
    computes("", "sub.cc.u32 %r3, 5, 3; subc.u32 %r2, 10, 0;", 10);
    computes("", "add.cc.u32 %r3, 5, 3; subc.u32 %r2, 10, 0;", 9);
    computes("", "add.cc.u32 %r3, -1, 3; subc.u32 %r2, 10, 0;", 10);
    computes("", "sub.cc.u32 %r3, 5, 3; subc.cc.u32 %r3, 10, 0; addc.u32 %r2, 0, 0;", 1);
    computes("", "sub.cc.u32 %r3, 3, 5; madc.lo.u32 %r2, 2, 3, 4;", 10);
    faults(&kernel("", "addc.u32 %r2, 5, 6;"), 1, 1, FaultKind::UnwrittenRegister, &["CC.CF"]);
}

#[test]
fn products_of_24_bits() {
    computes("", "mul24.lo.s32 %r2, -3, 0x1000005;", (-15i32).cast_unsigned());
    computes("", "mul24.hi.s32 %r2, -3, 0x1000005;", u32::MAX);
    computes("", "mul24.hi.u32 %r2, 0xffffff, 0xffffff;", (-0x200i32).cast_unsigned());
    computes("", "mul24.lo.u32 %r2, 0xffffff, 0xffffff;", 0xfe00_0001);
    computes("", "mad24.lo.s32 %r2, 7, -3, 100;", 79);
    computes(
        "",
        "mad24.hi.s32 %r2, 0x7fffff, 0x7fffff, 0x7fffffff;",
        (-0x4000_0101i32).cast_unsigned(),
    );
    computes("", "mad24.hi.sat.s32 %r2, 0x7fffff, 0x7fffff, 0x7fffffff;", 0x7fff_ffff);
}

#[test]
fn saturating_sums() {
    computes("", "add.sat.s32 %r2, 0x7fffffff, 1;", 0x7fff_ffff);
    computes("", "add.sat.s32 %r2, -2147483648, -1;", 0x8000_0000);
    computes("", "add.sat.s32 %r2, 5, -7;", (-2i32).cast_unsigned());
    computes("", "sub.sat.s32 %r2, 0x80000000, 1;", 0x8000_0000);
    computes("", "sub.sat.s32 %r2, 0x7fffffff, -1;", 0x7fff_ffff);
    computes("", "mad.hi.sat.s32 %r2, 0x7fffffff, 0x7fffffff, 0x7fffffff;", 0x7fff_ffff);
}

#[test]
fn comparisons_that_leave_a_number() {
    computes("", "set.lt.u32.s32 %r2, 3, 5;", u32::MAX);
    computes("", "set.lt.u32.u32 %r2, 3, -5;", u32::MAX);
    computes("", "set.lt.s32.s32 %r2, 3, -5;", 0);
    computes("", "set.lt.f32.s32 %f1, 3, 5; mov.b32 %r2, %f1;", 0x3f80_0000);
    let with = "setp.eq.u32 %p1, 1, 1; set.lt.and.s32.f32 %r2, 0f00000000, 0f3F800000, ";
    computes("", &format!("{with} !%p1;"), 0);
    computes("", &format!("{with} %p1;"), u32::MAX);
    // 1.0 and 2.0, against 1.0 in both halves.
    let halves = "mov.u32 %r3, 0x40003c00; mov.u32 %r4, 0x3c003c00;";
    computes("", &format!("{halves} set.eq.f16x2.f16x2 %r2, %r3, %r4;"), 0x0000_3c00);
    computes("", &format!("{halves} set.gt.u32.f16x2 %r2, %r3, %r4;"), 0xffff_0000);
    let halves = "mov.u32 %r3, 0x40003f80; mov.u32 %r4, 0x3f803f80;";
    computes("", &format!("{halves} set.ge.bf16x2.bf16x2 %r2, %r3, %r4;"), 0x3f80_3f80);
}

#[test]
fn selections_and_differences() {
    computes("", "slct.s32.s32 %r2, 4, 5, -1;", 5);
    computes("", "slct.u32.s32 %r2, 4, 5, 0;", 4);
    computes("", "slct.b32.f32 %r2, 4, 5, 0f80000000;", 4);
    computes("", "slct.b32.f32 %r2, 4, 5, 0f7FFFFFFF;", 5);
    computes("", "sad.u32 %r2, 4, 9, 100;", 105);
    computes("", "sad.s32 %r2, 4, -9, 100;", 113);
}

#[test]
fn matches_find_lanes_with_equal_values() {
    let same = |x: u32| (0..32).filter(|y| y % 3 == x % 3).fold(0, |mask, y| mask | 1 << y);
    each_computes("rem.u32 %r3, %r1, 3; match.any.sync.b32 %r2, %r3, -1;", same);
    each_computes(
        "rem.u32 %r3, %r1, 3; cvt.u64.u32 %rd4, %r3; shl.b64 %rd4, %rd4, 40; match.any.sync.b64 %r2, %rd4, -1;",
        same,
    );
    each_computes("match.all.sync.b32 %r2|%p1, 7, -1; @!%p1 mov.u32 %r2, 1;", |_| u32::MAX);
    each_computes("match.all.sync.b32 %r2|%p1, %r1, -1; @%p1 mov.u32 %r2, 1;", |_| 0);
    let some = "setp.lt.u32 %p1, %r1, 8; mov.u32 %r2, 0; @%p1 match.any.sync.b32 %r2, 1, 0xff;";
    each_computes(some, |x| if x < 8 { 0xff } else { 0 });
}

/// Every thread of some blocks does `op` on the first word, which starts as `start`.
fn atomic(start: u32, op: &str) -> Vec<u32> {
    let body = format!(
        "setp.ne.u32 %p1, %r1, 0; mov.u32 %r3, {start}; @!%p1 st.global.u32 [%rd1], %r3;
bar.sync 0; {op}"
    );
    run_on(&kernel("", &body), 1, 64, Default::default()).expect(op).words
}

#[test]
fn atomics_that_wrap_around() {
    assert_eq!(atomic(3, "atom.global.inc.u32 %r2, [%rd1], 9;")[0], 7); // 64 steps of a cycle of 10
    assert_eq!(atomic(12, "red.global.inc.u32 [%rd1], 9;")[0], 3); // first 12 becomes 0
    assert_eq!(atomic(3, "atom.global.dec.u32 %r2, [%rd1], 9;")[0], 9);
    assert_eq!(atomic(0, "red.global.dec.u32 [%rd1], 99;")[0], 36);
}

#[test]
fn atomics_of_16_bits() {
    let one = "mov.b16 %h1, 0x3c00;";
    assert_eq!(atomic(0, &format!("{one} atom.global.add.noftz.f16 %h2, [%rd1], %h1;"))[0], 0x5400);
    assert_eq!(
        atomic(7, &format!("{one} red.global.add.noftz.f16 [%rd1+2], %h1;"))[0],
        0x5400_0007
    );
    let one = "mov.b16 %h1, 0x3f80;";
    assert_eq!(
        atomic(0, &format!("{one} atom.global.add.noftz.bf16 %h2, [%rd1], %h1;"))[0],
        0x4280
    );
    let pair = "mov.b32 %r4, 0x40003c00;";
    assert_eq!(
        atomic(0, &format!("{pair} red.global.add.noftz.f16x2 [%rd1], %r4;"))[0],
        0x5800_5400
    );
    let pair = "mov.b32 %r4, 0x40003f80;";
    assert_eq!(
        atomic(0, &format!("{pair} atom.global.add.noftz.bf16x2 %r2, [%rd1], %r4;"))[0],
        0x4300_4280
    );
    let swap = "mov.b16 %h1, 0; cvt.u16.u32 %h2, %r1; atom.global.cas.b16 %h3, [%rd1+2], %h1, %h2;
setp.ne.u16 %p2, %h3, 0; @%p2 st.global.u32 [%rd2+4], 1;";
    let words = atomic(5, swap);
    assert_eq!(words[0] & 0xffff, 5, "the other half stays");
    for op in [
        "atom.global.add.f16 %h2, [%rd1], %h1;",
        "atom.global.min.f16 %h2, [%rd1], %h1;",
        "atom.global.add.u16 %h2, [%rd1], %h1;",
    ] {
        faults(&kernel("", op), 1, 1, FaultKind::Unsupported, &[op.trim_end_matches(';')]);
    }
    // In shared memory too.
    let shared =
        ".shared .b32 s; mov.b16 %h1, 0x3c00; setp.eq.u32 %p1, %r1, 0; @%p1 st.shared.u32 [s], 0;
bar.warp.sync -1; red.shared.add.noftz.f16 [s+2], %h1; bar.warp.sync -1; ld.shared.u32 %r2, [s];";
    each_computes(shared, |_| 0x5000_0000);
}

#[test]
fn special_registers_of_the_device() {
    computes("", "mov.u32 %r2, %nsmid;", 108);
    computes("", "mov.u32 %r2, %smid;", 0);
    let ptx = kernel(
        "",
        "mov.u32 %r3, %ctaid.x; mov.u32 %r4, %smid; mul.wide.u32 %rd4, %r3, 4; add.u64 %rd4, %rd1, %rd4; st.global.u32 [%rd4], %r4;",
    );
    let words = run_on(&ptx, 120, 1, Default::default()).expect("sound").words;
    assert!((0..120).all(|i| words[i] == i as u32 % 108), "{words:?}");
    computes("", "mov.u64 %rd4, %gridid; setp.ne.u64 %p1, %rd4, 0; selp.u32 %r2, 1, 0, %p1;", 1);
    computes("", ".shared .b8 s[24]; mov.u32 %r3, s; mov.u32 %r2, %total_smem_size;", 32);
}

#[test]
fn addresses_tell_their_space() {
    let is = |space: &str, address: &str| {
        format!("{address} isspacep.{space} %p1, %rd4; selp.u32 %r2, 1, 0, %p1;")
    };
    computes("", &is("global", "mov.u64 %rd4, %rd1;"), 1);
    let shared = ".shared .b32 s; mov.u64 %rd5, s; cvta.shared.u64 %rd4, %rd5;";
    computes("", &is("shared", shared), 1);
    computes("", &is("global", shared), 0);
    computes("", &is("local", ".local .b32 s; mov.u64 %rd5, s; cvta.local.u64 %rd4, %rd5;"), 1);
}
