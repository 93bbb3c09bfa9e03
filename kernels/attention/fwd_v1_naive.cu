// attention / forward / v1: one warp per query, keys one after the other
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]), g = h / (H/G), over
//         the visible j: 0 <= j < T_k where W = 0, else t-W < j <= t, with T_k = T
// in      q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16, row-major, contiguous
// out     out (B,T,H,D) of the inputs' type; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(B*T*H/4)), block (128)
// needs   [P1] D <= 256   [P2] B*T*H < 2^31
// numeric f32 sums in the order of the keys; no atomics: same input, same bits
// cost    4*B*H*D*pairs flop, pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (2*B*T*H*D + 2*B*T_k*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Vaswani et al. 2017; Milakov & Gimelshein 2018 (online softmax)
// budget  regs 64; threads 128; smem 0; sass -
#include "common/attention_rows.cuh"

template <typename A>
__device__ __forceinline__ void fwd(A *out, float *lse, const A *q, const A *k, const A *v, float scale,
                                    int B, int T, int T_k, int H, int G, int D, int W) {
    const attention_mask mask = {T, T_k, W};
    long long row = (long long)blockIdx.x * 4 + (threadIdx.x >> 5);
    if (row >= (long long)B * T * H) return;
    int h = row % H, t = row / H % T;
    long long b = row / H / T;
    long long kv = (b * T_k * G + h / (H / G)) * D;
    attend_row(out + row * D, lse + row, q + row * D, k + kv, v + kv, (long long)G * D, mask.first_key(t),
               mask.end_key(t), scale, D);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_f32_v1(float *out, float *lse, const float *q, const float *k, const float *v, float scale,
                     int B, int T, int T_k, int H, int G, int D, int W) {
    fwd(out, lse, q, k, v, scale, B, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_bf16_v1(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B,
                      int T, int T_k, int H, int G, int D, int W) {
    fwd(out, lse, q, k, v, scale, B, T, T_k, H, G, D, W);
}
