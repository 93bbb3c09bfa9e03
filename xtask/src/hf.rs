//! `cargo xtask hf`: exported models in PyTorch, `transformers` and lm-evaluation-harness, compared with `ltm`.

use std::path::PathBuf;

use anyhow::Result;

use crate::python::{Environment, TORCH};
use crate::{cargo, exec};

const HF: Environment = Environment {
    folder: "peers/hf",
    packages: &[
        TORCH,
        "transformers==5.24.0",
        "lm-eval[hf]==0.4.13",
        "accelerate==1.15.0",
        "tokenizers==0.23.3",
        "safetensors==0.8.0",
        "datasets==5.2.0",
        "numpy==2.4.6",
    ],
    modules: "torch, transformers, lm_eval.models.huggingface",
};

/// Runs the tests by the Python that `LTM_PYTHON` names, or else by one with pinned packages. Where these cannot be
/// installed the stage is skipped, with a word.
pub fn run() -> Result<()> {
    let python = match std::env::var_os("LTM_PYTHON") {
        Some(named) => PathBuf::from(named),
        None => match HF.python() {
            Ok(python) => python,
            Err(error) => {
                note!("hf skipped: {error:#}");
                return Ok(());
            }
        },
    };
    exec(cargo(["test", "--package", "ltm-cli", "--test", "hf"]).env("LTM_PYTHON", python))
}
