//! What ptxas accepts.

use crate::{HEAD, computes, each_computes, kernel, run};

#[test]
fn a_file_directive_may_end_the_text_without_a_line_break() {
    let ptx = kernel("", ".loc 1 1 0\nmov.u32 %r2, 7;\nst.global.u32 [%rd1], %r2;");
    assert_eq!(run(&format!("{ptx}.file 1 \"a.py\""), 1).expect("sound").words[0], 7);
    assert_eq!(run(&format!("{ptx}.file 1 \"a b.py\", 1234, 56"), 1).expect("sound").words[0], 7);
}

#[test]
fn names_need_no_per_cent_sign() {
    computes("", ".reg .b32 a<4>; mov.u32 a0, 1; mov.u32 %r2, a0;", 1);
    computes("", ".reg .b32 sum; mov.u32 sum, 5; add.u32 %r2, sum, sum;", 10);
    computes("", ".reg .pred yes; setp.eq.u32 yes, 1, 1; @yes mov.u32 %r2, 3;", 3);
    // A family whose base ends with a digit.
    computes(
        "",
        ".reg .b32 a1_<12>, b2<3>; mov.u32 a1_11, 4; mov.u32 b21, a1_11; mov.u32 %r2, b21;",
        4,
    );
}

#[test]
fn directives_and_types_need_no_space_between_them() {
    computes("", ".reg.b32 x;\nmov .u32 x, 3; add .s32 %r2, x, 4;", 7);
    each_computes("mov.u32 %r2, %tid .x;", |x| x);
}

#[test]
fn variables_of_the_module_may_stand_in_a_function() {
    computes("", ".global .u32 g[2] = {5, 6}; ld.global.u32 %r2, [g+4];", 6);
    // Two functions may have one of the same name.
    let ptx = kernel(
        ".func f() { .global .u32 g = 1; ret; }",
        ".global .u32 g = 2; ld.global.u32 %r2, [g]; st.global.u32 [%rd1], %r2;",
    );
    assert_eq!(run(&ptx, 1).expect("sound").words[0], 2);
}

#[test]
fn arrays_may_start_as_addresses() {
    let load = "ld.const.u64 %rd5, [t+8]; ld.global.u32 %r2, [%rd5];";
    computes(".global .u32 x[2] = {9, 8};\n.const .u64 t[2] = {x, x+4};", load, 8);
    computes(".global .u32 x[2] = {9, 8};\n.const .u64 t[2] = {x, generic(x)};", load, 9);
    // The variable may come after the one that names it.
    computes(".const .u64 t[2] = {0, x};\n.global .u32 x = 3;", load, 3);
    computes("", ".global .u32 x[3] = {1, 2, 3}; mov.u64 %rd5, x+8; ld.global.u32 %r2, [%rd5];", 3);
    computes("", ".global .u32 x[3] = {1, 2, 3}; ld.global.u32 %r2, x[2];", 3);
}

#[test]
fn initialisers_fill_rows() {
    let word = |i: u32| format!("ld.global.u32 %r2, [z+{}];", 4 * i);
    for (i, expected) in [1, 0, 2, 3].into_iter().enumerate() {
        computes(".global .u32 z[2][2] = {{1}, {2, 3}};", &word(i as u32), expected);
    }
    for (i, expected) in [1, 2, 0, 0].into_iter().enumerate() {
        computes(".global .u32 z[4] = {1, 2};", &word(i as u32), expected);
    }
    computes(".global .f32 z[2] = {1.5, 0f40000000};", &word(0), 1.5f32.to_bits());
    computes(".global .f32 z[2] = {-1.5e0, 0f40000000};", &word(0), (-1.5f32).to_bits());
    computes(".global .u16 z[2] = {0xffff, -2};", &word(0), 0xfffe_ffff);
    computes(".global .v2 .u32 z[2] = {{1, 2}, {3, 4}};", &word(3), 4);
    computes(".global .u32 z[] = {1, 2, 3};", &word(2), 3);
    computes(".global .u32 y, z = 6;", &word(0), 6);
}

#[test]
fn functions_may_take_and_return_registers() {
    let f = ".func (.reg .u32 y) f(.reg .u32 x) { add.u32 y, x, 1; ret; }";
    computes(f, "mov.u32 %r3, 3; call (%r2), f, (%r3);", 4);
    computes(f, "call (%r2), f, (41);", 42);
    // Lanes that do not call keep what they have.
    let ptx = "mov.u32 %r2, %r1; setp.lt.u32 %p1, %r1, 5; @%p1 call (%r2), f, (%r1);";
    let ptx = kernel(f, &format!("{ptx} st.global.u32 [%rd2], %r2;"));
    let words = run(&ptx, 8).expect("sound").words;
    assert_eq!(words[..8], [1, 2, 3, 4, 5, 5, 6, 7]);
}

#[test]
fn parameters_may_be_read_in_other_sizes_than_they_were_written() {
    let f = ".func (.param .align 8 .b8 r[16]) f(.param .align 8 .b8 x[16]) {
.reg .b32 %r<4>; .reg .b64 %rd<4>;
ld.param.b32 %r1, [x+4]; ld.param.b64 %rd1, [x+8];
st.param.b64 [r], %rd1; st.param.b32 [r+8], %r1; st.param.b32 [r+12], 5; ret; }";
    let call = "{ .param .align 8 .b8 a[16]; .param .align 8 .b8 b[16];
mov.u64 %rd4, 0x1122334455667788; mov.u64 %rd5, 0x99aabbccddeeff00;
st.param.v2.b64 [a], {%rd4, %rd5}; call (b), f, (a);
ld.param.v4.b32 {%r4, %r5, %r6, %r7}, [b]; }";
    for (register, expected) in
        [("%r4", 0xddee_ff00), ("%r5", 0x99aa_bbcc), ("%r6", 0x1122_3344), ("%r7", 5)]
    {
        computes(f, &format!("{call} mov.u32 %r2, {register};"), expected);
    }
    // What is narrower than its register is cut and extended.
    let f = ".func (.param .b32 r) f(.param .b8 x) { .reg .b32 %r<4>; ld.param.s8 %r1, [x];
st.param.b32 [r], %r1; ret; }";
    let call = "{ .param .b8 a; .param .b32 b; mov.u32 %r3, 0x1ff; st.param.b8 [a], %r3;
call (b), f, (a); ld.param.b32 %r2, [b]; }";
    computes(f, call, u32::MAX);
}

#[test]
fn predicates_may_be_constants_and_negated_everywhere() {
    computes("", "setp.eq.u32 %p1, 0, 0; selp.b32 %r2, 1, 2, !%p1;", 2);
    computes("", "selp.b32 %r2, 1, 2, 1;", 1);
    computes("", "selp.b32 %r2, 1, 2, !1;", 2);
    computes("", "vote.sync.all.pred %p1, 1, -1; selp.u32 %r2, 1, 0, %p1;", 1);
    computes("", "vote.sync.any.pred %p1, 0, -1; selp.u32 %r2, 1, 0, %p1;", 0);
    computes("", "setp.eq.u32 %p1, 0, 0; mov.pred %p2, !%p1; selp.u32 %r2, 1, 0, %p2;", 0);
    let logic = |op: &str| {
        format!(
            "setp.eq.u32 %p1, 0, 0; setp.eq.u32 %p2, 0, 1; {op}.pred %p3, !%p1, !%p2;
selp.u32 %r2, 1, 0, %p3;"
        )
    };
    computes("", &logic("and"), 0);
    computes("", &logic("or"), 1);
    computes("", &logic("xor"), 1);
    computes("", "setp.eq.u32 %p1, 0, 0; not.pred %p2, !%p1; selp.u32 %r2, 1, 0, %p2;", 1);
    computes(
        "",
        "setp.eq.u32 %p1, 0, 0; setp.lt.and.u32 %p2, 1, 2, !%p1; selp.u32 %r2, 1, 0, %p2;",
        0,
    );
    computes("", "setp.eq.u32 %p1, 0, 0; barrier.cta.red.popc.u32 %r2, 0, !%p1;", 0);
    computes("", "setp.eq.u32 %p1, 0, 0; mov.u32 %r2, 1; @ ! %p1 mov.u32 %r2, 2;", 1);
    computes("", "mov.u32 %r2, 1; setp.eq.u32 %p1|_, 0, 1; @%p1 mov.u32 %r2, 2;", 1);
}

#[test]
fn vectors_have_members() {
    let vector = ".reg .v4 .u32 v; st.global.u32 [%rd1+12], 7; st.global.u32 [%rd1+4], 5; \
                  ld.global.v4.u32 v, [%rd1];";
    computes("", &format!("{vector} mov.b32 %r2, v.w;"), 7);
    computes("", &format!("{vector} add.u32 %r2, v.g, v.a;"), 12);
    computes(
        "",
        ".reg .v2 .b32 v; mov.u32 v.x, 1; mov.u32 v.y, 2; mov.b64 %rd4, v; cvt.u32.u64 %r2, %rd4;",
        1,
    );
}

#[test]
fn constants_are_written_in_many_ways() {
    for (constant, expected) in [
        ("017", 15),
        ("0b101", 5),
        ("0x1F", 31),
        ("5U", 5),
        ("-5U", 5u32.wrapping_neg()),
        ("~0", u32::MAX),
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("1<<4|3", 19),
        ("(3>2)?7:8", 7),
        ("!0", 1),
        ("10-2-3", 5),
        ("4294967296", 0),
    ] {
        computes("", &format!("mov.u32 %r2, {constant};"), expected);
    }
    computes("", "mov.f32 %f1, 1.5; mov.b32 %r2, %f1;", 1.5f32.to_bits());
    computes("", "mov.f32 %f1, 0d3FF8000000000000; mov.b32 %r2, %f1;", 1.5f32.to_bits());
    computes("", "mov.u32 %r2, 1; ld.global.u32 %r3, [%rd1+4+4-8];", 1);
}

#[test]
fn scopes_have_names_of_their_own() {
    computes("", "mov.u32 %r2, 3; { .reg .b32 %r<4>; mov.u32 %r2, 5; }", 3);
    computes(
        "",
        "mov.u32 %r2, 3; { .reg .b32 x; mov.u32 x, 5; { .reg .b32 x; mov.u32 x, 6; } mov.u32 %r2, x; }",
        5,
    );
    // Labels too, also before they are declared.
    computes(
        "",
        "mov.u32 %r2, 0; { bra L; add.u32 %r2, %r2, 1; L: } { bra L; add.u32 %r2, %r2, 1; L: add.u32 %r2, %r2, 8; }",
        8,
    );
    computes("", "mov.u32 %r2, 0; { bra L; } add.u32 %r2, %r2, 1; L: add.u32 %r2, %r2, 8;", 8);
    // Local memory of scopes does not overlap.
    computes(
        "",
        "{ .local .u32 a; st.local.u32 [a], 1; } { .local .u32 a; st.local.u32 [a], 2; } { .local .u32 b; st.local.u32 [b], 3; ld.local.u32 %r2, [b]; }",
        3,
    );
}

#[test]
fn debug_information_is_passed_over() {
    let ptx = kernel(
        ".file 1 \"a.cu\"\n",
        ".loc 1 3 5, function_name $L__info0, inlined_at 1 9 1\nmov.u32 %r2, 1;\n\
         .pragma \"nounroll\";\nst.global.u32 [%rd1], %r2;",
    );
    let ptx = format!(
        "{ptx}.section .debug_str {{\n$L__info0:\n.b8 95,90\n{{ .b8 0 }}\n}}\n/* the {{ end"
    );
    assert_eq!(run(&ptx, 1).expect("sound").words[0], 1);
}

#[test]
fn other_directives_of_entries_are_accepted() {
    let ptx = format!(
        "{HEAD}.weak .entry k(.param .u64 .ptr .global .align 4 o, .param .align 8 .b8 s[24])
.maxntid 256, 1, 1 .minnctapersm 2
.maxnreg 32
.pragma \"x\";
{{ ret; }}
.extern .func f(.param .b64 a, .param .b32 _) ;
.visible .func (.param .b32 r) g (.param .b64 a) .noreturn {{ ret; }}
.alias h, g;
"
    );
    let program = ltm_ptxsim::Program::parse(&ptx).expect("accepted");
    let entry = program.entry("k").expect("there");
    assert_eq!(
        (entry.max_threads, entry.max_registers, entry.params.len()),
        (Some(256), Some(32), 2)
    );
    assert!(entry.unsupported().is_none());
}
