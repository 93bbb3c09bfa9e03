//! The texts in a folder such as `kernels/`. Knows files; must not know what they contain.
//!
//! Included by its path in the build script and in `xtask`, as `contract.rs` is.

use std::fs;
use std::io::{Error, Result};
use std::path::{Path, PathBuf};

/// Name and text of every file `<folder>/<stem>.<extension>` below `top`, in order of name; the error names the path.
pub fn texts(top: &Path, extension: &str) -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for folder in entries(top)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&folder)? {
            if path.extension().is_some_and(|of_file| of_file == extension) {
                let names = path.strip_prefix(top).unwrap_or(&path).components();
                let names: Vec<_> = names.map(|name| name.as_os_str().to_string_lossy()).collect();
                found.push((names.join("/"), text(&path)?));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The text of a file; the error names the path.
pub fn text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| naming(path, &error))
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect());
    list.map_err(|error| naming(folder, &error))
}

fn naming(path: &Path, error: &Error) -> Error {
    Error::new(error.kind(), format!("{}: {error}", path.display()))
}
