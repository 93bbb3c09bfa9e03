// matmul / forward / v2 and v3: adds up the partial products of a sum that was split over blocks
// math    c[z,m,n] = sum_s partial[z,s,m,n], or c += that
// in      partial (batch,splits,M,N) f32, contiguous
// out     c (batch,M,N) f32 or bf16, row pitch ldc
// launch  grid (ceil(batch*M*N / 256)), block (256)
// needs   nothing
// numeric f32 sums in the order of s; one rounding to the output type, after the addition to c; same
//         input, same bits
// cost    batch*M*N*(splits + 1) elements
// twin    crates/ltm-kernels/src/ops/matmul/reference.rs
// source  split-K as in CUTLASS, without its atomics
// budget  regs 40; threads 256; smem 0; sass -
#include "common/types.cuh"

template <typename C>
__device__ __forceinline__ void sum_splits(C *c, const float *partial, int m, int n, int batch, int ldc,
                                           long long stride_c, int splits, int accumulate) {
    long long size = (long long)m * n, i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size * batch) return;
    long long z = i / size, in_matrix = i % size;
    float sum = 0.0f;
    for (int s = 0; s < splits; s++) sum += partial[(z * splits + s) * size + in_matrix];
    C *at = c + z * stride_c + in_matrix / n * ldc + in_matrix % n;
    *at = from_f32<C>(accumulate ? to_f32(*at) + sum : sum);
}

extern "C" __global__ void __launch_bounds__(256)
matmul_fwd_sum_f32_v2(float *c, const float *partial, int m, int n, int batch, int ldc,
                      long long stride_c, int splits, int accumulate) {
    sum_splits(c, partial, m, n, batch, ldc, stride_c, splits, accumulate);
}

extern "C" __global__ void __launch_bounds__(256)
matmul_fwd_sum_bf16_v2(bf16 *c, const float *partial, int m, int n, int batch, int ldc,
                       long long stride_c, int splits, int accumulate) {
    sum_splits(c, partial, m, n, batch, ldc, stride_c, splits, accumulate);
}
