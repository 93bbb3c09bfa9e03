// cast / forward / v1: one thread per element
// math    out[i] = x[i], rounded to the type of out
// in      x (n) f32 or bf16
// out     out (n) f32 or bf16
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric to nearest, ties to even
// cost    0 flop; 2*n elements
// twin    crates/ltm-kernels/src/ops/cast/reference.rs
// source  a conversion
// budget  regs 32; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename O, typename I> __device__ void cast_naive(O *out, const I *x, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads()) out[i] = from_f32<O>(to_f32(x[i]));
}

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_f32_f32_v1(float *out, const float *x, long long n) { cast_naive(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_f32_bf16_v1(bf16 *out, const float *x, long long n) { cast_naive(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_bf16_f32_v1(float *out, const bf16 *x, long long n) { cast_naive(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_bf16_bf16_v1(bf16 *out, const bf16 *x, long long n) { cast_naive(out, x, n); }
