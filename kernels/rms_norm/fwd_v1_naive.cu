// rms_norm / forward / v1: one thread per row
// math    out[r,:] = x[r,:] * weight / sqrt(mean(x[r,:]^2) + eps); with a residual, sum = x +
//         residual is rounded, written, and used in place of x
// in      x, residual (rows,C) A; weight (C) f32
// out     out, sum (rows,C) A
// launch  grid (ceil(rows/256)), block (256)
// needs   nothing
// numeric f32 sums in the order of the columns; same input, same bits
// cost    4*rows*C flop; 2*rows*C elements, 4*rows*C with a residual
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// budget  regs 40; threads 256; smem 0; sass -
#include "common/types.cuh"

template <typename A>
__device__ void rms_norm_row(A *out, const A *x, const float *weight, float eps, int n_columns) {
    float squares = 0.0f;
    for (int c = 0; c < n_columns; c++) squares += to_f32(x[c]) * to_f32(x[c]);
    float inverse = 1.0f / sqrtf(squares / (float)n_columns + eps);
    for (int c = 0; c < n_columns; c++) out[c] = from_f32<A>(to_f32(x[c]) * inverse * weight[c]);
}

template <typename A>
__device__ void rms_norm_naive(A *out, const A *x, const float *weight, float eps, int rows,
                               int n_columns) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    rms_norm_row(out + first, x + first, weight, eps, n_columns);
}

template <typename A>
__device__ void rms_norm_add_naive(A *sum, A *out, const A *x, const A *residual,
                                   const float *weight, float eps, int rows, int n_columns) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    for (int c = 0; c < n_columns; c++)
        sum[first + c] = from_f32<A>(to_f32(x[first + c]) + to_f32(residual[first + c]));
    rms_norm_row(out + first, sum + first, weight, eps, n_columns);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_f32_v1(float *out, const float *x, const float *weight, float eps, int rows, int c) {
    rms_norm_naive(out, x, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_bf16_v1(bf16 *out, const bf16 *x, const float *weight, float eps, int rows, int c) {
    rms_norm_naive(out, x, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_f32_v1(float *sum, float *out, const float *x, const float *residual,
                        const float *weight, float eps, int rows, int c) {
    rms_norm_add_naive(sum, out, x, residual, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_bf16_v1(bf16 *sum, bf16 *out, const bf16 *x, const bf16 *residual,
                         const float *weight, float eps, int rows, int c) {
    rms_norm_add_naive(sum, out, x, residual, weight, eps, rows, c);
}
