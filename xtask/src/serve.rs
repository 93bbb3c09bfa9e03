//! Tests of the server that take minutes: verbs of their own, and stages of `cargo xtask test --long`.

use anyhow::Result;

use crate::{cargo, exec};

/// Requests of `requests`.
const REQUESTS: &str = "100000";

/// `cargo xtask requests`: 100,000 mutated requests, each of which must get a JSON error or a result.
pub fn requests() -> Result<()> {
    let test = ["test", "--package", "ltm-serve", "--test", "mutated"];
    exec(cargo(test).env("LTM_REQUESTS", REQUESTS))
}
