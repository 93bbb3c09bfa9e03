// gaussian_kl / forward / v1: one thread per row
// math    kl[r] = 1/2 sum_i (mu^2 + exp(log_var) - 1 - log_var)
// in      mu, log_var (rows,n) f32
// out     kl (rows) f32
// launch  grid (ceil(rows/256)), block (256)
// needs   nothing
// numeric f32 terms, f64 sum in order; same input, same bits
// cost    6*rows*n flop; 2*rows*n elements
// twin    crates/ltm-kernels/src/ops/gaussian_kl/reference.rs
// source  Kingma & Welling 2014, appendix B
// budget  regs 40; threads 256; smem 0; sass -
extern "C" __global__ void __launch_bounds__(256)
gaussian_kl_fwd_f32_v1(float *kl, const float *mu, const float *log_var, int rows, int n) {
    int r = blockIdx.x * blockDim.x + threadIdx.x;
    if (r >= rows) return;
    double sum = 0.0;
    for (long long i = (long long)r * n; i < (long long)(r + 1) * n; i++)
        sum += (double)(mu[i] * mu[i] + (expf(log_var[i]) - 1.0f - log_var[i]));
    kl[r] = (float)(0.5 * sum);
}
