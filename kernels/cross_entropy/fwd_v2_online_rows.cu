// cross_entropy / rows / v2: one block per row, maximum and sum in one pass
// math    nll[n] = log sum_v exp(x[n,v]) - x[n,targets[n]]; x[n,v] becomes
//         factor[n] * (softmax(x[n])[v] - [v == targets[n]])
// in      logits (N,V) A, row pitch ldl; targets (N) i32; factor (N) f32, or null for 1
// out     nll (N) f32, or null; logits overwritten when write_p, the padding after each row with zeros
// launch  grid (N), block (256)
// needs   nothing: a target of -1 gives zeros, any other outside 0..V gives NaN and no access outside x
//         (by pitch: ldl % 4 == 0; by Buffer: logits 16-byte aligned)
// numeric max and sum over the logits as they are stored (bf16: rounded once by the product), so that loss and
//         gradient are of the same softmax; f32 sums, a thread's own first, then across the block in an order
//         fixed by thread number; same input, same bits
// cost    2*N*V elements read, N*V written; 6*N*V flop
// twin    crates/ltm-kernels/src/ops/cross_entropy/reference.rs
// source  Milakov & Gimelshein 2018 (online softmax)
// vs v1   neighbouring threads read neighbouring elements, four at a time, and the row is read twice, not thrice
// budget  regs 48; threads 256; smem 32; sass -
#include "common/reduce.cuh"
#include "common/types.cuh"

template <typename A>
__device__ __forceinline__ void rows_online(float *nll, A *logits, const int *targets, const float *factor,
                                            int v_end, int ldl, int write_p) {
    __shared__ float scratch[8];
    int n = blockIdx.x;
    A *x = logits + (long long)n * ldl;
    int target = targets[n];
    bool ignored = target == -1, valid = target >= 0 && target < v_end;
    // Read now, because the write below replaces it; block_max keeps threads from writing too early.
    float at_target = valid ? to_f32(x[target]) : 0.0f;

    // pass 1: running maximum and sum. A thread starts below every finite logit, not at -inf, whose
    // difference with itself is NaN.
    float max = -3.0e38f, sum = 0.0f;
    for (int v = threadIdx.x * 4; v < v_end; v += 256 * 4) {
        float4 four = load4(x + v);
        float part[4] = {four.x, four.y, four.z, four.w};
        float higher = max;
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (v + e < v_end) higher = fmaxf(higher, part[e]);
        sum *= expf(max - higher);
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (v + e < v_end) sum += expf(part[e] - higher);
        max = higher;
    }
    float row_max = block_max(max, scratch);
    float row_sum = block_sum(sum * expf(max - row_max), scratch);

    float nan = __int_as_float(0x7fffffff);
    if (nll && threadIdx.x == 0)
        nll[n] = ignored ? 0.0f : valid ? row_max + logf(row_sum) - at_target : nan;
    if (!write_p) return;

    // pass 2: probabilities minus one-hot; zeros in the padding, so that no product reads old data.
    float scale = valid ? (factor ? factor[n] : 1.0f) : nan;
    for (int v = threadIdx.x * 4; v < ldl; v += 256 * 4) {
        float4 four = load4(x + v);
        float part[4] = {four.x, four.y, four.z, four.w};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float p = expf(part[e] - row_max) / row_sum - (v + e == target ? 1.0f : 0.0f);
            part[e] = ignored || v + e >= v_end ? 0.0f : scale * p;
        }
        store4(x + v, make_float4(part[0], part[1], part[2], part[3]));
    }
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_fwd_f32_v2(float *nll, float *logits, const int *targets, const float *factor, int n_rows,
                         int v_end, int ldl, int write_p) {
    rows_online(nll, logits, targets, factor, v_end, ldl, write_p);
}

extern "C" __global__ void __launch_bounds__(256)
cross_entropy_fwd_bf16_v2(float *nll, bf16 *logits, const int *targets, const float *factor, int n_rows,
                          int v_end, int ldl, int write_p) {
    rows_online(nll, logits, targets, factor, v_end, ldl, write_p);
}
