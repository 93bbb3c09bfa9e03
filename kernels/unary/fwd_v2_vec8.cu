// unary / forward / v2: eight elements per step
// math    out = f(x), f one of: scale*x + shift, exp, log, sqrt, tanh, sigmoid, gelu (by tanh), relu
// in      x (n) A
// out     out (n) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    up to 15*n flop; 2*n elements
// twin    crates/ltm-kernels/src/ops/unary/reference.rs
// source  gelu: Hendrycks & Gimpel 2016, in the form with tanh
// vs v1   16-byte loads and stores
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "unary/math.cuh"

extern "C" __global__ void __launch_bounds__(256)
unary_fwd_f32_v2(float *out, const float *x, int function, float scale, float shift, long long n) {
    float *const outs[1] = {out};
    const float *const ins[1] = {x};
    map8(outs, ins, n, [=](float (&y)[1], const float (&v)[1]) {
        y[0] = unary_value(function, scale, shift, v[0]);
    });
}

extern "C" __global__ void __launch_bounds__(256)
unary_fwd_bf16_v2(bf16 *out, const bf16 *x, int function, float scale, float shift, long long n) {
    bf16 *const outs[1] = {out};
    const bf16 *const ins[1] = {x};
    map8(outs, ins, n, [=](float (&y)[1], const float (&v)[1]) {
        y[0] = unary_value(function, scale, shift, v[0]);
    });
}
