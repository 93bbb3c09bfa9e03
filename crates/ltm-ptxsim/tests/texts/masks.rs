//! Masks of `.sync` instructions, and registers that some lanes have not written.

use ltm_ptxsim::FaultKind;

use crate::{each_computes, faults, kernel};

const OPERATIONS: [&str; 7] = [
    "shfl.sync.bfly.b32 %r2, %r1, 16, 31, MASK;",
    "setp.ne.u32 %p1, %r1, 99; vote.sync.ballot.b32 %r2, %p1, MASK;",
    "vote.sync.all.pred %p1, 1, MASK;",
    "redux.sync.add.u32 %r2, %r1, MASK;",
    "match.any.sync.b32 %r2, %r1, MASK;",
    "match.all.sync.b32 %r2, %r1, MASK;",
    "bar.warp.sync MASK;",
];

#[test]
fn a_mask_without_the_lane_that_executes() {
    for operation in OPERATIONS {
        let body = operation.replace("MASK", "0x0000ffff");
        let parts = ["lane 16", "0x0000ffff", "does not name it", "thread (16, 0, 0)"];
        faults(&kernel("", &body), 1, 32, FaultKind::DivergentSync, &parts);
    }
}

#[test]
fn a_mask_without_the_lane_that_is_read() {
    // The lower half executes alone, and reads the upper.
    let body = "setp.lt.u32 %p1, %r1, 16; @!%p1 bra END;
shfl.sync.bfly.b32 %r2, %r1, 16, 31, 0x0000ffff; END:";
    let parts = ["lane 0 reads lane 16", "0x0000ffff", "does not name"];
    faults(&kernel("", body), 1, 32, FaultKind::DivergentSync, &parts);
}

#[test]
fn parties_with_masks_of_their_own_do_not_disturb_each_other() {
    let halves = "setp.lt.u32 %p1, %r1, 16; selp.b32 %r3, 0x0000ffff, 0xffff0000, %p1;";
    each_computes(&format!("{halves} redux.sync.max.u32 %r2, %r1, %r3;"), |x| x | 15);
    each_computes(&format!("{halves} shfl.sync.bfly.b32 %r2, %r1, 1, 31, %r3;"), |x| x ^ 1);
    each_computes(&format!("{halves} vote.sync.ballot.b32 %r2, 1, %r3;"), |x| 0xffff << (x & 16));
    // Lanes with the same value meet, as a match finds them.
    let groups = "rem.u32 %r4, %r1, 5; match.any.sync.b32 %r3, %r4, -1;";
    each_computes(&format!("{groups} redux.sync.add.u32 %r2, %r1, %r3;"), |x| {
        (0..32).filter(|y| y % 5 == x % 5).sum()
    });
}

#[test]
fn lanes_that_a_guard_excludes_do_not_take_part() {
    let guarded =
        "setp.lt.u32 %p1, %r1, 16; mov.u32 %r2, 0; @%p1 redux.sync.add.u32 %r2, %r1, MASK;";
    each_computes(&guarded.replace("MASK", "0x0000ffff"), |x| if x < 16 { 120 } else { 0 });
    // Those that have exited are not waited for, those that wait themselves are.
    each_computes(&guarded.replace("MASK", "-1"), |x| if x < 16 { 120 } else { 0 });
    let stuck = format!("{} bar.warp.sync -1;", guarded.replace("MASK", "-1"));
    faults(&kernel("", &stuck), 1, 32, FaultKind::DivergentSync, &["that never arrive"]);
}

#[test]
fn a_shuffle_carries_what_a_lane_has_not_written() {
    let broadcast = "setp.ne.u32 %p1, %r1, 0; @%p1 bra X; mov.u32 %r4, 42;
X: shfl.sync.idx.b32 %r2, %r4, LANE, 31, -1;";
    each_computes(&broadcast.replace("LANE", "0"), |_| 42);
    // Who reads a lane that wrote nothing has nothing to use.
    let wrong = kernel("", &format!("{} add.u32 %r2, %r2, 1;", broadcast.replace("LANE", "3")));
    faults(&wrong, 1, 32, FaultKind::UnwrittenRegister, &["%r2"]);
    let partly = "setp.ge.u32 %p1, %r1, 16; @%p1 bra X; mov.u32 %r4, 7;
X: shfl.sync.down.b32 %r5, %r4, 1, 31, -1; mov.u32 %r2, 1; SITE add.u32 %r2, %r5, 1; END:";
    each_computes(&partly.replace("SITE", "setp.ge.u32 %p2, %r1, 15; @%p2 bra END;"), |x| {
        if x < 15 { 8 } else { 1 }
    });
    faults(
        &kernel("", &partly.replace("SITE", "")),
        1,
        32,
        FaultKind::UnwrittenRegister,
        &["%r5", "thread (15, 0, 0)"],
    );
}

#[test]
fn widening_and_moving_carry_what_was_not_written() {
    let body = "setp.lt.u32 %p1, %r1, 40; cvt.u64.u32 %rd4, %r5; mov.pred %p3, %p4;
mov.u32 %r2, %r1; @%p1 bra END; cvt.u32.u64 %r2, %rd4; SITE END:";
    each_computes(&body.replace("SITE", ""), |x| x);
    let use_it = "setp.ge.u32 %p1, %r1, 40; cvt.u64.u32 %rd4, %r5; mov.u32 %r2, %r1; @%p1 bra END;
cvt.u32.u64 %r6, %rd4; add.u32 %r2, %r6, 1; END:";
    faults(&kernel("", use_it), 1, 32, FaultKind::UnwrittenRegister, &["%r6"]);
}
