// Tensor-core attention in tiles: loads rows of a head into shared memory, and computes the two kinds of
// product that forward and backward consist of. A warp owns 16 rows of a tile; four warps own 64.
#pragma once

#include "common/attention_mask.cuh"
#include "common/mma.cuh"

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

// Rows of a tile are padded by 16 bytes, so that the eight rows of an ldmatrix lie in distinct banks.
template <int DP> struct pitch { static const int value = DP + 8; };

// 128 threads start copying rows first..first+ROWS of one head (`stride` elements apart, row 0 at `head`)
// into a tile of DP columns. Rows past `rows` and columns past D become zeros.
template <int ROWS, int DP>
__device__ __forceinline__ void load_tile(bf16 *tile, const bf16 *head, int first, int rows,
                                          long long stride, int D) {
    const int chunks = DP / 8;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * chunks; i += 128) {
        int row = i / chunks, column = i % chunks * 8;
        bool inside = first + row < rows && column < D;
        const bf16 *source = inside ? head + (first + row) * stride + column : head;
        copy_async_16(tile + row * pitch<DP>::value + column, source, inside ? 16 : 0);
    }
}

// sums (16,COLUMNS) = a b^T: `a` is this warp's 16 rows of a tile, `b` is a tile of COLUMNS rows.
template <int COLUMNS, int DP>
__device__ __forceinline__ void product_of_rows(float (&sums)[COLUMNS / 8][4], const bf16 *a,
                                                const bf16 *b) {
    const int P = pitch<DP>::value;
    int lane = threadIdx.x & 31;
    // Matrices of a: rows 0..8 and 8..16, then the same rows 8 columns further. Matrices of b: columns 0..8
    // and 8..16 of 8 rows, then the same columns of the next 8 rows.
    const bf16 *a_row = a + (lane & 15) * P + (lane >> 4) * 8;
    const bf16 *b_row = b + ((lane & 7) + (lane >> 4) * 8) * P + (lane >> 3 & 1) * 8;
#pragma unroll
    for (int n = 0; n < COLUMNS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) sums[n][i] = 0.f;
#pragma unroll
    for (int d = 0; d < DP; d += 16) {
        uint_t a_part[4];
        ldmatrix_x4(a_part, a_row + d);
#pragma unroll
        for (int n = 0; n < COLUMNS / 16; n++) {
            uint_t b_part[4];
            ldmatrix_x4(b_part, b_row + n * 16 * P + d);
            mma_bf16(sums[2 * n], a_part, b_part[0], b_part[1]);
            mma_bf16(sums[2 * n + 1], a_part, b_part[2], b_part[3]);
        }
    }
}

// sums (16,DP) += weights b: `weights` (16,ROWS) are this warp's accumulators of an earlier product, rounded
// to bf16 in place: their layout is what each lane must supply as the left side of the next product. `b`
// is a tile of ROWS rows.
template <int ROWS, int DP>
__device__ __forceinline__ void add_weighted_rows(float (&sums)[DP / 8][4],
                                                  const float (&weights)[ROWS / 8][4], const bf16 *b) {
    const int P = pitch<DP>::value;
    int lane = threadIdx.x & 31;
    const bf16 *b_row = b + (lane & 15) * P + (lane >> 4) * 8;
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
        const float(&left)[4] = weights[2 * k], (&right)[4] = weights[2 * k + 1];
        uint_t a_part[4] = {pack_bf16x2(left[0], left[1]), pack_bf16x2(left[2], left[3]),
                            pack_bf16x2(right[0], right[1]), pack_bf16x2(right[2], right[3])};
#pragma unroll
        for (int n = 0; n < DP / 16; n++) {
            uint_t b_part[4];
            ldmatrix_x4_trans(b_part, b_row + k * 16 * P + n * 16);
            mma_bf16(sums[2 * n], a_part, b_part[0], b_part[1]);
            mma_bf16(sums[2 * n + 1], a_part, b_part[2], b_part[3]);
        }
    }
}

// Scales this warp's 16 rows of DP sums by `upper` and `lower`, rounds them to bf16 and writes columns
// below D of the first `rows` rows; row r of the warp goes to out + r * stride.
template <int DP>
__device__ __forceinline__ void store_rows(bf16 *out, const float (&sums)[DP / 8][4], float upper,
                                           float lower, int rows, long long stride, int D) {
    int row = (threadIdx.x & 31) >> 2;
#pragma unroll
    for (int n = 0; n < DP / 8; n++) {
        int column = n * 8 + (threadIdx.x & 3) * 2;
        if (column >= D) continue;
        if (row < rows)
            *(uint_t *)(out + row * stride + column) =
                pack_bf16x2(sums[n][0] * upper, sums[n][1] * upper);
        if (row + 8 < rows)
            *(uint_t *)(out + (row + 8) * stride + column) =
                pack_bf16x2(sums[n][2] * lower, sums[n][3] * lower);
    }
}

// Maximum and sum over the four lanes that share a row.
__device__ __forceinline__ float quad_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
