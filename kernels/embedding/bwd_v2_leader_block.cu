// embedding / backward / v2: the first occurrence of a token sums all of them
// math    dtable[v,:] = sum over n with tokens[n] = v of dout[n,:]; tokens outside 0..V are left out
// in      dout (N,C) A; tokens (N) i32; dtable is zeros at the start
// out     dtable (V,C) f32
// launch  grid (N, ceil(C/256)), block (256)
// needs   nothing
// numeric f32 sums in the order of the tokens; no atomics: same input, same bits
// cost    N*C flop; N*C + V*C elements, and the tokens before and behind each, out of cache
// twin    crates/ltm-kernels/src/ops/embedding/reference.rs
// source  a product with one-hot rows
// vs v1   rows that do not occur cost nothing but their zeros; 256 tokens are looked through at once
// budget  regs 40; threads 256; smem 32; sass -
#include "common/types.cuh"

template <typename A>
__device__ void embedding_grad_leader(float *dtable, const A *dout, const int *tokens, int n, int v,
                                      int c) {
    __shared__ uint_t masks[8];
    int first = blockIdx.x, row = tokens[first];
    int column = blockIdx.y * blockDim.x + threadIdx.x;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    if (row < 0 || row >= v) return;
    // Phase 1: an earlier occurrence makes another block the leader.
    for (int start = 0; start < first; start += blockDim.x) {
        int token = start + threadIdx.x;
        if (__syncthreads_or(token < first && tokens[token] == row)) return;
    }
    // Phase 2: one bit a token that is this row's, 256 tokens at a time, added in their order.
    float sum = 0.0f;
    for (int start = first; start < n; start += blockDim.x) {
        int token = start + threadIdx.x;
        uint_t mask = __ballot_sync(0xffffffffu, token < n && tokens[token] == row);
        if (lane == 0) masks[warp] = mask;
        __syncthreads();
        for (int w = 0; w < 8; w++)
            for (uint_t left = masks[w]; left != 0; left &= left - 1) {
                int at = start + 32 * w + __ffs((int)left) - 1;
                if (column < c) sum += to_f32(dout[(long long)at * c + column]);
            }
        __syncthreads();
    }
    if (column < c) dtable[(long long)row * c + column] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
embedding_bwd_f32_v2(float *dtable, const float *dout, const int *tokens, int n, int v, int c) {
    embedding_grad_leader(dtable, dout, tokens, n, v, c);
}

extern "C" __global__ void __launch_bounds__(256)
embedding_bwd_bf16_v2(float *dtable, const bf16 *dout, const int *tokens, int n, int v, int c) {
    embedding_grad_leader(dtable, dout, tokens, n, v, c);
}
