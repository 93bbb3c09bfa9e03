// self_attention / forward / v2: eight lanes per query, keys and values in shared memory
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]) over j in
//         max(0,t-W+1)..=t, with g = h / (H/G)
// in      q (B,T,H,D), k, v (B,T,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(T/32), H, B), block (256); DP, in the symbol after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] H <= 65535, B <= 65535, B*T*H < 2^31   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums in the order of the keys; no atomics: same input, same bits
// cost    4*B*H*D*pairs flop, pairs = T*W - W*(W-1)/2 for W <= T; (2*B*T*H*D + 2*B*T*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/self_attention/reference.rs
// source  Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax)
// vs v1   16-byte accesses; a block reads a key once for 32 queries, and no key that none of them sees
// budget  regs 64; threads 256; smem 32768; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int T, int H, int G, int D, int W) {
    // Keys and values per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float k_rows[4096], v_rows[4096];
    int h = blockIdx.y, t0 = blockIdx.x * 32, t = t0 + (threadIdx.x >> 3);
    long long b = blockIdx.z, row = (b * T + t) * H + h;
    long long stride = (long long)G * D, kv = b * T * stride + h / (H / G) * D;
    bool inside = t < T;

    lanes_row<DP> query, key, value, sums;
    query.load(q + row * D, D, inside);
    sums.clear();
    float max_score = NEG_INFINITY, sum = 0.f;
    int end = min(t0 + 32, T);
    for (int j0 = max(0, t0 - W + 1); j0 < end; j0 += CHUNK) {
        int n = min(CHUNK, end - j0);
        stage_rows<DP, DP>(k_rows, k + kv + j0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + j0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            // All lanes of a warp take part in the product's shuffles, visible pair or not.
            float score = scale * query.dot(key);
            int back = t - (j0 + j);
            if (back < 0 || back >= W) continue;
            float new_max = fmaxf(max_score, score);
            // The sums so far are relative to the old maximum.
            float decay = expf(max_score - new_max), p = expf(score - new_max);
            sum = sum * decay + p;
            sums.blend(decay, p, value);
            max_score = new_max;
        }
        // The next chunk overwrites these rows.
        __syncthreads();
    }
    if (!inside) return;
    sums.store(out + row * D, 1.f / sum, D);
    if ((threadIdx.x & 7) == 0) lse[row] = max_score + logf(sum);
}

extern "C" __global__ void __launch_bounds__(256)
self_attention_fwd_d64_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v,
                              float scale, int T, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256)
self_attention_fwd_d64_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                               float scale, int T, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256)
self_attention_fwd_d128_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v,
                               float scale, int T, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256)
self_attention_fwd_d128_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                                float scale, int T, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, H, G, D, W);
}
