// rms_norm / backward / v1: one thread per row for dx, one per column for dweight
// math    with i = 1/sqrt(mean(x^2) + eps): dx = i*(weight*dout - x*i^2*mean(weight*dout*x)) + dresidual,
//         dweight = sum over rows of dout*x*i
// in      dout, x, dresidual (rows,C) A, dresidual may be null; weight (C) f32
// out     dx (rows,C) A; dweight (C) f32; inverse (rows) f32, scratch from one launch to the next
// launch  grid (ceil(rows/256)), for dweight grid (ceil(C/256)); block (256)
// needs   nothing
// numeric f32 sums in order; same input, same bits
// cost    12*rows*C flop; 3*rows*C elements
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// budget  regs 48; threads 256; smem 0; sass -
#include "common/types.cuh"

template <typename A> __device__ float inverse_rms(const A *x, float eps, int n_columns) {
    float squares = 0.0f;
    for (int c = 0; c < n_columns; c++) squares += to_f32(x[c]) * to_f32(x[c]);
    return 1.0f / sqrtf(squares / (float)n_columns + eps);
}

template <typename A>
__device__ void rms_norm_dx_naive(A *dx, const A *dout, const A *x, const float *weight,
                                  const A *dresidual, float eps, int rows, int n_columns) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    long long first = (long long)r * n_columns;
    float inverse = inverse_rms(x + first, eps, n_columns), dot = 0.0f;
    for (int c = 0; c < n_columns; c++)
        dot += to_f32(dout[first + c]) * weight[c] * to_f32(x[first + c]);
    float pull = dot / (float)n_columns * inverse * inverse;
    for (int c = 0; c < n_columns; c++) {
        long long i = first + c;
        float d = inverse * (weight[c] * to_f32(dout[i]) - to_f32(x[i]) * pull);
        dx[i] = from_f32<A>(dresidual ? d + to_f32(dresidual[i]) : d);
    }
}

template <typename A>
__device__ void rms_norm_inverse_naive(float *inverse, const A *x, float eps, int rows,
                                       int n_columns) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    inverse[r] = inverse_rms(x + (long long)r * n_columns, eps, n_columns);
}

template <typename A>
__device__ void rms_norm_dweight_naive(float *dweight, const float *inverse, const A *dout,
                                       const A *x, int rows, int n_columns) {
    int c = blockIdx.x * blockDim.x + threadIdx.x;
    if (c >= n_columns) return;
    float sum = 0.0f;
    for (int r = 0; r < rows; r++) {
        long long i = (long long)r * n_columns + c;
        sum += to_f32(dout[i]) * to_f32(x[i]) * inverse[r];
    }
    dweight[c] = sum;
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_f32_v1(float *dx, const float *dout, const float *x, const float *weight,
                    const float *dresidual, float eps, int rows, int c) {
    rms_norm_dx_naive(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_bf16_v1(bf16 *dx, const bf16 *dout, const bf16 *x, const float *weight,
                     const bf16 *dresidual, float eps, int rows, int c) {
    rms_norm_dx_naive(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_inverse_f32_v1(float *inverse, const float *x, float eps, int rows, int c) {
    rms_norm_inverse_naive(inverse, x, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_inverse_bf16_v1(float *inverse, const bf16 *x, float eps, int rows, int c) {
    rms_norm_inverse_naive(inverse, x, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_f32_v1(float *dweight, const float *inverse, const float *dout, const float *x,
                           int rows, int c) {
    rms_norm_dweight_naive(dweight, inverse, dout, x, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_bf16_v1(float *dweight, const float *inverse, const bf16 *dout, const bf16 *x,
                            int rows, int c) {
    rms_norm_dweight_naive(dweight, inverse, dout, x, rows, c);
}
