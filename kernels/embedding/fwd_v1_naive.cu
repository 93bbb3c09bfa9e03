// embedding / forward / v1: one thread per element
// math    out[n,:] = table[tokens[n],:]; NaN for a token outside 0..V
// in      table (V,C) A; tokens (N) i32
// out     out (N,C) A
// launch  grid (min(ceil(n/256), 2^14)), block (256), n = N*C
// needs   nothing
// numeric a copy
// cost    0 flop; 2*N*C elements
// twin    crates/ltm-kernels/src/ops/embedding/reference.rs
// source  a product with one-hot rows
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void embedding_naive(A *out, const A *table, const int *tokens, int n, int v, int c) {
    A nan = from_f32<A>(__int_as_float(0x7fc00000));
    for (long long i = grid_thread(); i < (long long)n * c; i += grid_threads()) {
        int token = tokens[i / c];
        out[i] = token >= 0 && token < v ? table[(long long)token * c + i % c] : nan;
    }
}

extern "C" __global__ void __launch_bounds__(256)
embedding_fwd_f32_v1(float *out, const float *table, const int *tokens, int n, int v, int c) {
    embedding_naive(out, table, tokens, n, v, c);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_fwd_bf16_v1(bf16 *out, const bf16 *table, const int *tokens, int n, int v, int c) {
    embedding_naive(out, table, tokens, n, v, c);
}
