//! The crate's one unsafe call: a shard seen as memory, so that it may be larger than memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Maps a whole file for reading.
///
/// # Errors
/// [`Error::Io`] when the file cannot be opened or mapped.
pub(super) fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(Error::io(path, "open"))?;
    // SAFETY: the map is private to `shard.rs`, which only copies token ids out of it. Shards are never
    // written in place (they are renamed when complete), so nothing in this crate changes a mapped file;
    // another program that does may change the ids read, which are checked, or end the process.
    unsafe { Mmap::map(&file) }.map_err(Error::io(path, "map"))
}
