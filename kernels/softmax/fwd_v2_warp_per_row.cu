// softmax / forward / v2: one warp per row
// math    out[r,:] = exp(x[r,:] - max_c x[r,c]) / sum_c exp(x[r,c] - max)
// in      x (rows,C) A
// out     out (rows,C) A
// launch  grid (min(ceil(rows/8), 2^14)), block (256)
// needs   nothing
// numeric f32 sums: a lane's share in order, then a tree over the warp; same input, same bits
// cost    5*rows*C flop; 2*rows*C elements
// twin    crates/ltm-kernels/src/ops/softmax/reference.rs
// source  plain loops
// vs v1   neighbouring lanes read neighbouring elements, and a row's passes after the first find it in cache
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "common/reduce.cuh"

template <typename A> __device__ void normalise(A *out, const A *x, int rows, int C) {
    int lane = threadIdx.x & 31;
    for (long long r = grid_thread() >> 5; r < rows; r += grid_threads() >> 5) {
        const A *x_r = x + r * C;
        float max = __int_as_float(0xff800000), sum = 0.f;
        for (int c = lane; c < C; c += 32) max = fmaxf(max, to_f32(x_r[c]));
        max = warp_max(max);
        for (int c = lane; c < C; c += 32) sum += expf(to_f32(x_r[c]) - max);
        float scale = 1.f / warp_sum(sum);
        for (int c = lane; c < C; c += 32)
            out[r * C + c] = from_f32<A>(expf(to_f32(x_r[c]) - max) * scale);
    }
}

extern "C" __global__ void __launch_bounds__(256)
softmax_fwd_f32_v2(float *out, const float *x, int rows, int C) {
    normalise(out, x, rows, C);
}

extern "C" __global__ void __launch_bounds__(256)
softmax_fwd_bf16_v2(bf16 *out, const bf16 *x, int rows, int C) {
    normalise(out, x, rows, C);
}
