//! The Python environments of the peers, made when they are first needed. Knows packages, never what runs in them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{exec, target_dir};

/// The peer's version, pinned: a ratio names what it was measured against.
const TORCH: &str = "torch==2.15.0";
const OTHERS: [&str; 2] = ["numpy==2.4.6", "safetensors==0.8.0"];

/// Wheels without CUDA, 0.2 GB; the plain ones take 5 GB of disk.
const CPU_WHEELS: &str = "https://download.pytorch.org/whl/cpu";

/// The python of `target/peers/torch`, which has PyTorch.
pub fn torch() -> Result<PathBuf> {
    let folder = target_dir().join("peers/torch");
    let (python, done) = (folder.join("bin/python"), folder.join("installed"));
    let wanted = format!("{TORCH} {}", OTHERS.join(" "));
    if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
        return Ok(python);
    }
    exec(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(
        "the peer needs python3, 3.10 or later, with its venv module: install both (python3 and python3-venv)",
    )?;
    let pip = || {
        let mut command = Command::new(&python);
        command.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]);
        command
    };
    let mut small = pip();
    small.args(["--index-url", CPU_WHEELS, "--retries", "0", "--timeout", "15", TORCH]);
    note!("installing {wanted} into {}", folder.display());
    let has_small = small.stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    if !has_small {
        note!("{CPU_WHEELS} cannot be reached: taking the plain wheel with CUDA, 3 GB");
    }
    let mut rest = pip();
    exec(rest.arg(TORCH).args(OTHERS)).with_context(|| {
        format!(
            "pip cannot install {wanted}: check its index (pip config list) and the disk's space"
        )
    })?;
    let works =
        Command::new(&python).args(["-c", "import torch, numpy, safetensors.torch"]).status();
    ensure!(
        works.is_ok_and(|status| status.success()),
        "{wanted} is installed but does not import"
    );
    fs::write(&done, wanted).with_context(|| done.display().to_string())?;
    Ok(python)
}
