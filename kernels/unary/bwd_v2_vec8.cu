// unary / backward / v2: eight elements per step
// math    dx = dout*f'(x), f one of: scale*x + shift, exp, log, sqrt, tanh, sigmoid, gelu (by tanh), relu
// in      dout, x (n) A
// out     dx (n) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    up to 20*n flop; 3*n elements
// twin    crates/ltm-kernels/src/ops/unary/reference.rs
// source  gelu: Hendrycks & Gimpel 2016, in the form with tanh
// vs v1   16-byte loads and stores
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "unary/math.cuh"

extern "C" __global__ void __launch_bounds__(256)
unary_bwd_f32_v2(float *dx, const float *dout, const float *x, int function, float scale, long long n) {
    float *const outs[1] = {dx};
    const float *const ins[2] = {dout, x};
    map8(outs, ins, n, [=](float (&y)[1], const float (&v)[2]) {
        y[0] = v[0] * unary_slope(function, scale, v[1]);
    });
}

extern "C" __global__ void __launch_bounds__(256)
unary_bwd_bf16_v2(bf16 *dx, const bf16 *dout, const bf16 *x, int function, float scale, long long n) {
    bf16 *const outs[1] = {dx};
    const bf16 *const ins[2] = {dout, x};
    map8(outs, ins, n, [=](float (&y)[1], const float (&v)[2]) {
        y[0] = v[0] * unary_slope(function, scale, v[1]);
    });
}
