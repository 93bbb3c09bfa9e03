// embedding / backward / v2: a block owns rows of the table and looks through the tokens once
// math    dtable[v,:] = sum over n with tokens[n] = v of dout[n,:]; tokens outside 0..V are ignored
// in      dout (N,C) A; tokens (N) i32
// out     dtable (V,C) f32
// launch  grid (2^log2_blocks), block (256); block i owns the rows v with v % 2^log2_blocks == i
// needs   nothing   (by log2_blocks: at most 2^10 blocks, and no more than cover V)
// numeric f32 sums in the order of the tokens; no atomics: same input, same bits
// cost    N*C flop; N*C + V*C elements, and the tokens once a block, out of cache
// twin    crates/ltm-kernels/src/ops/embedding/reference.rs
// source  a product with one-hot rows; the compaction is that of a stable partition
// vs v1   each block reads the tokens once, not once for each of its elements, and notes which are its own
// budget  regs 64; threads 256; smem 8320; sass -
#include "common/types.cuh"

constexpr int THREADS = 256;
// Tokens per thread in one scan, and the most tokens that a block collects before it adds their rows.
constexpr int STEPS = 4;
constexpr int NOTED = STEPS * THREADS;
// Columns per thread, THREADS apart, and rows of dout that are loaded together.
constexpr int COLUMNS = 4;
constexpr int AHEAD = 4;

struct Notes {
    // Collected tokens of this block's rows, in order: position of each, and which row it belongs to.
    int at[NOTED];
    int row[NOTED];
    // One bit per token, by step and warp.
    uint_t found[STEPS * THREADS / 32];
};

// Adds the collected rows of dout, in order, to the rows of the table that this block owns; `first`
// means that the table has not been written yet.
template <typename A>
__device__ __forceinline__ void add_noted(float *dtable, const A *dout, const Notes &notes, int n_noted,
                                          bool first, int v, int c, int log2_blocks) {
    int lane = threadIdx.x & 31;
    for (long long row = blockIdx.x; row < v; row += 1ll << log2_blocks) {
        int own = (int)(row >> log2_blocks);
        for (int start = 0; start < c; start += COLUMNS * THREADS) {
            float *sums = dtable + row * c + start + threadIdx.x;
            const A *columns = dout + start + threadIdx.x;
            bool inside[COLUMNS];
            float sum[COLUMNS];
#pragma unroll
            for (int k = 0; k < COLUMNS; k++) {
                inside[k] = start + THREADS * k + (int)threadIdx.x < c;
                sum[k] = first || !inside[k] ? 0.0f : sums[THREADS * k];
            }
            for (int noted = 0; noted < n_noted; noted += 32) {
                int e = noted + lane;
                uint_t left = __ballot_sync(0xffffffffu, e < n_noted && notes.row[e] == own);
                while (left != 0) {
                    // Several rows are loaded before the first is added.
                    float x[AHEAD][COLUMNS];
#pragma unroll
                    for (int a = 0; a < AHEAD; a++) {
                        bool there = left != 0;
                        long long at = there ? notes.at[noted + __ffs((int)left) - 1] : 0;
                        const A *from = columns + at * c;
#pragma unroll
                        for (int k = 0; k < COLUMNS; k++)
                            x[a][k] = there && inside[k] ? to_f32(from[THREADS * k]) : 0.0f;
                        left &= left - 1;
                    }
#pragma unroll
                    for (int a = 0; a < AHEAD; a++)
#pragma unroll
                        for (int k = 0; k < COLUMNS; k++) sum[k] += x[a][k];
                }
            }
#pragma unroll
            for (int k = 0; k < COLUMNS; k++)
                if (inside[k]) sums[THREADS * k] = sum[k];
        }
    }
}

template <typename A>
__device__ __forceinline__ void embedding_grad_owned(float *dtable, const A *dout, const int *tokens, int n,
                                                     int v, int c, int log2_blocks) {
    __shared__ Notes notes;
    int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, n_noted = 0;
    uint_t mine = blockIdx.x, mask = (1u << log2_blocks) - 1, lower_lanes = (1u << lane) - 1;
    bool first = true;
    for (long long start = 0; start < n; start += NOTED) {
        // Phase 1: find the tokens that belong to this block.
        int token[STEPS];
        uint_t found[STEPS];
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            long long i = start + THREADS * s + threadIdx.x;
            token[s] = i < n ? tokens[i] : -1;
            bool own = token[s] >= 0 && token[s] < v && (token[s] & mask) == mine;
            found[s] = __ballot_sync(0xffffffffu, own);
            if (lane == 0) notes.found[s * (THREADS / 32) + warp] = found[s];
        }
        __syncthreads();
        // Phase 2: one lane per warp and step counts how many tokens come before its own.
        int count = __popc(notes.found[lane]), before = count;
        for (int offset = 1; offset < 32; offset *= 2) {
            int other = __shfl_up_sync(0xffffffffu, before, offset);
            if (lane >= offset) before += other;
        }
        int total = __shfl_sync(0xffffffffu, before, 31);
        before -= count;
        if (n_noted + total > NOTED) {
            add_noted(dtable, dout, notes, n_noted, first, v, c, log2_blocks);
            first = false, n_noted = 0;
            __syncthreads();
        }
        // Phase 3: collect them in order.
#pragma unroll
        for (int s = 0; s < STEPS; s++) {
            int place = n_noted + __shfl_sync(0xffffffffu, before, s * (THREADS / 32) + warp);
            place += __popc(found[s] & lower_lanes);
            if (found[s] >> lane & 1) {
                notes.at[place] = (int)(start + THREADS * s + threadIdx.x);
                notes.row[place] = token[s] >> log2_blocks;
            }
        }
        n_noted += total;
        __syncthreads();
    }
    add_noted(dtable, dout, notes, n_noted, first, v, c, log2_blocks);
}

extern "C" __global__ void __launch_bounds__(256, 4)
embedding_bwd_f32_v2(float *dtable, const float *dout, const int *tokens, int n, int v, int c,
                     int log2_blocks) {
    embedding_grad_owned(dtable, dout, tokens, n, v, c, log2_blocks);
}

extern "C" __global__ void __launch_bounds__(256, 4)
embedding_bwd_bf16_v2(float *dtable, const bf16 *dout, const int *tokens, int n, int v, int c,
                      int log2_blocks) {
    embedding_grad_owned(dtable, dout, tokens, n, v, c, log2_blocks);
}
