// Rows of a head over eight lanes, four rows per warp, 32 per block: a score takes three shuffles instead of five, and
// four rows share each read of a key.
#pragma once

#include "common/attention_mask.cuh"
#include "common/types.cuh"

__device__ __forceinline__ float lanes_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    x += __shfl_xor_sync(0xffffffffu, x, 2);
    return x + __shfl_xor_sync(0xffffffffu, x, 4);
}

// A row of at most DP elements: lane l of eight holds those at 4 * (l + 8 * i) + 0..4.
template <int DP> struct lanes_row {
    float4 x[DP / 32];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < DP / 32; i++) x[i] = make_float4(0.f, 0.f, 0.f, 0.f);
    }

    // Zeros past D, and for the whole row if it is not `inside`.
    template <typename A>
    __device__ __forceinline__ void load(const A *row, int D, bool inside) {
        clear();
#pragma unroll
        for (int i = 0; i < DP / 32; i++) {
            int d = 4 * ((threadIdx.x & 7) + 8 * i);
            if (inside && d < D) x[i] = load4(row + d);
        }
    }

    template <typename A>
    __device__ __forceinline__ void store(A *row, float factor, int D) const {
#pragma unroll
        for (int i = 0; i < DP / 32; i++) {
            int d = 4 * ((threadIdx.x & 7) + 8 * i);
            if (d < D)
                store4(row + d, make_float4(x[i].x * factor, x[i].y * factor, x[i].z * factor,
                                            x[i].w * factor));
        }
    }

    __device__ __forceinline__ float dot(const lanes_row &y) const {
        float sum = 0.f;
#pragma unroll
        for (int i = 0; i < DP / 32; i++)
            sum += x[i].x * y.x[i].x + x[i].y * y.x[i].y + x[i].z * y.x[i].z + x[i].w * y.x[i].w;
        return lanes_sum(sum);
    }

    // this = decay * this + a * y
    __device__ __forceinline__ void blend(float decay, float a, const lanes_row &y) {
#pragma unroll
        for (int i = 0; i < DP / 32; i++) {
            x[i].x = x[i].x * decay + a * y.x[i].x, x[i].y = x[i].y * decay + a * y.x[i].y;
            x[i].z = x[i].z * decay + a * y.x[i].z, x[i].w = x[i].w * decay + a * y.x[i].w;
        }
    }
};

// Block (x,g,b) has the queries 32x..32x+32 of the H/G heads of sequence b that share key head g, position by
// position.
struct shared_rows {
    int T, H, G;

    // The position of the block's query i, T if there is no such query.
    __device__ __forceinline__ int position(int i) const {
        return min((int)(blockIdx.x * 32 + i) / (H / G), T);
    }

    // Its row in (B,T,H).
    __device__ __forceinline__ long long row(int i) const {
        int group = H / G, r = blockIdx.x * 32 + i;
        return ((long long)blockIdx.z * T + r / group) * H + blockIdx.y * group + r % group;
    }
};

// The whole block copies `rows` rows, `stride` elements apart, to shared memory as f32 with PITCH elements
// per row; columns D..DP become zeros.
template <int DP, int PITCH, typename A>
__device__ __forceinline__ void stage_rows(float *target, const A *source, int rows, long long stride,
                                           int D) {
    for (int i = threadIdx.x; i < rows * (DP / 4); i += blockDim.x) {
        int row = i / (DP / 4), d = i % (DP / 4) * 4;
        float4 x = make_float4(0.f, 0.f, 0.f, 0.f);
        if (d < D) x = load4(source + row * stride + d);
        store4(target + row * PITCH + d, x);
    }
}
