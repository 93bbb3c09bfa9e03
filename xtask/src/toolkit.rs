//! Where NVIDIA's compiler and disassembler are: found on this machine, or installed under `target/` in pinned versions.
//! Neither needs a GPU or a driver. Nothing is installed twice, and two processes may ask at once.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, Result, ensure};

use crate::{exec, nvrtc, target_dir};

/// What is installed where nothing is found; the folder `target/nvrtc` is named by nothing else.
const WHEELS: &[&str] = &["nvidia-cuda-nvrtc==13.0.88", "nvidia-cuda-nvdisasm==13.2.86"];

/// A folder with the compiler's library, and the disassembler that goes with it.
#[derive(Debug)]
pub struct Toolkit {
    /// What a program that opens the compiler needs in `LD_LIBRARY_PATH`.
    pub library_dir: PathBuf,
    pub nvdisasm: PathBuf,
}

impl Toolkit {
    /// What `LD_LIBRARY_PATH` has to be for a program that opens the compiler: its folder, then what it was.
    pub fn library_path(&self) -> OsString {
        let mut path = OsString::from(&self.library_dir);
        if let Some(more) = env::var_os("LD_LIBRARY_PATH") {
            path.push(":");
            path.push(more);
        }
        path
    }
}

/// `LTM_NVRTC_DIR` if it is set; otherwise the first usual place that has both; otherwise the pinned wheels.
pub fn find() -> Result<Toolkit> {
    if let Some(folder) = env::var_os("LTM_NVRTC_DIR") {
        let folder = PathBuf::from(folder);
        return complete(&folder).with_context(|| {
            format!(
                "LTM_NVRTC_DIR is {}: it must hold {}, and nvdisasm must lie in ../bin or on PATH",
                folder.display(),
                nvrtc::LIBRARY_NAMES.join(" or "),
            )
        });
    }
    if let Some(toolkit) = usual_places().iter().find_map(|folder| complete(folder)) {
        return Ok(toolkit);
    }
    installed(&target_dir().join("nvrtc"))
}

/// Where a loader would look, and where NVIDIA's installers put things.
fn usual_places() -> Vec<PathBuf> {
    let mut places = Vec::new();
    if let Some(paths) = env::var_os("LD_LIBRARY_PATH") {
        places.extend(env::split_paths(&paths).filter(|path| path.is_absolute()));
    }
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        places.extend(env::var_os(variable).map(|home| Path::new(&home).join("lib64")));
    }
    places.extend(
        ["/usr/local/cuda/lib64", "/opt/cuda/lib64", "/usr/lib/x86_64-linux-gnu"]
            .map(PathBuf::from),
    );
    places
}

/// The toolkit whose library is in `folder`, if there is a disassembler too.
fn complete(folder: &Path) -> Option<Toolkit> {
    nvrtc::library_in(folder)?;
    let near = [folder.join("../bin/nvdisasm"), folder.join("../../bin/nvdisasm")];
    let on_path = env::var_os("PATH").unwrap_or_default();
    let mut tools =
        near.into_iter().chain(env::split_paths(&on_path).map(|at| at.join("nvdisasm")));
    let nvdisasm = tools.find(|path| path.is_file())?;
    Some(Toolkit { library_dir: folder.to_owned(), nvdisasm })
}

/// `python3 -m pip install` into `folder`, of the packages that are still to be named.
pub fn pip_install(folder: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]);
    pip.args(["--root-user-action=ignore", "--target"]).arg(folder);
    pip
}

/// The pinned wheels in `folder`, which appears whole or not at all.
fn installed(folder: &Path) -> Result<Toolkit> {
    let libraries = Path::new("nvidia/cu13/lib");
    if let Some(toolkit) = complete(&folder.join(libraries)) {
        return Ok(toolkit);
    }
    let aside = folder.with_extension(format!("{}.tmp", std::process::id()));
    fs::create_dir_all(&aside).with_context(|| aside.display().to_string())?;
    // Both in one command: a second `--target` run into the same folder would install nothing.
    let mut pip = pip_install(&aside);
    pip.args(WHEELS);
    exec(&mut pip).with_context(|| {
        format!(
            "found no NVRTC and could not install it: install the CUDA toolkit 12.8 or later, set LTM_NVRTC_DIR to a \
             folder with {} (nvdisasm in ../bin or on PATH), or make `python3 -m pip install {}` work",
            nvrtc::LIBRARY_NAMES.join(" or "),
            WHEELS.join(" "),
        )
    })?;
    // A second build of the compiler that nobody opens, as large as the first.
    for entry in fs::read_dir(aside.join(libraries))? {
        let path = entry?.path();
        if path.to_string_lossy().contains(".alt.so") {
            fs::remove_file(&path).with_context(|| path.display().to_string())?;
        }
    }
    if fs::rename(&aside, folder).is_err() {
        // Another process was first, or an interrupted one left a part: only what is there counts.
        if complete(&folder.join(libraries)).is_none() {
            fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
            fs::rename(&aside, folder).with_context(|| folder.display().to_string())?;
        } else {
            fs::remove_dir_all(&aside).with_context(|| aside.display().to_string())?;
        }
    }
    let toolkit = complete(&folder.join(libraries));
    ensure!(toolkit.is_some(), "{} did not come with {}", WHEELS.join(" "), libraries.display());
    Ok(toolkit.expect("checked in the line above"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolkit_needs_both_its_parts() {
        let top = env::temp_dir().join(format!("xtask-toolkit-{}", std::process::id()));
        let (lib, bin) = (top.join("lib"), top.join("bin"));
        fs::create_dir_all(&lib).expect("a temporary folder can be made");
        fs::create_dir_all(&bin).expect("a temporary folder can be made");
        fs::write(bin.join("nvdisasm"), "").expect("a temporary file can be written");
        assert!(complete(&lib).is_none());
        fs::write(lib.join("libnvrtc.so.12"), "").expect("a temporary file can be written");
        let toolkit = complete(&lib).expect("both lie there now");
        assert_eq!(toolkit.library_dir, lib);
        assert!(toolkit.nvdisasm.ends_with("bin/nvdisasm"));
        fs::remove_dir_all(&top).expect("what was made can be removed");
    }
}
