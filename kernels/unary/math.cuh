// The functions of one number and their slopes, each selected by a number that is the same for all threads.
#pragma once

#include "common/types.cuh"

// As crates/ltm-kernels/src/ops/unary/cuda.rs numbers them.
enum { AFFINE, EXP, LOG, SQRT, TANH, SIGMOID, GELU, RELU };

#define SQRT_2_OVER_PI 0.7978845608028654f
#define GELU_CUBIC 0.044715f

__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// With u = sqrt(2/pi) (x + 0.044715 x^3), (1 + tanh(u)) / 2 is the sigmoid of 2u, without its cancellation.
__device__ __forceinline__ float gelu_weight(float x) {
    return sigmoid(2.f * SQRT_2_OVER_PI * x * (1.f + GELU_CUBIC * x * x));
}

__device__ __forceinline__ float unary_value(int function, float scale, float shift, float x) {
    switch (function) {
    case AFFINE: return scale * x + shift;
    case EXP: return expf(x);
    case LOG: return logf(x);
    case SQRT: return sqrtf(x);
    case TANH: return tanhf(x);
    case SIGMOID: return sigmoid(x);
    case GELU: return x * gelu_weight(x);
    default: return x > 0.f ? x : 0.f;
    }
}

__device__ __forceinline__ float unary_slope(int function, float scale, float x) {
    switch (function) {
    case AFFINE: return scale;
    case EXP: return expf(x);
    case LOG: return 1.f / x;
    case SQRT: return 0.5f / sqrtf(x);
    case TANH: {
        float y = tanhf(x);
        return 1.f - y * y;
    }
    case SIGMOID: {
        float y = sigmoid(x);
        return y * (1.f - y);
    }
    case GELU: {
        float w = gelu_weight(x), bend = w * (1.f - w);
        // Far out x * x is infinite, and the weight 0 or 1.
        float du = SQRT_2_OVER_PI * (1.f + 3.f * GELU_CUBIC * x * x);
        return bend > 0.f ? w + 2.f * x * bend * du : w;
    }
    default: return x > 0.f ? 1.f : 0.f;
    }
}
