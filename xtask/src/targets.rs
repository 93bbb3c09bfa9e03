//! `cargo xtask targets`: type-checks the library crates for other processors and systems, and the command
//! without CUDA. Runs nothing that it builds; a target whose standard library cannot be had is skipped.

use std::process::{Command, Stdio};

use anyhow::Result;

use crate::{cargo, exec, root};

/// The libraries, each of which must compile on every target.
const LIBRARIES: &[&str] = &[
    "ltm-files",
    "ltm-kernels",
    "ltm-autodiff",
    "ltm-model",
    "ltm-vi",
    "ltm-collective",
    "ltm-data",
    "ltm-train",
    "ltm-eval",
    "ltm-serve",
    "ltm-ptxsim",
];

/// Where the libraries must compile: servers, laptops and desktops. What is behind their other features is other
/// people's code, of which one target is enough.
const TARGETS: &[(&str, &[&str])] = &[
    ("aarch64-unknown-linux-gnu", &[]),
    ("aarch64-apple-darwin", &["--no-default-features", "--features", "cuda"]),
    ("x86_64-pc-windows-gnu", &["--no-default-features", "--features", "cuda"]),
];

/// The libraries that must compile for WebAssembly, without CUDA; `ltm-data` and the crates after it need
/// threads and a file system.
const WASM: (&str, &[&str]) = (
    "wasm32-unknown-unknown",
    &["ltm-files", "ltm-kernels", "ltm-autodiff", "ltm-model", "ltm-vi"],
);

/// Checks every target that is installed or can be installed, then the command without default features.
pub fn run() -> Result<()> {
    for (target, features) in TARGETS {
        check(target, LIBRARIES, features)?;
    }
    check(WASM.0, WASM.1, &["--no-default-features"])?;
    exec(&mut cargo(["check", "--package", "ltm-cli", "--no-default-features"]))
}

/// Checks libraries for one target, if its standard library is there.
fn check(target: &str, libraries: &[&str], options: &[&str]) -> Result<()> {
    if !is_available(target) {
        note!("skipped: {target}, which `rustup target add` cannot install");
        return Ok(());
    }
    exec(cargo(["check", "--lib", "--target", target]).args(packages(libraries)).args(options))
}

/// The arguments that name these packages.
fn packages<'a>(names: &[&'a str]) -> Vec<&'a str> {
    names.iter().flat_map(|name| ["--package", name]).collect()
}

/// Whether the standard library of a target is installed, now or by rustup.
fn is_available(target: &str) -> bool {
    let mut install = Command::new("rustup");
    install.args(["target", "add", target]).current_dir(root());
    // What it prints is its own; whether it succeeds is what counts.
    let status = install.stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_skipped() {
        assert!(!is_available("no-such-target"));
        assert!(check("no-such-target", LIBRARIES, &[]).is_ok());
    }

    #[test]
    fn every_library_is_checked() {
        let folders = std::fs::read_dir(root().join("crates")).expect("the workspace has crates");
        let is_library = |name: &String| {
            let manifest = root().join("crates").join(name).join("Cargo.toml");
            let text = std::fs::read_to_string(manifest).expect("a crate has a manifest");
            !text.contains("publish = false") && name != "ltm-cli"
        };
        let mut names: Vec<_> = folders
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(is_library)
            .collect();
        let mut listed = LIBRARIES.to_vec();
        names.sort_unstable();
        listed.sort_unstable();
        assert_eq!(names, listed);
    }
}
