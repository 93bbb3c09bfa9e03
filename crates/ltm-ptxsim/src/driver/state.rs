//! Everything the library remembers between calls: handle tables, and each thread's context.
//!
//! A handle is a number that was never given out before, not an address, so a stale or invented one
//! is found out (`CUDA_ERROR_INVALID_HANDLE`) and never followed. Must not know what the objects
//! do.

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

/// A handle as C sees it: the size of a pointer, 0 is null.
pub(super) type Handle = usize;

/// Handles of graphs leave this many bits for the number of a node.
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

    /// The object of a handle.
    pub(super) fn get(&self, handle: Handle) -> Outcome<Arc<T>> {
        let objects = locked(&self.objects);
        let place = objects.binary_search_by_key(&handle, |row| row.0);
        place.map(|place| objects[place].1.clone()).map_err(|_| self.unknown(handle))
    }

    /// The object of a handle, which is invalid from now on.
    pub(super) fn remove(&self, handle: Handle) -> Outcome<Arc<T>> {
        let mut objects = locked(&self.objects);
        let place = objects.binary_search_by_key(&handle, |row| row.0);
        place.map(|place| objects.remove(place).1).map_err(|_| self.unknown(handle))
    }

    /// Invalidates the handles of all objects but those `keep` approves.
    pub(super) fn retain(&self, keep: impl Fn(&T) -> bool) {
        locked(&self.objects).retain(|row| keep(&row.1));
    }

    /// Shows every object to `visit`.
    pub(super) fn for_each(&self, visit: impl Fn(&T)) {
        locked(&self.objects).iter().for_each(|row| visit(&row.1));
    }

    fn unknown(&self, handle: Handle) -> super::error::Failure {
        Code::InvalidHandle.because(format!("{handle:#x} is no {} (any more)", self.kind))
    }
}

/// A number above all earlier ones, so that tables stay sorted.
pub(super) fn new_handle() -> Handle {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed) << NODE_BITS
}

/// All that the library remembers.
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
    /// What was set on the default memory pool of each device.
    pub(super) pools: Mutex<HashMap<i32, PoolSettings>>,
    initialized: AtomicBool,
}

/// The one state of this library.
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

/// Locks, also after a panic elsewhere: a panic never leaves a table half changed, and a poisoned
/// table would turn one failure into every later call's.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `cuInit`.
pub(super) fn initialize() -> Outcome<()> {
    if settings()?.devices == 0 {
        return Err(Code::NoDevice.because("PTXSIM_DEVICES is 0"));
    }
    state().initialized.store(true, Ordering::Release);
    Ok(())
}

/// Refuses what comes before `cuInit`.
pub(super) fn require_init() -> Outcome<()> {
    if state().initialized.load(Ordering::Acquire) {
        return Ok(());
    }
    Err(Code::NotInitialized.because("call cuInit first"))
}

thread_local! {
    static CURRENT: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The handle of this thread's current context, 0 for none.
pub(super) fn current_handle() -> Handle {
    CURRENT.with_borrow(|stack| stack.last().copied().unwrap_or(0))
}

/// Replaces the top of this thread's stack of contexts; 0 only removes it.
pub(super) fn set_current(handle: Handle) {
    CURRENT.with_borrow_mut(|stack| {
        stack.pop();
        if handle != 0 {
            stack.push(handle);
        }
    });
}

/// Puts a context on top of this thread's stack.
pub(super) fn push_current(handle: Handle) {
    CURRENT.with_borrow_mut(|stack| stack.push(handle));
}

/// Takes the top of this thread's stack.
pub(super) fn pop_current() -> Option<Handle> {
    CURRENT.with_borrow_mut(Vec::pop)
}
