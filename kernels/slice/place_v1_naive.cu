// slice / place / v1: one thread per element
// math    out[b, start + l, :] = x[b,l,:]; the other rows of out stay
// in      x (B,len,C) A
// out     out (B,rows,C) A
// launch  grid (min(ceil(n/256), 2^14)), block (256), n the elements of x
// needs   nothing
// numeric a copy
// cost    0 flop; reads and writes B*len*C elements
// twin    crates/ltm-kernels/src/ops/slice/reference.rs
// source  a copy
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void place_rows(A *out, const A *x, int b, int rows, int start, int len, int c) {
    long long run = (long long)len * c, n = b * run;
    for (long long i = grid_thread(); i < n; i += grid_threads()) {
        long long target = i / run * rows * c + (long long)start * c + i % run;
        out[target] = x[i];
    }
}

extern "C" __global__ void __launch_bounds__(256)
slice_place_f32_v1(float *out, const float *x, int b, int rows, int start, int len, int c) {
    place_rows(out, x, b, rows, start, len, c);
}

extern "C" __global__ void __launch_bounds__(256)
slice_place_bf16_v1(bf16 *out, const bf16 *x, int b, int rows, int start, int len, int c) {
    place_rows(out, x, b, rows, start, len, c);
}
