//! Where an MPI is whose library has the binary interface of MPI 5: named by the environment, found on the path, or
//! installed under `target/` in a pinned version.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::{exec, target_dir};

/// What is installed where nothing is found: 13 MB, with `mpiexec`.
const WHEEL: &str = "mpich==5.0.2";

/// The variable that names an `mpiexec` for tests and benches.
pub const VARIABLE: &str = "LTM_MPIEXEC";

/// An `mpiexec` with its library in `../lib`.
pub fn mpiexec() -> Result<PathBuf> {
    if let Some(named) = env::var_os(VARIABLE) {
        return Ok(named.into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join("mpiexec"));
    match on_path.into_iter().find(|mpiexec| is_complete(mpiexec)) {
        Some(found) => Ok(found),
        None => installed(&target_dir().join("mpi")),
    }
}

/// Whether the library lies where the command looks for it.
fn is_complete(mpiexec: &Path) -> bool {
    let lib = mpiexec.parent().map(|bin| bin.join("../lib/libmpi_abi.so.1"));
    mpiexec.is_file() && lib.is_some_and(|lib| lib.is_file())
}

/// The pinned wheel in `folder`, which appears whole or not at all.
fn installed(folder: &Path) -> Result<PathBuf> {
    let mpiexec = folder.join("bin/mpiexec");
    if is_complete(&mpiexec) {
        return Ok(mpiexec);
    }
    let aside = folder.with_extension(format!("{}.tmp", std::process::id()));
    fs::create_dir_all(&aside).with_context(|| aside.display().to_string())?;
    // `pip install --target` leaves the folder `lib` of a wheel's data out.
    let mut download = Command::new("python3");
    download.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    exec(download.arg("--dest").arg(&aside).arg(WHEEL)).with_context(|| {
        format!(
            "found no MPI with libmpi_abi.so.1 and could not install one: set {VARIABLE} to its mpiexec, or make \
             `python3 -m pip download {WHEEL}` work"
        )
    })?;
    let wheel = entries(&aside)?.pop().context("pip has downloaded nothing")?;
    exec(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&aside))?;
    let data = aside.join(format!("{}.data/data", WHEEL.replace("==", "-")));
    for program in entries(&data.join("bin"))? {
        let mode = Permissions::from_mode(0o755);
        fs::set_permissions(&program, mode).with_context(|| program.display().to_string())?;
    }
    // Another process may have been first, or an interrupted one have left a part.
    if !is_complete(&mpiexec) {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
        }
        fs::rename(&data, folder).with_context(|| folder.display().to_string())?;
    }
    fs::remove_dir_all(&aside).with_context(|| aside.display().to_string())?;
    ensure!(is_complete(&mpiexec), "{WHEEL} did not come with bin/mpiexec and lib/libmpi_abi.so.1");
    Ok(mpiexec)
}

/// What lies in a folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.collect::<std::io::Result<Vec<_>>>()?.iter().map(|entry| entry.path()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launcher_needs_its_library() {
        let top = env::temp_dir().join(format!("xtask-mpi-{}", std::process::id()));
        for folder in ["bin", "lib"] {
            fs::create_dir_all(top.join(folder)).expect("a temporary folder can be made");
        }
        let mpiexec = top.join("bin/mpiexec");
        fs::write(&mpiexec, "").expect("a temporary file can be written");
        assert!(!is_complete(&mpiexec));
        fs::write(top.join("lib/libmpi_abi.so.1"), "").expect("a temporary file can be written");
        assert!(is_complete(&mpiexec));
        fs::remove_dir_all(&top).expect("what was made can be removed");
    }
}
