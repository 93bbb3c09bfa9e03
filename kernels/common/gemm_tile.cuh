// One block's tile of a bf16 matrix product on tensor cores: panels of both factors stream through
// shared memory, the sums stay in registers. The caller decides what to do with the sums.
#pragma once

#include "common/mma.cuh"

// A panel of one factor: EXTENT rows of `a`, or columns of `b`, by K_STEP steps of the sum.
// SUM_CONTIGUOUS selects which of the two extents is contiguous in memory; the shared copy keeps it.
template <int EXTENT, int K_STEP, bool SUM_CONTIGUOUS, int THREADS> struct Panel {
    static constexpr int ROWS = SUM_CONTIGUOUS ? EXTENT : K_STEP;
    static constexpr int CHUNKS = (SUM_CONTIGUOUS ? K_STEP : EXTENT) / 8; // of 16 bytes, in a row
    static constexpr int ROWS_AT_ONCE = THREADS / CHUNKS;
    static constexpr int ELEMENTS = EXTENT * K_STEP;
    static_assert(ROWS % ROWS_AT_ONCE == 0 && ROWS_AT_ONCE % 8 == 0, "threads share panels evenly");
    static_assert(CHUNKS == 4 || CHUNKS % 8 == 0, "the exchange of chunks below is for these");

    // The offset of a chunk. ldmatrix reads one chunk from each of 8 adjacent rows at a time; permuting
    // the chunks of a row by its index puts those 8 into different banks, without padding.
    static __device__ __forceinline__ int offset(int row, int chunk) {
        int exchange = CHUNKS == 4 ? (row >> 1) & 3 : row & 7;
        return (row * CHUNKS + (chunk ^ exchange)) * 8;
    }

    // The part of the factor that this thread copies: one chunk in every ROWS_AT_ONCE rows.
    const bf16 *factor, *next;
    long long step, rows_apart;
    int target, x, k;

    // `factor` is the first element of the whole matrix, `first` the panel's first index of EXTENT.
    __device__ __forceinline__ Panel(const bf16 *factor, int ld, int first, int k_begin)
        : factor(factor) {
        int row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        target = offset(row, chunk);
        x = first + (SUM_CONTIGUOUS ? row : chunk * 8);
        k = k_begin + (SUM_CONTIGUOUS ? chunk * 8 : row);
        next = factor + (SUM_CONTIGUOUS ? (long long)x * ld + k : (long long)k * ld + x);
        step = SUM_CONTIGUOUS ? K_STEP : (long long)K_STEP * ld;
        rows_apart = (long long)ROWS_AT_ONCE * ld;
    }

    // Starts the copy of the next K_STEP of the sum; elements past the ends become zeros, so
    // they add nothing, and nothing past the ends is read.
    __device__ __forceinline__ void copy_next(bf16 *panel, int x_end, int k_end) {
#pragma unroll
        for (int i = 0; i < ROWS / ROWS_AT_ONCE; i++) {
            int row_x = SUM_CONTIGUOUS ? x + i * ROWS_AT_ONCE : x;
            int row_k = SUM_CONTIGUOUS ? k : k + i * ROWS_AT_ONCE;
            int left = SUM_CONTIGUOUS ? k_end - row_k : x_end - row_x;
            bool inside = row_x < x_end && row_k < k_end;
            int bytes = inside ? 2 * (left < 8 ? left : 8) : 0;
            copy_async_16(panel + target + i * ROWS_AT_ONCE * CHUNKS * 8,
                          inside ? next + i * rows_apart : factor, bytes);
        }
        next += step;
        k += K_STEP;
    }

    // The left factor of mma_bf16: 16 rows of `a` from `x`, 16 steps of the sum from `k`.
    static __device__ __forceinline__ void left(uint_t (&r)[4], const bf16 *panel, int x, int k) {
        int lane = threadIdx.x & 31;
        if (SUM_CONTIGUOUS)
            ldmatrix_x4(r, panel + offset(x + (lane & 15), k / 8 + (lane >> 4)));
        else
            ldmatrix_x4_trans(
                r, panel + offset(k + (lane & 7) + (lane >> 4) * 8, x / 8 + (lane >> 3 & 1)));
    }

    // Two right factors of mma_bf16: columns of `b` from `x` in r[0], r[1], from x + 8 in r[2], r[3].
    static __device__ __forceinline__ void right(uint_t (&r)[4], const bf16 *panel, int x, int k) {
        int lane = threadIdx.x & 31;
        if (SUM_CONTIGUOUS)
            ldmatrix_x4(
                r, panel + offset(x + (lane & 7) + (lane >> 4) * 8, k / 8 + (lane >> 3 & 1)));
        else
            ldmatrix_x4_trans(r, panel + offset(k + (lane & 15), x / 8 + (lane >> 4)));
    }
};

// Extents of a block's tile and how its warps share it. A warp's part is WARP_M by 32.
template <int TILE_M_, int TILE_N_, int K_STEP_, int WARP_M_, int STAGES_> struct GemmShape {
    static constexpr int TILE_M = TILE_M_, TILE_N = TILE_N_, K_STEP = K_STEP_, STAGES = STAGES_;
    static constexpr int WARP_M = WARP_M_, WARP_N = 32;
    static constexpr int THREADS = TILE_M / WARP_M * (TILE_N / WARP_N) * 32;
    static constexpr int STAGE_ELEMENTS = (TILE_M + TILE_N) * K_STEP;
    static constexpr int SMEM_BYTES = STAGES * STAGE_ELEMENTS * 2;
    static constexpr int FRAGMENTS_M = WARP_M / 16, FRAGMENTS_N = WARP_N / 8;

    // The first row and column of this thread's warp within the tile.
    static __device__ __forceinline__ int warp_row() {
        return (threadIdx.x >> 5) / (TILE_N / WARP_N) * WARP_M;
    }
    static __device__ __forceinline__ int warp_column() {
        return (threadIdx.x >> 5) % (TILE_N / WARP_N) * WARP_N;
    }
};

typedef GemmShape<128, 128, 32, 64, 4> LargeTile; // 256 threads, 64 KiB: two blocks fit an sm_80
typedef GemmShape<64, 64, 64, 32, 3> SmallTile;   // 128 threads, 48 KiB

// sums (as mma_bf16 lays them out) of rows m0.. and columns n0.. over k_begin..k_end. `smem` holds
// Shape::SMEM_BYTES; k_end > k_begin, and k_begin % 8 == 0.
template <typename Shape, bool TRANSPOSED_A, bool TRANSPOSED_B>
__device__ __forceinline__ void
gemm_tile(float (&sums)[Shape::FRAGMENTS_M][Shape::FRAGMENTS_N][4], bf16 *smem, const bf16 *a,
          int lda, int m0, int m, const bf16 *b, int ldb, int n0, int n, int k_begin, int k_end) {
    constexpr int K_STEP = Shape::K_STEP, STAGES = Shape::STAGES;
    typedef Panel<Shape::TILE_M, K_STEP, !TRANSPOSED_A, Shape::THREADS> PanelA;
    typedef Panel<Shape::TILE_N, K_STEP, TRANSPOSED_B, Shape::THREADS> PanelB;
    PanelA panel_a(a, lda, m0, k_begin);
    PanelB panel_b(b, ldb, n0, k_begin);
    int steps = (k_end - k_begin + K_STEP - 1) / K_STEP;
#pragma unroll
    for (int i = 0; i < Shape::FRAGMENTS_M; i++)
#pragma unroll
        for (int j = 0; j < Shape::FRAGMENTS_N; j++)
#pragma unroll
            for (int e = 0; e < 4; e++) sums[i][j][e] = 0.0f;

    // One group per step, empty past the end, so that "all but STAGES - 2" always means the same one.
    auto copy_step = [&](int step) {
        if (step < steps) {
            bf16 *stage = smem + step % STAGES * Shape::STAGE_ELEMENTS;
            panel_a.copy_next(stage, m, k_end);
            panel_b.copy_next(stage + PanelA::ELEMENTS, n, k_end);
        }
        copy_async_commit();
    };
    for (int step = 0; step < STAGES - 1; step++) copy_step(step);
    int row = Shape::warp_row(), column = Shape::warp_column();
    for (int step = 0; step < steps; step++) {
        copy_async_wait<STAGES - 2>();
        // Makes every thread's copies visible to all, and ensures that the stage filled next has been read.
        __syncthreads();
        copy_step(step + STAGES - 1);
        const bf16 *stage_a = smem + step % STAGES * Shape::STAGE_ELEMENTS;
        const bf16 *stage_b = stage_a + PanelA::ELEMENTS;
#pragma unroll
        for (int k = 0; k < K_STEP; k += 16) {
            uint_t left[Shape::FRAGMENTS_M][4], right[Shape::FRAGMENTS_N / 2][4];
#pragma unroll
            for (int i = 0; i < Shape::FRAGMENTS_M; i++)
                PanelA::left(left[i], stage_a, row + 16 * i, k);
#pragma unroll
            for (int j = 0; j < Shape::FRAGMENTS_N / 2; j++)
                PanelB::right(right[j], stage_b, column + 16 * j, k);
#pragma unroll
            for (int i = 0; i < Shape::FRAGMENTS_M; i++)
#pragma unroll
                for (int j = 0; j < Shape::FRAGMENTS_N; j++)
                    mma_bf16(sums[i][j], left[i], right[j / 2][j % 2 * 2],
                             right[j / 2][j % 2 * 2 + 1]);
        }
    }
}
