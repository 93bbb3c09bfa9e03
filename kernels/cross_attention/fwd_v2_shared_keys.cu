// cross_attention / forward / v2: eight lanes per query, keys and values in shared memory
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]) over j in
//         0..Z, with g = h / (H/G)
// in      q (B,T,H,D), k, v (B,Z,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(T*(H/G)/32), B*G), block (256); DP, in the symbol after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] B*G <= 65535, B*T*H < 2^31   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums in the order of the keys; no atomics: same input, same bits
// cost    4*B*T*Z*H*D flop; (2*B*T*H*D + 2*B*Z*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/cross_attention/reference.rs
// source  Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax)
// vs v1   16-byte accesses; a block reads keys and values once for 32 queries of all heads that share them
// budget  regs 64; threads 256; smem 32768; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int T, int H, int G, int D, int Z) {
    // Keys and values per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float k_rows[4096], v_rows[4096];
    int group = H / G, g = blockIdx.y % G;
    long long b = blockIdx.y / G;
    long long r = (long long)blockIdx.x * 32 + (threadIdx.x >> 3);
    bool inside = r < (long long)T * group;
    long long row = (b * T + r / group) * H + g * group + r % group;
    long long stride = (long long)G * D, kv = (b * Z * G + g) * D;

    lanes_row<DP> query, key, value, sums;
    query.load(q + row * D, D, inside);
    sums.clear();
    float max = NEG_INFINITY, sum = 0.f;
    for (int z0 = 0; z0 < Z; z0 += CHUNK) {
        int n = min(CHUNK, Z - z0);
        stage_rows<DP, DP>(k_rows, k + kv + z0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + z0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            float score = scale * query.dot(key);
            float new_max = fmaxf(max, score);
            // The sums so far are relative to the old maximum.
            float decay = expf(max - new_max), p = expf(score - new_max);
            sum = sum * decay + p;
            sums.blend(decay, p, value);
            max = new_max;
        }
        // The next chunk overwrites these rows.
        __syncthreads();
    }
    if (!inside) return;
    sums.store(out + row * D, 1.f / sum, D);
    if ((threadIdx.x & 7) == 0) lse[row] = max + logf(sum);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_fwd_d64_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v,
                               float scale, int T, int H, int G, int D, int Z) {
    fwd<64>(out, lse, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_fwd_d64_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                                float scale, int T, int H, int G, int D, int Z) {
    fwd<64>(out, lse, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_fwd_d128_f32_v2(float *out, float *lse, const float *q, const float *k, const float *v,
                                float scale, int T, int H, int G, int D, int Z) {
    fwd<128>(out, lse, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_fwd_d128_bf16_v2(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                                 float scale, int T, int H, int G, int D, int Z) {
    fwd<128>(out, lse, q, k, v, scale, T, H, G, D, Z);
}
