// cross_entropy / rows / v1: the work between the matrix products, one thread per row
// math    nll[n] = log sum_v exp(x[n,v]) - x[n,targets[n]]; x[n,v] becomes
//         factor[n] * (softmax(x[n])[v] - [v == targets[n]])
// in      logits (N,V) A, row pitch ldl; targets (N) i32; factor (N) f32, or null for 1
// out     nll (N) f32, or null; logits overwritten when write_p, the padding after each row with zeros
// launch  grid (ceil(N / 64)), block (64)
// needs   nothing: a target of -1 gives zeros, any other outside 0..V gives NaN and no access outside x
// numeric max and sum over the logits as they are stored (bf16: rounded once by the product), so that loss and
//         gradient are of the same softmax; f32 sums in the order of v; same input, same bits
// cost    3*N*V elements read, N*V written; 5*N*V flop
// twin    crates/ltm-kernels/src/ops/cross_entropy/reference.rs
// source  the loops of reference.rs
// budget  regs 48; threads 64; smem 0; sass -
#include "common/types.cuh"

template <typename A>
__device__ __forceinline__ void rows_naive(float *nll, A *logits, const int *targets, const float *factor,
                                           int n_rows, int v_end, int ldl, int write_p) {
    int n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= n_rows) return;
    A *x = logits + (long long)n * ldl;
    int target = targets[n];
    bool ignored = target == -1, valid = target >= 0 && target < v_end;
    float max = to_f32(x[0]), sum = 0.0f;
    for (int v = 1; v < v_end; v++) max = fmaxf(max, to_f32(x[v]));
    for (int v = 0; v < v_end; v++) sum += expf(to_f32(x[v]) - max);
    float nan = __int_as_float(0x7fffffff);
    if (nll) nll[n] = ignored ? 0.0f : valid ? max + logf(sum) - to_f32(x[target]) : nan;
    if (!write_p) return;
    float scale = ignored ? 0.0f : valid ? (factor ? factor[n] : 1.0f) : nan;
    for (int v = 0; v < ldl; v++) {
        float p = v < v_end ? expf(to_f32(x[v]) - max) / sum - (v == target ? 1.0f : 0.0f) : 0.0f;
        x[v] = from_f32<A>(ignored || v >= v_end ? 0.0f : scale * p);
    }
}

extern "C" __global__ void __launch_bounds__(64)
cross_entropy_fwd_f32_v1(float *nll, float *logits, const int *targets, const float *factor, int n_rows,
                         int v_end, int ldl, int write_p) {
    rows_naive(nll, logits, targets, factor, n_rows, v_end, ldl, write_p);
}

extern "C" __global__ void __launch_bounds__(64)
cross_entropy_fwd_bf16_v1(float *nll, bf16 *logits, const int *targets, const float *factor, int n_rows,
                          int v_end, int ldl, int write_p) {
    rows_naive(nll, logits, targets, factor, n_rows, v_end, ldl, write_p);
}
