// attention / backward / v1: one warp per row of a gradient
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dq = scale * sum_j ds k_j; dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over the H/G query heads of
//         a key's head and the visible pairs: all where W = 0, else t-W < j <= t, with T_k = T
// in      dout, out, q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16; lse (B,T,H) f32; delta (B,T,H) f32, written
//         by the delta kernel, read by the others, also those of higher rungs
// out     dq (B,T,H,D), dk, dv (B,T_k,G,D) of the inputs' type; dk or dv may be null
// launch  delta, dq: grid (ceil(B*T*H/4)); dkv: grid (ceil(B*T_k*G/4)); block (128)
// needs   [P1] D <= 256   [P2] B*T*H < 2^31, B*T_k*G < 2^31
// numeric f32 sums, keys in order, queries in order head by head; no atomics: same input, same bits
// cost    10*B*H*D*pairs flop, pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (4*B*T*H*D + 4*B*T_k*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao et al. 2022 (FlashAttention), algorithm 4
// budget  regs 96; threads 128; smem 0; sass -
#include "common/attention_rows.cuh"

template <typename A>
__device__ __forceinline__ void bwd_q(A *dq, const A *dout, const float *lse, const float *delta,
                                      const A *q, const A *k, const A *v, float scale, int B, int T,
                                      int T_k, int H, int G, int D, int W) {
    const attention_mask mask = {T, T_k, W};
    long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= (long long)B * T * H) return;
    int h = row % H, t = row / H % T;
    long long b = row / H / T;
    long long kv = (b * T_k * G + h / (H / G)) * D;
    bwd_row_q(dq + row * D, dout + row * D, lse[row], delta[row], q + row * D, k + kv, v + kv,
              (long long)G * D, mask.first_key(t), mask.end_key(t), scale, D);
}

template <typename A>
__device__ __forceinline__ void bwd_kv(A *dk, A *dv, const A *dout, const float *lse,
                                       const float *delta, const A *q, const A *k, const A *v,
                                       float scale, int B, int T, int T_k, int H, int G, int D, int W) {
    const attention_mask mask = {T, T_k, W};
    long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= (long long)B * T_k * G) return;
    int g = row % G, j = row / G % T_k;
    long long b = row / G / T_k;
    long long queries = b * T * H + g * (H / G);
    bwd_row_kv(dk ? dk + row * D : dk, dv ? dv + row * D : dv, dout + queries * D, lse + queries,
               delta + queries, q + queries * D, k + row * D, v + row * D, mask.first_query(j),
               mask.end_query(j), H / G, H, scale, D);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_delta_f32_v1(float *delta, const float *dout, const float *out, int rows, int D) {
    delta_row(delta, dout, out, rows, D);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_delta_bf16_v1(float *delta, const bf16 *dout, const bf16 *out, int rows, int D) {
    delta_row(delta, dout, out, rows, D);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_dq_f32_v1(float *dq, const float *dout, const float *lse, const float *delta, const float *q,
                        const float *k, const float *v, float scale, int B, int T, int T_k, int H, int G,
                        int D, int W) {
    bwd_q(dq, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_dq_bf16_v1(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                         const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                         int D, int W) {
    bwd_q(dq, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_dkv_f32_v1(float *dk, float *dv, const float *dout, const float *lse, const float *delta,
                         const float *q, const float *k, const float *v, float scale, int B, int T, int T_k,
                         int H, int G, int D, int W) {
    bwd_kv(dk, dv, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 1)
attention_bwd_dkv_bf16_v1(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                          const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k,
                          int H, int G, int D, int W) {
    bwd_kv(dk, dv, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, W);
}
