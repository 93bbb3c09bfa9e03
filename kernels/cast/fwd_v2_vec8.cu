// cast / forward / v2: eight elements per step
// math    out[i] = x[i], rounded to the type of out
// in      x (n) f32 or bf16
// out     out (n) f32 or bf16
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric to nearest, ties to even
// cost    0 flop; 2*n elements
// twin    crates/ltm-kernels/src/ops/cast/reference.rs
// source  a conversion
// vs v1   16-byte loads and stores
// budget  regs 40; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename O, typename I> __device__ void cast_eights(O *out, const I *x, long long n) {
    for (long long i = 8 * grid_thread(); i + 8 <= n; i += 8 * grid_threads()) {
        float eight[8];
        load8(eight, x + i);
        store8(out + i, eight);
    }
    for (long long i = n / 8 * 8 + grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<O>(to_f32(x[i]));
}

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_f32_f32_v2(float *out, const float *x, long long n) { cast_eights(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_f32_bf16_v2(bf16 *out, const float *x, long long n) { cast_eights(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_bf16_f32_v2(float *out, const bf16 *x, long long n) { cast_eights(out, x, n); }

extern "C" __global__ void __launch_bounds__(256)
cast_fwd_bf16_bf16_v2(bf16 *out, const bf16 *x, long long n) { cast_eights(out, x, n); }
