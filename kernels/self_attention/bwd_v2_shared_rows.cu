// self_attention / backward / v2: eight lanes per row of a gradient, what it is summed over in shared memory
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dq = scale * sum_j ds k_j; dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over the pairs with
//         t-W < j <= t and the H/G query heads of a key's head
// in      dout, q (B,T,H,D), k, v (B,T,G,D): f32 or bf16; lse, delta (B,T,H) f32, delta from
//         self_attention_bwd_delta
// out     dq (B,T,H,D), dk, dv (B,T,G,D) of the inputs' type; dk or dv may be null
// launch  dq: grid (ceil(T/32), H, B); dkv: grid (ceil(T/32), G, B); block (256); DP, in the symbol after d, is
//         64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] H <= 65535, B <= 65535, B*T*H < 2^31   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums, keys in order, queries in order head by head; no atomics: same input, same bits
// cost    10*B*H*D*pairs flop (14 done: scores and dp twice); pairs = T*W - W*(W-1)/2 for W <= T;
//         (4*B*T*H*D + 4*B*T*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/self_attention/reference.rs
// source  Dao et al. 2022 (FlashAttention), algorithm 4
// vs v1   16-byte accesses; a block reads what it sums over once for 32 rows
// budget  regs 136; threads 256; smem 33280; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void bwd_q(A *dq, const A *dout, const float *lse, const float *delta,
                                      const A *q, const A *k, const A *v, float scale, int T, int H,
                                      int G, int D, int W) {
    // Keys and values per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float k_rows[4096], v_rows[4096];
    int h = blockIdx.y, t0 = blockIdx.x * 32, t = t0 + (threadIdx.x >> 3);
    long long b = blockIdx.z, row = (b * T + t) * H + h;
    long long stride = (long long)G * D, kv = b * T * stride + h / (H / G) * D;
    bool inside = t < T;

    lanes_row<DP> query, gradient, key, value, sums;
    query.load(q + row * D, D, inside);
    gradient.load(dout + row * D, D, inside);
    sums.clear();
    float row_lse = inside ? lse[row] : 0.f, row_delta = inside ? delta[row] : 0.f;
    int end = min(t0 + 32, T);
    for (int j0 = max(0, t0 - W + 1); j0 < end; j0 += CHUNK) {
        int n = min(CHUNK, end - j0);
        stage_rows<DP, DP>(k_rows, k + kv + j0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + j0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            // All lanes of a warp take part in the products' shuffles, visible pair or not.
            float score = scale * query.dot(key), dp = gradient.dot(value);
            int back = t - (j0 + j);
            if (back < 0 || back >= W) continue;
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
                                       float scale, int T, int H, int G, int D, int W) {
    // Queries per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float q_rows[4096], dout_rows[4096];
    __shared__ float lse_rows[CHUNK], delta_rows[CHUNK];
    int g = blockIdx.y, j0 = blockIdx.x * 32, j = j0 + (threadIdx.x >> 3);
    long long b = blockIdx.z, row = (b * T + j) * G + g, stride = (long long)H * D;
    bool inside = j < T;

    lanes_row<DP> key, value, query, gradient, dk_sums, dv_sums;
    key.load(k + row * D, D, inside);
    value.load(v + row * D, D, inside);
    dk_sums.clear(), dv_sums.clear();
    int end = W < T - j0 - 31 ? j0 + 31 + W : T;
    for (int h = g * (H / G); h < (g + 1) * (H / G); h++) {
        for (int t0 = j0; t0 < end; t0 += CHUNK) {
            int n = min(CHUNK, end - t0);
            long long first = (b * T + t0) * H + h;
            stage_rows<DP, DP>(q_rows, q + first * D, n, stride, D);
            stage_rows<DP, DP>(dout_rows, dout + first * D, n, stride, D);
            if (threadIdx.x < n) {
                lse_rows[threadIdx.x] = lse[first + (long long)threadIdx.x * H];
                delta_rows[threadIdx.x] = delta[first + (long long)threadIdx.x * H];
            }
            __syncthreads();
            for (int i = 0; i < n; i++) {
                query.load(q_rows + i * DP, DP, true);
                gradient.load(dout_rows + i * DP, DP, true);
                // All lanes of a warp take part in the products' shuffles, visible pair or not.
                float score = scale * key.dot(query), dp = value.dot(gradient);
                int back = t0 + i - j;
                if (back < 0 || back >= W) continue;
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
self_attention_bwd_dq_d64_f32_v2(float *dq, const float *dout, const float *lse,
                                 const float *delta, const float *q, const float *k,
                                 const float *v, float scale, int T, int H, int G, int D,
                                 int W) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dq_d64_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse,
                                  const float *delta, const bf16 *q, const bf16 *k,
                                  const bf16 *v, float scale, int T, int H, int G, int D,
                                  int W) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dq_d128_f32_v2(float *dq, const float *dout, const float *lse,
                                  const float *delta, const float *q, const float *k,
                                  const float *v, float scale, int T, int H, int G, int D,
                                  int W) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dq_d128_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse,
                                   const float *delta, const bf16 *q, const bf16 *k,
                                   const bf16 *v, float scale, int T, int H, int G, int D,
                                   int W) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dkv_d64_f32_v2(float *dk, float *dv, const float *dout, const float *lse,
                                  const float *delta, const float *q, const float *k,
                                  const float *v, float scale, int T, int H, int G,
                                  int D, int W) {
    bwd_kv<64>(dk, dv, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dkv_d64_bf16_v2(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse,
                                   const float *delta, const bf16 *q, const bf16 *k,
                                   const bf16 *v, float scale, int T, int H, int G,
                                   int D, int W) {
    bwd_kv<64>(dk, dv, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dkv_d128_f32_v2(float *dk, float *dv, const float *dout, const float *lse,
                                   const float *delta, const float *q, const float *k,
                                   const float *v, float scale, int T, int H, int G,
                                   int D, int W) {
    bwd_kv<128>(dk, dv, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 1)
self_attention_bwd_dkv_d128_bf16_v2(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse,
                                    const float *delta, const bf16 *q, const bf16 *k,
                                    const bf16 *v, float scale, int T, int H, int G,
                                    int D, int W) {
    bwd_kv<128>(dk, dv, dout, lse, delta, q, k, v, scale, T, H, G, D, W);
}
