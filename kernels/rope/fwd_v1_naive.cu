// rope / forward / v1: one thread per pair
// math    each pair (x[2i], x[2i+1]) of every head turned by its position's angle, times sign: -1 is backward
// in      x (B,T,H,D) A; table (T,D/2,2) f32 of (cos, sin)
// out     out (B,T,H,D) A
// launch  grid (min(ceil(n/512), 2^14)), block (256)
// needs   nothing   (by RopeDims and table: D % 2 == 0)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    3*n flop; 2*n elements, n = B*T*H*D
// twin    crates/ltm-kernels/src/ops/rope/reference.rs
// source  Su et al. 2021
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void rope_naive(A *out, const A *x, const float *table, float sign, int b, int t, int h,
                           int d) {
    long long row = (long long)h * d, n = (long long)b * t * row;
    for (long long i = 2 * grid_thread(); i < n; i += 2 * grid_threads()) {
        const float *angle = table + i / row % t * d + i % d;
        float cosine = angle[0], sine = sign * angle[1];
        float x0 = to_f32(x[i]), x1 = to_f32(x[i + 1]);
        out[i] = from_f32<A>(x0 * cosine - x1 * sine);
        out[i + 1] = from_f32<A>(x0 * sine + x1 * cosine);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rope_fwd_f32_v1(float *out, const float *x, const float *table, float sign, int b, int t, int h, int d) {
    rope_naive(out, x, table, sign, b, t, h, d);
}

extern "C" __global__ void __launch_bounds__(256)
rope_fwd_bf16_v1(bf16 *out, const bf16 *x, const float *table, float sign, int b, int t, int h, int d) {
    rope_naive(out, x, table, sign, b, t, h, d);
}
