// reduce / forward / v2: a tree over blocks
// math    sum_groups: out[g] = sum_i x[g,i]; dot: partials of sum_i x[i]*w[i], then dot_total their sum as f32,
//         total as f64; first_non_finite: the least index of NaN or infinity of each block, n if none, then
//         first_total the least of all
// in      x (groups,n) or (n), w (n) f32
// out     out (groups) or (1) f32; partials (count) f64 or i64 in the workspace; total (1) f64 or i64
// launch  sum_groups: grid (groups); dot, first_non_finite: grid (count); totals: grid (1); block (256)
// needs   nothing
// numeric f64 sums: a thread's share in order, then a tree over its block, then one over the blocks, whose
//         number depends on n alone; same input, same bits
// cost    n flop; n elements
// twin    crates/ltm-kernels/src/ops/reduce/reference.rs
// source  plain loops
// vs v1   every block of the grid reads at once, adjacent threads adjacent elements
// budget  regs 40; threads 256; smem 64; sass -
#include "common/map.cuh"
#include "common/reduce.cuh"

extern "C" __global__ void __launch_bounds__(256)
reduce_sum_groups_f32_v2(float *out, const float *x, int groups, long long n) {
    __shared__ double scratch[8];
    double sum = 0.0;
    for (long long i = threadIdx.x; i < n; i += blockDim.x) sum += (double)x[blockIdx.x * n + i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) out[blockIdx.x] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_dot_f32_v2(double *partials, const float *x, const float *w, long long n) {
    __shared__ double scratch[8];
    double sum = 0.0;
    for (long long i = grid_thread(); i < n; i += grid_threads()) sum += (double)x[i] * (double)w[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partials[blockIdx.x] = sum;
}

__device__ __forceinline__ double total_of_block(const double *partials, int count) {
    __shared__ double scratch[8];
    double sum = 0.0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) sum += partials[i];
    return block_sum(sum, scratch);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_dot_total_f32_v2(float *out, const double *partials, int count) {
    double sum = total_of_block(partials, count);
    if (threadIdx.x == 0) out[0] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_total_f64_v2(double *total, const double *partials, int count) {
    double sum = total_of_block(partials, count);
    if (threadIdx.x == 0) total[0] = sum;
}

// The least index of any thread of the block, in its first thread.
__device__ __forceinline__ long long block_least(long long x) {
    __shared__ long long least[8];
    for (int offset = 16; offset > 0; offset >>= 1)
        x = min(x, __shfl_xor_sync(0xffffffffu, x, offset));
    if ((threadIdx.x & 31) == 0) least[threadIdx.x >> 5] = x;
    __syncthreads();
    for (int w = 0; w < 8; w++) x = min(x, least[w]);
    return x;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_first_non_finite_f32_v2(long long *partials, const float *x, long long n) {
    long long first = n;
    // 0 times a finite number is 0, times any other it is NaN.
    for (long long i = grid_thread(); i < n && first == n; i += grid_threads())
        if (x[i] * 0.0f != 0.0f) first = i;
    first = block_least(first);
    if (threadIdx.x == 0) partials[blockIdx.x] = first;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_first_total_i64_v2(long long *first, const long long *partials, int count) {
    long long x = partials[0];
    for (int i = threadIdx.x; i < count; i += blockDim.x) x = min(x, partials[i]);
    x = block_least(x);
    if (threadIdx.x == 0) first[0] = x;
}
