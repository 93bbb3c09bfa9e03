//! The definition of `unary` as plain loops.

use super::{Function, GELU_CUBIC};
use crate::Float;

/// `out = f(x)`.
///
/// # Panics
/// When `x` is shorter than `out`.
pub fn fwd<T: Float>(out: &mut [T], x: &[T], f: Function) {
    for i in 0..out.len() {
        out[i] = value(f, x[i]);
    }
}

/// `dx = dout · f'(x)`.
///
/// # Panics
/// When a slice is shorter than `dx`.
pub fn bwd<T: Float>(dx: &mut [T], dout: &[T], x: &[T], f: Function) {
    for i in 0..dx.len() {
        dx[i] = dout[i] * slope(f, x[i]);
    }
}

fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + (-x).exp())
}

/// The argument of GELU's tanh, and its slope.
fn gelu_argument<T: Float>(x: T) -> (T, T) {
    let (k, cubic) = (T::from_f64(std::f64::consts::FRAC_2_PI.sqrt()), T::from_f64(GELU_CUBIC));
    (k * (x + cubic * x * x * x), k * (T::ONE + T::from_f64(3.0) * cubic * x * x))
}

fn value<T: Float>(f: Function, x: T) -> T {
    match f {
        Function::Affine { scale, shift } => T::from_f64(scale) * x + T::from_f64(shift),
        Function::Exp => x.exp(),
        Function::Log => x.ln(),
        Function::Sqrt => x.sqrt(),
        Function::Tanh => x.tanh(),
        Function::Sigmoid => sigmoid(x),
        Function::Gelu => T::from_f64(0.5) * x * (T::ONE + gelu_argument(x).0.tanh()),
        Function::Relu => positive(x, x),
    }
}

fn slope<T: Float>(f: Function, x: T) -> T {
    match f {
        Function::Affine { scale, .. } => T::from_f64(scale),
        Function::Exp => x.exp(),
        Function::Log => T::ONE / x,
        Function::Sqrt => T::from_f64(0.5) / x.sqrt(),
        Function::Tanh => T::ONE - x.tanh() * x.tanh(),
        Function::Sigmoid => sigmoid(x) * (T::ONE - sigmoid(x)),
        Function::Gelu => {
            let (u, du) = gelu_argument(x);
            let t = u.tanh();
            T::from_f64(0.5) * (T::ONE + t + x * (T::ONE - t * t) * du)
        }
        Function::Relu => positive(x, T::ONE),
    }
}

/// `y` where `x` is positive, otherwise 0.
fn positive<T: Float>(x: T, y: T) -> T {
    if x > T::ZERO { y } else { T::ZERO }
}
