//! What ptxas or the driver refuses, and what is not supported, as far as it goes.

use std::time::Instant;

use ltm_ptxsim::{DeviceModel, FaultKind, Options, Program};

use crate::{HEAD, faults, kernel, refused, run, run_on};

#[test]
fn versions_and_targets_that_do_not_exist() {
    let text = |version: &str, target: &str| {
        format!(
            ".version {version}\n.target {target}\n.address_size 64\n.visible .entry k() {{ ret; }}\n"
        )
    };
    assert!(Program::parse(&text("8.0", "sm_80, debug")).is_ok());
    refused(&text("99.9", "sm_80"), &["unsupported .version 99.9", "line 1"]);
    refused(&text("7.9", "sm_80"), &["7.9"]);
    refused(&text("8.2", "sm_900"), &["unsupported .target sm_900", "line 2"]);
    refused(&text("8.2", "sm_80a"), &["sm_80a"]);
    refused(&text("6.5", "sm_80"), &["needs .version 7.0"]);
    refused(".visible .entry k() { ret; }", &[".version"]);
    refused(".target sm_80\n.version 8.0\n", &["before .target"]);
    refused(&text("8.0", "sm_80").replace("64", "32"), &["32 bits"]);
}

#[test]
fn code_for_a_newer_device() {
    let newer = |target: &str, device: DeviceModel| {
        let ptx = kernel("", "").replace("sm_80", target);
        let options = Options { device, ..Options::default() };
        run_on(&ptx, 1, 1, options).map(|_| ()).map_err(|fault| (fault.kind, fault.to_string()))
    };
    let (kind, text) = newer("sm_90", DeviceModel::sm_80()).expect_err("newer");
    assert_eq!(kind, FaultKind::Unsupported);
    assert!(text.contains("sm_90") && text.contains("sm_80"), "{text}");
    assert!(newer("sm_75", DeviceModel::sm_80()).is_ok());
    assert!(newer("sm_90a", DeviceModel::sm_90()).is_ok());
    assert!(newer("sm_90a", DeviceModel::sm_100()).is_err());
}

#[test]
fn one_entry_does_not_affect_the_others() {
    let bad = |body: &str| {
        format!("{}.visible .entry k2() {{ .reg .b32 %r<4>; {body} ret; }}", kernel("", ""))
    };
    for body in [
        "frobnicate.b32 %r1, %r2;",
        "call g;",
        "tex.2d.v4.f32.f32 {%r1, %r2, %r3, %r1}, [t, {%r1, %r2}];",
    ] {
        let ptx = bad(body);
        assert!(run(&ptx, 1).is_ok(), "{ptx}");
        let program = Program::parse(&ptx).expect("accepted");
        let reason = program.entry("k2").expect("there").unsupported().expect(body).to_string();
        assert!(reason.contains(body.trim_end_matches(';')), "{reason}");
    }
    let ptx = kernel(".extern .func g();", "call g;");
    faults(&ptx, 1, 1, FaultKind::Unsupported, &["function `g` has no body", "PTX line"]);
    let ptx = kernel(".extern .global .u32 x;", "ld.global.u32 %r2, [x];");
    faults(&ptx, 1, 1, FaultKind::Unsupported, &["`x`", ".extern"]);
}

#[test]
fn wrong_numbers_and_kinds_of_operands() {
    for (body, part) in [
        ("add.s32 %r2, %r1;", "expected 3 operands, found 2"),
        ("add.s32 %r2, %r1, %r1, %r1;", "expected 3 operands, found 4"),
        ("mov.u32 %r99, 1;", "%r99"),
        ("mov.u32 %r2, %unknown;", "%unknown"),
        ("add.u32 %r2, !%p1, 1;", "!"),
        ("mov.b32 %r2, {%h1, %h2, %h3};", "3 parts"),
        ("selp.b32 %r2, 1, 2, %r1;", "predicate"),
        ("@%r1 mov.u32 %r2, 1;", "predicate"),
        ("mov.u32 %tid.x, 1;", "target"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 5;", "found 5"),
        ("mov.b128 %rd2, {%rd3, %rd4};", "mov.b128"),
        ("bra NOWHERE;", "NOWHERE"),
    ] {
        faults(&kernel("", body), 1, 1, FaultKind::Unsupported, &[part]);
    }
}

#[test]
fn sizes_that_nothing_holds() {
    refused(&kernel(".global .align 4 .b8 g[65536][65536];", ""), &["`g`", "4294967296"]);
    refused(&kernel(".global .b64 g[0xffffffffffffffff];", ""), &["`g`"]);
    refused(&kernel("", ".local .align 4 .b8 s[4294967295];"), &["`s`", "local"]);
    refused(&kernel("", ".local .align 4 .b8 s[3][5] = {{1, 2, 3, 4, 5, 6}};"), &["longer"]);
    refused(
        &kernel(".global .u32 x[2] = {1, 2, 3};", ""),
        &["`x` takes 8 bytes, its initialiser 12"],
    );
    refused(&kernel(".global .u32 x[2] = {{{1}}};", ""), &["nested"]);
    refused(&kernel(".global .f32 x = 1;", ""), &["floating-point"]);
    refused(&kernel(".global .align 3 .b8 x;", ""), &["power of 2"]);
    let params = format!("{HEAD}.visible .entry k(.param .b8 x[40000]) {{ ret; }}");
    refused(&params, &["parameters"]);
    // Many of a legal size.
    let locals: String = (0..9).map(|i| format!(".local .b8 l{i}[65536]; ")).collect();
    faults(&kernel("", &locals), 1, 1, FaultKind::Unsupported, &["local memory"]);
}

#[test]
fn nesting_has_a_bound() {
    refused(&kernel("", &format!("mov.u32 %r1, {};", "{".repeat(40_000))), &["nested"]);
    refused(&kernel("", &format!("mov.u32 %r1, {};", "(".repeat(40_000))), &["nested"]);
    refused(&kernel("", &format!("mov.u32 %r1, {}1;", "-".repeat(40_000))), &["signs"]);
    refused(&kernel("", &format!("ld.global.u32 %r1, {};", "[".repeat(40_000))), &["nested"]);
    refused(&kernel("", &"{".repeat(40_000)), &["nested scopes"]);
    refused(&format!("{HEAD}.section .debug_str {}", "{".repeat(40_000)), &["section"]);
    // Calls of calls double the instructions at each level.
    let mut functions = String::from(".func f0() { trap; trap; trap; trap; ret; }\n");
    for i in 1..16 {
        let call = format!("call f{};", i - 1).repeat(4);
        functions += &format!(".func f{i}() {{ {call} ret; }}\n");
    }
    let start = Instant::now();
    faults(&kernel(&functions, "call f15;"), 1, 1, FaultKind::Unsupported, &["instructions"]);
    assert!(start.elapsed().as_secs() < 30);
    faults(
        &kernel(".func f() { call f; ret; }", "call f;"),
        1,
        1,
        FaultKind::Unsupported,
        &["recursive"],
    );
}

#[test]
fn long_texts_take_linear_time() {
    let time = |text: &str| {
        let start = Instant::now();
        let _ = Program::parse(text);
        start.elapsed().as_secs_f64()
    };
    let blank = |n: usize| kernel(&" ".repeat(n), "");
    let lines = |n: usize| kernel("", &"add.u32 %r2, %r1, 1;\n".repeat(n));
    let scopes = |n: usize| kernel("", &"{ .reg .b32 x; .param .b32 p; L: bra L; }\n".repeat(n));
    let names = |n: usize| {
        let globals: String = (0..n).map(|i| format!(".global .u32 g{i};\n")).collect();
        let uses: String = (0..n).map(|i| format!("mov.u64 %rd3, g{i};\n")).collect();
        kernel(&globals, &uses)
    };
    let makers: [&dyn Fn(usize) -> String; 4] = [&blank, &lines, &scopes, &names];
    for (i, (make, n)) in makers.into_iter().zip([400_000, 4000, 4000, 2000]).enumerate() {
        let (short, long) = (make(n), make(8 * n));
        // The fastest of a few: other processes may take the processor in between.
        let best = |text: &str| (0..3).map(|_| time(text)).fold(f64::INFINITY, f64::min);
        let (short, long) = (best(&short), best(&long));
        // A quadratic one would take 64 times as long.
        assert!(long < 32.0 * short + 1.0, "text {i}: {short} s for one, {long} s for eight");
    }
}

#[test]
fn an_error_quotes_its_statement() {
    refused(&kernel("", "mov.u32 %r2 1;\n"), &["expected `,`", "mov.u32 %r2"]);
    refused(&kernel(".frobnicate .u32 x;", ""), &["unknown directive", "frobnicate"]);
    refused(&kernel("", "mov.u32 %r2, 1"), &["expected `,`"]);
    refused(&format!("{HEAD}.visible .entry k() {{"), &["ends inside a function"]);
    refused("\u{e9}", &["not part of PTX"]);
    refused(".file 1 \"a", &["closing quote"]);
    let long = kernel("", &format!("frob {} \u{e9}", "x".repeat(500)));
    assert!(Program::parse(&long).expect_err("refused").to_string().len() < 300);
}
