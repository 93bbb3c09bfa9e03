// attention / backward / v2: eight lanes per row of a gradient, what it is summed over in shared memory
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dq = scale * sum_j ds k_j; dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over the H/G query heads of
//         a key's head and the visible pairs: all where W = 0, else t-W < j <= t, with T_k = T
// in      dout, q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16; lse, delta (B,T,H) f32, delta from
//         attention_bwd_delta
// out     dq (B,T,H,D), dk, dv (B,T_k,G,D) of the inputs' type; dk or dv may be null
// launch  dq: grid (ceil(T*(H/G)/32), G, B); dkv: grid (ceil(T_k/32), G, B); block (256); DP, in the symbol after
//         d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] G <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30
//         (by Buffer: pointers 16-byte aligned)
// numeric f32 sums, keys in order, queries in order head by head; no atomics: same input, same bits
// cost    10*B*H*D*pairs flop (14 done: scores and dp twice), pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (4*B*T*H*D + 4*B*T_k*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao et al. 2022 (FlashAttention), algorithm 4
// vs v1   16-byte accesses; a block reads what it sums over once for 32 rows
// budget  regs 136; threads 256; smem 33280; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void bwd_q(A *dq, const A *dout, const float *lse, const float *delta,
                                      const A *q, const A *k, const A *v, float scale, int T, int T_k,
                                      int H, int G, int D, int W) {
    // Keys and values per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float k_rows[4096], v_rows[4096];
    const attention_mask mask = {T, T_k, W};
    // Of 32 queries of a key head, position by position.
    const shared_rows rows = {T, H, G};
    int t = rows.position(threadIdx.x >> 3);
    bool inside = t < T;
    long long row = rows.row(threadIdx.x >> 3);
    long long stride = (long long)G * D, kv = ((long long)blockIdx.z * T_k * G + blockIdx.y) * D;

    lanes_row<DP> query, gradient, key, value, sums;
    query.load(q + row * D, D, inside);
    gradient.load(dout + row * D, D, inside);
    sums.clear();
    float row_lse = inside ? lse[row] : 0.f, row_delta = inside ? delta[row] : 0.f;
    int end = mask.end_key(min(rows.position(31), T - 1));
    for (int j0 = mask.first_key(rows.position(0)); j0 < end; j0 += CHUNK) {
        int n = min(CHUNK, end - j0);
        stage_rows<DP, DP>(k_rows, k + kv + j0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + j0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            // All lanes of a warp take part in the products' shuffles, visible pair or not.
            float score = scale * query.dot(key), dp = gradient.dot(value);
            if (!mask.sees(t, j0 + j)) continue;
            sums.blend(1.f, expf(score - row_lse) * (dp - row_delta), key);
        }
        // The next chunk overwrites these rows.
        __syncthreads();
    }
    if (inside) sums.store(dq + row * D, scale, D);
}

template <int DP, typename A>
__device__ __forceinline__ void bwd_kv(A *dk, A *dv, const A *dout, const float *lse,
                                       const float *delta, const A *q, const A *k, const A *v,
                                       float scale, int T, int T_k, int H, int G, int D, int W) {
    // Queries per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float q_rows[4096], dout_rows[4096];
    __shared__ float lse_rows[CHUNK], delta_rows[CHUNK];
    const attention_mask mask = {T, T_k, W};
    int g = blockIdx.y, j0 = blockIdx.x * 32, j = j0 + (threadIdx.x >> 3);
    long long b = blockIdx.z, row = (b * T_k + j) * G + g, stride = (long long)H * D;
    bool inside = j < T_k;

    lanes_row<DP> key, value, query, gradient, dk_sums, dv_sums;
    key.load(k + row * D, D, inside);
    value.load(v + row * D, D, inside);
    dk_sums.clear(), dv_sums.clear();
    int end = mask.end_query(j0 + 31);
    for (int h = g * (H / G); h < (g + 1) * (H / G); h++) {
        for (int t0 = mask.first_query(j0); t0 < end; t0 += CHUNK) {
            int n = min(CHUNK, end - t0);
            long long first_row = (b * T + t0) * H + h;
            stage_rows<DP, DP>(q_rows, q + first_row * D, n, stride, D);
            stage_rows<DP, DP>(dout_rows, dout + first_row * D, n, stride, D);
            if (threadIdx.x < n) {
                lse_rows[threadIdx.x] = lse[first_row + (long long)threadIdx.x * H];
                delta_rows[threadIdx.x] = delta[first_row + (long long)threadIdx.x * H];
            }
            __syncthreads();
            for (int i = 0; i < n; i++) {
                query.load(q_rows + i * DP, DP, true);
                gradient.load(dout_rows + i * DP, DP, true);
                // All lanes of a warp take part in the products' shuffles, visible pair or not.
                float score = scale * key.dot(query), dp = value.dot(gradient);
                if (!mask.sees(t0 + i, j)) continue;
                float p = expf(score - lse_rows[i]);
                dv_sums.blend(1.f, p, gradient);
                dk_sums.blend(1.f, p * (dp - delta_rows[i]), query);
            }
            // The next chunk overwrites these rows.
            __syncthreads();
        }
    }
    if (inside && dk) dk_sums.store(dk + row * D, scale, D);
    if (inside && dv) dv_sums.store(dv + row * D, 1.f, D);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dq_d64_f32_v2(float *dq, const float *dout, const float *lse, const float *delta,
                            const float *q, const float *k, const float *v, float scale, int B, int T,
                            int T_k, int H, int G, int D, int W) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dq_d64_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                             const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                             int D, int W) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dq_d128_f32_v2(float *dq, const float *dout, const float *lse, const float *delta,
                             const float *q, const float *k, const float *v, float scale, int B, int T,
                             int T_k, int H, int G, int D, int W) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dq_d128_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                              const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                              int D, int W) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dkv_d64_f32_v2(float *dk, float *dv, const float *dout, const float *lse, const float *delta,
                             const float *q, const float *k, const float *v, float scale, int B, int T,
                             int T_k, int H, int G, int D, int W) {
    bwd_kv<64>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dkv_d64_bf16_v2(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                              const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k,
                              int H, int G, int D, int W) {
    bwd_kv<64>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dkv_d128_f32_v2(float *dk, float *dv, const float *dout, const float *lse, const float *delta,
                              const float *q, const float *k, const float *v, float scale, int B, int T,
                              int T_k, int H, int G, int D, int W) {
    bwd_kv<128>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
attention_bwd_dkv_d128_bf16_v2(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                               const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T,
                               int T_k, int H, int G, int D, int W) {
    bwd_kv<128>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}
