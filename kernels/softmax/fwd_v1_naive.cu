// softmax / forward / v1: one thread per row
// math    out[r,:] = exp(x[r,:] - max_c x[r,c]) / sum_c exp(x[r,c] - max)
// in      x (rows,C) A
// out     out (rows,C) A
// launch  grid (min(ceil(rows/256), 2^14)), block (256)
// needs   nothing
// numeric f32 sums in order; same input, same bits
// cost    5*rows*C flop; 2*rows*C elements
// twin    crates/ltm-kernels/src/ops/softmax/reference.rs
// source  plain loops
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A> __device__ void normalise(A *out, const A *x, int rows, int C) {
    for (long long r = grid_thread(); r < rows; r += grid_threads()) {
        const A *x_r = x + r * C;
        float max = __int_as_float(0xff800000), sum = 0.f;
        for (int c = 0; c < C; c++) max = fmaxf(max, to_f32(x_r[c]));
        for (int c = 0; c < C; c++) sum += expf(to_f32(x_r[c]) - max);
        for (int c = 0; c < C; c++)
            out[r * C + c] = from_f32<A>(expf(to_f32(x_r[c]) - max) / sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
softmax_fwd_f32_v1(float *out, const float *x, int rows, int C) {
    normalise(out, x, rows, C);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_fwd_bf16_v1(bf16 *out, const bf16 *x, int rows, int C) {
    normalise(out, x, rows, C);
}
