// swiglu / backward / v1: one thread per element
// math    with s = sigmoid(gate): dgate = dout*up*s*(1 + gate*(1 - s)), dup = dout*gate*s
// in      dout, gate, up (n) A
// out     dgate, dup (n) A; either may be null: not wanted
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    11*n flop; 5*n elements
// twin    crates/ltm-kernels/src/ops/swiglu/reference.rs
// source  Shazeer 2020
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename A>
__device__ void swiglu_grad_naive(A *dgate, A *dup, const A *dout, const A *gate, const A *up,
                                  long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads()) {
        float d = to_f32(dout[i]), g = to_f32(gate[i]), s = sigmoid(g);
        if (dgate) dgate[i] = from_f32<A>(d * to_f32(up[i]) * s * (1.0f + g * (1.0f - s)));
        if (dup) dup[i] = from_f32<A>(d * g * s);
    }
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_bwd_f32_v1(float *dgate, float *dup, const float *dout, const float *gate, const float *up,
                  long long n) {
    swiglu_grad_naive(dgate, dup, dout, gate, up, n);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_bwd_bf16_v1(bf16 *dgate, bf16 *dup, const bf16 *dout, const bf16 *gate, const bf16 *up,
                  long long n) {
    swiglu_grad_naive(dgate, dup, dout, gate, up, n);
}
