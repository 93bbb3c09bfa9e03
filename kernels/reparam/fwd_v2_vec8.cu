// reparam / forward / v2: eight elements per step
// math    z = mu + noise * exp(log_var/2)
// in      mu, log_var, noise (n) f32
// out     z (n) f32
// launch  grid (min(ceil(n/2048), 2^14)), block (256)
// needs   nothing   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    4*n flop; 4*n elements
// twin    crates/ltm-kernels/src/ops/reparam/reference.rs
// source  Kingma & Welling 2014, section 2.4
// vs v1   16-byte loads and stores
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
reparam_fwd_f32_v2(float *z, const float *mu, const float *log_var, const float *noise,
                   long long n) {
    float *const outs[1] = {z};
    const float *const ins[3] = {mu, log_var, noise};
    map8(outs, ins, n, [](float (&y)[1], const float (&x)[3]) { y[0] = x[0] + x[2] * expf(0.5f * x[1]); });
}
