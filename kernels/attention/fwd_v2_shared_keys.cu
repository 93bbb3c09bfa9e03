// attention / forward / v2: eight lanes per query, keys and values in shared memory
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]), g = h / (H/G), over
//         the visible j: 0 <= j < T_k where W = 0, else t-W < j <= t, with T_k = T
// in      q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(T*(H/G)/32), G, B), block (256); DP, in the symbol after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] G <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30
//         (by Buffer: pointers 16-byte aligned)
// numeric f32 sums in the order of the keys; no atomics: same input, same bits
// cost    4*B*H*D*pairs flop, pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (2*B*T*H*D + 2*B*T_k*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax)
// vs v1   16-byte accesses; a block reads a key once for 32 queries of the heads that share it, and no key that
//         none of them sees
// budget  regs 64; threads 256; smem 32768; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int T, int T_k, int H, int G, int D, int W) {
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

    lanes_row<DP> query, key, value, sums;
    query.load(q + row * D, D, inside);
    sums.clear();
    float max_score = NEG_INFINITY, sum = 0.f;
    int end = mask.end_key(min(rows.position(31), T - 1));
    for (int j0 = mask.first_key(rows.position(0)); j0 < end; j0 += CHUNK) {
        int n = min(CHUNK, end - j0);
        stage_rows<DP, DP>(k_rows, k + kv + j0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + j0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            // All lanes of a warp take part in the product's shuffles, visible pair or not.
            float score = scale * query.dot(key);
            if (!mask.sees(t, j0 + j)) continue;
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

extern "C" __global__ void __launch_bounds__(256, 5)
attention_fwd_d64_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v, float scale,
                         int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 5)
attention_fwd_d64_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 4)
attention_fwd_d128_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(256, 4)
attention_fwd_d128_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                           int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}
