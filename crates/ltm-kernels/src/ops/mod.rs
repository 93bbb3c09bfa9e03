//! One folder an op: contract in `mod.rs`, plain loops in `reference.rs`, the fast CPU twin in `cpu.rs`.
