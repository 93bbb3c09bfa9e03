// softmax / backward / v1: one thread per row
// math    dx[r,:] = out[r,:] * (dout[r,:] - sum_c dout[r,c]*out[r,c])
// in      dout, out (rows,C) A
// out     dx (rows,C) A
// launch  grid (min(ceil(rows/256), 2^14)), block (256)
// needs   nothing
// numeric f32 sums in order; same input, same bits
// cost    4*rows*C flop; 3*rows*C elements
// twin    crates/ltm-kernels/src/ops/softmax/reference.rs
// source  plain loops
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void gradient(A *dx, const A *dout, const A *out, int rows, int C) {
    for (long long r = grid_thread(); r < rows; r += grid_threads()) {
        const A *dout_r = dout + r * C, *out_r = out + r * C;
        float sum = 0.f;
        for (int c = 0; c < C; c++) sum += to_f32(dout_r[c]) * to_f32(out_r[c]);
        for (int c = 0; c < C; c++)
            dx[r * C + c] = from_f32<A>(to_f32(out_r[c]) * (to_f32(dout_r[c]) - sum));
    }
}

extern "C" __global__ void __launch_bounds__(256)
softmax_bwd_f32_v1(float *dx, const float *dout, const float *out, int rows, int C) {
    gradient(dx, dout, out, rows, C);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_bwd_bf16_v1(bf16 *dx, const bf16 *dout, const bf16 *out, int rows, int C) {
    gradient(dx, dout, out, rows, C);
}
