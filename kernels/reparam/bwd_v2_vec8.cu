// reparam / backward / v2: eight elements per step
// math    dlog_var = dz * noise * exp(log_var/2) / 2
// in      dz, log_var, noise (n) f32
// out     dlog_var (n) f32
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
reparam_bwd_f32_v2(float *dlog_var, const float *dz, const float *log_var, const float *noise,
                   long long n) {
    float *const outs[1] = {dlog_var};
    const float *const ins[3] = {dz, log_var, noise};
    map8(outs, ins, n, [](float (&y)[1], const float (&x)[3]) { y[0] = 0.5f * x[0] * x[2] * expf(0.5f * x[1]); });
}
