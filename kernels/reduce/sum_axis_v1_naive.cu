// reduce / sum over an axis / v1: one thread per sum
// math    out[o,i] = sum_n x[o,n,i]
// in      x (outer,n,inner) A
// out     out (outer,inner) A, or f32
// launch  grid (min(ceil(outer*inner/256), 2^14)), block (256)
// needs   nothing
// numeric f64 sums in order, one rounding to the output type; same input, same bits
// cost    outer*n*inner flop; outer*(n + 1)*inner elements
// twin    crates/ltm-kernels/src/ops/reduce/reference.rs
// source  plain loops
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A, typename C>
__device__ void sum_axis(C *out, const A *x, int outer, int n, int inner) {
    long long sums = (long long)outer * inner;
    for (long long s = grid_thread(); s < sums; s += grid_threads()) {
        const A *first = x + s / inner * n * inner + s % inner;
        double sum = 0.0;
        for (int k = 0; k < n; k++) sum += (double)to_f32(first[(long long)k * inner]);
        out[s] = from_f32<C>((float)sum);
    }
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_f32_v1(float *out, const float *x, int outer, int n, int inner) {
    sum_axis(out, x, outer, n, inner);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_bf16_v1(bf16 *out, const bf16 *x, int outer, int n, int inner) {
    sum_axis(out, x, outer, n, inner);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_f32out_bf16_v1(float *out, const bf16 *x, int outer, int n, int inner) {
    sum_axis(out, x, outer, n, inner);
}
