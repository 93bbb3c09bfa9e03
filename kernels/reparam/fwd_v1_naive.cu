// reparam / forward / v1: one thread per element
// math    z = mu + noise * exp(log_var/2)
// in      mu, log_var, noise (n) f32
// out     z (n) f32
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    4*n flop; 4*n elements
// twin    crates/ltm-kernels/src/ops/reparam/reference.rs
// source  Kingma & Welling 2014, section 2.4
// budget  regs 40; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
reparam_fwd_f32_v1(float *z, const float *mu, const float *log_var, const float *noise,
                   long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        z[i] = mu[i] + noise[i] * expf(0.5f * log_var[i]);
}
