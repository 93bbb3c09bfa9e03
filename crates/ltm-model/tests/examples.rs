//! The example runs to its end.

#[path = "../examples/decode.rs"]
#[expect(dead_code, reason = "the example's own `main` reads arguments")]
mod decode;

#[test]
fn two_prompts_are_continued() {
    let texts = decode::decode(None).unwrap();
    assert_eq!(texts.map(|text| text.len()), [3 + 8, 5 + 8]);
}
