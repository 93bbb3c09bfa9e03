// gaussian_kl / forward / v2: one block per row
// math    kl[r] = 1/2 sum_i (mu^2 + exp(log_var) - 1 - log_var)
// in      mu, log_var (rows,n) f32
// out     kl (rows) f32
// launch  grid (rows), block (256)
// needs   nothing
// numeric f32 terms, f64 sums: a thread's share in order, then a tree; same input, same bits
// cost    6*rows*n flop; 2*rows*n elements
// twin    crates/ltm-kernels/src/ops/gaussian_kl/reference.rs
// source  Kingma & Welling 2014, appendix B
// vs v1   a row is divided among 256 threads, whose loads are adjacent
// budget  regs 40; threads 256; smem 64; sass -
#include "common/reduce.cuh"

extern "C" __global__ void __launch_bounds__(256)
gaussian_kl_fwd_f32_v2(float *kl, const float *mu, const float *log_var, int rows, int n) {
    __shared__ double scratch[8];
    long long first = (long long)blockIdx.x * n;
    double sum = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        float m = mu[first + i], l = log_var[first + i];
        sum += (double)(m * m + (expf(l) - 1.0f - l));
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) kl[blockIdx.x] = (float)(0.5 * sum);
}
