// unary / forward / v1: one thread per element
// math    out = f(x), f one of: scale*x + shift, exp, log, sqrt, tanh, sigmoid, gelu (by tanh), relu
// in      x (n) A
// out     out (n) A
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    up to 15*n flop; 2*n elements
// twin    crates/ltm-kernels/src/ops/unary/reference.rs
// source  gelu: Hendrycks & Gimpel 2016, in the form with tanh
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "unary/math.cuh"

extern "C" __global__ void __launch_bounds__(256)
unary_fwd_f32_v1(float *out, const float *x, int function, float scale, float shift, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<float>(unary_value(function, scale, shift, to_f32(x[i])));
}

extern "C" __global__ void __launch_bounds__(256)
unary_fwd_bf16_v1(bf16 *out, const bf16 *x, int function, float scale, float shift, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<bf16>(unary_value(function, scale, shift, to_f32(x[i])));
}
