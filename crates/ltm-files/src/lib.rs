#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod atomic;
mod error;
mod folders;
#[cfg(not(target_family = "wasm"))]
mod lock;

pub use atomic::{AtomicFile, FinishedFile, write_whole};
pub use error::{Error, Holder, Result};
pub use folders::{
    TEMPORARY_SUFFIX, as_text, create_dir, create_temporary_dir, remove, remove_aside, sync_dir,
    without_bom,
};
#[cfg(not(target_family = "wasm"))]
pub use lock::{FolderLock, LOCK_FILE, remove_leftovers};
