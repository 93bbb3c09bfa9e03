// philox / normal / v1: one thread per number
// math    out[i] = mean + std*z_i, z_i normal number i of the generator; rows: standard normal numbers, a
//         generator a row, from row step[0] of keys
// in      key and upper counter words by value, or keys (S,rows,4) i32 and step (1) i32; outside the table NaN
// out     out (n) or (rows,n) f32
// launch  grid (min(ceil(n/256), 2^14)), block (256)
// needs   nothing
// numeric f64 arithmetic, one rounding to f32; same input, same bits
// cost    4*n bytes; about 100 f64 operations a number
// twin    crates/ltm-kernels/src/ops/philox/reference.rs
// source  Salmon et al. 2011; Box & Muller 1958
// budget  regs 72; threads 256; smem 0; sass -
#include "common/philox.cuh"
#include "common/map.cuh"

// Number i, half of a pair.
__device__ __forceinline__ double normal_number(long long i, uint4 words) {
    double2 pair = normal_pair((ulong_t)i / 2, words);
    return i % 2 == 0 ? pair.x : pair.y;
}

extern "C" __global__ void __launch_bounds__(256)
philox_normal_f32_v1(float *out, uint_t k0, uint_t k1, uint_t h0, uint_t h1, double mean,
                     double std, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = (float)(mean + std * normal_number(i, make_uint4(k0, k1, h0, h1)));
}

extern "C" __global__ void __launch_bounds__(256)
philox_normal_rows_f32_v1(float *out, const uint4 *keys, const int *step, int steps, int rows,
                          int n) {
    int s = *step;
    bool outside = s < 0 || s >= steps;
    for (long long i = grid_thread(); i < (long long)rows * n; i += grid_threads())
        out[i] = outside ? __int_as_float(0x7fc00000)
                         : (float)normal_number(i % n, keys[(long long)s * rows + i / n]);
}
