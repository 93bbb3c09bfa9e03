// matmul / forward / v2: tiles in shared memory, a square of the result in each thread's registers
// math    c[z,m,n] = sum_k op(a)[z,m,k] * op(b)[z,k,n], or c += that; op exchanges rows and columns
// in      a (batch,M,K) or (batch,K,M), b (batch,K,N) or (batch,N,K): A; row pitches lda, ldb
// out     c (batch,M,N) A or f32, row pitch ldc; with splits > 1 c holds the partial sums (batch,splits,M,N)
//         over k_per_split steps each, which matmul_fwd_sum adds up
// launch  grid (ceil(M/tile) * ceil(N/tile), 1, batch*splits), block (256); tile 128 (large) or 64 (small)
// needs   [P1] batch <= 65535   (by Blocks: batch*splits <= 65535, no split is empty)
// numeric f32 sums in the order of k; one rounding to the output type, after the addition to c; same
//         input, same bits
// cost    2*batch*M*N*K flop; batch*(M*K + K*N + M*N) elements
// twin    crates/ltm-kernels/src/ops/matmul/reference.rs
// source  the blocked kernels of SGEMM_CUDA
// vs v1   a tile x tile block reads each element from memory once per tile, not once per product
// budget  regs 128; threads 256; smem 17408; sass -
#include "common/tile_order.cuh"
#include "common/types.cuh"

constexpr int K_STEP = 16;

// Copies rows x0.. of a factor (EXTENT of them) and steps k0.. of the sum into `panel`, laid out
// [K_STEP][EXTENT + 4] and zero past the ends. `sum_contiguous`: the sum runs along memory.
template <int EXTENT, typename A>
__device__ __forceinline__ void load_panel(float *panel, const A *factor, int ld, int x0, int x_end,
                                           int k0, int k_end, bool sum_contiguous) {
    constexpr int PITCH = EXTENT + 4;
    // Adjacent threads take adjacent elements of the panel's contiguous extent, four each.
    int across = (sum_contiguous ? K_STEP : EXTENT) / 4;
    bool aligned = ld % 4 == 0 && ((ulong_t)factor & (4 * sizeof(A) - 1)) == 0;
    for (int i = threadIdx.x; i < EXTENT * K_STEP / 4; i += 256) {
        int row = i / across, column = i % across * 4;
        int x = sum_contiguous ? row : column, k = sum_contiguous ? column : row;
        int left = sum_contiguous ? k_end - k0 - k : x_end - x0 - x;
        bool inside = x0 + x < x_end && k0 + k < k_end;
        long long at = sum_contiguous ? (long long)(x0 + x) * ld + k0 + k
                                      : (long long)(k0 + k) * ld + x0 + x;
        float v[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        if (inside && left >= 4 && aligned && at % 4 == 0) {
            float4 four = load4(factor + at);
            v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
        } else if (inside) {
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (e < left) v[e] = to_f32(factor[at + e]);
        }
#pragma unroll
        for (int e = 0; e < 4; e++)
            panel[sum_contiguous ? (k + e) * PITCH + x : k * PITCH + x + e] = v[e];
    }
}

// Threads form a 16x16 grid; each holds rows and columns 4t.. of every 64 of the tile.
template <int TILE, typename A, typename C>
__device__ __forceinline__ void
matmul_register_tiles(C *c, const A *a, const A *b, int m, int n, int k, int lda, int ldb, int ldc,
                      long long stride_a, long long stride_b, long long stride_c, int a_transposed,
                      int b_transposed, int splits, int k_per_split, int accumulate) {
    constexpr int PARTS = TILE / 64, PITCH = TILE + 4;
    __shared__ __align__(16) float panel_a[K_STEP * PITCH], panel_b[K_STEP * PITCH];
    TileOrder tile(blockIdx.x, (m + TILE - 1) / TILE, (n + TILE - 1) / TILE);
    int m0 = tile.row * TILE, n0 = tile.column * TILE;
    int z = blockIdx.z / splits, k_begin = blockIdx.z % splits * k_per_split;
    int k_end = k - k_begin < k_per_split ? k : k_begin + k_per_split;
    int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    float sums[4 * PARTS][4 * PARTS] = {};
    for (int k0 = k_begin; k0 < k_end; k0 += K_STEP) {
        load_panel<TILE>(panel_a, a + z * stride_a, lda, m0, m, k0, k_end, !a_transposed);
        load_panel<TILE>(panel_b, b + z * stride_b, ldb, n0, n, k0, k_end, b_transposed);
        __syncthreads();
#pragma unroll 4
        for (int t = 0; t < K_STEP; t++) {
            float left[4 * PARTS], right[4 * PARTS];
#pragma unroll
            for (int p = 0; p < PARTS; p++) {
                float4 x = load4(panel_a + t * PITCH + row + 64 * p);
                float4 y = load4(panel_b + t * PITCH + column + 64 * p);
                left[4 * p] = x.x, left[4 * p + 1] = x.y, left[4 * p + 2] = x.z, left[4 * p + 3] = x.w;
                right[4 * p] = y.x, right[4 * p + 1] = y.y, right[4 * p + 2] = y.z, right[4 * p + 3] = y.w;
            }
#pragma unroll
            for (int i = 0; i < 4 * PARTS; i++)
#pragma unroll
                for (int j = 0; j < 4 * PARTS; j++) sums[i][j] += left[i] * right[j];
        }
        // All threads have read the panels: the next ones may overwrite them.
        __syncthreads();
    }
    c += blockIdx.z * stride_c;
#pragma unroll
    for (int i = 0; i < 4 * PARTS; i++) {
        int r = m0 + row + i % 4 + i / 4 * 64;
        if (r >= m) continue;
#pragma unroll
        for (int j = 0; j < 4 * PARTS; j++) {
            int s = n0 + column + j % 4 + j / 4 * 64;
            C *at = c + (long long)r * ldc + s;
            if (s < n) *at = from_f32<C>(accumulate ? to_f32(*at) + sums[i][j] : sums[i][j]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_large_f32_v2(float *c, const float *a, const float *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<128>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_large_bf16_v2(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<128>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_large_f32out_bf16_v2(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<128>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_small_f32_v2(float *c, const float *a, const float *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<64>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_small_bf16_v2(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<64>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}

extern "C" __global__ void __launch_bounds__(256, 2)
matmul_fwd_small_f32out_bf16_v2(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int lda,
    int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c, int a_transposed,
    int b_transposed, int splits, int k_per_split, int accumulate) {
    matmul_register_tiles<64>(c, a, b, m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c,
        a_transposed, b_transposed, splits, k_per_split, accumulate);
}
