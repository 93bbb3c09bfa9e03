// Attention with one warp per row: the naive rung. The caller determines where rows are, which keys a query
// sees, and which queries see a key.
#pragma once

#include "common/attention_mask.cuh"
#include "common/reduce.cuh"
#include "common/types.cuh"

// A row of at most 256 elements in a warp: lane l holds elements l, l + 32, l + 64, …
typedef float warp_row[8];

template <typename A>
__device__ __forceinline__ void load_row(warp_row &x, const A *row, int D) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int d = (threadIdx.x & 31) + 32 * i;
        x[i] = d < D ? to_f32(row[d]) : 0.f;
    }
}

template <typename A>
__device__ __forceinline__ void store_row(A *row, const warp_row &x, float factor, int D) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int d = (threadIdx.x & 31) + 32 * i;
        if (d < D) row[d] = from_f32<A>(x[i] * factor);
    }
}

// x · row, in every lane.
template <typename A>
__device__ __forceinline__ float dot_row(const warp_row &x, const A *row, int D) {
    warp_row y;
    load_row(y, row, D);
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < 8; i++) sum += x[i] * y[i];
    return warp_sum(sum);
}

// y += a * row
template <typename A>
__device__ __forceinline__ void axpy_row(warp_row &y, float a, const A *row, int D) {
    warp_row x;
    load_row(x, row, D);
#pragma unroll
    for (int i = 0; i < 8; i++) y[i] += a * x[i];
}

// Attention of one query to keys first..end; keys and values are `pitch` elements apart, key 0 at `k`, `v`.
template <typename A>
__device__ __forceinline__ void attend_row(A *out, float *lse, const A *q, const A *k, const A *v,
                                           long long pitch, int first, int end, float scale, int D) {
    warp_row q_row, sums = {};
    load_row(q_row, q, D);
    float max = NEG_INFINITY, sum = 0.f;
    for (int j = first; j < end; j++) {
        float score = scale * dot_row(q_row, k + j * pitch, D);
        float new_max = fmaxf(max, score);
        // The sums so far are relative to the old maximum.
        float decay = expf(max - new_max), p = expf(score - new_max);
#pragma unroll
        for (int i = 0; i < 8; i++) sums[i] *= decay;
        axpy_row(sums, p, v + j * pitch, D);
        sum = sum * decay + p;
        max = new_max;
    }
    store_row(out, sums, 1.f / sum, D);
    if ((threadIdx.x & 31) == 0) *lse = max + logf(sum);
}

// The gradient of one query, summed over keys first..end.
template <typename A>
__device__ __forceinline__ void bwd_row_q(A *dq, const A *dout, float lse, float delta, const A *q,
                                          const A *k, const A *v, long long pitch, int first, int end,
                                          float scale, int D) {
    warp_row q_row, dout_row, sums = {};
    load_row(q_row, q, D);
    load_row(dout_row, dout, D);
    for (int j = first; j < end; j++) {
        float p = expf(scale * dot_row(q_row, k + j * pitch, D) - lse);
        float ds = p * (dot_row(dout_row, v + j * pitch, D) - delta);
        axpy_row(sums, ds, k + j * pitch, D);
    }
    store_row(dq, sums, scale, D);
}

// The gradients of one key and its value, summed over queries first..end of `n_heads` adjacent heads. Row
// (t, h) of q and dout is at (t * H + h) * D, its lse and delta at t * H + h. A null gradient is not
// written.
template <typename A>
__device__ __forceinline__ void bwd_row_kv(A *dk, A *dv, const A *dout, const float *lse,
                                           const float *delta, const A *q, const A *k, const A *v,
                                           int first, int end, int n_heads, int H, float scale, int D) {
    warp_row k_row, v_row, dk_sums = {}, dv_sums = {};
    load_row(k_row, k, D);
    load_row(v_row, v, D);
    for (int h = 0; h < n_heads; h++) {
        for (int t = first; t < end; t++) {
            long long row = (long long)t * H + h;
            float p = expf(scale * dot_row(k_row, q + row * D, D) - lse[row]);
            float ds = p * (dot_row(v_row, dout + row * D, D) - delta[row]);
            axpy_row(dv_sums, p, dout + row * D, D);
            axpy_row(dk_sums, ds, q + row * D, D);
        }
    }
    if (dk) store_row(dk, dk_sums, scale, D);
    if (dv) store_row(dv, dv_sums, 1.f, D);
}

// delta[row] = dout[row] · out[row], for rows of D elements: the sum over keys of p dp, which the
// gradient of every score subtracts. One warp per row.
template <typename A>
__device__ __forceinline__ void delta_row(float *delta, const A *dout, const A *out, long long rows,
                                          int D) {
    long long row = (long long)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    if (row >= rows) return;
    float sum = 0.f;
    for (int d = threadIdx.x & 31; d < D; d += 32)
        sum += to_f32(dout[row * D + d]) * to_f32(out[row * D + d]);
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0) delta[row] = sum;
}
