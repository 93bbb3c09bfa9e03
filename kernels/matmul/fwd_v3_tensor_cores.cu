// matmul / forward / v3: bf16 tensor cores behind a pipeline of asynchronous copies
// math    c[z,m,n] = sum_k op(a)[z,m,k] * op(b)[z,k,n], or c += that; the symbol's letters say how a and b
//         lie: n as multiplied, t with rows and columns exchanged
// in      a (batch,M,K) or (batch,K,M), b (batch,K,N) or (batch,N,K): bf16; row pitches lda, ldb
// out     c (batch,M,N) bf16 or f32 (f32out), row pitch ldc; with splits > 1 c holds the partial sums
//         (batch,splits,M,N) over k_per_split steps each, which matmul_fwd_sum adds up
// launch  large: tiles of 128x128, block (256), dynamic smem 65536 bytes; small: tiles of 64x64, block (128),
//         dynamic smem 49152 bytes; grid (ceil(M/tile) * ceil(N/tile), 1, batch*splits)
// needs   [P1] rows of a and b are multiples of 16 bytes: lda % 8 == 0, ldb % 8 == 0   [P2] batch <= 65535
//         (by Blocks: batch*splits <= 65535, k_per_split % 8 == 0, no split is empty; by the caller: matrices
//         16-byte aligned)
// numeric products exact, f32 sums in the order of the tensor core within 16 steps, then in the order of k;
//         one rounding to the output type, after the addition to c; no atomics: same input, same bits
// cost    2*batch*M*N*K flop; batch*(M*K*2 + K*N*2 + M*N*(2 or 4)) bytes
// twin    crates/ltm-kernels/src/ops/matmul/reference.rs
// source  PTX ISA (mma.m16n8k16, ldmatrix, cp.async); the multistage kernels of CUTLASS 2
// vs v2   16x16x8 products an instruction, and no thread waits for global memory or holds it in registers
// budget  regs 128; threads 256; smem 65536; sass HMMA LDSM LDGSTS
#include "common/gemm_tile.cuh"
#include "common/tile_order.cuh"

// Exchanges a 4x4 matrix over the four lanes that share a row: lane t gets v[t] of every lane, so
// that two neighbouring columns of each of four fragments become eight neighbours of one.
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

// One row of a warp's 32 columns, of which this lane has pairs 8j + 2*(lane%4). `c` is the row's first
// element; the whole warp is here, `inside` says whether its row exists.
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
    // 16 bytes a lane, 64 a row: whole sectors, where pairs would write an eighth of one at a time.
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

template <typename Shape, bool TRANSPOSED_A, bool TRANSPOSED_B, typename C>
__device__ __forceinline__ void
matmul_tensor_cores(C *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb,
                    int ldc, long long stride_a, long long stride_b, long long stride_c, int splits,
                    int k_per_split, int accumulate) {
    extern __shared__ __align__(16) unsigned char shared[];
    TileOrder tile(blockIdx.x, (m + Shape::TILE_M - 1) / Shape::TILE_M,
                   (n + Shape::TILE_N - 1) / Shape::TILE_N);
    int m0 = tile.row * Shape::TILE_M, n0 = tile.column * Shape::TILE_N;
    int z = blockIdx.z / splits, k_begin = blockIdx.z % splits * k_per_split;
    int k_end = k - k_begin < k_per_split ? k : k_begin + k_per_split;
    float sums[Shape::FRAGMENTS_M][Shape::FRAGMENTS_N][4];
    gemm_tile<Shape, TRANSPOSED_A, TRANSPOSED_B>(sums, (bf16 *)shared, a + z * stride_a, lda, m0, m,
                                                 b + z * stride_b, ldb, n0, n, k_begin, k_end);

    int row0 = m0 + Shape::warp_row() + (threadIdx.x >> 2 & 7);
    int column0 = n0 + Shape::warp_column();
    c += blockIdx.z * stride_c + column0;
    // A row of the warp is whole, and every row of it aligned: the same for all its lanes.
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

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_nn_large_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, false, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_nn_large_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, false, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_nn_small_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, false, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_nn_small_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, false, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_nt_large_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, false, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_nt_large_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, false, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_nt_small_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, false, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_nt_small_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, false, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_tn_large_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, true, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_tn_large_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, true, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_tn_small_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, true, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_tn_small_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, true, false>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_tt_large_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, true, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(LargeTile::THREADS, 2)
matmul_fwd_tt_large_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<LargeTile, true, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_tt_small_bf16_v3(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, true, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(SmallTile::THREADS, 4)
matmul_fwd_tt_small_f32out_bf16_v3(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda, int ldb, int ldc,
    long long stride_a, long long stride_b, long long stride_c, int splits, int k_per_split,
    int accumulate) {
    matmul_tensor_cores<SmallTile, true, true>(c, a, b, m, n, k, lda, ldb, ldc, stride_a,
        stride_b, stride_c, splits, k_per_split, accumulate);
}
