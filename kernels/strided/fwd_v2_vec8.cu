// strided / forward / v2: eight elements per thread
// math    out[i0,i1,i2,i3] = x[i0*s0 + i1*s1 + i2*s2 + i3*s3]: a transposition, or a repetition where a stride is 0
// in      x A
// out     out (e0,e1,e2,e3) A, n elements
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   [P1] the innermost extent % 8 == 0   [P2] the innermost stride is 0, or 1 with the others % 8 == 0
//         (by Buffer: pointers 16-byte aligned)
// numeric a copy
// cost    0 flop; n elements and those of x
// twin    crates/ltm-kernels/src/ops/strided/reference.rs
// source  a copy
// vs v1   16-byte stores and, where the row is not repeated, loads
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "common/strides.cuh"

template <typename A>
__device__ void gather(A *out, const A *x, long long n, int e1, int e2, int e3, long long s0,
                       long long s1, long long s2, long long s3) {
    for (long long i = 8 * grid_thread(); i < n; i += 8 * grid_threads()) {
        const A *source = x + Indices(i, e1, e2, e3).at(s0, s1, s2, s3);
        float eight[8];
        if (s3) {
            load8(eight, source);
        } else {
            float repeated = to_f32(*source);
#pragma unroll
            for (int e = 0; e < 8; e++) eight[e] = repeated;
        }
        store8(out + i, eight);
    }
}

extern "C" __global__ void __launch_bounds__(256)
strided_fwd_f32_v2(float *out, const float *x, long long n, int e1, int e2, int e3, long long s0,
                    long long s1, long long s2, long long s3) {
    gather(out, x, n, e1, e2, e3, s0, s1, s2, s3);
}

extern "C" __global__ void __launch_bounds__(256)
strided_fwd_bf16_v2(bf16 *out, const bf16 *x, long long n, int e1, int e2, int e3, long long s0,
                    long long s1, long long s2, long long s3) {
    gather(out, x, n, e1, e2, e3, s0, s1, s2, s3);
}
