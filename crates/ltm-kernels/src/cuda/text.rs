//! The texts that are compiled: those of `kernels/`, built in or read from a folder, and others. Knows no compiler.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crate::{Error, Result, registry};

/// Something to compile.
pub(super) struct Text<'a> {
    /// Its name in messages, such as `kernels/rope/fwd_v1_naive.cu`.
    pub name: Cow<'a, str>,
    pub text: Cow<'a, str>,
}

/// What a text may include.
pub(super) struct Header {
    /// The name that stands in the include, such as `common/map.cuh`.
    pub name: Cow<'static, str>,
    pub text: Cow<'static, str>,
}

/// The folder that `LTM_KERNELS_DIR` names, if it names one.
fn folder() -> Option<PathBuf> {
    std::env::var_os("LTM_KERNELS_DIR").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A file of `kernels/`, as the registry names it.
///
/// # Panics
/// When `file` is no file of the registry.
pub(super) fn shipped(file: &str) -> Result<Text<'static>> {
    let built_in = registry::source(file)
        .unwrap_or_else(|| panic!("kernel file `{file}` is not in the registry"));
    let (name, text) = match folder() {
        None => (format!("kernels/{file}"), built_in.into()),
        Some(folder) => {
            let path = folder.join(file);
            (path.display().to_string(), read(&path)?.into())
        }
    };
    Ok(Text { name: name.into(), text })
}

/// Every header, in order of name.
pub(super) fn headers() -> Result<Vec<Header>> {
    let built_in = |(name, text): &(&'static str, &'static str)| {
        let (name, text) = ((*name).into(), (*text).into());
        Header { name, text }
    };
    match folder() {
        None => Ok(registry::HEADERS.iter().map(built_in).collect()),
        Some(folder) => headers_in(&folder),
    }
}

/// Every `<folder>/<name>.cuh` below the top.
fn headers_in(top: &Path) -> Result<Vec<Header>> {
    let mut headers = Vec::new();
    for folder in entries(top)?.into_iter().filter(|path| path.is_dir()) {
        for path in entries(&folder)? {
            if path.extension().is_some_and(|extension| extension == "cuh") {
                let names = path.strip_prefix(top).unwrap_or(&path).components();
                let names: Vec<_> = names.map(|name| name.as_os_str().to_string_lossy()).collect();
                let name = names.join("/").into();
                headers.push(Header { name, text: read(&path)?.into() });
            }
        }
    }
    headers.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(headers)
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_dir(folder).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<_>>()
    });
    list.map_err(|error| unreadable(folder, &error))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    let call = format!("read {} (LTM_KERNELS_DIR)", path.display());
    Error::Cuda { call, reason: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_of_a_folder_are_those_that_are_built_in() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let found = headers_in(&folder).expect("the folder is part of the package");
        let found: Vec<_> = found.iter().map(|header| (&*header.name, &*header.text)).collect();
        assert_eq!(found, registry::HEADERS);
        let missing = headers_in(&folder.join("nowhere")).map(|headers| headers.len());
        assert!(matches!(missing, Err(Error::Cuda { call, .. }) if call.contains("nowhere")));
    }
}
