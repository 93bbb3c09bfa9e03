// Which keys a query sees: all T_k, or, with a window W > 0, the W up to its own position, where T_k is T.
#pragma once

#define NEG_INFINITY __int_as_float(0xff800000)

struct attention_mask {
    int T, T_k, W;

    // Query t sees the keys first_key(t)..end_key(t).
    __device__ __forceinline__ int first_key(int t) const { return W == 0 ? 0 : max(0, t - W + 1); }
    __device__ __forceinline__ int end_key(int t) const { return W == 0 ? T_k : t + 1; }

    // Key j is seen by the queries first_query(j)..end_query(j).
    __device__ __forceinline__ int first_query(int j) const { return W == 0 ? 0 : j; }
    __device__ __forceinline__ int end_query(int j) const { return W == 0 || W >= T - j ? T : j + W; }

    // Whether query t sees key j < T_k. A key after the query is far outside a window as an unsigned distance.
    __device__ __forceinline__ bool sees(int t, int j) const {
        return W == 0 || (unsigned int)(t - j) < (unsigned int)W;
    }

    // Whether all queries of t0..=t1 see all keys of j0..=j1.
    __device__ __forceinline__ bool all_see(int t0, int t1, int j0, int j1) const {
        return W == 0 ? j1 < T_k : j1 <= t0 && t1 - j0 < W;
    }
};
