// slice / place / v2: eight elements per thread
// math    out[b, start + l, :] = x[b,l,:]; the other rows of out stay
// in      x (B,len,C) A
// out     out (B,rows,C) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256), n the elements of x
// needs   [P1] C % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric a copy
// cost    0 flop; reads and writes B*len*C elements
// twin    crates/ltm-kernels/src/ops/slice/reference.rs
// source  a copy
// vs v1   16-byte loads and stores
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

template <typename A>
__device__ void place_rows(A *out, const A *x, int b, int rows, int start, int len, int c) {
    long long run = (long long)len * c, n = b * run;
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        long long target = i / run * rows * c + (long long)start * c + i % run;
        float eight[8];
        load8(eight, x + i);
        store8(out + target, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
slice_place_f32_v2(float *out, const float *x, int b, int rows, int start, int len, int c) {
    place_rows(out, x, b, rows, start, len, c);
}

extern "C" __global__ void __launch_bounds__(256)
slice_place_bf16_v2(bf16 *out, const bf16 *x, int b, int rows, int start, int len, int c) {
    place_rows(out, x, b, rows, start, len, c);
}
