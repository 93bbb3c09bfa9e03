//! Handles: what a C caller has of an object, and tables of the objects.
//!
//! A handle is a unique number, not an address, so a stale or invented handle is detected
//! (`CUDA_ERROR_INVALID_HANDLE`) and never dereferenced. Must not know what the objects are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::code::{Code, Failure, Outcome};

/// A handle as C sees it: pointer-sized, with 0 for null.
pub(super) type Handle = usize;

/// Low bits of a graph's handle that are reserved for the index of a node.
pub(super) const NODE_BITS: u32 = 24;

/// Objects of one kind, by handle.
pub(super) struct Table<T> {
    kind: &'static str,
    objects: Mutex<Vec<(Handle, Arc<T>)>>,
}

impl<T> Table<T> {
    pub(super) const fn new(kind: &'static str) -> Table<T> {
        Table { kind, objects: Mutex::new(Vec::new()) }
    }

    /// Stores an object under a new handle.
    pub(super) fn insert(&self, object: Arc<T>) -> Handle {
        let handle = new_handle();
        locked(&self.objects).push((handle, object));
        handle
    }

    /// The object with this handle.
    pub(super) fn get(&self, handle: Handle) -> Outcome<Arc<T>> {
        let objects = locked(&self.objects);
        let place = objects.binary_search_by_key(&handle, |row| row.0);
        place.map(|place| objects[place].1.clone()).map_err(|_| self.unknown(handle))
    }

    /// Removes and returns the object with this handle.
    pub(super) fn remove(&self, handle: Handle) -> Outcome<Arc<T>> {
        let mut objects = locked(&self.objects);
        let place = objects.binary_search_by_key(&handle, |row| row.0);
        place.map(|place| objects.remove(place).1).map_err(|_| self.unknown(handle))
    }

    /// Removes all objects except those for which `keep` returns true.
    pub(super) fn retain(&self, keep: impl Fn(&T) -> bool) {
        locked(&self.objects).retain(|row| keep(&row.1));
    }

    /// Calls `visit` with every object.
    pub(super) fn for_each(&self, visit: impl Fn(&T)) {
        locked(&self.objects).iter().for_each(|row| visit(&row.1));
    }

    fn unknown(&self, handle: Handle) -> Failure {
        Code::InvalidHandle
            .because(format!("{handle:#x}: no such {} (destroyed, or never created)", self.kind))
    }
}

/// A number larger than all earlier ones, which keeps tables sorted.
pub(super) fn new_handle() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << NODE_BITS
}

/// Locks even after a panic in another call: no panic leaves a table half changed, and a poisoned
/// table would make every later call fail too.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
