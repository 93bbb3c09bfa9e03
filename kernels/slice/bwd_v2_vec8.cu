// slice / backward / v2: eight elements per thread
// math    dx[b, start + l, :] = dout[b,l,:], zeros elsewhere
// in      dout (B,len,C) A
// out     dx (B,rows,C) A
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
__device__ void slice_rows(A *dx, const A *dout, int b, int rows, int start, int len, int c) {
    long long run = (long long)len * c, whole = (long long)rows * c, n = b * whole;
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        long long at = i % whole - (long long)start * c;
        float eight[8] = {};
        if (at >= 0 && at < run) load8(eight, dout + i / whole * run + at);
        store8(dx + i, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
slice_bwd_f32_v2(float *dx, const float *dout, int b, int rows, int start, int len, int c) {
    slice_rows(dx, dout, b, rows, start, len, c);
}

extern "C" __global__ void __launch_bounds__(256)
slice_bwd_bf16_v2(bf16 *dx, const bf16 *dout, int b, int rows, int start, int len, int c) {
    slice_rows(dx, dout, b, rows, start, len, c);
}
