//! `cargo xtask gpu`: one folder, `target/gpu`, with everything that a machine with a GPU should prove and no need of
//! Rust there: the CUDA tests, the recorded numbers of the published model, the GPU bench, what the simulator computed,
//! the simulator's library, and `run.sh`, which runs them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sim::{KERNELS, Simulator, TestProgram, test_programs};
use crate::{cargo, exec, root, target_dir};

/// What the folder takes over as it stands, from `benches/gpu/`.
const SCRIPTS: &[&str] = &["run.sh", "peers.py"];

/// Where the recorded numbers lie.
const FIXTURES: &str = "crates/ltm-model/tests/fixtures";

/// Its CUDA test starts the `ltm` command, which `run.sh` does itself.
const COMMAND: &str = "ltm-cli";

/// The folder is to be sent to another machine.
const MOST_BYTES: u64 = 40_000_000;

/// Builds the folder afresh and says how large it is.
pub fn run() -> Result<()> {
    let mut simulator = Simulator::prepare()?;
    let mut tests = test_programs(&["--release"])?;
    tests.retain(|test| test.package != COMMAND);
    let kernels = tests.iter().find(|test| test.package == KERNELS);
    let kernels = kernels.with_context(|| format!("{KERNELS} has no `cuda` test"))?;
    // The whole workspace's features, as for the tests: nothing is compiled twice.
    exec(&mut cargo(["build", "--release", "--workspace", "--bin", "gpu", "--bin", "ltm"]))?;

    let folder = target_dir().join("gpu");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for part in ["tests", "sim", "fixtures"] {
        fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
    }
    for test in &tests {
        copy_stripped(&test.path, &folder.join("tests").join(&test.package))?;
    }
    for program in ["gpu", "ltm"] {
        copy_stripped(&target_dir().join("release").join(program), &folder.join(program))?;
    }
    copy_stripped(&simulator.library(), &folder.join("sim/libcuda.so.1"))?;
    for script in SCRIPTS {
        copy(&root().join("benches/gpu").join(script), &folder.join(script))?;
    }
    for fixture in files(&root().join(FIXTURES))? {
        copy(&fixture, &folder.join("fixtures").join(fixture.file_name().unwrap_or_default()))?;
    }
    simulator.report = folder.join("sim/report.jsonl");
    dump(&simulator, kernels, &folder.join("sim/kernels.jsonl"))?;
    fs::remove_file(&simulator.report)?;
    fs::write(folder.join("commit"), commit())?;

    let bytes = size(&folder)?;
    ensure!(bytes <= MOST_BYTES, "{} has {bytes} bytes, at most {MOST_BYTES}", folder.display());
    note!("{}: {:.1} MB; there, run ./run.sh", folder.display(), bytes as f64 / 1e6);
    Ok(())
}

/// Runs the kernel suite on the simulator and keeps what it computed, for the device to be compared with.
fn dump(simulator: &Simulator, kernels: &TestProgram, to: &Path) -> Result<()> {
    let mut command = Command::new(&kernels.path);
    simulator.stand_in(&mut command);
    exec(command.arg("--quiet").env("LTM_DUMP", to).current_dir(&kernels.folder))
}

/// The files of a folder, in order of name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
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

/// Copies a program or library without what only a debugger reads.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    exec(Command::new("strip").arg("--strip-unneeded").arg(to))
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
