// Loops over independent elements, divided among all threads of a grid.
#pragma once

#include "common/types.cuh"

// Index of this thread in the grid, and number of threads in the grid.
__device__ __forceinline__ long long grid_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ long long grid_threads() { return (long long)gridDim.x * blockDim.x; }

// outs[m][i] = y[m] with f(y, x), x[j] = ins[j][i], for every i < n: eight elements per step, the last
// n % 8 one by one. A null output is not written. An output may also be an input.
template <typename A, int M, int N, typename F>
__device__ __forceinline__ void map8(A *const (&outs)[M], const A *const (&ins)[N], long long n,
                                     F f) {
    for (long long i = 8 * grid_thread(); i + 8 <= n; i += 8 * grid_threads()) {
        float x[N][8], y[M][8];
#pragma unroll
        for (int j = 0; j < N; j++) load8(x[j], ins[j] + i);
#pragma unroll
        for (int e = 0; e < 8; e++) {
            float x_e[N], y_e[M];
#pragma unroll
            for (int j = 0; j < N; j++) x_e[j] = x[j][e];
            f(y_e, x_e);
#pragma unroll
            for (int m = 0; m < M; m++) y[m][e] = y_e[m];
        }
#pragma unroll
        for (int m = 0; m < M; m++)
            if (outs[m]) store8(outs[m] + i, y[m]);
    }
    for (long long i = n / 8 * 8 + grid_thread(); i < n; i += grid_threads()) {
        float x_e[N], y_e[M];
#pragma unroll
        for (int j = 0; j < N; j++) x_e[j] = to_f32(ins[j][i]);
        f(y_e, x_e);
#pragma unroll
        for (int m = 0; m < M; m++)
            if (outs[m]) outs[m][i] = from_f32<A>(y_e[m]);
    }
}
