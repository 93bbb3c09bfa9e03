// Element types and their loads and stores. Arithmetic is always f32; bf16 is a storage type.
#pragma once

typedef unsigned short ushort_t;
typedef unsigned int uint_t;
typedef unsigned long long ulong_t;

// A bfloat16 as it is in memory: the upper half of an f32.
struct __align__(2) bf16 {
    ushort_t bits;
};

__device__ __forceinline__ float to_f32(float x) { return x; }

__device__ __forceinline__ float to_f32(bf16 x) { return __uint_as_float((uint_t)x.bits << 16); }

// Rounds to nearest, ties to even.
__device__ __forceinline__ bf16 to_bf16(float x) {
    bf16 y;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(y.bits) : "f"(x));
    return y;
}

// Two floats as one register of bf16: `lo` in the lower half, the one with the lower address.
__device__ __forceinline__ uint_t pack_bf16x2(float lo, float hi) {
    uint_t y;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(y) : "f"(hi), "f"(lo));
    return y;
}

__device__ __forceinline__ float bf16x2_lo(uint_t x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float bf16x2_hi(uint_t x) { return __uint_as_float(x & 0xffff0000u); }

// Rounds an f32 to the element type `A` of an activation.
template <typename A> __device__ __forceinline__ A from_f32(float x);
template <> __device__ __forceinline__ float from_f32<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_f32<bf16>(float x) { return to_bf16(x); }

// Four elements at once, through one load or store of 16 (f32) or 8 (bf16) bytes, aligned to that.
__device__ __forceinline__ float4 load4(const float *p) { return *(const float4 *)p; }

__device__ __forceinline__ float4 load4(const bf16 *p) {
    uint2 x = *(const uint2 *)p;
    return make_float4(bf16x2_lo(x.x), bf16x2_hi(x.x), bf16x2_lo(x.y), bf16x2_hi(x.y));
}

__device__ __forceinline__ void store4(float *p, float4 x) { *(float4 *)p = x; }

__device__ __forceinline__ void store4(bf16 *p, float4 x) {
    *(uint2 *)p = make_uint2(pack_bf16x2(x.x, x.y), pack_bf16x2(x.z, x.w));
}

// Eight elements as floats, through loads or stores of 16 bytes, aligned to that.
__device__ __forceinline__ void load8(float (&x)[8], const float *p) {
    float4 lo = load4(p), hi = load4(p + 4);
    x[0] = lo.x, x[1] = lo.y, x[2] = lo.z, x[3] = lo.w;
    x[4] = hi.x, x[5] = hi.y, x[6] = hi.z, x[7] = hi.w;
}

__device__ __forceinline__ void load8(float (&x)[8], const bf16 *p) {
    uint4 bits = *(const uint4 *)p;
    x[0] = bf16x2_lo(bits.x), x[1] = bf16x2_hi(bits.x);
    x[2] = bf16x2_lo(bits.y), x[3] = bf16x2_hi(bits.y);
    x[4] = bf16x2_lo(bits.z), x[5] = bf16x2_hi(bits.z);
    x[6] = bf16x2_lo(bits.w), x[7] = bf16x2_hi(bits.w);
}

__device__ __forceinline__ void store8(float *p, const float (&x)[8]) {
    store4(p, make_float4(x[0], x[1], x[2], x[3]));
    store4(p + 4, make_float4(x[4], x[5], x[6], x[7]));
}

__device__ __forceinline__ void store8(bf16 *p, const float (&x)[8]) {
    *(uint4 *)p = make_uint4(pack_bf16x2(x[0], x[1]), pack_bf16x2(x[2], x[3]),
                             pack_bf16x2(x[4], x[5]), pack_bf16x2(x[6], x[7]));
}
