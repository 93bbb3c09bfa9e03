//! The fast CPU implementation: one vectorised pass, with the choice of the function outside of its loop.

use super::{Function, GELU_CUBIC};
use crate::ops::parallel::zip_chunks;
use crate::{Float, simd};

pub(crate) fn fwd<T: Float>(out: &mut [T], x: &[T], f: Function) {
    macro_rules! map {
        ($f:expr) => {
            zip_chunks(
                [out],
                [x],
                #[inline(always)]
                |[out], [x]| out.iter_mut().zip(x).for_each(|(out, &x)| *out = $f(x)),
            )
        };
    }
    match f {
        Function::Affine { scale, shift } => {
            let (scale, shift) = (T::from_f64(scale), T::from_f64(shift));
            map!(|x: T| scale * x + shift)
        }
        Function::Exp => map!(simd::exp),
        Function::Log => map!(T::ln),
        Function::Sqrt => map!(T::sqrt),
        Function::Tanh => map!(simd::tanh),
        Function::Sigmoid => map!(sigmoid),
        Function::Gelu => map!(|x| x * gelu_weight(x)),
        Function::Relu => map!(|x| positive(x, x)),
    }
}

pub(crate) fn bwd<T: Float>(dx: &mut [T], dout: &[T], x: &[T], f: Function) {
    macro_rules! map {
        ($slope:expr) => {
            zip_chunks(
                [dx],
                [dout, x],
                #[inline(always)]
                |[dx], [dout, x]| {
                    for ((dx, &dout), &x) in dx.iter_mut().zip(dout).zip(x) {
                        *dx = dout * $slope(x);
                    }
                },
            )
        };
    }
    match f {
        Function::Affine { scale, .. } => {
            let scale = T::from_f64(scale);
            map!(|_: T| scale)
        }
        Function::Exp => map!(simd::exp),
        Function::Log => map!(|x| T::ONE / x),
        Function::Sqrt => map!(|x: T| T::from_f64(0.5) / x.sqrt()),
        Function::Tanh => map!(|x| {
            let y = simd::tanh(x);
            T::ONE - y * y
        }),
        Function::Sigmoid => map!(|x| {
            let y = sigmoid(x);
            y * (T::ONE - y)
        }),
        Function::Gelu => map!(gelu_slope),
        Function::Relu => map!(|x| positive(x, T::ONE)),
    }
}

#[inline(always)]
fn sigmoid<T: Float>(x: T) -> T {
    T::ONE / (T::ONE + simd::exp(-x))
}

/// `(1 + tanh(u)) / 2` is the sigmoid of `2u`: without its cancellation, and from one exponential.
#[inline(always)]
fn gelu_weight<T: Float>(x: T) -> T {
    sigmoid(two_k::<T>() * x * (T::ONE + T::from_f64(GELU_CUBIC) * x * x))
}

#[inline(always)]
fn gelu_slope<T: Float>(x: T) -> T {
    let w = gelu_weight(x);
    let slope = two_k::<T>() * (T::ONE + T::from_f64(3.0 * GELU_CUBIC) * x * x);
    // Past the largest number x² is infinite, where the weight is 0 or 1.
    let bend = w * (T::ONE - w);
    if bend > T::ZERO { w + x * bend * slope } else { w }
}

#[inline(always)]
fn two_k<T: Float>() -> T {
    T::from_f64(2.0 * std::f64::consts::FRAC_2_PI.sqrt())
}

#[inline(always)]
fn positive<T: Float>(x: T, y: T) -> T {
    if x > T::ZERO { y } else { T::ZERO }
}
