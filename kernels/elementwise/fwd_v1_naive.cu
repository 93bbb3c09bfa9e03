// elementwise / forward / v1: one thread per element
// math    add: out = a + b; axpy: y += alpha*x; fill: out = value; scale_rows: out[r,:] = s[r]*x[r,:];
//         outer_scale: out = s[0]*w
// in      a, b, x, w (n) A; s (rows) or (1) f32
// out     out, y (n) A
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    n to 2*n flop; n to 3*n elements
// twin    crates/ltm-kernels/src/ops/elementwise/reference.rs
// source  plain loops
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
elementwise_add_f32_v1(float *out, const float *a, const float *b, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<float>(to_f32(a[i]) + to_f32(b[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_axpy_f32_v1(float *y, const float *x, float alpha, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        y[i] = from_f32<float>(to_f32(y[i]) + alpha * to_f32(x[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_fill_f32_v1(float *out, float value, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads()) out[i] = from_f32<float>(value);
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_outer_scale_f32_v1(float *out, const float *w, const float *s, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<float>(s[0] * to_f32(w[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_scale_rows_f32_v1(float *out, const float *x, const float *s, int rows, int c) {
    for (long long i = grid_thread(); i < (long long)rows * c; i += grid_threads())
        out[i] = from_f32<float>(s[i / c] * to_f32(x[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_add_bf16_v1(bf16 *out, const bf16 *a, const bf16 *b, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<bf16>(to_f32(a[i]) + to_f32(b[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_axpy_bf16_v1(bf16 *y, const bf16 *x, float alpha, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        y[i] = from_f32<bf16>(to_f32(y[i]) + alpha * to_f32(x[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_fill_bf16_v1(bf16 *out, float value, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads()) out[i] = from_f32<bf16>(value);
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_outer_scale_bf16_v1(bf16 *out, const bf16 *w, const float *s, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = from_f32<bf16>(s[0] * to_f32(w[i]));
}

extern "C" __global__ void __launch_bounds__(256)
elementwise_scale_rows_bf16_v1(bf16 *out, const bf16 *x, const float *s, int rows, int c) {
    for (long long i = grid_thread(); i < (long long)rows * c; i += grid_threads())
        out[i] = from_f32<bf16>(s[i / c] * to_f32(x[i]));
}
