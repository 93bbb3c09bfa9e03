//! Streams: their work runs immediately, unless the stream captures.
//!
//! Knows the order of work. Must not know what the work is or how a capture ends.

use std::sync::{Arc, Mutex};

use super::capture::{Branch, refuse_implicit_wait, refuse_unsafe_call};
use super::context::Context;
use super::error::{Code, Outcome};
use super::ffi::{HostCall, HostFunction, Out};
use super::operation::Operation;
use super::state::{Handle, locked, new_handle, state};

/// The highest priority of a stream, as numbered on hardware: lower is more urgent.
pub(super) const GREATEST_PRIORITY: i32 = -5;

/// The flag of a stream that the legacy stream does not wait for.
pub(super) const NON_BLOCKING: u32 = 1;

/// Handles of the legacy and the per-thread default stream; null also means the legacy one.
const LEGACY: Handle = 1;
const PER_THREAD: Handle = 2;

/// A stream, made by `cuStreamCreate`.
pub(super) struct Stream {
    /// The id of its context.
    pub(super) context: usize,
    /// Unique id, for comparing streams.
    pub(super) id: usize,
    pub(super) flags: u32,
    priority: i32,
    pub(super) legacy: bool,
    pub(super) branch: Mutex<Option<Branch>>,
}

impl Stream {
    /// A stream that is not the legacy default stream.
    pub(super) fn new(context: usize, flags: u32, priority: i32) -> Stream {
        Stream {
            context,
            id: new_handle(),
            flags,
            priority,
            legacy: false,
            branch: Mutex::default(),
        }
    }

    /// The legacy default stream of a context.
    pub(super) fn legacy(context: usize) -> Stream {
        Stream { legacy: true, ..Stream::new(context, 0, 0) }
    }

    /// The capture that this stream takes part in.
    pub(super) fn branch(&self) -> Option<Branch> {
        locked(&self.branch).clone()
    }

    /// Rejects a call that cannot be captured, and invalidates the capture.
    pub(super) fn refuse_while_capturing(&self, what: &str) -> Outcome<()> {
        match self.branch() {
            None => Ok(()),
            Some(branch) => Err(branch.capture.refuse(what)),
        }
    }

    fn submit(&self, context: &Context, operation: Operation) -> Outcome<()> {
        if self.legacy {
            refuse_implicit_wait(context)?;
        }
        if let Some(branch) = locked(&self.branch).as_mut() {
            return branch.add(operation);
        }
        operation.run(context)
    }
}

/// The stream with this handle, which must belong to `context`.
pub(super) fn resolve(context: &Context, handle: Handle) -> Outcome<Arc<Stream>> {
    let stream = match handle {
        0 | LEGACY => context.legacy_stream.clone(),
        PER_THREAD => context.per_thread_stream.clone(),
        _ => state().streams.get(handle)?,
    };
    if stream.context == context.id {
        return Ok(stream);
    }
    Err(Code::InvalidHandle.because("the stream belongs to another context"))
}

/// Runs an operation in a stream, or captures it.
pub(super) fn submit(context: &Context, stream: Handle, operation: Operation) -> Outcome<()> {
    resolve(context, stream)?.submit(context, operation)
}

/// Runs an operation in the legacy stream, for calls that return when it is done.
pub(super) fn submit_and_wait(context: &Context, operation: Operation) -> Outcome<()> {
    refuse_implicit_wait(context)?;
    refuse_unsafe_call("a call that waits")?;
    context.legacy_stream.submit(context, operation)
}

fn create(stream_out: Out<Handle>, flags: u32, priority: i32) -> Outcome<()> {
    let context = Context::usable()?;
    if flags > NON_BLOCKING {
        return Err(Code::InvalidValue.because(format!("stream flags {flags} are unknown")));
    }
    let priority = priority.clamp(GREATEST_PRIORITY, 0);
    stream_out.set(state().streams.insert(Arc::new(Stream::new(context.id, flags, priority))))
}

driver_functions! {
    fn cuStreamCreate(stream_out: Out<Handle>, flags: u32) {
        create(stream_out, flags, 0)
    }

    fn cuStreamCreateWithPriority(stream_out: Out<Handle>, flags: u32, priority: i32) {
        create(stream_out, flags, priority)
    }

    fn cuStreamDestroy_v2(stream: Handle) {
        let context = Context::current()?;
        if stream <= PER_THREAD {
            return Err(Code::InvalidHandle.because("a default stream cannot be destroyed"));
        }
        let stream = state().streams.remove(stream)?;
        if let Some(branch) = stream.branch() {
            branch.abandon(&stream);
        }
        context.check_fault()
    }

    fn cuStreamSynchronize(stream: Handle) {
        let context = Context::usable()?;
        let stream = resolve(&context, stream)?;
        if stream.legacy {
            refuse_implicit_wait(&context)?;
        }
        stream.refuse_while_capturing("waiting for the stream")
    }

    fn cuStreamQuery(stream: Handle) {
        let context = Context::usable()?;
        let stream = resolve(&context, stream)?;
        if stream.legacy {
            refuse_implicit_wait(&context)?;
        }
        stream.refuse_while_capturing("a query of the stream")
    }

    fn cuStreamGetFlags(stream: Handle, flags: Out<u32>) {
        let context = Context::usable()?;
        flags.set(resolve(&context, stream)?.flags)
    }

    fn cuStreamGetPriority(stream: Handle, priority: Out<i32>) {
        let context = Context::usable()?;
        priority.set(resolve(&context, stream)?.priority)
    }

    fn cuStreamGetCtx(stream: Handle, context_out: Out<Handle>) {
        let context = Context::usable()?;
        resolve(&context, stream)?;
        context_out.set(super::state::current_handle())
    }

    fn cuLaunchHostFunc(
        stream: Handle,
        function: Option<HostFunction>,
        argument: *mut std::ffi::c_void,
    ) {
        let context = Context::usable()?;
        if function.is_none() {
            return Err(Code::InvalidValue.because("the function is null"));
        }
        submit(&context, stream, Operation::Host(HostCall { function, argument }))
    }
}
