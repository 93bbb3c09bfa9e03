// rms_norm / backward / v3: one block per row, which stays in its registers
// math    with i = 1/sqrt(mean(x^2) + eps): dx = i*(weight*dout - x*i^2*mean(weight*dout*x)) + dresidual,
//         dweight = sum over rows of dout*x*i
// in      dout, x, dresidual (rows,C) A, dresidual may be null; weight (C) f32
// out     dx (rows,C) A; partials (ceil(rows/rows_per_block),C) f32, which rms_norm_bwd_partials adds up
// launch  dx: grid (rows); weight: grid (ceil(rows/rows_per_block)); block (256)
// needs   [P1] C % 8 == 0   [P2] C <= 8192   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums; dweight: a block's rows in order, blocks in order; same input, same bits
// cost    12*rows*C flop; 3*rows*C elements, 2*rows*C for dweight
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// vs v2   rows up to 8192 wide; a column of dweight has one thread, so that no shared memory adds it up
// budget  regs 128; threads 256; smem 32; sass -
#include "rms_norm/row.cuh"

template <typename A>
__device__ void rms_norm_dweight_block(float *partials, const A *dout, const A *x, float eps,
                                       int rows, int n_columns, int rows_per_block) {
    float total[CHUNKS][8] = {};
    add_dweight<256>(total, dout, x, eps, rows, n_columns, rows_per_block);
#pragma unroll
    for (int k = 0; k < CHUNKS; k++) {
        int c = column<256>(k);
        if (c < n_columns) store8(partials + (long long)blockIdx.x * n_columns + c, total[k]);
    }
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_f32_v3(float *dx, const float *dout, const float *x, const float *weight,
                    const float *dresidual, float eps, int rows, int c) {
    rms_norm_dx_row<256>(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_bf16_v3(bf16 *dx, const bf16 *dout, const bf16 *x, const float *weight,
                     const bf16 *dresidual, float eps, int rows, int c) {
    rms_norm_dx_row<256>(dx, dout, x, weight, dresidual, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_f32_v3(float *partials, const float *dout, const float *x, float eps, int rows,
                           int c, int rows_per_block) {
    rms_norm_dweight_block(partials, dout, x, eps, rows, c, rows_per_block);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_bwd_weight_bf16_v3(float *partials, const bf16 *dout, const bf16 *x, float eps, int rows,
                            int c, int rows_per_block) {
    rms_norm_dweight_block(partials, dout, x, eps, rows, c, rows_per_block);
}
