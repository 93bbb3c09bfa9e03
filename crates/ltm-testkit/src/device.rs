//! Whether CUDA tests were requested. Knows no device.

use std::io::Write;

/// The device that `LTM_DEVICE` names when it is a CUDA device; otherwise prints that the test is skipped.
///
/// A device that was requested and is missing must fail the test: open it with `expect`.
pub fn cuda_device() -> Option<String> {
    let asked = std::env::var("LTM_DEVICE").ok().filter(|name| name.starts_with("cuda"));
    if asked.is_none() {
        // Past the test harness, which would keep it to itself: `xtask test` counts these lines.
        let _ = writeln!(std::io::stderr(), "skipped: no CUDA device (set LTM_DEVICE=cuda)");
    }
    asked
}
