//! `cast` on its devices.

use ltm_kernels::ops::cast::fwd;
use ltm_kernels::{DType, Device};

use crate::harness::{BF16, EXACT, F32, output, read, upload};
use crate::walk::{Case, Subject, both, no_needs};

pub fn subject() -> Subject {
    let extents = [1usize, 2059];
    let case = Case {
        pass: "fwd",
        calls: both(extents.iter().flat_map(|n| [(F32, *n), (BF16, *n)])),
        holds: no_needs,
        run: |device, from, &(to, n)| {
            let mut out = output(device, to, n);
            fwd(device, &mut out, &upload(device, from, &numbers(n)))?;
            Ok(vec![read(&out)])
        },
        // The host rounds to nearest, ties to even, when it writes bf16.
        expected: |from, &(to, n), _| {
            let held = |dtype: DType, x: &[f64]| read(&upload(&Device::Cpu, dtype, x));
            let what = if to == BF16 { "to bf16" } else { "to f32" };
            vec![(what, held(to, &held(from, &numbers(n))), EXACT)]
        },
    };
    Subject { op: "cast", cases: vec![Box::new(case)] }
}

/// Between two neighbours in bf16, on ties and off them.
fn numbers(n: usize) -> Vec<f64> {
    (0..n).map(|i| f64::from(f32::from_bits(0x3f80_0000 + 0x1234 * i as u32))).collect()
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}
