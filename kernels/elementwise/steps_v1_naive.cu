// elementwise / steps that run without the host / v1: one thread per element
// math    increment: counter[0] += 1; record: history[step, offset + i] = x[i], nothing outside the table
// in      x (n) f32; step (1) i32
// out     counter (1) i32; history (rows,width) f32
// launch  increment: grid (1); record: grid (min(ceil(n/256), 2^14)); block (256)
// needs   nothing
// numeric a copy
// cost    0 flop; 2*n elements
// twin    crates/ltm-kernels/src/ops/elementwise/reference.rs
// source  plain loops
// budget  regs 32; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256) elementwise_increment_i32_v1(int *counter) {
    // Unsigned arithmetic wraps, as on the CPU.
    if (threadIdx.x == 0) *counter = (int)((uint_t)*counter + 1u);
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_record_f32_v1(float *history, const float *x, const int *step, int rows, int width,
                          int offset, int n) {
    int s = *step;
    if (s < 0 || s >= rows) return;
    float *row = history + (long long)s * width + offset;
    for (long long i = grid_thread(); i < n; i += grid_threads()) row[i] = x[i];
}
