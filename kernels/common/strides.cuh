// Where an element of an array of four extents is in an operand with other strides; the stride of an axis
// along which the operand is repeated is 0.
#pragma once

#include "common/types.cuh"

// The four indices of element i of an array of extents (…,e1,e2,e3).
struct Indices {
    long long i0;
    int i1, i2, i3;

    __device__ __forceinline__ Indices(long long i, int e1, int e2, int e3) {
        long long row = i / e3, plane = row / e2;
        i3 = (int)(i - row * e3), i2 = (int)(row - plane * e2);
        i0 = plane / e1, i1 = (int)(plane - i0 * e1);
    }

    __device__ __forceinline__ long long at(long long s0, long long s1, long long s2,
                                            long long s3) const {
        return i0 * s0 + i1 * s1 + i2 * s2 + i3 * s3;
    }
};
