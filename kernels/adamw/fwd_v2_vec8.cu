// adamw / forward / v2: eight parameters per step
// math    g = grad_scale*grad; m += rate1*(g - m); v = beta2*v + rate2*g^2;
//         param = keep*param - step_size*m/(sqrt(v)*root_scale + eps)
// in      grad (n) f32; the eight factors by value, or factors (S,8) f32 and step (1) i32 that names a row;
//         outside the table all factors are NaN
// out     param, m, v (n) f32, changed in place
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic; same input, same bits
// cost    14*n flop; 7*n elements
// twin    crates/ltm-kernels/src/ops/adamw/reference.rs
// source  Loshchilov & Hutter 2019; the order of operations of PyTorch's AdamW
// vs v1   16-byte loads and stores
// budget  regs 96; threads 256; smem 0; sass -
#include "adamw/math.cuh"

__device__ void adamw_eights(float *param, float *m, float *v, const float *grad, const Factors &f,
                             long long n) {
    float *const outs[3] = {param, m, v};
    const float *const ins[4] = {param, m, v, grad};
    map8(outs, ins, n, [f](float (&y)[3], const float (&x)[4]) {
        y[0] = x[0], y[1] = x[1], y[2] = x[2];
        adamw_element(y[0], y[1], y[2], x[3], f);
    });
}

extern "C" __global__ void __launch_bounds__(256)
adamw_fwd_f32_v2(float *param, float *m, float *v, const float *grad, float grad_scale, float keep,
                float rate1, float beta2, float rate2, float root_scale, float eps,
                float step_size, long long n) {
    Factors f = {grad_scale, keep, rate1, beta2, rate2, root_scale, eps, step_size};
    adamw_eights(param, m, v, grad, f, n);
}

extern "C" __global__ void __launch_bounds__(256)
adamw_fwd_scheduled_f32_v2(float *param, float *m, float *v, const float *grad,
                          const float *factors, const int *step, int steps, long long n) {
    adamw_eights(param, m, v, grad, factors_of(factors, step, steps), n);
}
