// rope / forward / v2: eight elements per step
// math    each pair (x[2i], x[2i+1]) of every head turned by its position's angle, times sign: -1 is backward
// in      x (B,T,H,D) A; table (T,D/2,2) f32 of (cos, sin)
// out     out (B,T,H,D) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   [P1] D % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    3*n flop; 2*n elements, n = B*T*H*D
// twin    crates/ltm-kernels/src/ops/rope/reference.rs
// source  Su et al. 2021
// vs v1   16-byte loads and stores
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void rope_eights(A *out, const A *x, const float *table, float sign, int b, int t, int h,
                            int d) {
    long long row = (long long)h * d, n = (long long)b * t * row;
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        float v[8], angle[8], y[8];
        load8(v, x + i);
        load8(angle, table + i / row % t * d + i % d);
#pragma unroll
        for (int e = 0; e < 8; e += 2) {
            float cosine = angle[e], sine = sign * angle[e + 1];
            y[e] = v[e] * cosine - v[e + 1] * sine;
            y[e + 1] = v[e] * sine + v[e + 1] * cosine;
        }
        store8(out + i, y);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rope_fwd_f32_v2(float *out, const float *x, const float *table, float sign, int b, int t, int h, int d) {
    rope_eights(out, x, table, sign, b, t, h, d);
}

extern "C" __global__ void __launch_bounds__(256)
rope_fwd_bf16_v2(bf16 *out, const bf16 *x, const float *table, float sign, int b, int t, int h, int d) {
    rope_eights(out, x, table, sign, b, t, h, d);
}
