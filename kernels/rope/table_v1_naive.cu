// rope / table / v1: one thread per pair
// math    table[t,i] = (cos, sin) of position[t] / theta^(2i/D), frequency and angle rounded to f32
// in      position (T) i32; log2(theta) by value
// out     table (T,D/2,2) f32
// launch  grid (min(ceil(T*D/512), 2^14)), block (256)
// needs   nothing   (by RopeDims and table: D % 2 == 0)
// numeric f64 but for the two roundings named; the angle is reduced by pi in two parts, so that no path is slow;
//         same input, same bits
// cost    T*D*4 bytes
// twin    crates/ltm-kernels/src/ops/rope/reference.rs
// source  Su et al. 2021
// budget  regs 64; threads 256; smem 0; sass -
#include "common/map.cuh"

extern "C" __global__ void __launch_bounds__(256)
rope_table_f32_v1(float *table, const int *positions, double log2_theta, int t, int d) {
    const double INV_PI_HI = 0.31830988618379067, INV_PI_LO = -1.9678676675182486e-17;
    for (long long pair = grid_thread(); pair < (long long)t * (d / 2); pair += grid_threads()) {
        int i = (int)(pair % (d / 2));
        float frequency = (float)exp2(-(2.0 * i / d) * log2_theta);
        double angle = (double)((float)positions[pair / (d / 2)] * frequency);
        // angle/pi as hi + lo; whole turns are removed exactly.
        double hi = angle * INV_PI_HI;
        double lo = fma(angle, INV_PI_HI, -hi) + angle * INV_PI_LO;
        double turns = (hi - 2.0 * rint(0.5 * hi)) + lo, sine, cosine;
        sincospi(turns, &sine, &cosine);
        table[2 * pair] = (float)cosine;
        table[2 * pair + 1] = (float)sine;
    }
}
