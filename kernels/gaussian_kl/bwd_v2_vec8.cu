// gaussian_kl / backward / v2: eight elements per step
// math    dmu = dkl*mu, dlog_var = dkl*(exp(log_var) - 1)/2, dkl that of the row
// in      dkl (rows), mu, log_var (rows,n) f32
// out     dmu, dlog_var (rows,n) f32; either may be null: not wanted
// launch  grid (min(ceil(rows*n/2048), 2^14)), block (256)
// needs   [P1] n % 8 == 0   (by Buffer: pointers 16-byte aligned)
// numeric f32 arithmetic, one rounding to the output type; same input, same bits
// cost    5*rows*n flop; 4*rows*n elements
// twin    crates/ltm-kernels/src/ops/gaussian_kl/reference.rs
// source  Kingma & Welling 2014, appendix B
// vs v1   16-byte loads and stores; one division per eight
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
gaussian_kl_bwd_f32_v2(float *dmu, float *dlog_var, const float *dkl, const float *mu,
                       const float *log_var, int rows, int n) {
    for (long long i = grid_thread(); i < (long long)rows * n / 8; i += grid_threads()) {
        float d = dkl[8 * i / n], m[8], l[8];
        if (dmu) {
            load8(m, mu + 8 * i);
#pragma unroll
            for (int e = 0; e < 8; e++) m[e] *= d;
            store8(dmu + 8 * i, m);
        }
        if (dlog_var) {
            load8(l, log_var + 8 * i);
#pragma unroll
            for (int e = 0; e < 8; e++) l[e] = d * 0.5f * (expf(l[e]) - 1.0f);
            store8(dlog_var + 8 * i, l);
        }
    }
}
