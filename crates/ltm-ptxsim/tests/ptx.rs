//! PTX written by hand, with answers that Rust's own arithmetic gives. Knows no compiler: every
//! text stands here.

use ltm_ptxsim::{AsyncCopies, FaultKind, LaunchConfig, Memory, Module, Options, Program, launch};

/// A kernel over `x` and `out`, whose address is in `%rd1` and `%rd2` at this thread's word.
fn kernel(body: &str) -> String {
    format!(
        ".version 8.0
.target sm_80
.address_size 64
.visible .entry k(.param .u64 x, .param .u64 out)
{{
    .reg .pred %p<8>;
    .reg .b16 %h<8>;
    .reg .b32 %r<16>;
    .reg .f32 %f<8>;
    .reg .b64 %rd<8>;
    .shared .align 16 .b8 tile[1024];
    ld.param.u64 %rd1, [x];
    ld.param.u64 %rd2, [out];
    mov.u32 %r0, %tid.x;
    mul.wide.u32 %rd3, %r0, 4;
    add.s64 %rd1, %rd1, %rd3;
    add.s64 %rd2, %rd2, %rd3;
    {body}
    ret;
}}
"
    )
}

fn run(
    body: &str,
    x: &[u32],
    threads: u32,
    options: &Options,
) -> Result<Vec<u32>, (FaultKind, String)> {
    let memory = Memory::new(1 << 20);
    let program = Program::parse(&kernel(body)).expect("the text is PTX");
    let module = Module::load(program, &memory).expect("no variables");
    let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
    let address = memory.alloc(bytes.len() as u64).expect("room");
    let out = memory.alloc(4 * u64::from(threads)).expect("room");
    memory.write(address, &bytes).expect("allocated");
    let params = [address.to_le_bytes(), out.to_le_bytes()].concat();
    let config = LaunchConfig { grid: [1; 3], block: [threads, 1, 1], dynamic_shared_bytes: 0 };
    launch(&module, "k", config, &params, &memory, options)
        .map_err(|fault| (fault.kind, fault.to_string()))?;
    let mut result = vec![0; 4 * threads as usize];
    memory.read(out, &mut result).expect("allocated");
    Ok(result.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// Runs `body` over every word of `x`, with `%r1` loaded and `%r2` stored.
fn check(body: &str, x: &[u32], expected: impl Fn(u32) -> u32) {
    let body = format!("ld.global.u32 %r1, [%rd1]; {body} st.global.u32 [%rd2], %r2;");
    let out = run(&body, x, x.len() as u32, &Options::default()).expect("a sound program");
    for (x, out) in x.iter().zip(out) {
        assert_eq!(out, expected(*x), "{body}: {x:#x}");
    }
}

fn words() -> Vec<u32> {
    let mut words = vec![0, 1, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x3f80_8000];
    let mut x = 1u32;
    words.extend((0..55).map(|_| {
        x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        x
    }));
    words
}

#[test]
fn integers() {
    let x = words();
    check("add.s32 %r2, %r1, 7;", &x, |x| x.wrapping_add(7));
    check("mul.hi.u32 %r2, %r1, -766435501;", &x, |x| {
        ((u64::from(x) * u64::from((-766_435_501i32) as u32)) >> 32) as u32
    });
    check("mov.u32 %r3, 40; shl.b32 %r2, %r1, %r3;", &x, |_| 0);
    check("shr.s32 %r2, %r1, 40;", &x, |x| (x as i32 >> 31) as u32);
    check("shr.u32 %r2, %r1, 3;", &x, |x| x >> 3);
    check("prmt.b32 %r2, %r1, 305419896, 17185;", &x, |x| {
        let bytes = [x.to_le_bytes(), 0x1234_5678u32.to_le_bytes()].concat();
        u32::from_le_bytes([bytes[1], bytes[2], bytes[3], bytes[4]])
    });
    check("lop3.b32 %r2, %r1, 255, 4080, 150;", &x, |x| x ^ 255 ^ 4080);
    check("lop3.b32 %r2, %r1, 255, 4080, 232;", &x, |x| x & 255 | x & 4080 | 255 & 4080);
    check("bfe.s32 %r2, %r1, 4, 8;", &x, |x| ((x << 20) as i32 >> 24) as u32);
    check("bfe.u32 %r2, %r1, 28, 8;", &x, |x| x >> 28);
    check("bfi.b32 %r2, %r1, 0, 8, 4;", &x, |x| (x & 15) << 8);
    check("clz.b32 %r2, %r1;", &x, u32::leading_zeros);
    check("popc.b32 %r2, %r1;", &x, u32::count_ones);
    check("brev.b32 %r2, %r1;", &x, u32::reverse_bits);
    check("shf.l.wrap.b32 %r2, %r1, %r1, 13;", &x, |x| x.rotate_left(13));
    check("setp.lt.s32 %p1, %r1, 5; selp.b32 %r2, 1, 2, %p1;", &x, |x| {
        if (x as i32) < 5 { 1 } else { 2 }
    });
}

#[test]
fn floats() {
    let x: Vec<u32> = [0.0f32, -0.0, 1.0, 1.5, 2.5, -2.5, 0.1, 3e38, 1e-40, f32::INFINITY, 7.49]
        .map(f32::to_bits)
        .to_vec();
    let of = |g: fn(f32) -> f32| move |x: u32| g(f32::from_bits(x)).to_bits();
    let body = |op: &str| format!("mov.b32 %f1, %r1; {op} mov.b32 %r2, %f2;");
    check(&body("add.f32 %f2, %f1, 0f3F800000;"), &x, of(|x| x + 1.0));
    check(&body("fma.rn.f32 %f2, %f1, %f1, 0f3F800000;"), &x, of(|x| x.mul_add(x, 1.0)));
    check(&body("cvt.rni.f32.f32 %f2, %f1;"), &x, of(f32::round_ties_even));
    let saturated = |x: f32| if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
    check(&body("cvt.sat.f32.f32 %f2, %f1;"), &x, of(saturated));
    check(&body("max.f32 %f2, %f1, 0f3F800000;"), &x, of(|x| x.max(1.0)));
    check(&body("div.rn.f32 %f2, 0f40400000, %f1;"), &x, of(|x| 3.0 / x));
    check("mov.b32 %f1, %r1; cvt.rzi.s32.f32 %r2, %f1;", &x, |x| f32::from_bits(x) as i32 as u32);
    check(
        "mov.b32 %f1, %r1; setp.ltu.f32 %p1, %f1, 0f3F800000; selp.u32 %r2, 1, 0, %p1;",
        &x,
        |x| u32::from(f32::from_bits(x) < 1.0),
    );
    // Ties go to the even neighbour: the last bit kept of 0x3f80_8000 is 0.
    let ties = [0x3f80_8000, 0x3f81_8000, 0x3f80_8001, 0x7f80_0000];
    check("mov.b32 %f1, %r1; cvt.rn.bf16x2.f32 %r2, 0f00000000, %f1;", &ties, |x| match x {
        0x3f80_8000 => 0x3f80,
        0x3f81_8000 => 0x3f82,
        0x3f80_8001 => 0x3f81,
        _ => 0x7f80,
    });
}

#[test]
fn carries() {
    let x = words();
    // 64 bits in two halves, the upper of which is the word again.
    let wide = |x: u32| u64::from(x) << 32 | u64::from(x);
    let halves = |op: &str| format!("{op} xor.b32 %r2, %r3, %r4;");
    let joined = |y: u64| y as u32 ^ (y >> 32) as u32;
    check(&halves("add.cc.u32 %r3, %r1, 0xfffffff9; addc.u32 %r4, %r1, 5;"), &x, |x| {
        joined(wide(x).wrapping_add(0x5_ffff_fff9))
    });
    check(&halves("sub.cc.u32 %r3, %r1, 7; subc.u32 %r4, %r1, 5;"), &x, |x| {
        joined(wide(x).wrapping_sub(0x5_0000_0007))
    });
    let mad = "mad.lo.cc.u32 %r3, %r1, 0x89abcdef, 77; madc.hi.u32 %r4, %r1, 0x89abcdef, 99;";
    check(&halves(mad), &x, |x| joined((u64::from(x) * 0x89ab_cdef).wrapping_add(99 << 32 | 77)));
    let signed = "mad.lo.cc.s32 %r3, %r1, -77, 1; madc.hi.s32 %r4, %r1, -77, 0;";
    check(&halves(signed), &x, |x| joined((i64::from(x as i32) * -77 + 1) as u64));
    // Three words: the carry passes through the one in the middle.
    let three = "add.cc.u32 %r3, %r1, -1; addc.cc.u32 %r3, %r1, -1; addc.u32 %r2, %r1, -1;";
    check(three, &x, |x| {
        let sum = |x: u32| u128::from(x) * 0x1_0000_0001_0000_0001;
        ((sum(x) + sum(u32::MAX)) >> 64) as u32
    });
    // A subtraction that borrows from one that borrowed.
    let three = "sub.cc.u32 %r3, %r1, -1; subc.cc.u32 %r3, %r1, -1; subc.u32 %r2, %r1, 3;";
    check(three, &x, |x| x.wrapping_sub(3 + u32::from(x != u32::MAX)));
    let of_64 = "mov.b64 %rd4, {%r1, %r1}; add.cc.u64 %rd5, %rd4, %rd4; addc.u32 %r2, 0, 0;";
    check(of_64, &x, |x| x >> 31);
}

#[test]
fn clocks_go_forward() {
    for (clock, ty) in [("clock", "u32"), ("clock64", "u64"), ("globaltimer", "u64")] {
        let (d, e) = if ty == "u32" { ("%r3", "%r4") } else { ("%rd4", "%rd5") };
        let body = format!(
            "mov.{ty} {d}, %{clock}; bar.sync 0; mov.{ty} {e}, %{clock};
setp.gt.{ty} %p1, {e}, {d}; selp.u32 %r2, 1, 0, %p1;"
        );
        check(&body, &words(), |_| 1);
    }
    check("mov.u32 %r2, %clock_hi;", &words(), |_| 0);
}

#[test]
fn lanes_exchange() {
    let x: Vec<u32> = (100..132).collect();
    check("shfl.sync.bfly.b32 %r2, %r1, 5, 31, -1;", &x, |x| 100 + ((x - 100) ^ 5));
    check("shfl.sync.down.b32 %r2, %r1, 4, 31, -1;", &x, |x| if x < 128 { x + 4 } else { x });
    check("shfl.sync.idx.b32 %r2, %r1, 1, 6175, -1;", &x, |x| 100 + ((x - 100) & 24) + 1);
    check("redux.sync.add.s32 %r2, %r1, -1;", &x, |_| (100..132).sum());
    check("setp.gt.u32 %p1, %r1, 120; vote.sync.ballot.b32 %r2, %p1, -1;", &x, |_| u32::MAX << 21);
}

#[test]
fn lanes_part_and_meet() {
    // Each lane counts to its own number; all meet at the shuffle.
    let body = "mov.u32 %r2, 0;
LOOP: add.u32 %r2, %r2, 1; setp.le.u32 %p1, %r2, %r0; @%p1 bra LOOP;
shfl.sync.idx.b32 %r3, %r2, 31, 31, -1; add.u32 %r2, %r2, %r3;";
    check(body, &(0..32).collect::<Vec<_>>(), |x| x + 1 + 32);
}

/// What every thread writes its own word to and what its neighbour in the next warp reads.
fn neighbours(between: &str) -> String {
    format!(
        "mov.u32 %r4, tile; mad.lo.u32 %r5, %r0, 4, %r4; st.shared.u32 [%r5], %r0;
{between}
xor.b32 %r6, %r0, 32; mad.lo.u32 %r7, %r6, 4, %r4; ld.shared.u32 %r8, [%r7];
st.global.u32 [%rd2], %r8;"
    )
}

#[test]
fn a_barrier_orders_warps_and_its_absence_is_a_fault() {
    let expected: Vec<u32> = (0..64).map(|x| x ^ 32).collect();
    for seed in 0..8 {
        let options = Options { seed, ..Options::default() };
        assert_eq!(run(&neighbours("bar.sync 0;"), &[0], 64, &options), Ok(expected.clone()));
        let (kind, _) = run(&neighbours(""), &[0], 64, &options).expect_err("a race");
        assert!(matches!(kind, FaultKind::SharedRace | FaultKind::Uninitialised), "{kind:?}");
    }
}

#[test]
fn faults_are_named() {
    let fault = |body: &str, threads: u32| {
        run(body, &[1, 2, 3, 4], threads, &Options::default()).expect_err(body)
    };
    let cases = [
        ("ld.global.u32 %r1, [%rd1+4096];", 4, FaultKind::OutOfBounds),
        ("ld.global.u32 %r1, [%rd1];", 5, FaultKind::OutOfBounds),
        ("ld.global.u32 %r1, [%rd1+2];", 1, FaultKind::Misaligned),
        ("ld.global.v2.u32 {%r1, %r2}, [%rd1+4];", 1, FaultKind::Misaligned),
        ("ld.global.u32 %r1, [%rd2];", 1, FaultKind::Uninitialised),
        ("ld.shared.u32 %r1, [tile];", 1, FaultKind::Uninitialised),
        ("ld.shared.u32 %r1, [tile+1024];", 1, FaultKind::OutOfBounds),
        ("setp.lt.u32 %p1, %r0, 32; @%p1 ret; bar.sync 0;", 64, FaultKind::Deadlock),
        ("trap;", 1, FaultKind::Trap),
        ("mov.u32 %r1, 0;", 2048, FaultKind::Limit),
    ];
    for (body, threads, expected) in cases {
        let (kind, text) = fault(body, threads);
        assert_eq!(kind, expected, "{text}");
        assert!(text.contains("kernel `k`"), "{text}");
    }
}

#[test]
fn a_missing_wait_shows_where_copies_are_deferred() {
    let body = |wait: &str| {
        format!(
            "mov.u32 %r4, tile; mad.lo.u32 %r5, %r0, 4, %r4;
cp.async.ca.shared.global [%r5], [%rd1], 4; cp.async.commit_group; {wait}
ld.shared.u32 %r8, [%r5]; st.global.u32 [%rd2], %r8;"
        )
    };
    let x: Vec<u32> = (7..39).collect();
    for async_copies in [AsyncCopies::Eager, AsyncCopies::Deferred] {
        let options = Options { async_copies, ..Options::default() };
        assert_eq!(run(&body("cp.async.wait_group 0;"), &x, 32, &options), Ok(x.clone()));
    }
    let (kind, _) =
        run(&body("cp.async.wait_group 1;"), &x, 32, &Options::default()).expect_err("no wait");
    assert_eq!(kind, FaultKind::PendingCopy);
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let texts = [
        "frobnicate.b32 %r1, %r2;",
        "mov.u32 %r1, %clusterid.x;",
        "wgmma.fence.sync.aligned;",
        "mbarrier.init.shared.b64 [%r1], 1;",
        // A word that would change what is done.
        "add.sat.u32 %r1, %r1, %r1;",
        "prmt.b32.f4e %r1, %r1, %r1, %r1;",
        "cvt.rna.f16.f32 %h1, %f1;",
        "min.xorsign.abs.f32 %f1, %f1, %f1;",
        "atom.global.min.noftz.f16 %h1, [%rd1], %h1;",
        "atom.global.exch.b16 %h1, [%rd1], %h1;",
        "ld.global.v8.f32 {%f1, %f1, %f1, %f1, %f1, %f1, %f1, %f1}, [%rd1];",
        "st.global.v4.u64 [%rd1], {%rd1, %rd1, %rd1, %rd1};",
        "redux.sync.min.abs.f32 %f1, %f1, -1;",
        "cp.async.ca.shared.global [%r1], [%rd1], 4, %p1;",
    ];
    for text in texts {
        let program = Program::parse(&kernel(text)).expect("the text is PTX");
        let entry = program.entry("k").expect("the kernel is there");
        let error = entry.unsupported().expect(text).to_string();
        let refused = run(text, &[0], 1, &Options::default()).expect_err("refused at launch");
        assert_eq!(refused.0, FaultKind::Unsupported);
        assert!(refused.1.contains(&error), "{}", refused.1);
        assert!(error.contains(text.trim_end_matches(';')), "{error}");
        assert!(error.contains("PTX line"), "{error}");
    }
}

#[test]
fn lanes_that_exit_are_not_waited_for() {
    // The shuffle stands before the place where the other half of the warp leaves.
    let body = "mov.u32 %r2, 9; st.global.u32 [%rd2], %r2; setp.ge.u32 %p1, %r0, 16; @%p1 bra OUT;
shfl.sync.bfly.b32 %r2, %r0, 1, 31, -1; st.global.u32 [%rd2], %r2; OUT:";
    let expected: Vec<u32> = (0..32).map(|x| if x < 16 { x ^ 1 } else { 9 }).collect();
    assert_eq!(run(body, &[0], 32, &Options::default()), Ok(expected));
}

#[test]
fn a_kernel_without_an_end_is_stopped() {
    // 300 rounds are some 2400 instructions of two warps. No turn of a warp ends but at the barrier.
    let body = |limit: u32| {
        format!(
            "mov.u32 %r2, 0;
LOOP: bar.sync 0; add.u32 %r2, %r2, 1; setp.lt.u32 %p1, %r2, {limit}; @%p1 bra LOOP;
st.global.u32 [%rd2], %r2;"
        )
    };
    let run = |limit, max_steps| {
        let options = Options { max_steps, ..Options::default() };
        run(&body(limit), &[0], 64, &options)
    };
    assert_eq!(run(300, 4000), Ok(vec![300; 64]));
    let (kind, text) = run(300, 2000).expect_err("2000 instructions do not suffice");
    assert_eq!(kind, FaultKind::Endless, "{text}");
    assert!(text.contains("more than 2000 instructions"), "{text}");
    assert_eq!(run(u32::MAX, 100_000).expect_err("no end").0, FaultKind::Endless);
}

#[test]
fn shared_accesses_take_as_many_passes_as_their_banks_need() {
    // 32 banks of words; a pass moves 128 bytes at most, and a word that many lanes read once.
    let check = |address: &str, access: &str, passes: u64, ideal: u64| {
        let body = format!("mov.u32 %r4, tile; {address} add.u32 %r5, %r5, %r4; {access}");
        let memory = Memory::new(1 << 20);
        let ptx = kernel(&body).replace("tile[1024]", "tile[8192]");
        let program = Program::parse(&ptx).expect("the text is PTX");
        let module = Module::load(program, &memory).expect("no variables");
        let config = LaunchConfig { grid: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 0 };
        let counters = launch(&module, "k", config, &[0; 16], &memory, &Options::default());
        let counters = counters.expect("a sound program");
        let got = (counters.shared_wavefronts, counters.ideal_wavefronts);
        assert_eq!(got, (passes, ideal), "{address} {access}");
    };
    let (word, half) =
        ("st.shared.u32 [%r5], %r4;", "mov.b32 {%h1, %h2}, %r4; st.shared.u16 [%r5], %h1;");
    let (two, four) =
        ("st.shared.v2.u32 [%r5], {%r4, %r4};", "st.shared.v4.u32 [%r5], {%r4, %r4, %r4, %r4};");
    check("mul.lo.u32 %r5, %r0, 4;", word, 1, 1);
    check("xor.b32 %r5, %r0, 21; mul.lo.u32 %r5, %r5, 4;", word, 1, 1);
    check("mul.lo.u32 %r5, %r0, 8;", word, 2, 1);
    check("mul.lo.u32 %r5, %r0, 132;", word, 1, 1);
    check("mul.lo.u32 %r5, %r0, 128;", word, 32, 1);
    check("mov.u32 %r5, 0;", word, 1, 1);
    check("mul.lo.u32 %r5, %r0, 2;", half, 1, 1);
    check("mul.lo.u32 %r5, %r0, 8;", two, 2, 2);
    check("mul.lo.u32 %r5, %r0, 16;", two, 4, 2);
    check("mul.lo.u32 %r5, %r0, 16;", four, 4, 4);
    check("mul.lo.u32 %r5, %r0, 32;", four, 8, 4);
    check("mul.lo.u32 %r5, %r0, 144;", four, 4, 4);
    check("mul.lo.u32 %r5, %r0, 128;", four, 32, 4);
}

#[test]
fn a_launch_says_what_a_multiprocessor_holds_of_it() {
    let check = |directive: &str, expected: &str| {
        let ptx = kernel("").replace(
            "k(.param .u64 x, .param .u64 out)",
            &format!("k(.param .u64 x, .param .u64 out)\n.maxntid 256, 1, 1\n{directive}"),
        );
        let memory = Memory::new(1 << 20);
        let program = Program::parse(&ptx).expect("the text is PTX");
        let module = Module::load(program, &memory).expect("no variables");
        let config = LaunchConfig { grid: [1; 3], block: [256, 1, 1], dynamic_shared_bytes: 65536 };
        let counters = launch(&module, "k", config, &[0; 16], &memory, &Options::default());
        let text = counters.expect("a sound program").to_string();
        assert_eq!(text.lines().last(), Some(expected));
    };
    // `kernel` never names its `tile`, so it takes none of the 164 KiB.
    check(
        "",
        "occupancy: 2 blocks and 16 of 64 warps (25 %) per multiprocessor, limited by shared memory; \
         registers not counted",
    );
    check(
        ".maxnreg 168",
        "occupancy: 1 blocks and 8 of 64 warps (12 %) per multiprocessor, limited by registers",
    );
}
