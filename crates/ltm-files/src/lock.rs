//! One writer per folder: a file that the operating system keeps locked for as long as the writer lives.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use same_file::Handle;

use crate::folders::{create_dir, remove};
use crate::{Error, Holder, Result, TEMPORARY_SUFFIX};

/// The file in a folder that its writer keeps locked.
pub const LOCK_FILE: &str = ".ltm-lock";
/// A holder's description is shorter than this; no more of a foreign file is read.
const HOLDER_BYTES: u64 = 4096;
/// How often a lock file that vanishes while it is being locked is tried again.
const ATTEMPTS: usize = 100;

impl Holder {
    fn this_process() -> Self {
        Self {
            pid: std::process::id(),
            host: gethostname::gethostname().to_string_lossy().into_owned(),
            since: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        }
    }
}

/// The right to write into a folder. Dropping it gives the right back; the operating system does so for a process
/// that dies, however it does.
#[derive(Debug)]
pub struct FolderLock {
    dir: PathBuf,
    /// Locked until it is closed. `None` on a file system without locks.
    file: Option<File>,
    created: bool,
}

impl FolderLock {
    /// Takes the lock of `dir`, creating the folder, and removes temporary files and folders that a writer which died
    /// has left in it.
    ///
    /// The lock excludes other processes as well as a second lock in this one. It is advisory: only writers that take
    /// it respect it. On a file system that has no locks nobody is excluded.
    ///
    /// # Errors
    /// [`Error::Locked`] naming the holder, [`Error::Content`] when the lock file is a link or a folder, [`Error::Io`].
    pub fn acquire(dir: &Path) -> Result<Self> {
        let created = !dir.exists();
        let path = dir.join(LOCK_FILE);
        for _ in 0..ATTEMPTS {
            create_dir(dir)?;
            let Some(mut file) = open(&path)? else { continue };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::Locked { path: dir.into(), holder: read_holder(&mut file) });
                }
                Err(TryLockError::Error(error)) if means_no_locks(&error) => {
                    return Ok(Self { dir: dir.into(), file: None, created });
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path, "lock")(error)),
            }
            // The previous holder may have removed the file after it was opened here.
            if !is_at(&file, &path) {
                continue;
            }
            write_holder(&mut file).map_err(Error::io(&path, "write"))?;
            remove_leftovers(dir)?;
            return Ok(Self { dir: dir.into(), file: Some(file), created });
        }
        Err(Error::Locked { path: dir.into(), holder: None })
    }
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // Best effort: a lock file that stays is taken over. It goes before it is unlocked, so that whoever locks it
        // next sees that it is gone.
        let path = self.dir.join(LOCK_FILE);
        // Where the folder was moved or removed, a file of this name is another holder's.
        if self.file.as_ref().is_none_or(|file| is_at(file, &path)) {
            let _ = fs::remove_file(path);
        }
        if self.created {
            // A folder into which nothing was written; any other stays.
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

/// Opens a lock file without following a link; `None` when it vanished in between.
fn open(path: &Path) -> Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).create_new(true).open(path) {
        Ok(file) => return Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(Error::io(path, "create")(error)),
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(found) => {
            let found = if found.is_symlink() { "a link" } else { "a folder or device" };
            return Err(Error::content(path, "lock", "a regular file; remove this one", found));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path, "open")(error)),
    }
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path, "open")(error)),
    }
}

/// Whether a failure to lock means that the file system has no locks. NFS without a lock daemon answers with `ENOLCK`,
/// for which [`ErrorKind`] has no name.
fn means_no_locks(error: &std::io::Error) -> bool {
    const ENOLCK: i32 = 37;
    error.kind() == ErrorKind::Unsupported
        || (cfg!(target_os = "linux") && error.raw_os_error() == Some(ENOLCK))
}

/// Whether the open file is the one that has this path, which is no link.
fn is_at(file: &File, path: &Path) -> bool {
    let regular = fs::symlink_metadata(path).is_ok_and(|found| found.is_file());
    let handle = file.try_clone().and_then(Handle::from_file);
    regular && matches!((handle, Handle::from_path(path)), (Ok(open), Ok(there)) if open == there)
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(&Holder::this_process())?;
    line.push(b'\n');
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&line)
}

/// What the holder wrote about itself; `None` before it has, or where a locked file cannot be read.
fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(HOLDER_BYTES).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Removes temporary files and folders in `dir`, if there is such a folder. Called under the lock of `dir` or of the
/// folder it belongs to, so whoever made them is gone.
pub fn remove_leftovers(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(Error::io(dir, "list"))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::io(dir, "list"))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !(name.starts_with('.') && name.ends_with(TEMPORARY_SUFFIX)) {
            continue;
        }
        // Of a link, only the link.
        remove(&entry.path())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let entries = fs::read_dir(dir).expect("listable").map(|entry| entry.expect("readable"));
        let mut names: Vec<String> =
            entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_second_lock_names_the_holder_and_a_dropped_one_leaves_nothing() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("a/b");
        let lock = FolderLock::acquire(&dir).expect("free");
        let error = FolderLock::acquire(&dir).expect_err("held");
        let Error::Locked { holder: Some(holder), .. } = &error else { panic!("{error}") };
        assert_eq!(holder.pid, std::process::id());
        let message = error.to_string();
        for part in [dir.to_str().expect("text"), &holder.host, &holder.since] {
            assert!(message.contains(part), "{message}");
        }
        drop(lock);
        assert!(!dir.exists(), "nothing was written into it");
        let lock = FolderLock::acquire(&dir).expect("free again");
        fs::write(dir.join("kept"), "").expect("writable");
        drop(lock);
        assert_eq!(names(&dir), ["kept"]);
    }

    #[test]
    fn a_stale_lock_is_taken_over_and_leftovers_go() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path();
        for holder in ["", "{\"pid\":1,\"host\":\"gone\",\"since\":\"before\"}\n", "garbage \u{0}"]
        {
            fs::write(dir.join(LOCK_FILE), holder).expect("writable");
            fs::write(dir.join(".model.safetensors.x1.ltm-tmp"), "half").expect("writable");
            fs::create_dir_all(dir.join(".step-4.x2.ltm-tmp/inner")).expect("creatable");
            fs::write(dir.join("notes.ltm-tmp"), "not hidden: not ours").expect("writable");
            let lock = FolderLock::acquire(dir).expect("nobody holds it");
            assert_eq!(names(dir), [LOCK_FILE, "notes.ltm-tmp"]);
            let text = fs::read_to_string(dir.join(LOCK_FILE)).expect("readable");
            let holder: Holder = serde_json::from_str(&text).expect("a holder");
            assert_eq!(holder.pid, std::process::id());
            drop(lock);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_locks_is_recognised() {
        let os = std::io::Error::from_raw_os_error;
        // EOPNOTSUPP and ENOLCK; EIO is a failure.
        assert!(means_no_locks(&os(95)) && means_no_locks(&os(37)) && !means_no_locks(&os(5)));
    }

    #[cfg(unix)]
    #[test]
    fn planted_links_are_not_followed() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let [dir, precious, absent] =
            ["run", "precious", "absent"].map(|name| temp.path().join(name));
        fs::create_dir(&dir).expect("creatable");
        fs::create_dir(&precious).expect("creatable");
        fs::write(precious.join("data"), "data").expect("writable");
        for target in [&absent, &precious.join("data"), &precious] {
            let link = dir.join(LOCK_FILE);
            std::os::unix::fs::symlink(target, &link).expect("linkable");
            let error = FolderLock::acquire(&dir).expect_err("a link").to_string();
            assert!(error.contains(LOCK_FILE) && error.contains("a link"), "{error}");
            fs::remove_file(&link).expect("removable");
        }
        std::os::unix::fs::symlink(&precious, dir.join(".a.b.ltm-tmp")).expect("linkable");
        drop(FolderLock::acquire(&dir).expect("free"));
        assert_eq!(names(&dir), [""; 0]);
        assert_eq!(fs::read_to_string(precious.join("data")).expect("there"), "data");
        assert!(!absent.exists());
    }

    #[test]
    fn of_many_threads_one_holds_the_lock() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let (dir, holders) = (temp.path(), std::sync::atomic::AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        match FolderLock::acquire(dir) {
                            Ok(_lock) => {
                                let before =
                                    holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                                assert_eq!(before, 0, "another thread holds the lock");
                                holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                            }
                            Err(error) => assert!(matches!(error, Error::Locked { .. }), "{error}"),
                        }
                    }
                });
            }
        });
    }
}
