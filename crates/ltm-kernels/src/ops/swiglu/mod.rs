//! The gated activation of a feed-forward layer: `silu(gate) · up`.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "swiglu";

/// What [`fwd`] costs on `n` elements.
pub fn cost_fwd(n: usize) -> Cost {
    Cost::new(5 * n, 3 * n)
}

/// What [`bwd`] costs on `n` elements when both gradients are computed.
pub fn cost_bwd(n: usize) -> Cost {
    Cost::new(11 * n, 5 * n)
}

/// `out = gate · sigmoid(gate) · up`.
///
/// # Shapes
/// All of one length.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
///
/// # Source
/// Shazeer 2020, "GLU Variants Improve Transformer".
pub fn fwd(device: &Device, out: &mut Buffer, gate: &Buffer, up: &Buffer) -> Result<()> {
    check_len(OP, "gate", gate.len(), out.len())?;
    check_len(OP, "up", up.len(), out.len())?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, gate, up),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fwd::<T>(out.as_mut_slice()?, gate.as_slice()?, up.as_slice()?);
            Ok(())
        }),
    }
}

/// Gradients of [`fwd`]; only those requested are computed.
///
/// # Shapes
/// All of one length.
///
/// # Errors
/// As [`fwd`].
///
/// # Source
/// With `s = sigmoid(gate)`: `dgate = dout·up·s·(1 + gate·(1 − s))`, `dup = dout·gate·s`.
pub fn bwd(
    device: &Device,
    dgate: Option<&mut Buffer>,
    dup: Option<&mut Buffer>,
    dout: &Buffer,
    gate: &Buffer,
    up: &Buffer,
) -> Result<()> {
    check_len(OP, "gate", gate.len(), dout.len())?;
    check_len(OP, "up", up.len(), dout.len())?;
    for (arg, output) in [("dgate", &dgate), ("dup", &dup)] {
        if let Some(output) = output {
            check_len(OP, arg, output.len(), dout.len())?;
        }
    }
    match device {
        Device::Cuda(context) => cuda::bwd(context, dgate, dup, dout, gate, up),
        Device::Cpu => on_float!(dout.dtype(), T => {
            let (dout, gate, up) = (dout.as_slice()?, gate.as_slice()?, up.as_slice()?);
            let dgate = dgate.map(|buffer| buffer.as_mut_slice()).transpose()?;
            let dup = dup.map(|buffer| buffer.as_mut_slice()).transpose()?;
            cpu::bwd::<T>(dgate, dup, dout, gate, up);
            Ok(())
        }),
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close, gradcheck};
    use proptest::prelude::*;

    use super::*;
    use crate::Error;
    use crate::ops::testing::{
        EPS, assert_same_on_any_pool, data, f32s, f64s, inner, out32, out64,
    };

    /// `out`, `dgate` and `dup` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, n: usize) -> [Vec<f64>; 3] {
        let (gate, up, dout) = (make(&data(1, n)), make(&data(2, n)), make(&data(3, n)));
        let poisoned = || make(&vec![f64::NAN; n]);
        let (mut out, mut dgate, mut dup) = (poisoned(), poisoned(), poisoned());
        fwd(&Device::Cpu, &mut out, &gate, &up).expect("shapes agree");
        bwd(&Device::Cpu, Some(&mut dgate), Some(&mut dup), &dout, &gate, &up)
            .expect("shapes agree");
        [out, dgate, dup].map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..2000) {
            let (gate, up, dout) = (data(1, n), data(2, n), data(3, n));
            let (mut out, mut dgate, mut dup) = (vec![0.0; n], vec![0.0; n], vec![0.0; n]);
            reference::fwd(&mut out, &gate, &up);
            reference::bwd(Some(&mut dgate), Some(&mut dup), &dout, &gate, &up);
            // A dozen roundings of products of three numbers within 3.5.
            for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                let tol = Tol { abs: 3.5f64.powi(3) * 12.0 * eps, rel: 0.0 };
                let [got_out, got_dgate, got_dup] = run(make, n);
                assert_close(&got_out, &out, tol);
                assert_close(&got_dgate, &dgate, tol);
                assert_close(&got_dup, &dup, tol);
            }
        }
    }

    #[test]
    fn gradients_together_and_apart() {
        let n = 9;
        let (gate, up, dout) = (data(1, n), data(2, n), data(3, n));
        let loss = |gate: &[f64], up: &[f64]| {
            let mut out = out64(n);
            fwd(&Device::Cpu, &mut out, &f64s(gate), &f64s(up)).expect("shapes agree");
            inner(&out.to_f64().expect("on the CPU"), &dout)
        };
        let [_, dgate, dup] = run(f64s, n);
        let tol = Tol { abs: 1e-7, rel: 1e-7 };
        gradcheck(|gate| loss(gate, &up), &gate, &dgate, tol);
        gradcheck(|up| loss(&gate, up), &up, &dup, tol);
        let (mut dgate_alone, mut dup_alone) = (out64(n), out64(n));
        let (dout, gate, up) = (f64s(&dout), f64s(&gate), f64s(&up));
        bwd(&Device::Cpu, Some(&mut dgate_alone), None, &dout, &gate, &up).expect("shapes agree");
        bwd(&Device::Cpu, None, Some(&mut dup_alone), &dout, &gate, &up).expect("shapes agree");
        let exact = Tol { abs: 0.0, rel: 4.0 * f64::EPSILON };
        assert_close(&dgate_alone.to_f64().expect("on the CPU"), &dgate, exact);
        assert_close(&dup_alone.to_f64().expect("on the CPU"), &dup, exact);
    }

    #[test]
    fn far_tails_are_finite() {
        let (gate, up) = (f32s(&[-1e4, -90.0, 90.0, 1e4]), f32s(&[2.0; 4]));
        let mut out = out32(4);
        fwd(&Device::Cpu, &mut out, &gate, &up).expect("shapes agree");
        assert_close(
            &out.to_f64().expect("on the CPU"),
            &[0.0, 0.0, 180.0, 2e4],
            Tol { abs: 1e-30, rel: 0.0 },
        );
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        assert_same_on_any_pool(|| run(f32s, 50_001).concat());
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let refused = fwd(&Device::Cpu, &mut out32(3), &out32(3), &out32(2));
        assert!(matches!(refused, Err(Error::Shape { arg: "up", expected: 3, got: 2, .. })));
        let refused = bwd(&Device::Cpu, Some(&mut out32(2)), None, &out32(3), &out32(3), &out32(3));
        assert!(matches!(refused, Err(Error::Shape { arg: "dgate", .. })));
        let refused = fwd(&Device::Cpu, &mut out32(3), &out64(3), &out32(3));
        assert!(matches!(refused, Err(Error::DType { .. })));
    }
}
