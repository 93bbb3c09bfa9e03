// cross_attention / forward / v1: one warp per query, keys one after the other
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]) over j in
//         0..Z, with g = h / (H/G)
// in      q (B,T,H,D), k, v (B,Z,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(B*T*H/4)), block (128)
// needs   [P1] D <= 256   [P2] B*T*H < 2^31
// numeric f32 sums in the order of the keys; no atomics: same input, same bits
// cost    4*B*T*Z*H*D flop; (2*B*T*H*D + 2*B*Z*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/cross_attention/reference.rs
// source  Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax)
// budget  regs 64; threads 128; smem 0; sass -
#include "common/attention_rows.cuh"

template <typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int B, int T, int H, int G, int D, int Z) {
    long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= (long long)B * T * H) return;
    int h = row % H;
    long long b = row / ((long long)T * H);
    long long kv = (b * Z * G + h / (H / G)) * D;
    attend_row(out + row * D, lse + row, q + row * D, k + kv, v + kv, (long long)G * D, 0, Z, scale,
               D);
}

extern "C" __global__ void __launch_bounds__(128)
cross_attention_fwd_f32_v1(float *out, float *lse, const float *q, const float *k, const float *v,
                          float scale, int B, int T, int H, int G, int D, int Z) {
    fwd(out, lse, q, k, v, scale, B, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(128)
cross_attention_fwd_bf16_v1(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                           float scale, int B, int T, int H, int G, int D, int Z) {
    fwd(out, lse, q, k, v, scale, B, T, H, G, D, Z);
}
