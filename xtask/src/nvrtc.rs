//! NVIDIA's run-time compiler, loaded from a folder. Knows no kernel and no option; the only file of `xtask` that may hold
//! `unsafe`.
#![allow(unsafe_code)]

#[path = "../../crates/ltm-kernels/src/cuda/nvrtc.rs"]
#[expect(dead_code, reason = "the architectures are stated")]
mod binding;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use binding::Failure;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

pub use binding::Compiled;

/// The names under which the compiler's library goes, the newest first.
pub const LIBRARY_NAMES: &[&str] = &["libnvrtc.so.13", "libnvrtc.so.12"];

/// The compiler, open for as long as this process lives. It may be used from several threads.
pub struct Nvrtc {
    version: String,
}

/// A file handed to the compiler in memory.
pub struct Source {
    /// The name by which an `#include` or an error message calls it.
    pub name: String,
    pub text: String,
}

impl Nvrtc {
    /// Opens the compiler in `folder`.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = library_in(folder)
            .with_context(|| format!("no {} in {}", LIBRARY_NAMES[0], folder.display()))?;
        // The compiler opens its builtins by their bare name and has no run path, and the binding opens the compiler by
        // its own: both are found when they are open already, under the same name.
        if let Some(builtins) = builtins_in(folder) {
            open_for_good(&builtins)?;
        }
        open_for_good(&path)?;
        ensure!(binding::is_present(), "{} is open but cannot be found again", path.display());
        Ok(Self { version: binding::version().map_err(describe)? })
    }

    /// Its release, as `13.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Compiles one file for one real architecture. The error of a program that does not compile is the compiler's log.
    pub fn compile(
        &self,
        source: &Source,
        headers: &[Source],
        options: &[String],
    ) -> Result<Compiled> {
        let headers = headers.iter().map(|header| (header.name.as_str(), header.text.as_str()));
        let compiled =
            binding::compile(&source.name, &source.text, headers, options).map_err(describe)?;
        let no_code = "no machine code: compile for sm_XX, not for compute_XX";
        ensure!(!compiled.cubin.is_empty(), no_code);
        Ok(compiled)
    }
}

fn describe(failure: Failure) -> anyhow::Error {
    match failure {
        Failure::Rejected(log) => anyhow!("does not compile\n{}", log.trim_end()),
        Failure::Call { call, reason } => anyhow!("NVRTC: {call}: {reason}"),
    }
}

/// The compiler's library in a folder.
pub fn library_in(folder: &Path) -> Option<PathBuf> {
    LIBRARY_NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// The library of built-in functions next to the compiler; its name contains the release.
fn builtins_in(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libnvrtc-builtins.so.") && name.matches('.').count() == 3
        })
        .collect();
    found.sort();
    found.pop()
}

/// Opens a library and never closes it.
fn open_for_good(path: &Path) -> Result<()> {
    // SAFETY: NVIDIA's libraries do nothing on loading but set up themselves.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }
        .with_context(|| format!("cannot open {}", path.display()))?;
    std::mem::forget(library);
    Ok(())
}
