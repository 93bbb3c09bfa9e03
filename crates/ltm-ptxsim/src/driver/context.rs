//! Contexts: they own memory, streams and modules, and keep the code of a fault.
//!
//! Knows lifetimes and each thread's current context. Must not know how work runs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};

use super::capture::{refuse_implicit_wait, refuse_unsafe_call};
use super::code::{Code, Outcome};
use super::device::{DEVICE_MEMORY_BYTES, require_init};
use super::engine::Engine;
use super::event::EVENTS;
use super::graph::EXECUTABLES;
use super::handle::{Handle, Table, new_handle};
use super::module::{FUNCTIONS, MODULES};
use super::operation::Operation;
use super::stream::{STREAMS, Stream};

/// All contexts.
pub(super) static CONTEXTS: Table<Context> = Table::new("context");
/// The primary context of each device, by ordinal.
pub(super) static PRIMARY: Mutex<BTreeMap<i32, PrimaryContext>> = Mutex::new(BTreeMap::new());

/// Handles of the legacy and the per-thread default stream; null also means the legacy one.
const LEGACY: Handle = 1;
pub(super) const PER_THREAD: Handle = 2;

/// A context, made by `cuCtxCreate` or `cuDevicePrimaryCtxRetain`.
pub(super) struct Context {
    /// Unique id; other objects refer to their context by it.
    pub(super) id: usize,
    pub(super) device: i32,
    pub(super) engine: Engine,
    /// The stream of handles 0 and 1, which waits for all blocking streams.
    pub(super) legacy_stream: Arc<Stream>,
    /// The stream of handle 2.
    pub(super) per_thread_stream: Arc<Stream>,
    pub(super) flags: AtomicU32,
    pub(super) cache_preference: AtomicU32,
    pub(super) limits: Mutex<[usize; 3]>,
}

/// The primary context of a device, while it is retained.
#[derive(Default)]
pub(super) struct PrimaryContext {
    pub(super) handle: Handle,
    pub(super) users: u32,
    pub(super) flags: u32,
}

/// Default limits: bytes of stack, `printf` buffer and heap, in the order of `CUlimit` (0 to 2).
const DEFAULT_LIMITS: [usize; 3] = [1024, 1 << 20, 8 << 20];

impl Context {
    /// A new context of a device.
    pub(super) fn create(device: i32, flags: u32) -> Arc<Context> {
        let id = new_handle();
        Arc::new(Context {
            id,
            device,
            engine: Engine::new(DEVICE_MEMORY_BYTES),
            legacy_stream: Arc::new(Stream::legacy(id)),
            per_thread_stream: Arc::new(Stream::new(id, 0, 0)),
            flags: AtomicU32::new(flags),
            cache_preference: AtomicU32::new(0),
            limits: Mutex::new(DEFAULT_LIMITS),
        })
    }

    /// The current context of this thread.
    pub(super) fn current() -> Outcome<Arc<Context>> {
        require_init()?;
        match current_handle() {
            0 => Err(Code::InvalidContext.because("this thread has no current context")),
            handle => CONTEXTS.get(handle).map_err(|_| {
                Code::ContextIsDestroyed.because("the current context has been destroyed")
            }),
        }
    }

    /// The current context of this thread; fails if one of its kernels has faulted.
    pub(super) fn usable() -> Outcome<Arc<Context>> {
        let context = Context::current()?;
        context.check_fault()?;
        Ok(context)
    }

    /// Fails after a fault.
    pub(super) fn check_fault(&self) -> Outcome<()> {
        self.engine.check_fault()
    }

    /// The stream with this handle, which must belong to this context.
    pub(super) fn stream(&self, handle: Handle) -> Outcome<Arc<Stream>> {
        let stream = match handle {
            0 | LEGACY => self.legacy_stream.clone(),
            PER_THREAD => self.per_thread_stream.clone(),
            _ => STREAMS.get(handle)?,
        };
        if stream.context == self.id {
            return Ok(stream);
        }
        Err(Code::InvalidHandle.because("the stream belongs to another context"))
    }

    /// Runs an operation in a stream, or captures it.
    pub(super) fn submit(&self, stream: Handle, operation: Operation) -> Outcome<()> {
        self.stream(stream)?.submit(&self.engine, operation)
    }

    /// Runs an operation in the legacy stream, for calls that return when it is done.
    pub(super) fn submit_and_wait(&self, operation: Operation) -> Outcome<()> {
        refuse_implicit_wait(self.id)?;
        refuse_unsafe_call("a call that waits")?;
        self.legacy_stream.submit(&self.engine, operation)
    }
}

/// Invalidates a context and every handle made in it.
pub(super) fn destroy(handle: Handle) -> Outcome<()> {
    let context = CONTEXTS.remove(handle)?;
    STREAMS.retain(|stream| stream.context != context.id);
    EVENTS.retain(|event| event.context != context.id);
    MODULES.retain(|module| module.context != context.id);
    FUNCTIONS.retain(|function| function.context != context.id);
    EXECUTABLES.retain(|executable| executable.context != context.id);
    Ok(())
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
