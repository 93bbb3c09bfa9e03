// swiglu / forward / v1: one thread per element
// math    out = gate * sigmoid(gate) * up
// in      gate, up (n) A
// out     out (n) A
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    5*n flop; 3*n elements
// twin    crates/ltm-kernels/src/ops/swiglu/reference.rs
// source  Shazeer 2020
// budget  regs 40; threads 256; smem 0; sass -
#include "common/map.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

template <typename A>
__device__ void swiglu_naive(A *out, const A *gate, const A *up, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads()) {
        float g = to_f32(gate[i]);
        out[i] = from_f32<A>(g * sigmoid(g) * to_f32(up[i]));
    }
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_fwd_f32_v1(float *out, const float *gate, const float *up, long long n) {
    swiglu_naive(out, gate, up, n);
}

extern "C" __global__ void __launch_bounds__(256)
swiglu_fwd_bf16_v1(bf16 *out, const bf16 *gate, const bf16 *up, long long n) {
    swiglu_naive(out, gate, up, n);
}
