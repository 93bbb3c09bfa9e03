//! The examples run to their end.

#[path = "../examples/from_memory.rs"]
mod from_memory;

#[test]
fn a_model_is_trained_from_memory() {
    from_memory::main().unwrap();
}
