// The arithmetic of one AdamW step, shared by both rungs.
#pragma once

#include "common/map.cuh"

struct Factors {
    float grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size;
};

__device__ __forceinline__ Factors factors_of(const float *factors, const int *step, int steps) {
    int s = *step;
    if (s < 0 || s >= steps) {
        float nan = __int_as_float(0x7fc00000);
        return {nan, nan, nan, nan, nan, nan, nan, nan};
    }
    float4 lo = load4(factors + 8ll * s), hi = load4(factors + 8ll * s + 4);
    return {lo.x, lo.y, lo.z, lo.w, hi.x, hi.y, hi.z, hi.w};
}

__device__ __forceinline__ void adamw_element(float &param, float &m, float &v, float grad,
                                              const Factors &f) {
    float g = f.grad_scale * grad;
    m += f.rate1 * (g - m);
    v = f.beta2 * v + f.rate2 * g * g;
    param = f.keep * param - f.step_size * m / (sqrtf(v) * f.root_scale + f.eps);
}
