// elementwise / forward / v2: eight elements per step
// math    add: out = a + b; axpy: y += alpha*x; fill: out = value; scale_rows: out[r,:] = s[r]*x[r,:];
//         outer_scale: out = s[0]*w
// in      a, b, x, w (n) A; s (rows) or (1) f32
// out     out, y (n) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   [P1] C % 8 == 0: scale_rows   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    n to 2*n flop; n to 3*n elements
// twin    crates/ltm-kernels/src/ops/elementwise/reference.rs
// source  plain loops
// vs v1   16-byte loads and stores
// budget  regs 72; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
elementwise_add_f32_v2(float *out, const float *a, const float *b, long long n) {
    float *const outs[1] = {out};
    const float *const ins[2] = {a, b};
    map8(outs, ins, n, [](float (&y)[1], const float (&x)[2]) { y[0] = x[0] + x[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_axpy_f32_v2(float *y, const float *x, float alpha, long long n) {
    float *const outs[1] = {y};
    const float *const ins[2] = {y, x};
    map8(outs, ins, n, [alpha](float (&y)[1], const float (&x)[2]) { y[0] = x[0] + alpha * x[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_fill_f32_v2(float *out, float value, long long n) {
    float eight[8] = {value, value, value, value, value, value, value, value};
    for (long long i = 8 * grid_thread(); i + 8 <= n; i += 8 * grid_threads()) store8(out + i, eight);
    for (long long i = n / 8 * 8 + grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<float>(value);
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_outer_scale_f32_v2(float *out, const float *w, const float *s, long long n) {
    float scale = s[0];
    float *const outs[1] = {out};
    const float *const ins[1] = {w};
    map8(outs, ins, n, [scale](float (&y)[1], const float (&x)[1]) { y[0] = scale * x[0]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_scale_rows_f32_v2(float *out, const float *x, const float *s, int rows, int c) {
    for (long long i = 8 * grid_thread(); i < (long long)rows * c; i += 8 * grid_threads()) {
        float eight[8], scale = s[i / c];
        load8(eight, x + i);
#pragma unroll
        for (int e = 0; e < 8; e++) eight[e] *= scale;
        store8(out + i, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_add_bf16_v2(bf16 *out, const bf16 *a, const bf16 *b, long long n) {
    bf16 *const outs[1] = {out};
    const bf16 *const ins[2] = {a, b};
    map8(outs, ins, n, [](float (&y)[1], const float (&x)[2]) { y[0] = x[0] + x[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_axpy_bf16_v2(bf16 *y, const bf16 *x, float alpha, long long n) {
    bf16 *const outs[1] = {y};
    const bf16 *const ins[2] = {y, x};
    map8(outs, ins, n, [alpha](float (&y)[1], const float (&x)[2]) { y[0] = x[0] + alpha * x[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_fill_bf16_v2(bf16 *out, float value, long long n) {
    float eight[8] = {value, value, value, value, value, value, value, value};
    for (long long i = 8 * grid_thread(); i + 8 <= n; i += 8 * grid_threads()) store8(out + i, eight);
    for (long long i = n / 8 * 8 + grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<bf16>(value);
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_outer_scale_bf16_v2(bf16 *out, const bf16 *w, const float *s, long long n) {
    float scale = s[0];
    bf16 *const outs[1] = {out};
    const bf16 *const ins[1] = {w};
    map8(outs, ins, n, [scale](float (&y)[1], const float (&x)[1]) { y[0] = scale * x[0]; });
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_scale_rows_bf16_v2(bf16 *out, const bf16 *x, const float *s, int rows, int c) {
    for (long long i = 8 * grid_thread(); i < (long long)rows * c; i += 8 * grid_threads()) {
        float eight[8], scale = s[i / c];
        load8(eight, x + i);
#pragma unroll
        for (int e = 0; e < 8; e++) eight[e] *= scale;
        store8(out + i, eight);
    }
}
