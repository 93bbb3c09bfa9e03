// cross_entropy / logits and rows / v3: the product also writes each tile's row maxima and sums
// math    logits: x[n,v] = sum_c h[n,c]*w[v,c], and of each row and tile of columns its maximum and the sum of
//         exp(x - maximum); rows: nll[n] = log sum_v exp(x[n,v]) - x[n,targets[n]], and x[n,v] becomes
//         factor[n] * (softmax(x[n])[v] - [v == targets[n]])
// in      h (N,C), w (V,C) bf16; targets (N) i32; factor (N) f32, or null for 1
// out     logits (N,V) bf16, row pitch ldl, or null where only the loss is wanted; peaks (tiles,N) of f32 maximum
//         and sum, at_target (N) f32, both scratch; nll (N) f32, or null; rows overwrites the logits when write_p,
//         the padding after each row with zeros
// launch  logits: large: tiles of 128x128, block (256), dynamic smem 65536 bytes; small: tiles of 64x64, block
//         (128), dynamic smem 49152 bytes; grid (ceil(N/tile) * ceil(V/tile)); rows: grid (N), block (256)
// needs   [P1] bf16   [P2] C % 8 == 0   (by pitch: ldl % 64 == 0; by Buffer: pointers 16-byte aligned)
//         A target of -1 gives zeros; any other outside 0..V gives NaN, and no access outside x
// numeric sums of the product in f32, rounded once to the bf16 whose maximum and sum are taken, so that loss and
//         gradient are of the same softmax; f32 sums over four lanes, a tile's warps, the tiles of a thread, a
//         block, in an order fixed by their numbers; no atomics: same input, same bits
// cost    2*N*V*C + 6*N*V flop; N*C + V*C elements, N*V written once, and read and written once when write_p
// twin    crates/ltm-kernels/src/ops/cross_entropy/reference.rs
// source  Milakov & Gimelshein 2018 (online softmax), in the epilogue of a product as flash attention has it
// vs v2   no pass over the logits for their maxima and sums; the loss alone writes no logits at all
// budget  regs 128; threads 256; smem 65536; sass HMMA LDSM LDGSTS
#include "common/gemm_tile.cuh"
#include "common/gemm_write.cuh"
#include "common/reduce.cuh"
#include "common/tile_order.cuh"

// Below every finite logit; with -inf the difference of two maxima would be NaN.
constexpr float LOWEST = -3.0e38f;

// The maximum of some logits and the sum of their exp(x - maximum).
struct __align__(8) Peak {
    float max, sum;
};

__device__ __forceinline__ Peak merge(Peak a, Peak b) {
    float max = fmaxf(a.max, b.max);
    return {max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max)};
}

template <typename Shape>
__device__ __forceinline__ void
logits_tile(bf16 *logits, Peak *peaks, float *at_target, const bf16 *h, const bf16 *w, const int *targets,
            int n_rows, int v_end, int c, int ldl) {
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr int WARP_COLUMNS = Shape::TILE_N / Shape::WARP_N;
    static_assert(WARP_COLUMNS * Shape::TILE_M * sizeof(Peak) <= Shape::SMEM_BYTES, "peaks fit the panels' place");
    TileOrder tile(blockIdx.x, (n_rows + Shape::TILE_M - 1) / Shape::TILE_M,
                   (v_end + Shape::TILE_N - 1) / Shape::TILE_N);
    int n0 = tile.row * Shape::TILE_M, v0 = tile.column * Shape::TILE_N;
    float sums[Shape::FRAGMENTS_M][Shape::FRAGMENTS_N][4];
    gemm_tile<Shape, false, true>(sums, (bf16 *)shared, h, c, n0, n_rows, w, c, v0, v_end, 0, c);

    // Phase 1: the peaks of each row in this warp's 32 columns, over the four lanes that share it.
    Peak *of_warps = (Peak *)shared;
    int lane = threadIdx.x & 31, column0 = v0 + Shape::warp_column() + 2 * (lane & 3);
    __syncthreads(); // All warps have finished with the panels, whose memory the peaks reuse.
#pragma unroll
    for (int i = 0; i < Shape::FRAGMENTS_M; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = Shape::warp_row() + 16 * i + 8 * half + (lane >> 2);
            int target = n0 + row < n_rows ? targets[n0 + row] : -1;
            float max = LOWEST, sum = 0.0f;
#pragma unroll
            for (int j = 0; j < Shape::FRAGMENTS_N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    // Rounded as it will be stored below.
                    float &x = sums[i][j][2 * half + e];
                    x = to_f32(to_bf16(x));
                    if (column0 + 8 * j + e < v_end) max = fmaxf(max, x);
                }
            max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 1));
            max = fmaxf(max, __shfl_xor_sync(0xffffffffu, max, 2));
#pragma unroll
            for (int j = 0; j < Shape::FRAGMENTS_N; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int v = column0 + 8 * j + e;
                    float x = sums[i][j][2 * half + e];
                    if (v < v_end) sum += expf(x - max);
                    // A target of -1 matches no column, and one past the vocabulary is in no tile.
                    if (v == target && v < v_end) at_target[n0 + row] = x;
                }
            sum += __shfl_xor_sync(0xffffffffu, sum, 1);
            sum += __shfl_xor_sync(0xffffffffu, sum, 2);
            if ((lane & 3) == 0) of_warps[Shape::warp_column() / Shape::WARP_N * Shape::TILE_M + row] = {max, sum};
        }
    __syncthreads();

    // Phase 2: one thread per row of the tile combines the warps that share it.
    for (int row = threadIdx.x; row < Shape::TILE_M && n0 + row < n_rows; row += Shape::THREADS) {
        Peak peak = of_warps[row];
        for (int warp = 1; warp < WARP_COLUMNS; warp++) peak = merge(peak, of_warps[warp * Shape::TILE_M + row]);
        peaks[(long long)tile.column * n_rows + n0 + row] = peak;
    }
    if (logits) write_tile<Shape>(logits, sums, n0, n_rows, v0, v_end, ldl, 0);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
cross_entropy_fwd_logits_large_bf16_v3(bf16 *logits, Peak *peaks, float *at_target, const bf16 *h, const bf16 *w,
                                       const int *targets, int n_rows, int v_end, int c, int ldl) {
    logits_tile<LargeTile>(logits, peaks, at_target, h, w, targets, n_rows, v_end, c, ldl);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
cross_entropy_fwd_logits_small_bf16_v3(bf16 *logits, Peak *peaks, float *at_target, const bf16 *h, const bf16 *w,
                                       const int *targets, int n_rows, int v_end, int c, int ldl) {
    logits_tile<SmallTile>(logits, peaks, at_target, h, w, targets, n_rows, v_end, c, ldl);
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_fwd_rows_bf16_v3(float *nll, bf16 *logits, const Peak *peaks, const float *at_target,
                               const int *targets, const float *factor, int n_rows, int n_tiles, int v_end,
                               int ldl, int write_p) {
    __shared__ float scratch[8];
    int n = blockIdx.x, target = targets[n];
    bool ignored = target == -1, valid = target >= 0 && target < v_end;

    // pass 1: the row's maximum and sum, from those of its tiles.
    Peak peak = {LOWEST, 0.0f};
    for (int tile = threadIdx.x; tile < n_tiles; tile += 256)
        peak = merge(peak, peaks[(long long)tile * n_rows + n]);
    float row_max = block_max(peak.max, scratch);
    float row_sum = block_sum(peak.sum * expf(peak.max - row_max), scratch);

    float nan = __int_as_float(0x7fffffff);
    if (nll && threadIdx.x == 0)
        nll[n] = ignored ? 0.0f : valid ? row_max + logf(row_sum) - at_target[n] : nan;
    if (!write_p) return;

    // pass 2: probabilities minus one-hot; zeros in the padding, so that no product reads old data.
    float scale = valid ? (factor ? factor[n] : 1.0f) : nan;
    bf16 *x = logits + (long long)n * ldl;
    for (int v = threadIdx.x * 8; v < ldl; v += 256 * 8) {
        float part[8];
        load8(part, x + v);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float p = expf(part[e] - row_max) / row_sum - (v + e == target ? 1.0f : 0.0f);
            part[e] = ignored || v + e >= v_end ? 0.0f : scale * p;
        }
        store8(x + v, part);
    }
}
