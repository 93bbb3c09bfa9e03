// swiglu / backward / v2: eight elements per step
// math    with s = sigmoid(gate): dgate = dout*up*s*(1 + gate*(1 - s)), dup = dout*gate*s
// in      dout, gate, up (n) A
// out     dgate, dup (n) A; either may be null: not wanted
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    11*n flop; 5*n elements
// twin    crates/ltm-kernels/src/ops/swiglu/reference.rs
// source  Shazeer 2020
// vs v1   16-byte loads and stores
// budget  regs 80; threads 256; smem 0; sass -
#include "common/map.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename A>
__device__ void swiglu_grad_eights(A *dgate, A *dup, const A *dout, const A *gate, const A *up,
                                   long long n) {
    A *const outs[2] = {dgate, dup};
    const A *const ins[3] = {dout, gate, up};
    map8(outs, ins, n, [](float (&y)[2], const float (&x)[3]) {
        float s = sigmoid(x[1]);
        y[0] = x[0] * x[2] * s * (1.0f + x[1] * (1.0f - s));
        y[1] = x[0] * x[1] * s;
    });
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_bwd_f32_v2(float *dgate, float *dup, const float *dout, const float *gate, const float *up,
                  long long n) {
    swiglu_grad_eights(dgate, dup, dout, gate, up, n);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_bwd_bf16_v2(bf16 *dgate, bf16 *dup, const bf16 *dout, const bf16 *gate, const bf16 *up,
                  long long n) {
    swiglu_grad_eights(dgate, dup, dout, gate, up, n);
}
