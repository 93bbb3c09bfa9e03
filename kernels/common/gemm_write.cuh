// Writes a block's tile of sums, as gemm_tile leaves them, into a matrix.
#pragma once

#include "common/gemm_tile.cuh"

// Transposes a 4x4 matrix over the four lanes that share a row: lane t gets v[t] of every lane, so a
// lane that had two adjacent columns of each of four fragments gets eight adjacent columns of one.
__device__ __forceinline__ void transpose_quad(uint_t (&v)[4]) {
    bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
    for (int j = 0; j < 4; j += 2) {
        uint_t got = __shfl_xor_sync(0xffffffffu, odd ? v[j] : v[j + 1], 1);
        if (odd) v[j] = got; else v[j + 1] = got;
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
        uint_t got = __shfl_xor_sync(0xffffffffu, upper ? v[j] : v[j + 2], 2);
        if (upper) v[j] = got; else v[j + 2] = got;
    }
}

template <typename C>
__device__ __forceinline__ void write_one(C *c, float sum, int accumulate) {
    *c = from_f32<C>(accumulate ? to_f32(*c) + sum : sum);
}

// Writes one row of a warp's 32 columns, of which this lane has pairs 8j + 2*(lane%4). `c` is the row's
// first element. The whole warp must call it; `inside` is whether the row exists.
__device__ __forceinline__ void write_row(bf16 *c, float2 (&sums)[4], bool inside, int accumulate) {
    int quad = threadIdx.x & 3;
    uint_t pairs[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
        float2 x = sums[j];
        if (accumulate && inside) {
            uint_t old = *(const uint_t *)(c + 8 * j + 2 * quad);
            x.x += bf16x2_lo(old), x.y += bf16x2_hi(old);
        }
        pairs[j] = pack_bf16x2(x.x, x.y);
    }
    // 16 bytes per lane, 64 per row: whole sectors, whereas pairs would write an eighth of one at a time.
    transpose_quad(pairs);
    if (inside) *(uint4 *)(c + 8 * quad) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

__device__ __forceinline__ void write_row(float *c, float2 (&sums)[4], bool inside, int accumulate) {
    if (!inside) return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        // Four lanes write one whole sector of 32 bytes.
        float2 *pair = (float2 *)(c + 8 * j + 2 * (threadIdx.x & 3)), x = sums[j];
        if (accumulate) x.x += pair->x, x.y += pair->y;
        *pair = x;
    }
}

// Writes the part of the tile at (m0, n0) that lies in the first m rows and n columns of `c`.
template <typename Shape, typename C>
__device__ __forceinline__ void
write_tile(C *c, const float (&sums)[Shape::FRAGMENTS_M][Shape::FRAGMENTS_N][4], int m0, int m, int n0,
           int n, int ldc, int accumulate) {
    int row0 = m0 + Shape::warp_row() + (threadIdx.x >> 2 & 7);
    int column0 = n0 + Shape::warp_column();
    c += column0;
    // Whether the warp's rows are complete and 16-byte aligned; the same for all its lanes.
    bool whole = column0 + 32 <= n && ldc % 8 == 0 && ((ulong_t)c & 15) == 0;
#pragma unroll
    for (int i = 0; i < Shape::FRAGMENTS_M; i++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int row = row0 + 16 * i + 8 * half;
            C *c_row = c + (long long)row * ldc;
            if (whole) {
                float2 pairs[4];
#pragma unroll
                for (int j = 0; j < 4; j++)
                    pairs[j] = make_float2(sums[i][j][2 * half], sums[i][j][2 * half + 1]);
                write_row(c_row, pairs, row < m, accumulate);
            } else if (row < m) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    int column = 8 * j + 2 * (threadIdx.x & 3);
                    if (column0 + column < n)
                        write_one(c_row + column, sums[i][j][2 * half], accumulate);
                    if (column0 + column + 1 < n)
                        write_one(c_row + column + 1, sums[i][j][2 * half + 1], accumulate);
                }
            }
        }
}
