//! Compiled kernels on disk. Knows bytes; must not know the compiler.
//!
//! Several processes may share a folder: an entry is written to a file with a unique name, synced,
//! and then renamed. Readers verify a checksum, so an entry that was truncated by a full disk or a
//! crash, or modified later, counts as missing.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::image::Image;

/// Size of a checksum, in bytes.
const SUM: usize = 32;
/// Prefix of the names of unfinished entries.
const UNFINISHED: &str = ".unfinished-";
/// Age after which an unfinished entry was certainly left by a killed process.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// The cache folder: `LTM_KERNEL_CACHE`, otherwise `ltm/kernels` in the user's cache folder.
pub(super) fn folder() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("LTM_KERNEL_CACHE").or_else(|| {
        let user = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        user.map(|folder| folder.join("ltm/kernels"))
    })
}

/// The name of the cache entry for these texts.
pub(super) fn key(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Layout of an entry: checksum of the rest, length of the cubin (8 bytes, little-endian), cubin,
/// PTX.
pub(super) fn read(path: &Path) -> Option<Image> {
    let bytes = fs::read(path).ok()?;
    let (sum, content) = bytes.split_first_chunk::<SUM>()?;
    if Sha256::digest(content)[..] != sum[..] {
        return None;
    }
    let (len, rest) = content.split_first_chunk::<8>()?;
    let (cubin, ptx) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)?;
    // The driver reads PTX up to its NUL and always reads the header of machine code, so neither
    // may be missing.
    (ptx.last() == Some(&0) && !cubin.is_empty()).then(|| Image {
        cubin: cubin.into(),
        ptx: ptx.into(),
        is_cached: true,
    })
}

/// Writes an entry; on failure an existing entry is left as it was.
pub(super) fn write(path: &Path, image: &Image) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    remove_abandoned(folder);
    let len = (image.cubin.len() as u64).to_le_bytes();
    let content = [&len[..], &image.cubin, &image.ptx].concat();
    let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(folder)?;
    file.write_all(&Sha256::digest(&content))?;
    file.write_all(&content)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Removes files left by killed processes. Failure to do so only costs disk space.
fn remove_abandoned(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let unfinished = entry.file_name().to_string_lossy().starts_with(UNFINISHED);
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let age = modified.ok().and_then(|time| time.elapsed().ok());
        if unfinished && age.is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// A folder, the path of an entry in it, and its image.
    fn entry() -> (tempfile::TempDir, PathBuf, Image) {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let path = folder.path().join("cache").join(key(&["13.0", "text"]));
        let (cubin, ptx) = (vec![1, 2, 3], b".version 8.0\0".to_vec());
        let image = Image { cubin, ptx, is_cached: true };
        write(&path, &image).expect("a temporary folder can be written");
        (folder, path, image)
    }

    #[test]
    fn a_damaged_entry_is_no_entry() {
        let (_folder, path, image) = entry();
        assert_eq!(read(&path), Some(image.clone()));
        let whole = fs::read(&path).expect("written above");
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).expect("writable");
            assert_eq!(read(&path), None, "{len} bytes");
        }
        for place in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 1;
            fs::write(&path, &damaged).expect("writable");
            assert_eq!(read(&path), None, "byte {place}");
        }
        write(&path, &image).expect("a damaged entry is replaced");
        assert_eq!(read(&path), Some(image));
    }

    #[test]
    fn only_entries_remain_and_abandoned_files_go() {
        let (_folder, path, image) = entry();
        let folder = path.parent().expect("the entry is in a folder");
        let [old, young] = ["old", "young"].map(|name| {
            let path = folder.join(format!("{UNFINISHED}{name}"));
            (fs::File::create(&path).expect("writable"), path)
        });
        let long_ago = SystemTime::now() - 2 * ABANDONED;
        old.0.set_modified(long_ago).expect("a file's date can be set");
        write(&path, &image).expect("writable");
        assert!(!old.1.exists() && young.1.exists());
        assert_eq!(fs::read_dir(folder).expect("readable").count(), 2);
    }
}
