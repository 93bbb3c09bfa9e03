//! `ltm` through CUDA: every recorded quantity, from logits to greedy tokens, and a short training run
//! beside the same one on the CPU. Without `LTM_DEVICE=cuda` it is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;

use ltm_testkit::cuda_device;

/// Where the recorded numbers lie: beside the source, or in `LTM_FIXTURES` on a machine without it.
fn fixtures() -> PathBuf {
    match std::env::var_os("LTM_FIXTURES") {
        Some(folder) => folder.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-model/tests/fixtures"),
    }
}

/// Runs `ltm` and returns what it printed; the test fails when `ltm` does.
fn ltm(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_ltm")).args(args).output().expect("ltm starts");
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    out.into_owned()
}

#[test]
fn parity_holds_in_both_precisions() {
    let Some(device) = cuda_device() else { return };
    for (file, quantities) in [("tiny", 150), ("gqa", 108)] {
        let path = fixtures().join(file).with_extension("safetensors");
        let path = path.to_str().expect("the path is text");
        for precision in ["f32", "mixed"] {
            let out = ltm(&["parity", "--device", &device, "--precision", precision, path]);
            let verdict = format!("{quantities} quantities, 0 miss");
            assert!(out.contains(&verdict), "{precision}: {out}");
        }
    }
}
