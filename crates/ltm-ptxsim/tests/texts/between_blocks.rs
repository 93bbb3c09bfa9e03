//! Order between blocks: fences with atomics and flags, and both sides of a race.

use ltm_ptxsim::{FaultKind, Options};

use crate::{WORDS, faults, kernel, run_on};

/// The sum over blocks of the CUDA guide: each writes its word, the last to count reads them all.
const LAST_BLOCK: &str = "
mov.u32 %r3, %ctaid.x; mov.u32 %r4, %nctaid.x;
mul.wide.u32 %rd3, %r3, 4; add.u64 %rd3, %rd1, %rd3;
add.u32 %r5, %r3, 1; st.global.u32 [%rd3+8], %r5;
FENCE
setp.ne.u32 %p1, %r1, 0; @%p1 bra END;
COUNT
sub.u32 %r7, %r4, 1; setp.ne.u32 %p2, %r6, %r7; @%p2 bra END;
mov.u32 %r8, 0; mov.u32 %r9, 0; mov.u64 %rd4, %rd1;
LOOP: ld.global.u32 %r10, [%rd4+8]; add.u32 %r9, %r9, %r10; add.u64 %rd4, %rd4, 4;
add.u32 %r8, %r8, 1; setp.lt.u32 %p3, %r8, %r4; @%p3 bra LOOP;
st.global.u32 [%rd1], %r9;
END:";

const COUNT: &str = "atom.global.add.u32 %r6, [%rd1+4], 1;";

fn last_block(fence: &str, count: &str) -> String {
    kernel("", &LAST_BLOCK.replace("FENCE", fence).replace("COUNT", count))
}

#[test]
fn a_fence_and_an_atomic_order_blocks() {
    for (fence, count) in [
        ("membar.gl;", COUNT),
        ("fence.acq_rel.gpu;", COUNT),
        ("fence.sc.sys;", COUNT),
        ("", "atom.acq_rel.gpu.global.add.u32 %r6, [%rd1+4], 1;"),
        ("", "atom.release.gpu.global.inc.u32 %r6, [%rd1+4], 1000;"),
    ] {
        for threads in [1, 4] {
            let options = Options { threads, ..Options::default() };
            let ran = run_on(&last_block(fence, count), 24, 64, options)
                .unwrap_or_else(|fault| panic!("{fence} {count}: {fault}"));
            assert_eq!(ran.words[0], 24 * 25 / 2, "{fence} {count}");
        }
    }
}

#[test]
fn without_a_fence_blocks_are_not_ordered() {
    for (fence, count) in [
        ("", COUNT),
        ("membar.cta;", COUNT),
        ("", "atom.relaxed.gpu.global.add.u32 %r6, [%rd1+4], 1;"),
    ] {
        let parts = ["reads what block (0, 0, 0)", "wrote", "against PTX line", "st.global.u32"];
        faults(&last_block(fence, count), 24, 32, FaultKind::GlobalRace, &parts);
    }
    // A fence after the count orders nothing before it.
    let late = format!("{COUNT} membar.gl;");
    faults(&last_block("", &late), 24, 32, FaultKind::GlobalRace, &["against"]);
    // Another address is no meeting.
    let ptx =
        last_block("membar.gl;", "atom.global.add.u32 %r6, [%rd3+256], 1; sub.u32 %r6, %r4, 1;");
    faults(&ptx, 24, 32, FaultKind::GlobalRace, &["against"]);
}

#[test]
fn a_flag_hands_on_from_block_to_block() {
    // Each block adds to what the block before it left, which a flag announces.
    let chain = |fence: &str, store: &str, load: &str| {
        kernel(
            "",
            &format!(
                "mov.u32 %r3, %ctaid.x; mul.wide.u32 %rd3, %r3, 8; add.u64 %rd3, %rd1, %rd3;
mov.u32 %r4, 0; setp.eq.u32 %p1, %r3, 0; @%p1 bra FIRST;
WAIT: {load} %r5, [%rd3]; setp.eq.u32 %p2, %r5, 0; @%p2 bra WAIT;
ld.global.u32 %r4, [%rd3+4];
FIRST: add.u32 %r4, %r4, %r3; st.global.u32 [%rd3+12], %r4;
{fence}
{store} [%rd3+8], 1;"
            ),
        )
    };
    for (fence, store, load) in [
        ("membar.gl;", "st.volatile.global.u32", "ld.volatile.global.u32"),
        ("", "st.release.gpu.global.u32", "ld.acquire.gpu.global.u32"),
        ("fence.acq_rel.gpu;", "st.relaxed.gpu.global.u32", "ld.relaxed.gpu.global.u32"),
    ] {
        let ran = run_on(&chain(fence, store, load), 32, 1, Options::default());
        let ran = ran.unwrap_or_else(|fault| panic!("{fence} {store}: {fault}"));
        assert_eq!(ran.words[2 * 31 + 3], 31 * 32 / 2);
    }
    let wrong = chain("", "st.volatile.global.u32", "ld.volatile.global.u32");
    faults(&wrong, 32, 1, FaultKind::GlobalRace, &["reads what block"]);
}

#[test]
fn a_race_names_both_its_sides() {
    let ptx = kernel(
        ".file 1 \"kernel.cu\"",
        "mov.u32 %r3, %ctaid.x;\n.loc 1 11 1\nst.global.u32 [%rd2], %r3;\n.loc 1 12 1\nld.global.u32 %r4, [%rd1+20];",
    );
    let parts = [
        "block (1, 0, 0) writes what block (0, 0, 0), thread (0, 0, 0) wrote",
        "in block (1, 0, 0), thread (0, 0, 0)",
        "against PTX line",
        "from kernel.cu:11",
        "in block (0, 0, 0), thread (0, 0, 0)",
    ];
    faults(&ptx, 2, 32, FaultKind::GlobalRace, &parts);
    let ptx = kernel(
        ".file 1 \"kernel.cu\"",
        ".shared .b32 s[32]; mov.u32 %r3, s; mad.lo.u32 %r3, %r1, 4, %r3;
.loc 1 21 1
st.shared.u32 [%r3], %r1;
mov.u32 %r4, s; sub.u32 %r5, 31, %r1; mad.lo.u32 %r4, %r5, 4, %r4;
.loc 1 22 1
ld.shared.u32 %r6, [%r4];",
    );
    let parts = [
        "lane 0 reads what lane 31 wrote",
        "from kernel.cu:22",
        "against PTX line",
        "st.shared.u32 [%r3], %r1",
        "from kernel.cu:21",
        "thread (31, 0, 0)",
    ];
    faults(&ptx, 1, 32, FaultKind::SharedRace, &parts);
}

#[test]
fn parts_of_a_word_belong_to_different_blocks() {
    // Each block writes its byte of every word twice.
    let ptx = kernel(
        "",
        "mov.u32 %r3, %ctaid.x; cvt.u64.u32 %rd3, %r3; add.u64 %rd3, %rd2, %rd3;
st.global.u8 [%rd3], %r3; st.global.u8 [%rd3], %r3;",
    );
    for threads in [1, 4] {
        let options = Options { threads, ..Options::default() };
        let ran = run_on(&ptx, 4, WORDS as u32, options).expect("no byte is shared");
        assert!(ran.words.iter().all(|word| *word == 0x0302_0100), "{:x?}", ran.words);
    }
}

#[test]
fn a_fault_names_the_kernels_line() {
    let body = |loc: &str| kernel(".file 1 \"kernel.cu\"\n.file 2 \"helper.cuh\"", loc);
    let inlined = body(
        ".loc 1 50 3\nmov.u32 %r2, 0;
.loc 1 60 3\nmov.u32 %r2, 1;
.loc 2 7 1, function_name $L__info0, inlined_at 1 60 3
mov.u32 %r2, 2;
.loc 2 20 5, function_name $L__info0+8, inlined_at 2 7 1
ld.global.u32 %r3, [%rd1+4096];",
    );
    let parts = ["from kernel.cu:60", "inlined from helper.cuh:7, inlined from helper.cuh:20"];
    faults(&inlined, 1, 1, FaultKind::OutOfBounds, &parts);
    // A function that was not inlined is called from a line of the kernel.
    let called = kernel(
        ".file 1 \"kernel.cu\"\n.file 2 \"helper.cuh\"
.func f(.reg .b64 p) { .reg .b32 x;\n.loc 2 20 5\nld.global.u32 x, [p+4096]; ret; }",
        ".loc 1 50 3\ncall f, (%rd1);",
    );
    faults(
        &called,
        1,
        1,
        FaultKind::OutOfBounds,
        &["from kernel.cu:50, inlined from helper.cuh:20"],
    );
}
