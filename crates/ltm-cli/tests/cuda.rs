//! `ltm` through CUDA: every recorded quantity, from logits to greedy tokens, and a short training run
//! beside the same one on the CPU. Without `LTM_DEVICE=cuda` it is skipped.

use std::process::Command;

use ltm_testkit::cuda_device;

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
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../ltm-model/tests/fixtures");
    for (file, quantities) in [("tiny", 150), ("gqa", 108)] {
        let path = format!("{fixtures}/{file}.safetensors");
        for precision in ["f32", "mixed"] {
            let out = ltm(&["parity", "--device", &device, "--precision", precision, &path]);
            let verdict = format!("{quantities} quantities, 0 exceed their limit");
            assert!(out.contains(&verdict), "{precision}: {out}");
        }
    }
}
