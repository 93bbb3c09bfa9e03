//! The state of the library: tables of handles, and each thread's current context.
//!
//! A handle is a unique number, not an address, so a stale or invented handle is detected
//! (`CUDA_ERROR_INVALID_HANDLE`) and never dereferenced. Must not know what the objects do.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::context::{Context, PrimaryContext};
use super::error::{Code, Outcome};
use super::event::Event;
use super::ffi::HostAllocation;
use super::graph::{Executable, Graph};
use super::library::{Kernel, Library};
use super::memory::PoolSettings;
use super::module::{Function, LoadedModule};
use super::settings::settings;
use super::stream::Stream;

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
    const fn new(kind: &'static str) -> Table<T> {
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

    fn unknown(&self, handle: Handle) -> super::error::Failure {
        Code::InvalidHandle
            .because(format!("{handle:#x}: no such {} (destroyed, or never created)", self.kind))
    }
}

/// A number larger than all earlier ones, which keeps tables sorted.
pub(super) fn new_handle() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << NODE_BITS
}

/// The state of the library.
pub(super) struct State {
    pub(super) contexts: Table<Context>,
    pub(super) streams: Table<Stream>,
    pub(super) events: Table<Event>,
    pub(super) modules: Table<LoadedModule>,
    pub(super) functions: Table<Function>,
    pub(super) libraries: Table<Library>,
    pub(super) kernels: Table<Kernel>,
    pub(super) graphs: Table<Graph>,
    pub(super) executables: Table<Executable>,
    /// The primary context of each device, by ordinal.
    pub(super) primary: Mutex<HashMap<i32, PrimaryContext>>,
    /// Page-locked host memory, by address.
    pub(super) host_memory: Mutex<HashMap<usize, HostAllocation>>,
    /// Settings of each device's default memory pool.
    pub(super) pools: Mutex<HashMap<i32, PoolSettings>>,
    initialized: AtomicBool,
}

/// The only instance of the state.
pub(super) fn state() -> &'static State {
    static STATE: std::sync::LazyLock<State> = std::sync::LazyLock::new(|| State {
        contexts: Table::new("context"),
        streams: Table::new("stream"),
        events: Table::new("event"),
        modules: Table::new("module"),
        functions: Table::new("function"),
        libraries: Table::new("library"),
        kernels: Table::new("kernel"),
        graphs: Table::new("graph"),
        executables: Table::new("executable graph"),
        primary: Mutex::new(HashMap::new()),
        host_memory: Mutex::new(HashMap::new()),
        pools: Mutex::new(HashMap::new()),
        initialized: AtomicBool::new(false),
    });
    &STATE
}

/// Locks even after a panic in another call: no panic leaves a table half changed, and a poisoned
/// table would make every later call fail too.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Implements `cuInit`.
pub(super) fn initialize() -> Outcome<()> {
    if settings()?.devices == 0 {
        return Err(Code::NoDevice.because("PTXSIM_DEVICES is 0"));
    }
    state().initialized.store(true, Ordering::Release);
    Ok(())
}

/// Fails before `cuInit`.
pub(super) fn require_init() -> Outcome<()> {
    if state().initialized.load(Ordering::Acquire) {
        return Ok(());
    }
    Err(Code::NotInitialized.because("call cuInit first"))
}

thread_local! {
    static CURRENT: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The handle of this thread's current context; 0 if there is none.
pub(super) fn current_handle() -> Handle {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// Replaces the top of this thread's context stack; 0 removes it.
pub(super) fn set_current(handle: Handle) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
}

/// Pushes a context onto this thread's context stack.
pub(super) fn push_current(handle: Handle) {
    CURRENT.with_borrow_mut(|stack| stack.push(handle));
}

/// Pops this thread's context stack.
pub(super) fn pop_current() -> Option<Handle> {
    CURRENT.with_borrow_mut(Vec::pop)
}
