// reduce / sum over an axis / v2: a block's rows of threads share the axis
// math    out[o,i] = sum_n x[o,n,i]
// in      x (outer,n,inner) A
// out     out (outer,inner) A, or f32
// launch  grid (outer*ceil(inner/columns)), block (256), as 256/columns rows of `columns` threads, a power of 2
// needs   nothing
// numeric f64 sums: a thread's share in order, then a tree over the block's rows; one rounding to the output
//         type; same input, same bits
// cost    outer*n*inner flop; outer*(n + 1)*inner elements
// twin    crates/ltm-kernels/src/ops/reduce/reference.rs
// source  plain loops
// vs v1   256 threads share a long axis; neighbouring threads read neighbouring elements
// budget  regs 48; threads 256; smem 2048; sass -
#include "common/map.cuh"

template <typename A, typename C>
__device__ void sum_axis(C *out, const A *x, int n, int inner, int columns) {
    __shared__ double sums[256];
    int blocks = (inner + columns - 1) / columns;
    long long o = blockIdx.x / blocks;
    int i = (int)(blockIdx.x % blocks) * columns + (int)(threadIdx.x & (columns - 1));
    double sum = 0.0;
    if (i < inner)
        for (int k = threadIdx.x / columns; k < n; k += 256 / columns)
            sum += (double)to_f32(x[(o * n + k) * inner + i]);
    sums[threadIdx.x] = sum;
    for (int half = 128; half >= columns; half >>= 1) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x < columns && i < inner)
        out[o * inner + i] = from_f32<C>((float)sums[threadIdx.x]);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_f32_v2(float *out, const float *x, int n, int inner, int columns) {
    sum_axis(out, x, n, inner, columns);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_bf16_v2(bf16 *out, const bf16 *x, int n, int inner, int columns) {
    sum_axis(out, x, n, inner, columns);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_axis_f32out_bf16_v2(float *out, const bf16 *x, int n, int inner, int columns) {
    sum_axis(out, x, n, inner, columns);
}
