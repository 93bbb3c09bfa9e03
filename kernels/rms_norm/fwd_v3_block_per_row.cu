// rms_norm / forward / v3: one block per row, which stays in its registers
// math    out[r,:] = x[r,:] * weight / sqrt(mean(x[r,:]^2) + eps); with a residual, sum = x +
//         residual is rounded, written, and used in place of x
// in      x, residual (rows,C) A; weight (C) f32
// out     out, sum (rows,C) A
// launch  grid (rows), block (256)
// needs   [P1] C % 8 == 0   [P2] C <= 8192   (by Buffer: pointers 16-byte aligned)
// numeric f32 sums, a thread's share in order, then a tree over lanes, then over warps; same input, same bits
// cost    4*rows*C flop; 2*rows*C elements, 4*rows*C with a residual
// twin    crates/ltm-kernels/src/ops/rms_norm/reference.rs
// source  Zhang & Sennrich 2019
// vs v2   rows up to 8192 wide, at the price of two barriers a row
// budget  regs 80; threads 256; smem 32; sass -
#include "rms_norm/row.cuh"

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_f32_v3(float *out, const float *x, const float *weight, float eps, int rows, int c) {
    rms_norm_row<256, float, false>(nullptr, out, x, nullptr, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_bf16_v3(bf16 *out, const bf16 *x, const float *weight, float eps, int rows, int c) {
    rms_norm_row<256, bf16, false>(nullptr, out, x, nullptr, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_f32_v3(float *sum, float *out, const float *x, const float *residual,
                        const float *weight, float eps, int rows, int c) {
    rms_norm_row<256, float, true>(sum, out, x, residual, weight, eps, rows, c);
}

extern "C" __global__ void __launch_bounds__(256)
rms_norm_fwd_add_bf16_v3(bf16 *sum, bf16 *out, const bf16 *x, const bf16 *residual,
                         const float *weight, float eps, int rows, int c) {
    rms_norm_row<256, bf16, true>(sum, out, x, residual, weight, eps, rows, c);
}
