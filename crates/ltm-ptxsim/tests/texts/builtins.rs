//! `assert` and `printf`, as CUDA's compilers call them.

use ltm_ptxsim::FaultKind;

use crate::{faults, kernel, run};

const ASSERT: &str = ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);
.global .align 1 .b8 text[6] = {105, 32, 60, 32, 110, 0};
.global .align 1 .b8 file[5] = {97, 46, 99, 117, 0};
.global .align 1 .b8 name[2] = {107, 0};
";

fn asserts(condition: &str) -> String {
    kernel(
        ASSERT,
        &format!(
            "mov.u32 %r2, 7; st.global.u32 [%rd1], %r2; {condition} @%p1 bra X;
{{ .param .b64 p0; .param .b64 p1; .param .b32 p2; .param .b64 p3; .param .b64 p4;
mov.u64 %rd4, text; cvta.global.u64 %rd4, %rd4; mov.u64 %rd5, file; mov.u64 %rd6, name; mov.u64 %rd7, 1;
st.param.b64 [p0+0], %rd4; st.param.b64 [p1+0], %rd5; st.param.b32 [p2+0], 12;
st.param.b64 [p3+0], %rd6; st.param.b64 [p4+0], %rd7;
call.uni __assertfail, (p0, p1, p2, p3, p4); }}
X:"
        ),
    )
}

#[test]
fn an_assertion_that_holds_costs_nothing() {
    assert_eq!(run(&asserts("setp.eq.u32 %p1, 0, 0;"), 32).expect("it holds").words[0], 7);
}

#[test]
fn an_assertion_that_fails_is_a_fault_that_quotes_it() {
    let ptx = asserts("setp.lt.u32 %p1, %r1, 5;");
    let parts = ["assertion `i < n` failed in k at a.cu:12", "thread (5, 0, 0)"];
    faults(&ptx, 1, 32, FaultKind::Assert, &parts);
}

#[test]
fn a_kernel_prints() {
    let format = b"%d: %5.2f|%-4s|%c %% %lld %x\n\0";
    let bytes: Vec<_> = format.iter().map(u8::to_string).collect();
    let before = format!(
        ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);
.global .align 1 .b8 format[{}] = {{{}}};
.global .align 1 .b8 word[3] = {{104, 105, 0}};",
        format.len(),
        bytes.join(", ")
    );
    let body = "
.local .align 8 .b8 stack[48]; mov.u64 %rd4, stack; cvta.local.u64 %rd5, %rd4;
st.local.u32 [%rd4], %r1; st.local.u64 [%rd4+8], 0d3FF8000000000000;
mov.u64 %rd6, word; st.local.u64 [%rd4+16], %rd6; st.local.u32 [%rd4+24], 65;
st.local.u64 [%rd4+32], -5; st.local.u32 [%rd4+40], 255;
{ .param .b64 a; .param .b64 b; .param .b32 r; mov.u64 %rd7, format;
st.param.b64 [a], %rd7; st.param.b64 [b], %rd5;
call.uni (r), vprintf, (a, b); ld.param.b32 %r2, [r]; }
st.global.u32 [%rd2], %r2;";
    let ran = run(&kernel(&before, body), 3).expect("sound");
    assert_eq!(
        ran.printed,
        "0:  1.50|hi  |A % -5 ff\n1:  1.50|hi  |A % -5 ff\n2:  1.50|hi  |A % -5 ff\n"
    );
    assert_eq!(ran.words[..4], [6, 6, 6, 0]);
}

#[test]
fn a_format_that_is_nowhere_is_a_fault() {
    let before = ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);";
    let call = |format: &str| kernel(before, &format!("call (%r2), vprintf, ({format}, %rd1);"));
    faults(
        &call("12345"),
        1,
        1,
        FaultKind::OutOfBounds,
        &["12345".parse::<u32>().map_or("", |_| "0x3039")],
    );
    faults(&call("-1"), 1, 1, FaultKind::OutOfBounds, &["shared"]);
}
