// rms_norm / forward / v2: one warp a row, which stays in its registers
// math    out[r,:] = x[r,:] * weight / sqrt(mean(x[r,:]^2) + eps); with a residual, sum = x +
//         residual is rounded, written, and stands in the place of x
// in      x, residual (rows,C) A; weight (C) f32
// out     out, sum (rows,C) A
// launch  grid (ceil(rows/8)), block (256)
// needs   [P1] C % 8 == 0   [P2] C <= 1024   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums, a lane's share in order, then a tree; same input, same bits
// cost    4*rows*C flop; 2*rows*C elements, 4*rows*C with a residual
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// vs v1   each element is read once, 16 bytes a lane; a warp's loads are adjacent
// budget  regs 80; threads 256; smem 0; sass -
#include "common/reduce.cuh"
#include "common/types.cuh"

// Eights of a row that one lane holds: 4 * 8 * 32 lanes are 1024 columns.
#define CHUNKS 4

template <typename A, bool ADD>
__device__ void rms_norm_warp(A *sum, A *out, const A *x, const A *residual, const float *weight,
                              float eps, int rows, int n_columns) {
    int lane = threadIdx.x & 31, r = blockIdx.x * 8 + (threadIdx.x >> 5);
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    float v[CHUNKS][8], squares = 0.0f;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = 256 * k + 8 * lane;
        if (c >= n_columns) continue;
        load8(v[k], x + first + c);
        if (ADD) {
            float past[8];
            load8(past, residual + first + c);
            // The sum is rounded before it is squared: backward sees the rounded one.
#pragma unroll
            for (int e = 0; e < 8; e++) v[k][e] = to_f32(from_f32<A>(v[k][e] + past[e]));
            store8(sum + first + c, v[k]);
        }
#pragma unroll
        for (int e = 0; e < 8; e++) squares += v[k][e] * v[k][e];
    }
    float inverse = 1.0f / sqrtf(warp_sum(squares) / (float)n_columns + eps);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = 256 * k + 8 * lane;
        if (c >= n_columns) continue;
        float w[8];
        load8(w, weight + c);
#pragma unroll
        for (int e = 0; e < 8; e++) v[k][e] = v[k][e] * inverse * w[e];
        store8(out + first + c, v[k]);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_f32_v2(float *out, const float *x, const float *weight, float eps, int rows, int c) {
    rms_norm_warp<float, false>(nullptr, out, x, nullptr, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_bf16_v2(bf16 *out, const bf16 *x, const float *weight, float eps, int rows, int c) {
    rms_norm_warp<bf16, false>(nullptr, out, x, nullptr, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_f32_v2(float *sum, float *out, const float *x, const float *residual,
                        const float *weight, float eps, int rows, int c) {
    rms_norm_warp<float, true>(sum, out, x, residual, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_bf16_v2(bf16 *sum, bf16 *out, const bf16 *x, const bf16 *residual,
                         const float *weight, float eps, int rows, int c) {
    rms_norm_warp<bf16, true>(sum, out, x, residual, weight, eps, rows, c);
}
