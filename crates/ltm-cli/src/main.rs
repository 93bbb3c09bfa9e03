//! The `ltm` command.
fn main() {}
