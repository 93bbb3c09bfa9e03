// rms_norm / backward / v2: one warp per row, which stays in its registers
// math    with i = 1/sqrt(mean(x^2) + eps): dx = i*(weight*dout - x*i^2*mean(weight*dout*x)) + dresidual,
//         dweight = sum over rows of dout*x*i
// in      dout, x, dresidual (rows,C) A, dresidual may be null; weight (C) f32
// out     dx (rows,C) A; dweight (C) f32; partials (ceil(rows/rows_per_block),C) f32, scratch
// launch  dx: grid (ceil(rows/8)); weight: grid (ceil(rows/rows_per_block)), dynamic smem 8*C*4
//         bytes; partials: grid (ceil(C/256)); block (256)
// needs   [P1] C % 8 == 0   [P2] C <= 1024   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums; dweight: a warp's rows in order, warps in order, blocks in order; same input,
//         same bits
// cost    12*rows*C flop; 3*rows*C elements, 2*rows*C for dweight
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// vs v1   each element is read once, 16 bytes per lane; dweight sums blocks of rows side by side
// budget  regs 128; threads 256; smem 32768; sass -
#include "rms_norm/row.cuh"

template <typename A>
__device__ void rms_norm_dweight_block(float *partials, const A *dout, const A *x, float eps,
                                       int rows, int n_columns, int rows_per_block) {
    extern __shared__ float4 shared[];
    float *sums = (float *)shared;
    float total[CHUNKS][8] = {};
    add_dweight<32>(total, dout, x, eps, rows, n_columns, rows_per_block);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<32>(k);
        if (c < n_columns) store8(sums + threadIdx.x / 32 * n_columns + c, total[k]);
    }
    __syncthreads();
    for (int c = threadIdx.x; c < n_columns; c += blockDim.x) {
        float sum = 0.0f;
        for (int w = 0; w < 8; w++) sum += sums[w * n_columns + c];
        partials[(long long)blockIdx.x * n_columns + c] = sum;
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_f32_v2(float *dx, const float *dout, const float *x, const float *weight,
                    const float *dresidual, float eps, int rows, int c) {
    rms_norm_dx_row<32>(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_bf16_v2(bf16 *dx, const bf16 *dout, const bf16 *x, const float *weight,
                     const bf16 *dresidual, float eps, int rows, int c) {
    rms_norm_dx_row<32>(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_f32_v2(float *partials, const float *dout, const float *x, float eps, int rows,
                           int c, int rows_per_block) {
    rms_norm_dweight_block(partials, dout, x, eps, rows, c, rows_per_block);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_bf16_v2(float *partials, const bf16 *dout, const bf16 *x, float eps, int rows,
                            int c, int rows_per_block) {
    rms_norm_dweight_block(partials, dout, x, eps, rows, c, rows_per_block);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_partials_f32_v2(float *dweight, const float *partials, int n_partials, int c) {
    int column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= c) return;
    float sum = 0.0f;
    for (int p = 0; p < n_partials; p++) sum += partials[(long long)p * c + column];
    dweight[column] = sum;
}
