// swiglu / forward / v2: eight elements per step
// math    out = gate * sigmoid(gate) * up
// in      gate, up (n) A
// out     out (n) A
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    5*n flop; 3*n elements
// twin    crates/ltm-kernels/src/ops/swiglu/reference.rs
// source  Shazeer 2020
// vs v1   16-byte loads and stores
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename A>
__device__ void swiglu_eights(A *out, const A *gate, const A *up, long long n) {
    A *const outs[1] = {out};
    const A *const ins[2] = {gate, up};
    map8(outs, ins, n, [](float (&y)[1], const float (&x)[2]) { y[0] = x[0] * sigmoid(x[0]) * x[1]; });
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_fwd_f32_v2(float *out, const float *gate, const float *up, long long n) {
    swiglu_eights(out, gate, up, n);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_fwd_bf16_v2(bf16 *out, const bf16 *gate, const bf16 *up, long long n) {
    swiglu_eights(out, gate, up, n);
}
