// reduce / forward / v1: one thread per sum
// math    sum_groups: out[g] = sum_i x[g,i]; dot: partials of sum_i x[i]*w[i], then dot_total their sum as f32,
//         total as f64; first_non_finite: the least index of NaN or infinity of each block, n if none, then
//         first_total the least of all
// in      x (groups,n) or (n), w (n) f32
// out     out (groups) or (1) f32; partials (count) f64 or i64 in the workspace; total (1) f64 or i64
// launch  sum_groups: grid (ceil(groups/256)); others: grid (1); block (256), of which one thread works
// needs   nothing
// numeric f64 sums in order; same input, same bits
// cost    n flop; n elements
// twin    crates/ltm-kernels/src/ops/reduce/reference.rs
// source  plain loops
// budget  regs 40; threads 256; smem 0; sass -
extern "C" __global__ void __launch_bounds__(256)
reduce_sum_groups_f32_v1(float *out, const float *x, int groups, long long n) {
    int g = blockIdx.x * blockDim.x + threadIdx.x;
    if (g >= groups) return;
    double sum = 0.0;
    for (long long i = 0; i < n; i++) sum += (double)x[g * n + i];
    out[g] = (float)sum;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_dot_f32_v1(double *partials, const float *x, const float *w, long long n) {
    if (threadIdx.x != 0) return;
    double sum = 0.0;
    for (long long i = 0; i < n; i++) sum += (double)x[i] * (double)w[i];
    partials[0] = sum;
}

__device__ __forceinline__ double total_naive(const double *partials, int count) {
    double sum = 0.0;
    for (int i = 0; i < count; i++) sum += partials[i];
    return sum;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_dot_total_f32_v1(float *out, const double *partials, int count) {
    if (threadIdx.x == 0) out[0] = (float)total_naive(partials, count);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_total_f64_v1(double *total, const double *partials, int count) {
    if (threadIdx.x == 0) total[0] = total_naive(partials, count);
}

extern "C" __global__ void __launch_bounds__(256)
reduce_first_non_finite_f32_v1(long long *partials, const float *x, long long n) {
    if (threadIdx.x != 0) return;
    long long first = 0;
    while (first < n && x[first] * 0.0f == 0.0f) first++;
    partials[0] = first;
}

extern "C" __global__ void __launch_bounds__(256)
reduce_first_total_i64_v1(long long *first, const long long *partials, int count) {
    if (threadIdx.x != 0) return;
    long long least = partials[0];
    for (int i = 1; i < count; i++) least = min(least, partials[i]);
    first[0] = least;
}
