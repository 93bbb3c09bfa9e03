// The operators on two numbers, selected by a number that is the same for all threads.
#pragma once

// As crates/ltm-kernels/src/ops/binary/cuda.rs numbers them.
enum { ADD, SUB, MUL, DIV };

__device__ __forceinline__ float binary_value(int op, float a, float b) {
    switch (op) {
    case ADD: return a + b;
    case SUB: return a - b;
    case MUL: return a * b;
    default: return a / b;
    }
}
