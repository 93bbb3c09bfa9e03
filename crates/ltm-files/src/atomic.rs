//! Files that readers see whole or not at all, even if power fails. Knows nothing of their content.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use tempfile::{Builder, NamedTempFile, TempPath};

use crate::folders::{TEMPORARY_SUFFIX, sync_dir};
use crate::{Error, Result};

/// A file being written under a temporary name next to its final one. The name is random and the file is created
/// exclusively, so neither another writer nor a planted link can redirect it. Dropped before
/// [`FinishedFile::publish`], the file is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    file: NamedTempFile,
}

/// An [`AtomicFile`] that is complete and synced, but does not have its final name yet.
#[derive(Debug)]
pub struct FinishedFile {
    path: PathBuf,
    temporary: TempPath,
}

impl AtomicFile {
    /// Creates the temporary file in the folder of `path`.
    ///
    /// # Errors
    /// [`Error::Io`] when `path` does not end in a file's name or the file cannot be created.
    pub fn create(path: &Path) -> Result<Self> {
        let Some(name) = path.file_name() else {
            let error = io::Error::other("the path does not end in a file's name");
            return Err(Error::io(path, "write")(error));
        };
        let mut prefix = std::ffi::OsString::from(".");
        prefix.push(name);
        prefix.push(".");
        let mut builder = Builder::new();
        builder.prefix(&prefix).suffix(TEMPORARY_SUFFIX);
        // The default is a file for its owner alone; this leaves it to the umask, as for any other file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(folder_of(path)).map_err(Error::io(path, "write"))?;
        Ok(Self { path: path.into(), file })
    }

    /// Syncs and closes the file.
    ///
    /// # Errors
    /// [`Error::Io`]; the temporary file is removed.
    pub fn finish(self) -> Result<FinishedFile> {
        let Self { path, file } = self;
        file.as_file().sync_all().map_err(Error::io(&path, "write"))?;
        Ok(FinishedFile { path, temporary: file.into_temp_path() })
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Read for AtomicFile {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl FinishedFile {
    /// Gives the file its final name, replacing a file or a link that has it.
    ///
    /// # Errors
    /// [`Error::Io`], also when a folder, a device, a pipe or a socket has that name; the temporary file is removed and the file of that name is unchanged.
    pub fn publish(self) -> Result<()> {
        let Self { path, temporary } = self;
        let failed = |source| Error::io(&path, "write")(source);
        if let Some(kind) = irreplaceable(&path) {
            let message = format!("expected a regular file or none, found {kind}");
            return Err(failed(io::Error::new(io::ErrorKind::AlreadyExists, message)));
        }
        temporary.persist(&path).map_err(|error| failed(error.error))?;
        sync_dir(folder_of(&path))
    }
}

/// Writes a file that readers see whole or not at all, even if power fails: a temporary file in
/// the same folder, synced, then renamed over `path`.
///
/// # Errors
/// [`Error::Io`]; the temporary file is removed and `path` is unchanged.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).map_err(Error::io(path, "write"))?;
    file.finish()?.publish()
}

/// What has this name, if a file must not take its place.
fn irreplaceable(path: &Path) -> Option<&'static str> {
    let found = fs::symlink_metadata(path).ok()?;
    if found.is_dir() {
        Some("a folder")
    } else if found.is_file() || found.is_symlink() {
        None
    } else {
        Some("a device, pipe or socket")
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_dropped_before_it_is_published_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"one").unwrap();
        let [entry] = &fs::read_dir(dir.path()).unwrap().collect::<Vec<_>>()[..] else { panic!() };
        let name = entry.as_ref().unwrap().file_name().into_string().unwrap();
        assert!(name.starts_with(".a.") && name.ends_with(TEMPORARY_SUFFIX), "{name}");
        drop(file.finish().unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn two_writers_of_one_path_do_not_share_a_temporary_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let [mut first, mut second] = [(); 2].map(|()| AtomicFile::create(&path).unwrap());
        first.write_all(b"first").unwrap();
        second.write_all(b"second").unwrap();
        first.finish().unwrap().publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"first");
        second.finish().unwrap().publish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn only_files_and_links_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let refused = |part: &str| {
            let Err(Error::Io { source, .. }) = write_whole(&path, b"new") else { panic!() };
            assert_eq!(source.kind(), io::ErrorKind::AlreadyExists);
            assert!(source.to_string().contains(part), "{source}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        };
        fs::create_dir(&path).unwrap();
        refused("found a folder");
        fs::remove_dir(&path).unwrap();
        #[cfg(unix)]
        {
            let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
            refused("found a device, pipe or socket");
            drop(socket);
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("elsewhere", &path).unwrap();
        }
        write_whole(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[cfg(unix)]
    #[test]
    fn a_file_is_readable_for_whom_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let [ours, plain] = ["ours", "plain"].map(|name| dir.path().join(name));
        write_whole(&ours, b"").unwrap();
        fs::write(&plain, b"").unwrap();
        let [ours, plain] =
            [ours, plain].map(|path| fs::metadata(path).unwrap().permissions().mode());
        assert_eq!(ours, plain);
    }
}
