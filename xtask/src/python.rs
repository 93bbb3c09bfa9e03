//! Python environments under `target/`, made when they are first needed. Knows packages, never what runs in them.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{exec, target_dir};

/// PyTorch, pinned: a number names what it was compared with.
pub const TORCH: &str = "torch==2.15.0";

/// Wheels without CUDA, 0.2 GB; the plain ones take 5 GB of disk.
const CPU_WHEELS: &str = "https://download.pytorch.org/whl/cpu";

/// Pinned packages in a folder of their own.
pub struct Environment {
    /// Its folder, relative to cargo's target folder.
    pub folder: &'static str,
    /// What is installed, as pip names it.
    pub packages: &'static [&'static str],
    /// The modules that must import.
    pub modules: &'static str,
}

impl Environment {
    /// Its interpreter, with everything installed.
    pub fn python(&self) -> Result<PathBuf> {
        let folder = target_dir().join(self.folder);
        let (python, done) = (folder.join("bin/python"), folder.join("installed"));
        let wanted = self.packages.join(" ");
        if fs::read_to_string(&done).is_ok_and(|found| found == wanted) {
            return Ok(python);
        }
        exec(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder)).context(
            "python3, 3.10 or later, is needed with its venv module: install both (python3 and python3-venv)",
        )?;
        let pip = || {
            let mut command = Command::new(&python);
            command.args(["-m", "pip", "install", "--disable-pip-version-check", "--quiet"]);
            command
        };
        note!("installing {wanted} into {}", folder.display());
        if self.packages.contains(&TORCH) {
            let mut small = pip();
            small.args(["--index-url", CPU_WHEELS, "--retries", "0", "--timeout", "15", TORCH]);
            let has_small = small.stderr(Stdio::null()).status().is_ok_and(|s| s.success());
            if !has_small {
                note!("{CPU_WHEELS} cannot be reached: taking the plain wheel with CUDA, 3 GB");
            }
        }
        exec(pip().args(self.packages)).with_context(|| {
            format!(
                "pip cannot install {wanted}: check its index (pip config list) and the disk's space"
            )
        })?;
        let works =
            Command::new(&python).args(["-c", &format!("import {}", self.modules)]).status();
        ensure!(
            works.is_ok_and(|status| status.success()),
            "{wanted} is installed but does not import"
        );
        fs::write(&done, wanted).with_context(|| done.display().to_string())?;
        Ok(python)
    }
}
