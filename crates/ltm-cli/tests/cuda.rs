//! `ltm parity` through CUDA: every recorded quantity, from logits to greedy tokens. Without
//! `LTM_DEVICE=cuda` it is skipped.

use std::io::Write;
use std::process::Command;

#[test]
fn parity_holds_on_cuda() {
    if !std::env::var("LTM_DEVICE").is_ok_and(|name| name.starts_with("cuda")) {
        // Past the test harness, which would keep it to itself.
        let _ = writeln!(std::io::stderr(), "skipped: no CUDA device");
        return;
    }
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../ltm-model/tests/fixtures");
    for (file, quantities) in [("tiny", 150), ("gqa", 108)] {
        let output = Command::new(env!("CARGO_BIN_EXE_ltm"))
            .args(["parity", "--device", "cuda", &format!("{fixtures}/{file}.safetensors")])
            .output()
            .expect("ltm starts");
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        assert!(out.contains(&format!("{quantities} quantities, 0 miss")), "{out}");
    }
}
