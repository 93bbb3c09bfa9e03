// Philox 4x32-10 and normal numbers drawn from it, as in crates/ltm-kernels/src/ops/philox.
#pragma once

#include "common/types.cuh"

// Ten rounds on one counter; `words` holds the key and the upper half of the counter.
__device__ __forceinline__ uint4 philox4x32_10(ulong_t index, uint4 words) {
    uint_t x0 = (uint_t)index, x1 = (uint_t)(index >> 32), x2 = words.z, x3 = words.w;
    uint_t k0 = words.x, k1 = words.y;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        uint_t even_hi = __umulhi(0xD2511F53u, x0), even_lo = 0xD2511F53u * x0;
        uint_t odd_hi = __umulhi(0xCD9E8D57u, x2), odd_lo = 0xCD9E8D57u * x2;
        x0 = odd_hi ^ x1 ^ k0, x1 = odd_lo, x2 = even_hi ^ x3 ^ k1, x3 = even_lo;
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return make_uint4(x0, x1, x2, x3);
}

// The upper 53 of 64 bits as an integer-valued double.
__device__ __forceinline__ double bits53(uint_t lo, uint_t hi) {
    return (double)((((ulong_t)hi << 32) | lo) >> 11);
}

// The standard normal numbers 2*pair and 2*pair + 1, by the Box-Muller transform in double precision;
// sincospi needs no reduction by pi and so has no slow path.
__device__ __forceinline__ double2 normal_pair(ulong_t pair, uint4 words) {
    const double SCALE53 = 1.0 / 9007199254740992.0;
    uint4 bits = philox4x32_10(pair, words);
    // The radius uses a uniform number in (0, 1], whose logarithm is finite.
    double radius = sqrt(-2.0 * log((bits53(bits.x, bits.y) + 1.0) * SCALE53));
    double sine, cosine;
    sincospi(2.0 * bits53(bits.z, bits.w) * SCALE53, &sine, &cosine);
    return make_double2(radius * cosine, radius * sine);
}
