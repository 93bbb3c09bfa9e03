// embedding / forward / v2: eight elements per step
// math    out[n,:] = table[tokens[n],:]; NaN for a token outside 0..V
// in      table (V,C) A; tokens (N) i32
// out     out (N,C) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256), n = N*C
// needs   [P1] C % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric a copy
// cost    0 flop; 2*N*C elements
// twin    crates/ltm-kernels/src/ops/embedding/reference.rs
// source  a product with one-hot rows
// vs v1   16-byte loads and stores
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void embedding_eights(A *out, const A *table, const int *tokens, int n, int v, int c) {
    for (long long i = 8 * grid_thread(); i < (long long)n * c; i += 8 * grid_threads()) {
        int token = tokens[i / c];
        float eight[8];
#pragma unroll
        for (int e = 0; e < 8; e++) eight[e] = __int_as_float(0x7fc00000);
        if (token >= 0 && token < v) load8(eight, table + (long long)token * c + i % c);
        store8(out + i, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
embedding_fwd_f32_v2(float *out, const float *table, const int *tokens, int n, int v, int c) {
    embedding_eights(out, table, tokens, n, v, c);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_fwd_bf16_v2(bf16 *out, const bf16 *table, const int *tokens, int n, int v, int c) {
    embedding_eights(out, table, tokens, n, v, c);
}
