//! Runtime-dispatched helpers that `cpu.rs` files share.
