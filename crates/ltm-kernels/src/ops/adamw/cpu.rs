//! The fast CPU implementation: one vectorised pass at the speed of memory.

use super::Factors;
use crate::Float;
use crate::ops::parallel::zip_chunks;

pub(crate) fn step<T: Float>(
    param: &mut [T],
    m: &mut [T],
    v: &mut [T],
    grad: &[T],
    factors: Factors<T>,
) {
    let Factors { grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size } = factors;
    zip_chunks(
        [param, m, v],
        [grad],
        #[inline(always)]
        |[param, m, v], [grad]| {
            for (((param, m), v), &grad) in param.iter_mut().zip(m).zip(v).zip(grad) {
                let g = grad_scale * grad;
                *m += rate1 * (g - *m);
                *v = beta2 * *v + rate2 * g * g;
                let root = v.sqrt() * root_scale + eps;
                *param = keep * *param - step_size * *m / root;
            }
        },
    );
}
