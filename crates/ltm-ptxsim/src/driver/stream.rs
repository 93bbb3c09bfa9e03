//! Streams: work of a stream runs at once, unless the stream captures.
//!
//! Knows whose turn it is. Must not know what the work is, nor how a capture ends.

use std::sync::{Arc, Mutex};

use super::capture::{Branch, refuse_implicit_wait, refuse_unsafe_call};
use super::context::Context;
use super::error::{Code, Outcome};
use super::ffi::{HostCall, HostFunction, Out};
use super::operation::Operation;
use super::state::{Handle, locked, new_handle, state};

/// The highest priority of a stream, as numbered on hardware: lower is more urgent.
pub(super) const GREATEST_PRIORITY: i32 = -5;

/// The flag of a stream for which the legacy stream does not wait.
pub(super) const NON_BLOCKING: u32 = 1;

/// Handles of the legacy and the per-thread default stream, beside null for the legacy one.
const LEGACY: Handle = 1;
const PER_THREAD: Handle = 2;

/// What `cuStreamCreate` makes.
pub(super) struct Stream {
    /// The id of its context.
    pub(super) context: usize,
    /// Tells streams apart where they are compared, not looked up.
    pub(super) id: usize,
    pub(super) flags: u32,
    priority: i32,
    pub(super) legacy: bool,
    pub(super) branch: Mutex<Option<Branch>>,
}

impl Stream {
    /// A stream that is no context's default.
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

    /// The capture this stream takes part in.
    pub(super) fn branch(&self) -> Option<Branch> {
        locked(&self.branch).clone()
    }

    /// Refuses, and invalidates the capture, what cannot be captured.
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

/// The stream of a handle, which has to belong to `context`.
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

/// Runs work in a stream, or captures it.
pub(super) fn submit(context: &Context, stream: Handle, operation: Operation) -> Outcome<()> {
    resolve(context, stream)?.submit(context, operation)
}

/// Runs work for a call that returns when it is done, which uses the legacy stream.
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
