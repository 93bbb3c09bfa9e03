// attention / backward / v4: dk, dv of few keys as partial sums over queries; dq is rung 2's
// math    p = exp(scale * q·k - lse), ds = p * (dout·v - delta), delta = dout·out;
//         dk = scale * sum_t,h ds q; dv = sum_t,h p dout, over all t and the H/G query heads of a key's head
// in      dout, q (B,T,H,D), k, v (B,T_k,G,D): f32 or bf16; lse, delta (B,T,H) f32, delta from
//         attention_bwd_delta
// out     partials (chunks,2,B,T_k,G,D) f32, written by the dkv kernel (dk, then dv, of rows_per_chunk of the
//         T*(H/G) queries) and added up by the sum kernel: dk, dv (B,T_k,G,D) of the inputs' type, each may be null
// launch  dkv: grid (chunks, ceil(T_k/16), B*G); sum: grid (ceil(B*T_k*G*D/256), 2); block (256); DP, in the symbol
//         after d, is 64 or 128 and at least D
// needs   [P1] D % 4 == 0, D <= 128   [P2] B*G <= 65535, B*T*H <= 2^30
//         [P3] no mask, T_k <= 32: few blocks would own these keys, as those of latents; W is not read
//         (by chunks: rows_per_chunk % 16 == 0; by Buffer: pointers 16-byte aligned)
// numeric f32 sums: queries in order within a chunk, then chunks in order; no atomics: same input, same bits
// cost    8*B*T*T_k*H*D flop; (2*B*T*H*D + 4*B*T_k*G*D)*sizeof(A) + 2*B*T*H*4 bytes
// twin    crates/ltm-kernels/src/ops/attention/reference.rs
// source  Dao et al. 2022 (FlashAttention), algorithm 4
// vs v2   a key's queries are spread over blocks, where v2 walks them all in one
// budget  regs 96; threads 256; smem 35840; sass -
#include "common/attention_lanes.cuh"

template <int DP, typename A>
__device__ __forceinline__ void bwd_kv(float *partials, const A *dout, const float *lse,
                                       const float *delta, const A *q, const A *k, const A *v,
                                       float scale, int B, int T, int T_k, int H, int G, int D,
                                       int rows_per_chunk) {
    // Padded, so that sixteen lanes reading sixteen rows access distinct banks.
    const int N = 16, P = DP + 4, C = DP / 64;
    __shared__ __align__(16) float k_rows[N * P], v_rows[N * P], q_rows[N * P], dout_rows[N * P];
    __shared__ float p_tile[N * N], ds_tile[N * N];
    int upper = threadIdx.x >> 4, lower = threadIdx.x & 15;
    int group = H / G, g = blockIdx.z % G, j0 = blockIdx.y * N, n_keys = min(N, T_k - j0);
    long long b = blockIdx.z / G, stride = (long long)G * D, kv = ((b * T_k + j0) * G + g) * D;
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
    long long length = (long long)B * T_k * stride;
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
attention_bwd_sum_f32_v4(float *dk, float *dv, const float *partials, float scale, int chunks, int length) {
    sum_partials(dk, dv, partials, scale, chunks, length);
}

extern "C" __global__ void __launch_bounds__(256)
attention_bwd_sum_bf16_v4(bf16 *dk, bf16 *dv, const float *partials, float scale, int chunks, int length) {
    sum_partials(dk, dv, partials, scale, chunks, length);
}

extern "C" __global__ void __launch_bounds__(256)
attention_bwd_dkv_d64_f32_v4(float *partials, const float *dout, const float *lse, const float *delta,
                             const float *q, const float *k, const float *v, float scale, int B, int T,
                             int T_k, int H, int G, int D, int W, int rows_per_chunk) {
    bwd_kv<64>(partials, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
attention_bwd_dkv_d64_bf16_v4(float *partials, const bf16 *dout, const float *lse, const float *delta,
                              const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T, int T_k,
                              int H, int G, int D, int W, int rows_per_chunk) {
    bwd_kv<64>(partials, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
attention_bwd_dkv_d128_f32_v4(float *partials, const float *dout, const float *lse, const float *delta,
                              const float *q, const float *k, const float *v, float scale, int B, int T,
                              int T_k, int H, int G, int D, int W, int rows_per_chunk) {
    bwd_kv<128>(partials, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, rows_per_chunk);
}

extern "C" __global__ void __launch_bounds__(256)
attention_bwd_dkv_d128_bf16_v4(float *partials, const bf16 *dout, const float *lse, const float *delta,
                               const bf16 *q, const bf16 *k, const bf16 *v, float scale, int B, int T,
                               int T_k, int H, int G, int D, int W, int rows_per_chunk) {
    bwd_kv<128>(partials, dout, lse, delta, q, k, v, scale, B, T, T_k, H, G, D, rows_per_chunk);
}
