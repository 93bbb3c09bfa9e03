// embedding / backward / v1: one thread per element of the table, through all tokens
// math    dtable[v,:] = sum over n with tokens[n] = v of dout[n,:]; tokens outside 0..V are ignored
// in      dout (N,C) A; tokens (N) i32
// out     dtable (V,C) f32
// launch  grid (min(ceil(V*C/256), 2^14)), block (256)
// needs   nothing
// numeric f32 sums in the order of the tokens; no atomics: same input, same bits
// cost    N*C flop; N*C + V*C elements, but V*C*N tokens are read
// twin    crates/ltm-kernels/src/ops/embedding/reference.rs
// source  a product with one-hot rows
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void embedding_grad_naive(float *dtable, const A *dout, const int *tokens, int n, int v,
                                     int c) {
    for (long long i = grid_thread(); i < (long long)v * c; i += grid_threads()) {
        int row = (int)(i / c);
        float sum = 0.0f;
        for (int token = 0; token < n; token++)
            if (tokens[token] == row) sum += to_f32(dout[(long long)token * c + i % c]);
        dtable[i] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
embedding_bwd_f32_v1(float *dtable, const float *dout, const int *tokens, int n, int v, int c) {
    embedding_grad_naive(dtable, dout, tokens, n, v, c);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_bwd_bf16_v1(float *dtable, const bf16 *dout, const int *tokens, int n, int v, int c) {
    embedding_grad_naive(dtable, dout, tokens, n, v, c);
}
