// binary / forward / v2: eight elements per thread
// math    out[i] = a[i] op b[i], op one of + - * /, i over four extents; an operand that lacks an extent is
//         repeated along it: its stride there is 0
// in      a, b (e0,e1,e2,e3) A, without some of the extents
// out     out (e0,e1,e2,e3) A, n elements
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   [P1] the innermost extent % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    n flop; n elements and those of a and b
// twin    crates/ltm-kernels/src/ops/binary/reference.rs
// source  plain loops; the rule of repetition is NumPy's
// vs v1   16-byte loads and stores, one division of the index per eight elements
// budget  regs 64; threads 256; smem 0; sass -
#include "binary/math.cuh"
#include "common/map.cuh"
#include "common/strides.cuh"

// Eight elements of a row, or eight times the one that the row has.
template <typename A>
__device__ __forceinline__ void load_row(float (&x)[8], const A *p, long long stride) {
    if (stride) return load8(x, p);
    float repeated = to_f32(*p);
#pragma unroll
    for (int e = 0; e < 8; e++) x[e] = repeated;
}

template <typename A>
__device__ void apply(A *out, const A *a, const A *b, int op, long long n, int e1, int e2, int e3,
                      long long a0, long long a1, long long a2, long long a3, long long b0,
                      long long b1, long long b2, long long b3) {
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        Indices at(i, e1, e2, e3);
        float x[8], y[8];
        load_row(x, a + at.at(a0, a1, a2, a3), a3);
        load_row(y, b + at.at(b0, b1, b2, b3), b3);
#pragma unroll
        for (int e = 0; e < 8; e++) x[e] = binary_value(op, x[e], y[e]);
        store8(out + i, x);
    }
}

extern "C" __global__ void __launch_bounds__(256)
binary_fwd_f32_v2(float *out, const float *a, const float *b, int op, long long n, int e1, int e2, int e3,
                   long long a0, long long a1, long long a2, long long a3, long long b0,
                   long long b1, long long b2, long long b3) {
    apply(out, a, b, op, n, e1, e2, e3, a0, a1, a2, a3, b0, b1, b2, b3);
}

extern "C" __global__ void __launch_bounds__(256)
binary_fwd_bf16_v2(bf16 *out, const bf16 *a, const bf16 *b, int op, long long n, int e1, int e2, int e3,
                   long long a0, long long a1, long long a2, long long a3, long long b0,
                   long long b1, long long b2, long long b3) {
    apply(out, a, b, op, n, e1, e2, e3, a0, a1, a2, a3, b0, b1, b2, b3);
}
