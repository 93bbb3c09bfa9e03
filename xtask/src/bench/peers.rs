//! The Python environments of the peers. Knows packages, never what runs in them.

use std::path::PathBuf;

use anyhow::Result;

use crate::python::{Environment, TORCH};

const PEER: Environment = Environment {
    folder: "peers/torch",
    packages: &[TORCH, "numpy==2.4.6", "safetensors==0.8.0"],
    modules: "torch, numpy, safetensors.torch",
};

/// The python of `target/peers/torch`, which has PyTorch.
pub fn torch() -> Result<PathBuf> {
    PEER.python()
}
