// A row divided among LANES threads, which keep it in registers: a warp (v2) or a block (v3).
#pragma once

#include "common/reduce.cuh"
#include "common/types.cuh"

// Groups of eight elements per lane: 4 * 8 * 32 lanes are 1024 columns, 4 * 8 * 256 are 8192.
constexpr int CHUNKS = 4;
constexpr int BLOCK = 256;

// The sum over the lanes of a row, in each of them.
template <int LANES> __device__ __forceinline__ float row_sum(float x) {
    if constexpr (LANES == 32) return warp_sum(x);
    __shared__ float scratch[BLOCK / 32];
    return block_sum(x, scratch);
}

// The column at which this thread's k-th group of eight begins.
template <int LANES> __device__ __forceinline__ int column(int k) {
    return 8 * (LANES * k + (int)threadIdx.x % LANES);
}

template <int LANES, typename A, bool ADD>
__device__ void rms_norm_row(A *sum, A *out, const A *x, const A *residual, const float *weight,
                             float eps, int rows, int n_columns) {
    int r = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    float v[CHUNKS][8], squares = 0.0f;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<LANES>(k);
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
    float inverse = 1.0f / sqrtf(row_sum<LANES>(squares) / (float)n_columns + eps);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<LANES>(k);
        if (c >= n_columns) continue;
        float w[8];
        load8(w, weight + c);
#pragma unroll
        for (int e = 0; e < 8; e++) v[k][e] = v[k][e] * inverse * w[e];
        store8(out + first + c, v[k]);
    }
}

template <int LANES, typename A>
__device__ void rms_norm_dx_row(A *dx, const A *dout, const A *x, const float *weight,
                                const A *dresidual, float eps, int rows, int n_columns) {
    int r = blockIdx.x * (BLOCK / LANES) + threadIdx.x / LANES;
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    float v[CHUNKS][8], g[CHUNKS][8], squares = 0.0f, dot = 0.0f;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<LANES>(k);
        if (c >= n_columns) continue;
        float w[8];
        load8(v[k], x + first + c);
        load8(g[k], dout + first + c);
        load8(w, weight + c);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            g[k][e] *= w[e];
            squares += v[k][e] * v[k][e];
            dot += g[k][e] * v[k][e];
        }
    }
    float inverse = 1.0f / sqrtf(row_sum<LANES>(squares) / (float)n_columns + eps);
    float pull = row_sum<LANES>(dot) / (float)n_columns * inverse * inverse;
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<LANES>(k);
        if (c >= n_columns) continue;
#pragma unroll
        for (int e = 0; e < 8; e++) g[k][e] = inverse * (g[k][e] - v[k][e] * pull);
        if (dresidual) {
            float past[8];
            load8(past, dresidual + first + c);
#pragma unroll
            for (int e = 0; e < 8; e++) g[k][e] += past[e];
        }
        store8(dx + first + c, g[k]);
    }
}

// Adds to `total` the contributions to dweight of those of this block's rows that these lanes process.
template <int LANES, typename A>
__device__ __forceinline__ void add_dweight(float (&total)[CHUNKS][8], const A *dout, const A *x,
                                            float eps, int rows, int n_columns,
                                            int rows_per_block) {
    int start = blockIdx.x * rows_per_block, end = min(start + rows_per_block, rows);
    for (int r = start + threadIdx.x / LANES; r < end; r += BLOCK / LANES) {
        long long first = (long long)r * n_columns;
        float v[CHUNKS][8], squares = 0.0f;
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int c = column<LANES>(k);
            if (c >= n_columns) continue;
            load8(v[k], x + first + c);
#pragma unroll
            for (int e = 0; e < 8; e++) squares += v[k][e] * v[k][e];
        }
        float inverse = 1.0f / sqrtf(row_sum<LANES>(squares) / (float)n_columns + eps);
#pragma unroll
        for (int k = 0; k < CHUNKS; k++) {
            int c = column<LANES>(k);
            if (c >= n_columns) continue;
            float g[8];
            load8(g, dout + first + c);
#pragma unroll
            for (int e = 0; e < 8; e++) total[k][e] += g[e] * v[k][e] * inverse;
        }
    }
}
