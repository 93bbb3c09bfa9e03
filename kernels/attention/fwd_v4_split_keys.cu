// attention / forward / v4: a block per query, its keys split over sixteen groups of lanes
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]) over 0 <= j < T_k, with
//         g = h / (H/G)
// in      q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (B*T*H), block (128); DP, in the symbol after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] B*T*H < 2^31, T_k <= 2^30   (by Buffer: pointers 16-byte aligned)
//         [P3] T*(H/G) <= 8, T_k >= 32: few queries share many keys, as in decoding; there is no window, since it
//         has T_k = T, so W is not read
// numeric f32 sums, a group's keys in order, then the groups in order; no atomics: same input, same bits
// cost    4*B*T*T_k*H*D flop; (2*B*T*H*D + 2*B*T_k*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao et al. 2023 (Flash-Decoding): partial softmaxes and their merge
// vs v2   sixteen keys at once; with one query per group, v2 leaves 31 of 32 rows of a block idle
// budget  regs 72; threads 128; smem 8320; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int T, int T_k, int H, int G, int D) {
    const int GROUPS = 16;
    __shared__ float maxima[GROUPS], totals[GROUPS];
    __shared__ __align__(16) float parts[GROUPS * DP];
    long long row = blockIdx.x;
    int g = row % H / (H / G), group = threadIdx.x >> 3;
    long long b = row / ((long long)T * H);
    long long stride = (long long)G * D, kv = (b * T_k * G + g) * D;

    lanes_row<DP> query, key, value, sums;
    query.load(q + row * D, D, true);
    sums.clear();
    float max = NEG_INFINITY, sum = 0.f;
    // Every group runs every iteration, because all lanes of a warp take part in its shuffles.
    for (int j0 = 0; j0 < T_k; j0 += GROUPS) {
        int j = j0 + group;
        bool inside = j < T_k;
        key.load(k + kv + j * stride, D, inside);
        value.load(v + kv + j * stride, D, inside);
        float score = scale * query.dot(key);
        if (!inside) continue;
        float new_max = fmaxf(max, score);
        // The sums so far are relative to the old maximum.
        float decay = expf(max - new_max), p = expf(score - new_max);
        sum = sum * decay + p;
        sums.blend(decay, p, value);
        max = new_max;
    }
    sums.store(parts + group * DP, 1.f, DP);
    if ((threadIdx.x & 7) == 0) maxima[group] = max, totals[group] = sum;
    __syncthreads();

    // Merge. T_k >= GROUPS, so that every group has a finite maximum.
    float top = maxima[0], total = 0.f, x = 0.f;
#pragma unroll
    for (int i = 1; i < GROUPS; i++) top = fmaxf(top, maxima[i]);
#pragma unroll
    for (int i = 0; i < GROUPS; i++) {
        float weight = expf(maxima[i] - top);
        total += weight * totals[i];
        if (threadIdx.x < DP) x += weight * parts[i * DP + threadIdx.x];
    }
    if (threadIdx.x < D) out[row * D + threadIdx.x] = from_f32<A>(x / total);
    if (threadIdx.x == 0) lse[row] = top + logf(total);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d64_f32_v4(float *out, float *lse, const float *q, const float *k, const float *v, float scale,
                         int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, T_k, H, G, D);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d64_bf16_v4(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, T_k, H, G, D);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d128_f32_v4(float *out, float *lse, const float *q, const float *k, const float *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, T_k, H, G, D);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d128_bf16_v4(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                           int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, T_k, H, G, D);
}
