// attention / forward / v3: bf16 tensor cores, 64 queries and 64 keys at a time
// math    out[b,t,h,:] = sum_j p_j v[b,j,g,:], p = softmax_j(scale * q[b,t,h,:]·k[b,j,g,:]), g = h / (H/G), over
//         the visible j: 0 <= j < T_k where W = 0, else t-W < j <= t, with T_k = T
// in      q (B,T,H,D), k, v (B,T_k,G,D) bf16, row-major, contiguous
// out     out (B,T,H,D) bf16; lse (B,T,H) f32, read again by the backward kernels
// launch  grid (ceil(T/64), H, B), block (128), dynamic smem 5*64*(DP+8)*2 bytes (opt-in past 48 KiB); DP, in
//         the symbol after d, is 32, 64 or 128 and at least D
// needs   [P1] D % 8 == 0, D <= 128   [P2] H <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30   [P3] bf16
//         [P4] a window, or T_k > 32: of fewer keys, most of a tile would be empty
//         (by Buffer: pointers 16-byte aligned)
// numeric f32 sums; probabilities rounded to bf16 for the second product, not in their sum; no atomics:
//         same input, same bits
// cost    4*B*H*D*pairs flop, pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (2*B*T*H*D + 2*B*T_k*G*D)*2 + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao 2023 (FlashAttention-2); PTX ISA (mma.m16n8k16, ldmatrix, cp.async)
// vs v2   16x16x8 products per instruction; scores and probabilities never leave registers
// budget  regs 176; threads 128; smem 87040; sass HMMA LDSM LDGSTS
#include "common/attention_tile.cuh"

template <int DP>
__device__ __forceinline__ void fwd(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                                    float scale, int T, int T_k, int H, int G, int D, int W) {
    extern __shared__ __align__(16) unsigned char smem[];
    const int tile = 64 * pitch<DP>::value;
    const attention_mask mask = {T, T_k, W};
    bf16 *q_tile = (bf16 *)smem, *k_tiles = q_tile + tile, *v_tiles = k_tiles + 2 * tile;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int h = blockIdx.y, g = h / (H / G), q0 = blockIdx.x * 64;
    long long b = blockIdx.z, q_stride = (long long)H * D, kv_stride = (long long)G * D;
    const bf16 *k_head = k + b * T_k * kv_stride + g * D, *v_head = v + b * T_k * kv_stride + g * D;
    // The tiles of keys that any of these queries sees.
    int first = mask.first_key(q0) / 64, last = (mask.end_key(min(q0 + 63, T - 1)) - 1) / 64;

    load_tile<64, DP>(q_tile, q + b * T * q_stride + h * D, q0, T, q_stride, D);
    load_tile<64, DP>(k_tiles, k_head, first * 64, T_k, kv_stride, D);
    load_tile<64, DP>(v_tiles, v_head, first * 64, T_k, kv_stride, D);
    copy_async_commit();

    // This lane's two rows of its warp's 16, and the keys that each sees.
    int t_upper = q0 + warp * 16 + (lane >> 2), t_lower = t_upper + 8;
    int first_upper = mask.first_key(t_upper), end_upper = mask.end_key(t_upper);
    int first_lower = mask.first_key(t_lower), end_lower = mask.end_key(t_lower);
    float max_upper = NEG_INFINITY, max_lower = NEG_INFINITY, sum_upper = 0.f, sum_lower = 0.f;
    float sums[DP / 8][4] = {};
    float to_log2 = scale * LOG2_E;
    for (int j = first; j <= last; j++) {
        int stage = (j - first) & 1;
        if (j < last) {
            load_tile<64, DP>(k_tiles + (stage ^ 1) * tile, k_head, (j + 1) * 64, T_k, kv_stride, D);
            load_tile<64, DP>(v_tiles + (stage ^ 1) * tile, v_head, (j + 1) * 64, T_k, kv_stride, D);
            copy_async_commit();
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();

        float p[8][4];
        product_of_rows<64, DP>(p, q_tile + warp * 16 * pitch<DP>::value, k_tiles + stage * tile);
        bool edge = !mask.all_see(q0, q0 + 63, j * 64, j * 64 + 63);
        float new_upper = max_upper, new_lower = max_lower;
#pragma unroll
        for (int n = 0; n < 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                p[n][i] *= to_log2;
                if (edge) {
                    int key = j * 64 + n * 8 + (lane & 3) * 2 + (i & 1);
                    if (key < (i < 2 ? first_upper : first_lower) || key >= (i < 2 ? end_upper : end_lower))
                        p[n][i] = NEG_INFINITY;
                }
            }
            new_upper = fmaxf(new_upper, fmaxf(p[n][0], p[n][1]));
            new_lower = fmaxf(new_lower, fmaxf(p[n][2], p[n][3]));
        }
        new_upper = quad_max(new_upper), new_lower = quad_max(new_lower);
        // A row may see none of the first tiles' keys: its maximum is then still infinite, and the
        // difference of two infinities would be NaN.
        float base_upper = new_upper == NEG_INFINITY ? 0.f : new_upper;
        float base_lower = new_lower == NEG_INFINITY ? 0.f : new_lower;
        float decay_upper = exp2f(max_upper - base_upper), decay_lower = exp2f(max_lower - base_lower);
        max_upper = new_upper, max_lower = new_lower;
        sum_upper *= decay_upper, sum_lower *= decay_lower;
#pragma unroll
        for (int n = 0; n < 8; n++) {
            p[n][0] = exp2f(p[n][0] - base_upper), p[n][1] = exp2f(p[n][1] - base_upper);
            p[n][2] = exp2f(p[n][2] - base_lower), p[n][3] = exp2f(p[n][3] - base_lower);
            sum_upper += p[n][0] + p[n][1], sum_lower += p[n][2] + p[n][3];
        }
#pragma unroll
        for (int n = 0; n < DP / 8; n++) {
            sums[n][0] *= decay_upper, sums[n][1] *= decay_upper;
            sums[n][2] *= decay_lower, sums[n][3] *= decay_lower;
        }
        add_weighted_rows<64, DP>(sums, p, v_tiles + stage * tile);
        // The next round's copies overwrite this stage.
        __syncthreads();
    }
    sum_upper = quad_sum(sum_upper), sum_lower = quad_sum(sum_lower);
    long long row = b * T + q0 + warp * 16;
    store_rows<DP>(out + row * q_stride + h * D, sums, 1.f / sum_upper, 1.f / sum_lower,
                   T - q0 - warp * 16, q_stride, D);
    if ((lane & 3) == 0) {
        if (t_upper < T) lse[(b * T + t_upper) * H + h] = max_upper * LN_2 + logf(sum_upper);
        if (t_lower < T) lse[(b * T + t_lower) * H + h] = max_lower * LN_2 + logf(sum_lower);
    }
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d32_bf16_v3(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<32>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d64_bf16_v3(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                          int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<64>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128)
attention_fwd_d128_bf16_v3(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v, float scale,
                           int B, int T, int T_k, int H, int G, int D, int W) {
    fwd<128>(out, lse, q, k, v, scale, T, T_k, H, G, D, W);
}
