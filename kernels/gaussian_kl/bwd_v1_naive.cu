// gaussian_kl / backward / v1: one thread per element
// math    dmu = dkl*mu, dlog_var = dkl*(exp(log_var) - 1)/2, dkl that of the row
// in      dkl (rows), mu, log_var (rows,n) f32
// out     dmu, dlog_var (rows,n) f32; either may be null: not wanted
// launch  grid (min(ceil(rows*n/256), 2^14)), block (256)
// needs   nothing
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    5*rows*n flop; 4*rows*n elements
// twin    crates/ltm-kernels/src/ops/gaussian_kl/reference.rs
// source  Kingma & Welling 2014, appendix B
// budget  regs 48; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
gaussian_kl_bwd_f32_v1(float *dmu, float *dlog_var, const float *dkl, const float *mu,
                       const float *log_var, int rows, int n) {
    for (long long i = grid_thread(); i < (long long)rows * n; i += grid_threads()) {
        float d = dkl[i / n];
        if (dmu) dmu[i] = d * mu[i];
        if (dlog_var) dlog_var[i] = d * 0.5f * (expf(log_var[i]) - 1.0f);
    }
}
