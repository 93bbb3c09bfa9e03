//! `cargo xtask gpu`: one folder, `target/gpu`, with everything that a machine with a GPU should prove and no need of
//! Rust there: the CUDA tests, the GPU bench, the simulator's library, and `run.sh`, which runs them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sim::{Simulator, test_programs};
use crate::{cargo, exec, root, target_dir};

/// What the folder takes over as it stands, from `benches/gpu/`.
const SCRIPTS: &[&str] = &["run.sh", "peers.py"];

/// The folder is to be sent to another machine.
const MOST_BYTES: u64 = 40 << 20;

/// Builds the folder afresh and says how large it is.
pub fn run() -> Result<()> {
    let simulator = Simulator::prepare()?;
    let tests = test_programs(&["--release"])?;
    ensure!(!tests.is_empty(), "no crate has a `cuda` test: crates/<crate>/tests/cuda.rs");
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "gpu"]))?;

    let folder = target_dir().join("gpu");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for part in ["tests", "sim"] {
        fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
    }
    for test in &tests {
        copy_stripped(&test.path, &folder.join("tests").join(&test.package))?;
    }
    copy_stripped(&target_dir().join("release/gpu"), &folder.join("gpu"))?;
    copy_stripped(&simulator.library(), &folder.join("sim/libcuda.so.1"))?;
    for script in SCRIPTS {
        copy(&root().join("benches/gpu").join(script), &folder.join(script))?;
    }
    fs::write(folder.join("commit"), commit())?;

    let bytes = size(&folder)?;
    ensure!(bytes <= MOST_BYTES, "{} has {bytes} bytes, at most {MOST_BYTES}", folder.display());
    eprintln!("{}: {:.1} MB; there, run ./run.sh", folder.display(), bytes as f64 / 1e6);
    Ok(())
}

/// The commit that was built, with a mark when the tree differed from it.
fn commit() -> String {
    let describe =
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    match describe {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into(),
        _ => "unknown\n".into(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Copies a program or library without its debug information.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    exec(Command::new("strip").arg("--strip-debug").arg(to))
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
