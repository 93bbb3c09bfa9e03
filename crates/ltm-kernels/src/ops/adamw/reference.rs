//! The definition of `adamw` as plain loops.

use super::Factors;
use crate::Float;

/// One step in place.
///
/// # Panics
/// When a slice is shorter than `param`.
pub fn step<T: Float>(param: &mut [T], m: &mut [T], v: &mut [T], grad: &[T], factors: Factors<T>) {
    for i in 0..param.len() {
        let g = factors.grad_scale * grad[i];
        m[i] += factors.rate1 * (g - m[i]);
        v[i] = factors.beta2 * v[i] + factors.rate2 * g * g;
        let root = v[i].sqrt() * factors.root_scale + factors.eps;
        param[i] = factors.keep * param[i] - factors.step_size * m[i] / root;
    }
}
