//! Shuffles, votes and reductions over any part of a warp, against the manual's formulas.

use ltm_ptxsim::FaultKind;
use proptest::prelude::*;

use crate::{Operands, run, words};

/// Runs `op` in the lanes of `mask` alone, which it names as `%r9`, and expects of each what
/// `expected` says; the other lanes keep their 0.
fn check(op: &str, mask: u32, x: &Operands, expected: impl Fn(usize) -> u64) {
    for (lane, got) in run(&among(op, mask), x).expect(op).into_iter().enumerate() {
        let expected = if mask >> lane & 1 != 0 { expected(lane) } else { 0 };
        assert_eq!(got, expected, "{op} in lane {lane} of {mask:#010x}: {x:x?}");
    }
}

fn among(op: &str, mask: u32) -> String {
    format!(
        "mov.u32 %r9, {mask};
shr.u32 %r10, %r9, %r0; and.b32 %r10, %r10, 1; setp.eq.u32 %p1, %r10, 0;
@%p1 bra REST;
{op}
cvt.u64.u32 %rd4, %r7;
REST:"
    )
}

/// The lane that a shuffle reads, and whether it is the one asked for.
fn source(kind: &str, lane: i64, b: u64, c: u64) -> (usize, bool) {
    let (b, clamp, segment) = ((b & 31) as i64, (c & 31) as i64, (c >> 8 & 31) as i64);
    let least = lane & segment;
    let most = lane & segment | clamp & !segment;
    let (j, within) = match kind {
        "up" => (lane - b, lane - b >= most),
        "down" => (lane + b, lane + b <= most),
        "bfly" => (lane ^ b, lane ^ b <= most),
        _ => (least | b & !segment, least | b & !segment <= most),
    };
    if within { (j as usize, true) } else { (lane as usize, false) }
}

/// Masks of a few, some or all lanes.
fn mask() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(u32::MAX),
        1..=u32::MAX,
        (any::<u32>(), any::<u32>(), 0u32..32).prop_map(|(a, b, i)| a & b | 1 << i),
        (0u32..32).prop_map(|i| 1 << i),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn shuffles(x in words(), mask in mask(), c in any::<u64>(), whole in any::<bool>()) {
        // A clamp as CUDA makes it of a width, or any.
        let c = if whole {
            let width = 1u64 << (c % 6);
            (32 - width) << 8 | 31
        } else {
            c & 0x1f1f
        };
        for kind in ["up", "down", "bfly", "idx"] {
            let c = if kind == "up" && whole { c & !31 } else { c };
            let from = |lane: usize| source(kind, lane as i64, x[lane][1], c);
            let op = format!(
                "shfl.sync.{kind}.b32 %r7|%p2, %r1, %r2, {c}, %r9; @!%p2 not.b32 %r7, %r7;"
            );
            let taking_part = |lane: usize| mask >> lane & 1 != 0;
            if (0..32).filter(|lane| taking_part(*lane)).all(|lane| taking_part(from(lane).0)) {
                check(&op, mask, &x, |lane| {
                    let (source, within) = from(lane);
                    let value = x[source][0] as u32;
                    u64::from(if within { value } else { !value })
                });
            } else {
                assert_eq!(run(&among(&op, mask), &x), Err(FaultKind::DivergentSync), "{op}");
            }
        }
    }

    #[test]
    fn votes(x in words(), mask in mask(), limit in prop_oneof![any::<u32>(), Just(0), Just(1)]) {
        let holds = |lane: usize| x[lane][0] as u32 >= limit;
        let votes = (0..32).filter(|lane| holds(*lane)).fold(0u32, |m, lane| m | 1 << lane) & mask;
        let against = mask & !votes;
        let op = |form: &str| format!("setp.hs.u32 %p2, %r1, {limit}; {form}");
        let of = |kind: &str| {
            op(&format!("vote.sync.{kind}.pred %p3, %p2, %r9; selp.u32 %r7, 2, 1, %p3;"))
        };
        check(&of("all"), mask, &x, |_| 1 + u64::from(against == 0));
        check(&of("any"), mask, &x, |_| 1 + u64::from(votes != 0));
        check(&of("uni"), mask, &x, |_| 1 + u64::from(votes == 0 || against == 0));
        check(&op("vote.sync.ballot.b32 %r7, %p2, %r9;"), mask, &x, |_| votes.into());
        check(&op("vote.sync.ballot.b32 %r7, !%p2, %r9;"), mask, &x, |_| against.into());
        check("activemask.b32 %r7;", mask, &x, |_| mask.into());
    }

    #[test]
    fn reductions(x in words(), mask in mask()) {
        let members = || (0..32).filter(|lane| mask >> lane & 1 != 0).map(|lane| x[lane][0] as u32);
        let signed = || members().map(|x| x as i32);
        let cases: [(&str, u32); 9] = [
            ("add.u32", members().fold(0, u32::wrapping_add)),
            ("add.s32", members().fold(0, u32::wrapping_add)),
            ("min.u32", members().min().unwrap_or(0)),
            ("max.u32", members().max().unwrap_or(0)),
            ("min.s32", signed().min().unwrap_or(0) as u32),
            ("max.s32", signed().max().unwrap_or(0) as u32),
            ("and.b32", members().fold(u32::MAX, |x, y| x & y)),
            ("or.b32", members().fold(0, |x, y| x | y)),
            ("xor.b32", members().fold(0, |x, y| x ^ y)),
        ];
        for (op, expected) in cases {
            check(&format!("redux.sync.{op} %r7, %r1, %r9;"), mask, &x, |_| expected.into());
        }
    }

    /// Lanes that come to a shuffle on two ways, each half with its own: they wait for their own.
    #[test]
    fn parts_of_a_warp_do_not_wait_for_each_other(x in words(), mask in 1..u32::MAX) {
        let op = |label: &str| format!(
            "redux.sync.add.u32 %r7, %r1, %r8; redux.sync.max.u32 %r11, %r1, %r8;
add.u32 %r7, %r7, %r11; {label}"
        );
        let body = format!(
            "mov.u32 %r8, {mask}; shr.u32 %r10, %r8, %r0; and.b32 %r10, %r10, 1;
setp.eq.u32 %p1, %r10, 0; @%p1 bra OTHERS;
{}
OTHERS: mov.u32 %r8, {};
{}
MET: cvt.u64.u32 %rd4, %r7;",
            op("bra MET;"), !mask, op("")
        );
        let expected = |part: u32| {
            let members = || (0..32).filter(|i| part >> i & 1 != 0).map(|i| x[i][0] as u32);
            members().fold(0, u32::wrapping_add).wrapping_add(members().max().unwrap_or(0))
        };
        for (lane, got) in run(&body, &x).expect("sound").into_iter().enumerate() {
            let part = if mask >> lane & 1 != 0 { mask } else { !mask };
            assert_eq!(got, u64::from(expected(part)), "lane {lane} of {mask:#x}");
        }
    }
}
