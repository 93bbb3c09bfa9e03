// matmul / forward / v1: one thread per output element
// math    c[z,m,n] = sum_k op(a)[z,m,k] * op(b)[z,k,n], or c += that; op exchanges rows and columns
// in      a (batch,M,K) or (batch,K,M), b (batch,K,N) or (batch,N,K): A; row pitches lda, ldb
// out     c (batch,M,N) A or f32, row pitch ldc
// launch  grid (min(ceil(batch*M*N / 256), 2^20)), block (256)
// needs   nothing
// numeric f32 sums in the order of k; one rounding to the output type, after the addition to c; same
//         input, same bits
// cost    2*batch*M*N*K flop; batch*(M*K + K*N + M*N) elements, but K times as much is asked of the caches
// twin    crates/ltm-kernels/src/ops/matmul/reference.rs
// source  the loops of reference.rs
// budget  regs 40; threads 256; smem 0; sass -
#include "common/types.cuh"

template <typename A, typename C>
__device__ void matmul_naive(C *c, const A *a, const A *b, int m, int n, int k, int batch, int lda,
                             int ldb, int ldc, long long stride_a, long long stride_b,
                             long long stride_c, int a_transposed, int b_transposed,
                             int accumulate) {
    long long count = (long long)batch * m * n;
    long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    for (long long i = first; i < count; i += (long long)gridDim.x * blockDim.x) {
        int column = (int)(i % n), row = (int)(i / n % m), z = (int)(i / n / m);
        const A *a_m = a + z * stride_a + (a_transposed ? (long long)row : (long long)row * lda);
        const A *b_n = b + z * stride_b + (b_transposed ? (long long)column * ldb : column);
        long long step_a = a_transposed ? lda : 1, step_b = b_transposed ? 1 : ldb;
        float sum = 0.0f;
        for (int t = 0; t < k; t++) sum += to_f32(a_m[t * step_a]) * to_f32(b_n[t * step_b]);
        C *c_mn = c + z * stride_c + (long long)row * ldc + column;
        *c_mn = from_f32<C>(accumulate ? to_f32(*c_mn) + sum : sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
matmul_fwd_f32_v1(float *c, const float *a, const float *b, int m, int n, int k, int batch, int lda,
                  int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c,
                  int a_transposed, int b_transposed, int accumulate) {
    matmul_naive(c, a, b, m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c, a_transposed,
                 b_transposed, accumulate);
}

extern "C" __global__ void __launch_bounds__(256)
matmul_fwd_bf16_v1(bf16 *c, const bf16 *a, const bf16 *b, int m, int n, int k, int batch, int lda,
                   int ldb, int ldc, long long stride_a, long long stride_b, long long stride_c,
                   int a_transposed, int b_transposed, int accumulate) {
    matmul_naive(c, a, b, m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c, a_transposed,
                 b_transposed, accumulate);
}

extern "C" __global__ void __launch_bounds__(256)
matmul_fwd_f32out_bf16_v1(float *c, const bf16 *a, const bf16 *b, int m, int n, int k, int batch,
                          int lda, int ldb, int ldc, long long stride_a, long long stride_b,
                          long long stride_c, int a_transposed, int b_transposed, int accumulate) {
    matmul_naive(c, a, b, m, n, k, batch, lda, ldb, ldc, stride_a, stride_b, stride_c, a_transposed,
                 b_transposed, accumulate);
}
