//! Folders created and removed so that no reader meets half of one, and how paths and texts are recorded.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// How the name of every temporary file and folder ends. It starts with a dot and the name that it will get.
pub const TEMPORARY_SUFFIX: &str = ".ltm-tmp";

/// Creates `dir` and its parents.
pub fn create_dir(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::io(dir, "create the folder"))
}

/// Creates a folder under a temporary name next to `dir`, removed when it is dropped.
pub fn create_temporary_dir(dir: &Path) -> Result<tempfile::TempDir> {
    let (parent, name) = (dir.parent().unwrap_or(Path::new("")), dir.file_name());
    let prefix = format!(".{}.", name.unwrap_or_default().to_string_lossy());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
    // The default is a folder for its owner alone; this leaves it to the umask, as for any other.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent).map_err(Error::io(dir, "create"))
}

/// Removes a file or folder under a temporary name, so that no reader meets half of it; one that is absent is fine.
pub fn remove_aside(path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound) {
        return Ok(());
    }
    let aside = create_temporary_dir(path)?;
    let inside = aside.path().join("removed");
    fs::rename(path, &inside).map_err(Error::io(path, "rename"))?;
    remove(&inside)?;
    aside.close().map_err(Error::io(path, "remove"))
}

/// Removes a file, a link or a folder; one that is absent is fine.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(Error::io(path, "remove")),
    }
}

/// A path as JSON can record it, which has text alone: bytes that are not UTF-8 are replaced, and the path is then not
/// found again.
pub fn as_text(path: &Path) -> PathBuf {
    path.to_string_lossy().into_owned().into()
}

/// Makes renames in `dir` durable.
pub fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // Elsewhere than on Unix a folder cannot be opened as a file.
    if cfg!(unix) {
        File::open(dir).and_then(|folder| folder.sync_all()).map_err(Error::io(dir, "sync"))?;
    }
    Ok(())
}

/// A file's content without the UTF-8 byte order mark that some programs write first.
pub fn without_bom(content: &[u8]) -> &[u8] {
    content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write_whole;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.json");
        write_whole(&path, b"one").expect("first write");
        write_whole(&path, b"two").expect("second write");
        assert_eq!(fs::read(&path).expect("readable"), b"two");
        assert_eq!(fs::read_dir(dir.path()).expect("listable").count(), 1);
    }

    #[test]
    fn a_missing_folder_is_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let error = write_whole(&dir.path().join("no/a.json"), b"").expect_err("no folder");
        assert!(error.to_string().contains("no/a.json"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}
