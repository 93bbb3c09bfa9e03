// slice / forward / v2: eight elements per thread
// math    out[b,l,:] = x[b, start + l, :]
// in      x (B,rows,C) A
// out     out (B,len,C) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256), n the elements written
// needs   [P1] C % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric a copy
// cost    0 flop; reads and writes B*len*C elements, backward writes B*rows*C
// twin    crates/ltm-kernels/src/ops/slice/reference.rs
// source  a copy
// vs v1   16-byte loads and stores
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void slice_rows(A *out, const A *x, int b, int rows, int start, int len, int c) {
    long long run = (long long)len * c, n = b * run;
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        long long source = i / run * rows * c + (long long)start * c + i % run;
        float eight[8];
        load8(eight, x + source);
        store8(out + i, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
slice_fwd_f32_v2(float *out, const float *x, int b, int rows, int start, int len, int c) {
    slice_rows(out, x, b, rows, start, len, c);
}

extern "C" __global__ void __launch_bounds__(256)
slice_fwd_bf16_v2(bf16 *out, const bf16 *x, int b, int rows, int start, int len, int c) {
    slice_rows(out, x, b, rows, start, len, c);
}
