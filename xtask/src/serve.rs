//! Tests of the server that take minutes: verbs of their own, and stages of `cargo xtask test --long`.

use std::path::PathBuf;

use anyhow::Result;

use crate::python::Environment;
use crate::{cargo, exec};

/// The clients, pinned: their sources say what they rely on.
const CLIENTS: Environment = Environment {
    folder: "peers/clients",
    packages: &["openai==3.51.0", "lm-eval[api]==0.4.13", "datasets==5.2.0"],
    modules: "openai, lm_eval.models.openai_completions",
};

/// Requests of `requests`.
const REQUESTS: &str = "100000";

/// `cargo xtask requests`: 100,000 mutated requests, each of which must get a JSON error or a result.
pub fn requests() -> Result<()> {
    let test = ["test", "--package", "ltm-serve", "--test", "mutated"];
    exec(cargo(test).env("LTM_REQUESTS", REQUESTS))
}

/// `cargo xtask clients`: the `openai` package and lm-evaluation-harness against `ltm serve`, by the Python that
/// `LTM_PYTHON` names, or else by one with pinned packages. Where these cannot be installed it is skipped, with a word.
pub fn clients() -> Result<()> {
    let python = match std::env::var_os("LTM_PYTHON") {
        Some(named) => PathBuf::from(named),
        None => match CLIENTS.python() {
            Ok(python) => python,
            Err(error) => {
                note!("clients skipped: {error:#}");
                return Ok(());
            }
        },
    };
    exec(cargo(["test", "--package", "ltm-cli", "--test", "clients"]).env("LTM_PYTHON", python))
}
