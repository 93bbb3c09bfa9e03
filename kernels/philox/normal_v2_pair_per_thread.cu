// philox / normal / v2: one thread per pair
// math    out[i] = mean + std*z_i, z_i normal number i of the generator; rows: standard normal numbers, a
//         generator a row, from row step[0] of keys
// in      key and upper counter words by value, or keys (S,rows,4) i32 and step (1) i32; outside the table NaN
// out     out (n) or (rows,n) f32
// launch  grid (min(ceil(n/512), 2^14)), block (256)
// needs   [P1] n % 2 == 0: normal_rows   (by Buffer: pointers 16-byte aligned)
// numeric f64 arithmetic, one rounding to f32; same input, same bits
// cost    4*n bytes; about 50 f64 operations a number
// twin    crates/ltm-kernels/src/ops/philox/reference.rs
// source  Salmon et al. 2011; Box & Muller 1958
// vs v1   both numbers of a transform are kept; 8-byte stores
// budget  regs 72; threads 256; smem 0; sass -
#include "common/philox.cuh"
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
philox_normal_f32_v2(float *out, uint_t k0, uint_t k1, uint_t h0, uint_t h1, double mean,
                     double std, long long n) {
    for (long long i = 2 * grid_thread(); i < n; i += 2 * grid_threads()) {
        double2 pair = normal_pair((ulong_t)i / 2, make_uint4(k0, k1, h0, h1));
        float2 y = make_float2((float)(mean + std * pair.x), (float)(mean + std * pair.y));
        if (i + 1 < n) *(float2 *)(out + i) = y;
        else out[i] = y.x;
    }
}

extern "C" __global__ void __launch_bounds__(256)
philox_normal_rows_f32_v2(float *out, const uint4 *keys, const int *step, int steps, int rows,
                          int n) {
    int s = *step;
    bool outside = s < 0 || s >= steps;
    float nan = __int_as_float(0x7fc00000);
    for (long long i = 2 * grid_thread(); i < (long long)rows * n; i += 2 * grid_threads()) {
        float2 y = make_float2(nan, nan);
        if (!outside) {
            double2 pair = normal_pair((ulong_t)(i % n) / 2, keys[(long long)s * rows + i / n]);
            y = make_float2((float)pair.x, (float)pair.y);
        }
        *(float2 *)(out + i) = y;
    }
}
