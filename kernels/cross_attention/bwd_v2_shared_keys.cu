// cross_attention / backward / v2: keys and values in shared memory; dk, dv as partial sums over queries
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dq = scale * sum_j ds k_j; dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over all t and j
//         and the H/G query heads of a key's head
// in      dout, q (B,T,H,D), k, v (B,Z,G,D): f32 or bf16; lse, delta (B,T,H) f32, delta from
//         cross_attention_bwd_delta
// out     dq (B,T,H,D), dk, dv (B,Z,G,D) of the inputs' type; partials (chunks,2,B,Z,G,D) f32, written by the
//         dkv kernel (dk, then dv, of rows_per_chunk of the T*(H/G) queries) and added up by the sum kernel;
//         dk or dv may be null there
// launch  dq: grid (ceil(T*(H/G)/32), B*G); dkv: grid (chunks, ceil(Z/16), B*G); sum: grid (ceil(B*Z*G*D/256), 2);
//         block (256); DP, in the symbol after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] B*G <= 65535, Z <= 65535, B*T*H < 2^31, B*Z*G*D < 2^31
//         (by chunks: rows_per_chunk % 16 == 0; by Buffer: pointers 16-byte aligned)
// numeric f32 sums: keys in order; queries in order within a chunk, then chunks in order; no atomics: same
//         input, same bits
// cost    10*B*T*Z*H*D flop (14 done: scores and dp twice); (4*B*T*H*D + 4*B*Z*G*D)*sizeof(A) + B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/cross_attention/reference.rs
// source  Dao et al. 2022 (FlashAttention), algorithm 4
// vs v1   16-byte accesses; a key's queries are spread over blocks, where v1 walks them all in one warp
// budget  regs 96; threads 256; smem 35840; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void bwd_q(A *dq, const A *dout, const float *lse, const float *delta,
                                      const A *q, const A *k, const A *v, float scale, int T, int H,
                                      int G, int D, int Z) {
    // Keys and values per iteration.
    const int CHUNK = 4096 / DP;
    __shared__ __align__(16) float k_rows[4096], v_rows[4096];
    int group = H / G, g = blockIdx.y % G;
    long long b = blockIdx.y / G;
    long long r = (long long)blockIdx.x * 32 + (threadIdx.x >> 3);
    bool inside = r < (long long)T * group;
    long long row = (b * T + r / group) * H + g * group + r % group;
    long long stride = (long long)G * D, kv = (b * Z * G + g) * D;

    lanes_row<DP> query, gradient, key, value, sums;
    query.load(q + row * D, D, inside);
    gradient.load(dout + row * D, D, inside);
    sums.clear();
    float row_lse = inside ? lse[row] : 0.f, row_delta = inside ? delta[row] : 0.f;
    for (int z0 = 0; z0 < Z; z0 += CHUNK) {
        int n = min(CHUNK, Z - z0);
        stage_rows<DP, DP>(k_rows, k + kv + z0 * stride, n, stride, D);
        stage_rows<DP, DP>(v_rows, v + kv + z0 * stride, n, stride, D);
        __syncthreads();
        for (int j = 0; j < n; j++) {
            key.load(k_rows + j * DP, DP, true);
            value.load(v_rows + j * DP, DP, true);
            float p = expf(scale * query.dot(key) - row_lse);
            sums.blend(1.f, p * (gradient.dot(value) - row_delta), key);
        }
        // The next chunk overwrites these rows.
        __syncthreads();
    }
    if (inside) sums.store(dq + row * D, scale, D);
}

template <int DP, typename A>
__device__ __forceinline__ void bwd_kv(float *partials, const A *dout, const float *lse,
                                       const float *delta, const A *q, const A *k, const A *v,
                                       float scale, int B, int T, int H, int G, int D, int Z,
                                       int rows_per_chunk) {
    // Padded, so that sixteen lanes reading sixteen rows access distinct banks.
    const int N = 16, P = DP + 4, C = DP / 64;
    __shared__ __align__(16) float k_rows[N * P], v_rows[N * P], q_rows[N * P], dout_rows[N * P];
    __shared__ float p_tile[N * N], ds_tile[N * N];
    int upper = threadIdx.x >> 4, lower = threadIdx.x & 15;
    int group = H / G, g = blockIdx.z % G, z0 = blockIdx.y * N, n_keys = min(N, Z - z0);
    long long b = blockIdx.z / G, stride = (long long)G * D, kv = ((b * Z + z0) * G + g) * D;
    stage_rows<DP, P>(k_rows, k + kv, n_keys, stride, D);
    stage_rows<DP, P>(v_rows, v + kv, n_keys, stride, D);

    // Sums of key `upper`, columns 4 * (lower + 16 * i).
    float4 dk[C], dv[C];
#pragma unroll
    for (int i = 0; i < C; i++) dk[i] = dv[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    long long n_rows = (long long)T * group;
    long long first = (long long)blockIdx.x * rows_per_chunk;
    long long end = min(n_rows, first + rows_per_chunk);
    for (long long r0 = first; r0 < end; r0 += N) {
        // Query `upper` of this round.
        long long r = r0 + upper;
        long long row = (b * T + r / group) * H + g * group + r % group;
        bool inside = r < end;
#pragma unroll
        for (int i = 0; i < C; i++) {
            int d = 4 * (lower + 16 * i);
            float4 x = make_float4(0.f, 0.f, 0.f, 0.f), dx = x;
            if (inside && d < D) x = load4(q + row * D + d), dx = load4(dout + row * D + d);
            store4(q_rows + upper * P + d, x);
            store4(dout_rows + upper * P + d, dx);
        }
        __syncthreads();

        // This thread's pair: query `upper`, key `lower`.
        float p = 0.f, ds = 0.f;
        if (inside && lower < n_keys) {
            float score = 0.f, dp = 0.f;
#pragma unroll 4
            for (int d = 0; d < DP; d += 4) {
                float4 x = load4(q_rows + upper * P + d), y = load4(k_rows + lower * P + d);
                score += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
                x = load4(dout_rows + upper * P + d), y = load4(v_rows + lower * P + d);
                dp += x.x * y.x + x.y * y.y + x.z * y.z + x.w * y.w;
            }
            p = expf(scale * score - lse[row]);
            ds = p * (dp - delta[row]);
        }
        p_tile[upper * N + lower] = p;
        ds_tile[upper * N + lower] = ds;
        __syncthreads();

#pragma unroll 4
        for (int j = 0; j < N; j++) {
            float w_dv = p_tile[j * N + upper], w_dk = ds_tile[j * N + upper];
#pragma unroll
            for (int i = 0; i < C; i++) {
                float4 x = load4(q_rows + j * P + 4 * (lower + 16 * i));
                dk[i].x += w_dk * x.x, dk[i].y += w_dk * x.y, dk[i].z += w_dk * x.z, dk[i].w += w_dk * x.w;
                x = load4(dout_rows + j * P + 4 * (lower + 16 * i));
                dv[i].x += w_dv * x.x, dv[i].y += w_dv * x.y, dv[i].z += w_dv * x.z, dv[i].w += w_dv * x.w;
            }
        }
        // The next round overwrites queries and pairs.
        __syncthreads();
    }
    if (upper >= n_keys) return;
    long long length = (long long)B * Z * stride;
    float *target = partials + 2 * length * blockIdx.x + kv + upper * stride;
#pragma unroll
    for (int i = 0; i < C; i++) {
        int d = 4 * (lower + 16 * i);
        if (d < D) store4(target + d, dk[i]), store4(target + length + d, dv[i]);
    }
}

template <typename A>
__device__ __forceinline__ void sum_partials(A *dk, A *dv, const float *partials, float scale, int chunks,
                                             int length) {
    A *target = blockIdx.y == 0 ? dk : dv;
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= length || !target) return;
    float sum = 0.f;
    for (int chunk = 0; chunk < chunks; chunk++)
        sum += partials[(2LL * chunk + blockIdx.y) * length + i];
    target[i] = from_f32<A>(blockIdx.y == 0 ? sum * scale : sum);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_sum_f32_v2(float *dk, float *dv, const float *partials, float scale, int chunks,
                               int length) {
    sum_partials(dk, dv, partials, scale, chunks, length);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_sum_bf16_v2(bf16 *dk, bf16 *dv, const float *partials, float scale, int chunks,
                                int length) {
    sum_partials(dk, dv, partials, scale, chunks, length);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dq_d64_f32_v2(float *dq, const float *dout, const float *lse,
                                  const float *delta, const float *q, const float *k,
                                  const float *v, float scale, int T, int H, int G, int D,
                                  int Z) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dq_d64_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse,
                                   const float *delta, const bf16 *q, const bf16 *k,
                                   const bf16 *v, float scale, int T, int H, int G, int D,
                                   int Z) {
    bwd_q<64>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dq_d128_f32_v2(float *dq, const float *dout, const float *lse,
                                   const float *delta, const float *q, const float *k,
                                   const float *v, float scale, int T, int H, int G, int D,
                                   int Z) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dq_d128_bf16_v2(bf16 *dq, const bf16 *dout, const float *lse,
                                    const float *delta, const bf16 *q, const bf16 *k,
                                    const bf16 *v, float scale, int T, int H, int G, int D,
                                    int Z) {
    bwd_q<128>(dq, dout, lse, delta, q, k, v, scale, T, H, G, D, Z);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dkv_d64_f32_v2(float *partials, const float *dout, const float *lse,
                                   const float *delta, const float *q, const float *k,
                                   const float *v, float scale, int B, int T, int H,
                                   int G, int D, int Z, int rows_per_chunk) {
    bwd_kv<64>(partials, dout, lse, delta, q, k, v, scale, B, T, H, G, D, Z,
               rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dkv_d64_bf16_v2(float *partials, const bf16 *dout, const float *lse,
                                    const float *delta, const bf16 *q, const bf16 *k,
                                    const bf16 *v, float scale, int B, int T, int H,
                                    int G, int D, int Z, int rows_per_chunk) {
    bwd_kv<64>(partials, dout, lse, delta, q, k, v, scale, B, T, H, G, D, Z,
               rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dkv_d128_f32_v2(float *partials, const float *dout, const float *lse,
                                    const float *delta, const float *q, const float *k,
                                    const float *v, float scale, int B, int T, int H,
                                    int G, int D, int Z, int rows_per_chunk) {
    bwd_kv<128>(partials, dout, lse, delta, q, k, v, scale, B, T, H, G, D, Z,
               rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
cross_attention_bwd_dkv_d128_bf16_v2(float *partials, const bf16 *dout, const float *lse,
                                     const float *delta, const bf16 *q, const bf16 *k,
                                     const bf16 *v, float scale, int B, int T, int H,
                                     int G, int D, int Z, int rows_per_chunk) {
    bwd_kv<128>(partials, dout, lse, delta, q, k, v, scale, B, T, H, G, D, Z,
               rows_per_chunk);
}
