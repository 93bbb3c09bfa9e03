// strided / forward / v1: one thread per element
// math    out[i0,i1,i2,i3] = x[i0*s0 + i1*s1 + i2*s2 + i3*s3]: a transposition, or a repetition where a stride is 0
// in      x A
// out     out (e0,e1,e2,e3) A, n elements
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric a copy
// cost    0 flop; n elements and those of x
// twin    crates/ltm-kernels/src/ops/strided/reference.rs
// source  a copy
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"
#include "common/strides.cuh"

template <typename A>
__device__ void gather(A *out, const A *x, long long n, int e1, int e2, int e3, long long s0,
                       long long s1, long long s2, long long s3) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = x[Indices(i, e1, e2, e3).at(s0, s1, s2, s3)];
}

extern "C" __global__ void __launch_bounds__(256)
strided_fwd_f32_v1(float *out, const float *x, long long n, int e1, int e2, int e3, long long s0,
                    long long s1, long long s2, long long s3) {
    gather(out, x, n, e1, e2, e3, s0, s1, s2, s3);
}

extern "C" __global__ void __launch_bounds__(256)
strided_fwd_bf16_v1(bf16 *out, const bf16 *x, long long n, int e1, int e2, int e3, long long s0,
                    long long s1, long long s2, long long s3) {
    gather(out, x, n, e1, e2, e3, s0, s1, s2, s3);
}
