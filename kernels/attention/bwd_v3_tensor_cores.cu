// attention / backward / v3: bf16 tensor cores, a tile's gradient in registers
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dq = scale * sum_j ds k_j; dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over the H/G query heads of
//         a key's head and the visible pairs: all where W = 0, else t-W < j <= t, with T_k = T
// in      dout, q (B,T,H,D), k, v (B,T_k,G,D) bf16; lse, delta (B,T,H) f32, delta from attention_bwd_delta
// out     dq (B,T,H,D), dk, dv (B,T_k,G,D) bf16; dk or dv may be null
// launch  dq: grid (ceil(T/64), H, B); dkv: grid (ceil(T_k/64), G, B); block (128); dynamic smem
//         (2*64 + 4*N)*(DP+8)*2 + 16*N bytes (opt-in past 48 KiB), N = 64, or 32 where DP = 128; DP, in the
//         symbol after d, is 32, 64 or 128 and at least D
// needs   [P1] D % 8 == 0, D <= 128   [P2] H <= 65535, B <= 65535, B*T*H <= 2^30, T_k <= 2^30   [P3] bf16
//         (by Buffer: pointers 16-byte aligned)
// numeric f32 sums in the order of the tiles; p and ds rounded to bf16 for their products; no atomics:
//         same input, same bits
// cost    10*B*H*D*pairs flop (14 done: scores and dp twice), pairs = T*T_k where W = 0, else T*W - W*(W-1)/2;
//         (4*B*T*H*D + 4*B*T_k*G*D)*2 + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao 2023 (FlashAttention-2); the two kernels in place of one are what spares dq its atomics
// vs v2   16x16x8 products per instruction; p and ds never leave registers
// budget  regs 232; threads 128; smem 70144; sass HMMA LDSM LDGSTS
#include "common/attention_tile.cuh"

// dq of 64 queries, N keys per iteration.
template <int DP, int N>
__device__ __forceinline__ void bwd_q(bf16 *dq, const bf16 *dout, const float *lse, const float *delta,
                                      const bf16 *q, const bf16 *k, const bf16 *v, float scale, int T,
                                      int T_k, int H, int G, int D, int W) {
    extern __shared__ __align__(16) unsigned char smem[];
    const int P = pitch<DP>::value;
    const attention_mask mask = {T, T_k, W};
    bf16 *q_tile = (bf16 *)smem, *dout_tile = q_tile + 64 * P;
    bf16 *k_tiles = dout_tile + 64 * P, *v_tiles = k_tiles + 2 * N * P;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int h = blockIdx.y, g = h / (H / G), q0 = blockIdx.x * 64;
    long long b = blockIdx.z, q_stride = (long long)H * D, kv_stride = (long long)G * D;
    const bf16 *k_head = k + b * T_k * kv_stride + g * D, *v_head = v + b * T_k * kv_stride + g * D;
    int first = mask.first_key(q0) / N, last = (mask.end_key(min(q0 + 63, T - 1)) - 1) / N;

    load_tile<64, DP>(q_tile, q + b * T * q_stride + h * D, q0, T, q_stride, D);
    load_tile<64, DP>(dout_tile, dout + b * T * q_stride + h * D, q0, T, q_stride, D);
    load_tile<N, DP>(k_tiles, k_head, first * N, T_k, kv_stride, D);
    load_tile<N, DP>(v_tiles, v_head, first * N, T_k, kv_stride, D);
    copy_async_commit();

    // This lane's two rows of its warp's 16, and the keys that each sees.
    float lse_log2[2], delta_row[2];
    int first_key[2], end_key[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = q0 + warp * 16 + (lane >> 2) + i * 8;
        // For a query that does not exist every probability is exp(-infinity) = 0.
        long long row = (b * T + t) * H + h;
        lse_log2[i] = t < T ? lse[row] * LOG2_E : -NEG_INFINITY;
        delta_row[i] = t < T ? delta[row] : 0.f;
        first_key[i] = mask.first_key(t), end_key[i] = mask.end_key(t);
    }
    float sums[DP / 8][4] = {};
    float to_log2 = scale * LOG2_E;
    for (int j = first; j <= last; j++) {
        int stage = (j - first) & 1;
        if (j < last) {
            load_tile<N, DP>(k_tiles + (stage ^ 1) * N * P, k_head, (j + 1) * N, T_k, kv_stride, D);
            load_tile<N, DP>(v_tiles + (stage ^ 1) * N * P, v_head, (j + 1) * N, T_k, kv_stride, D);
            copy_async_commit();
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();

        float p[N / 8][4], ds[N / 8][4];
        product_of_rows<N, DP>(p, q_tile + warp * 16 * P, k_tiles + stage * N * P);
        product_of_rows<N, DP>(ds, dout_tile + warp * 16 * P, v_tiles + stage * N * P);
        bool edge = !mask.all_see(q0, q0 + 63, j * N, j * N + N - 1);
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float score = p[n][i] * to_log2 - lse_log2[i / 2];
                int key = j * N + n * 8 + (lane & 3) * 2 + (i & 1);
                if (edge && (key < first_key[i / 2] || key >= end_key[i / 2])) score = NEG_INFINITY;
                ds[n][i] = exp2f(score) * (ds[n][i] - delta_row[i / 2]);
            }
        add_weighted_rows<N, DP>(sums, ds, k_tiles + stage * N * P);
        // The next round's copies overwrite this stage.
        __syncthreads();
    }
    long long row = b * T + q0 + warp * 16;
    store_rows<DP>(dq + row * q_stride + h * D, sums, scale, scale, T - q0 - warp * 16, q_stride, D);
}

// dk and dv of 64 keys, N queries of one head per iteration.
template <int DP, int N>
__device__ __forceinline__ void bwd_kv(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse,
                                       const float *delta, const bf16 *q, const bf16 *k, const bf16 *v,
                                       float scale, int T, int T_k, int H, int G, int D, int W) {
    extern __shared__ __align__(16) unsigned char smem[];
    const int P = pitch<DP>::value;
    const attention_mask mask = {T, T_k, W};
    bf16 *k_tile = (bf16 *)smem, *v_tile = k_tile + 64 * P;
    bf16 *q_tiles = v_tile + 64 * P, *dout_tiles = q_tiles + 2 * N * P;
    float *lse_tiles = (float *)(dout_tiles + 2 * N * P), *delta_tiles = lse_tiles + 2 * N;
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
    int g = blockIdx.y, k0 = blockIdx.x * 64;
    long long b = blockIdx.z, q_stride = (long long)H * D, kv_stride = (long long)G * D;
    // The tiles of queries that see any of these keys, once per query head.
    int first = mask.first_query(k0) / N, last = (mask.end_query(k0 + 63) - 1) / N;
    int tiles = last - first + 1, rounds = tiles * (H / G);

    auto load_queries = [&](int stage, int round) {
        int h = g * (H / G) + round / tiles, q0 = (first + round % tiles) * N;
        load_tile<N, DP>(q_tiles + stage * N * P, q + b * T * q_stride + h * D, q0, T, q_stride, D);
        load_tile<N, DP>(dout_tiles + stage * N * P, dout + b * T * q_stride + h * D, q0, T, q_stride, D);
        copy_async_commit();
        if (threadIdx.x < N) {
            // For a query that does not exist every probability is exp(-infinity) = 0.
            int t = q0 + threadIdx.x;
            long long row = (b * T + t) * H + h;
            lse_tiles[stage * N + threadIdx.x] = t < T ? lse[row] * LOG2_E : -NEG_INFINITY;
            delta_tiles[stage * N + threadIdx.x] = t < T ? delta[row] : 0.f;
        }
    };
    load_tile<64, DP>(k_tile, k + b * T_k * kv_stride + g * D, k0, T_k, kv_stride, D);
    load_tile<64, DP>(v_tile, v + b * T_k * kv_stride + g * D, k0, T_k, kv_stride, D);
    load_queries(0, 0);

    // This lane's two rows of its warp's 16: the queries that see each key.
    int first_query[2], end_query[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int key = k0 + warp * 16 + (lane >> 2) + i * 8;
        first_query[i] = mask.first_query(key), end_query[i] = mask.end_query(key);
    }
    float dk_sums[DP / 8][4] = {}, dv_sums[DP / 8][4] = {};
    float to_log2 = scale * LOG2_E;
    for (int round = 0; round < rounds; round++) {
        int stage = round & 1, q0 = (first + round % tiles) * N;
        if (round + 1 < rounds) {
            load_queries(stage ^ 1, round + 1);
            copy_async_wait<1>();
        } else {
            copy_async_wait<0>();
        }
        __syncthreads();

        // Both transposed: a row is a key, a column a query.
        float p[N / 8][4], ds[N / 8][4];
        product_of_rows<N, DP>(p, k_tile + warp * 16 * P, q_tiles + stage * N * P);
        product_of_rows<N, DP>(ds, v_tile + warp * 16 * P, dout_tiles + stage * N * P);
        bool edge = !mask.all_see(q0, q0 + N - 1, k0, k0 + 63);
#pragma unroll
        for (int n = 0; n < N / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int column = n * 8 + (lane & 3) * 2 + (i & 1);
                float score = p[n][i] * to_log2 - lse_tiles[stage * N + column];
                int t = q0 + column;
                if (edge && (t < first_query[i / 2] || t >= end_query[i / 2])) score = NEG_INFINITY;
                p[n][i] = exp2f(score);
                ds[n][i] = p[n][i] * (ds[n][i] - delta_tiles[stage * N + column]);
            }
        add_weighted_rows<N, DP>(dv_sums, p, dout_tiles + stage * N * P);
        add_weighted_rows<N, DP>(dk_sums, ds, q_tiles + stage * N * P);
        // The next round's copies overwrite this stage.
        __syncthreads();
    }
    long long row = (b * T_k + k0 + warp * 16) * kv_stride + g * D;
    int rows = T_k - k0 - warp * 16;
    if (dk) store_rows<DP>(dk + row, dk_sums, scale, scale, rows, kv_stride, D);
    if (dv) store_rows<DP>(dv + row, dv_sums, 1.f, 1.f, rows, kv_stride, D);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dq_d32_bf16_v3(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                             const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                             int D, int W) {
    bwd_q<32, 64>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dkv_d32_bf16_v3(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                              const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k,
                              int H, int G, int D, int W) {
    bwd_kv<32, 64>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dq_d64_bf16_v3(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                             const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                             int D, int W) {
    bwd_q<64, 64>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dkv_d64_bf16_v3(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                              const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k,
                              int H, int G, int D, int W) {
    bwd_kv<64, 64>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dq_d128_bf16_v3(bf16 *dq, const bf16 *dout, const float *lse, const float *delta, const bf16 *q,
                              const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k, int H, int G,
                              int D, int W) {
    bwd_q<128, 32>(dq, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}

extern "C" __global__ void __launch_bounds__(128, 2)
attention_bwd_dkv_d128_bf16_v3(bf16 *dk, bf16 *dv, const bf16 *dout, const float *lse, const float *delta,
                               const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T,
                               int T_k, int H, int G, int D, int W) {
    bwd_kv<128, 32>(dk, dv, dout, lse, delta, q, k, v, scale, T, T_k, H, G, D, W);
}
