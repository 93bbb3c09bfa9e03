// matmul / forward / v3: bf16 tensor cores fed by a pipeline of asynchronous copies
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
// vs v2   16x16x8 products per instruction, and no thread waits for global memory or holds it in registers
// budget  regs 128; threads 256; smem 65536; sass HMMA LDSM LDGSTS
#include "common/gemm_tile.cuh"
#include "common/gemm_write.cuh"
#include "common/tile_order.cuh"

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

    write_tile<Shape>(c + blockIdx.z * stride_c, sums, m0, m, n0, n, ldc, accumulate);
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
