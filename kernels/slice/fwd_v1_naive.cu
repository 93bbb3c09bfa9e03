// slice / forward / v1: one thread per element
// math    out[b,l,:] = x[b, start + l, :]
// in      x (B,rows,C) A
// out     out (B,len,C) A
// launch  grid (min(ceil(n/256), 2^14)), block (256), n the elements written
// needs   nothing
// numeric a copy
// cost    0 flop; reads and writes B*len*C elements, backward writes B*rows*C
// twin    crates/ltm-kernels/src/ops/slice/reference.rs
// source  a copy
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void slice_rows(A *out, const A *x, int b, int rows, int start, int len, int c) {
    long long run = (long long)len * c, n = b * run;
    for (long long i = grid_thread(); i < n; i += grid_threads()) {
        long long source = i / run * rows * c + (long long)start * c + i % run;
        out[i] = x[source];
    }
}

extern "C" __global__ void __launch_bounds__(256)
slice_fwd_f32_v1(float *out, const float *x, int b, int rows, int start, int len, int c) {
    slice_rows(out, x, b, rows, start, len, c);
}

extern "C" __global__ void __launch_bounds__(256)
slice_fwd_bf16_v1(bf16 *out, const bf16 *x, int b, int rows, int start, int len, int c) {
    slice_rows(out, x, b, rows, start, len, c);
}
