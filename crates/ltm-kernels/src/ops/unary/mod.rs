//! One function of each element: a multiple plus a constant, exponential, logarithm, square root, tanh, sigmoid,
//! GELU, ReLU.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_len, on_float};
use crate::{Buffer, Cost, Device, Result};

const OP: &str = "unary";

/// The coefficient of the cube in GELU's tanh.
pub(crate) const GELU_CUBIC: f64 = 0.044715;

/// A function of one number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Function {
    /// `scale · x + shift`.
    Affine {
        /// The factor.
        scale: f64,
        /// What is added.
        shift: f64,
    },
    /// `e^x`.
    Exp,
    /// The natural logarithm: NaN below 0, negative infinity at 0.
    Log,
    /// The square root: NaN below 0.
    Sqrt,
    /// The hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `x/2 · (1 + tanh(sqrt(2/π) · (x + 0.044715 x³)))`: Hendrycks and Gimpel 2016, the form that GPT-2 uses.
    Gelu,
    /// `x` where it is positive, otherwise 0; its slope at 0 is 0.
    Relu,
}

/// What [`fwd`] costs on `n` elements at most.
pub fn cost_fwd(n: usize) -> Cost {
    Cost::new(15 * n, 2 * n)
}

/// What [`bwd`] costs on `n` elements at most.
pub fn cost_bwd(n: usize) -> Cost {
    Cost::new(20 * n, 3 * n)
}

/// `out = f(x)`, both of one length.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) or [`Error::DType`](crate::Error::DType) when lengths or types
/// disagree.
pub fn fwd(device: &Device, out: &mut Buffer, x: &Buffer, f: Function) -> Result<()> {
    check_len(OP, "x", x.len(), out.len())?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x, f),
        Device::Cpu => on_float!(out.dtype(), T => {
            cpu::fwd::<T>(out.as_mut_slice()?, x.as_slice()?, f);
            Ok(())
        }),
    }
}

/// Gradient of [`fwd`]: `dx = dout · f'(x)`, all of one length.
///
/// # Errors
/// As [`fwd`].
pub fn bwd(device: &Device, dx: &mut Buffer, dout: &Buffer, x: &Buffer, f: Function) -> Result<()> {
    check_len(OP, "dout", dout.len(), dx.len())?;
    check_len(OP, "x", x.len(), dx.len())?;
    match device {
        Device::Cuda(context) => cuda::bwd(context, dx, dout, x, f),
        Device::Cpu => on_float!(dx.dtype(), T => {
            cpu::bwd::<T>(dx.as_mut_slice()?, dout.as_slice()?, x.as_slice()?, f);
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

    const FUNCTIONS: [Function; 8] = [
        Function::Affine { scale: -0.5, shift: 0.25 },
        Function::Exp,
        Function::Log,
        Function::Sqrt,
        Function::Tanh,
        Function::Sigmoid,
        Function::Gelu,
        Function::Relu,
    ];

    /// Numbers of both signs, or positive ones where the function needs them.
    fn inputs(f: Function, n: usize) -> Vec<f64> {
        let x = data(1, n);
        match f {
            Function::Log | Function::Sqrt => x.into_iter().map(|x| x.abs() + 0.125).collect(),
            _ => x,
        }
    }

    /// `out` and `dx` through buffers made by `make`.
    fn run(make: fn(&[f64]) -> Buffer, f: Function, n: usize) -> [Vec<f64>; 2] {
        let (x, dout) = (make(&inputs(f, n)), make(&data(2, n)));
        let mut outs = [(); 2].map(|()| make(&vec![f64::NAN; n]));
        let [out, dx] = &mut outs;
        fwd(&Device::Cpu, out, &x, f).expect("shapes agree");
        bwd(&Device::Cpu, dx, &dout, &x, f).expect("shapes agree");
        outs.map(|buffer| buffer.to_f64().expect("on the CPU"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn agrees_with_the_reference(n in 1usize..2000) {
            for f in FUNCTIONS {
                let (x, dout) = (inputs(f, n), data(2, n));
                let (mut out, mut dx) = (vec![0.0; n], vec![0.0; n]);
                reference::fwd(&mut out, &x, f);
                reference::bwd(&mut dx, &dout, &x, f);
                // A dozen roundings of numbers up to e^3.5 · 3.5.
                for (make, eps) in [(f32s as fn(&[f64]) -> Buffer, EPS), (f64s, f64::EPSILON)] {
                    let tol = Tol { abs: 12.0 * 3.5 * eps, rel: 12.0 * eps };
                    let [got_out, got_dx] = run(make, f, n);
                    assert_close(&got_out, &out, tol);
                    assert_close(&got_dx, &dx, tol);
                }
            }
        }
    }

    #[test]
    fn gradients() {
        let n = 9;
        for f in FUNCTIONS {
            let dout = data(2, n);
            let loss = |x: &[f64]| {
                let mut out = out64(n);
                fwd(&Device::Cpu, &mut out, &f64s(x), f).expect("shapes agree");
                inner(&out.to_f64().expect("on the CPU"), &dout)
            };
            let [_, dx] = run(f64s, f, n);
            gradcheck(loss, &inputs(f, n), &dx, Tol { abs: 1e-7, rel: 1e-7 });
        }
    }

    #[test]
    fn far_tails_are_what_they_approach() {
        let x = [-1e30, -1e4, -90.0, 90.0, 1e4, 1e30];
        for (f, values, slopes) in [
            (Function::Tanh, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [0.0; 6]),
            (Function::Sigmoid, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0; 6]),
            (Function::Gelu, [0.0, 0.0, 0.0, 90.0, 1e4, 1e30], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
        ] {
            let (mut out, mut dx) = (out32(6), out32(6));
            fwd(&Device::Cpu, &mut out, &f32s(&x), f).expect("shapes agree");
            bwd(&Device::Cpu, &mut dx, &f32s(&[1.0; 6]), &f32s(&x), f).expect("shapes agree");
            let tol = Tol { abs: 1e-30, rel: EPS };
            assert_close(&out.to_f64().expect("on the CPU"), &values, tol);
            assert_close(&dx.to_f64().expect("on the CPU"), &slopes, tol);
        }
    }

    #[test]
    fn same_bits_on_any_number_of_threads() {
        for f in FUNCTIONS {
            assert_same_on_any_pool(|| run(f32s, f, 50_001).concat());
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let f = Function::Exp;
        let refused = fwd(&Device::Cpu, &mut out32(3), &out32(2), f);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", expected: 3, got: 2, .. })));
        let refused = bwd(&Device::Cpu, &mut out32(3), &out32(2), &out32(3), f);
        assert!(matches!(refused, Err(Error::Shape { arg: "dout", .. })));
        let refused = bwd(&Device::Cpu, &mut out32(3), &out32(3), &out32(4), f);
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        let refused = fwd(&Device::Cpu, &mut out32(3), &out64(3), f);
        assert!(matches!(refused, Err(Error::DType { .. })));
    }
}
