// Tensor-core products of bf16 with f32 sums, the loads that feed them, and asynchronous copies
// into shared memory. All of them exist on sm_80 and later.
#pragma once

#include "common/types.cuh"

// A shared-memory address in the form that PTX takes.
__device__ __forceinline__ uint_t smem_address(const void *p) {
    return (uint_t)__cvta_generic_to_shared(p);
}

// Loads four 8x8 matrices of 16-bit elements; lane i gives the address of the 16-byte row i%8 of matrix i/8.
__device__ __forceinline__ void ldmatrix_x4(uint_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_address(row)) : "memory");
}

// As ldmatrix_x4, each matrix transposed.
__device__ __forceinline__ void ldmatrix_x4_trans(uint_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(smem_address(row)) : "memory");
}

// c (16,8) += a (16,16) b (16,8). Lane l holds of c: rows l/4 and l/4 + 8, columns 2(l%4) and the
// next: c[0], c[1] of the upper row, c[2], c[3] of the lower.
__device__ __forceinline__ void mma_bf16(float (&c)[4], const uint_t (&a)[4], uint_t b0, uint_t b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Copies 16 bytes into shared memory without waiting: the first `bytes` from `source`, zeros after
// them. `source` must be aligned to 16 bytes, and valid even when `bytes` is 0.
__device__ __forceinline__ void copy_async_16(void *target, const void *source, int bytes) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"(smem_address(target)), "l"(__cvta_generic_to_global(source)), "r"(bytes)
                 : "memory");
}

__device__ __forceinline__ void copy_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most N of this thread's groups are unfinished; other threads' copies need a barrier.
template <int N> __device__ __forceinline__ void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" :: "n"(N) : "memory");
}
