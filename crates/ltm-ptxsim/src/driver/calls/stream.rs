//! Streams, and host functions in them.

use std::ffi::c_void;
use std::sync::Arc;

use crate::driver::capture::refuse_implicit_wait;
use crate::driver::code::{Code, Outcome};
use crate::driver::context::{Context, PER_THREAD, current_handle};
use crate::driver::ffi::{HostCall, HostFunction, Out};
use crate::driver::handle::Handle;
use crate::driver::operation::Operation;
use crate::driver::stream::{GREATEST_PRIORITY, NON_BLOCKING, STREAMS, Stream};

fn create(stream_out: Out<Handle>, flags: u32, priority: i32) -> Outcome<()> {
    let context = Context::usable()?;
    if flags > NON_BLOCKING {
        return Err(Code::InvalidValue.because(format!("stream flags {flags} are unknown")));
    }
    let priority = priority.clamp(GREATEST_PRIORITY, 0);
    stream_out.set(STREAMS.insert(Arc::new(Stream::new(context.id, flags, priority))))
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
        let stream = STREAMS.remove(stream)?;
        stream.abandon();
        context.check_fault()
    }

    fn cuStreamSynchronize(stream: Handle) {
        let context = Context::usable()?;
        let stream = context.stream(stream)?;
        if stream.legacy {
            refuse_implicit_wait(context.id)?;
        }
        stream.refuse_while_capturing("waiting for the stream")
    }

    fn cuStreamQuery(stream: Handle) {
        let context = Context::usable()?;
        let stream = context.stream(stream)?;
        if stream.legacy {
            refuse_implicit_wait(context.id)?;
        }
        stream.refuse_while_capturing("a query of the stream")
    }

    fn cuStreamGetFlags(stream: Handle, flags: Out<u32>) {
        let context = Context::usable()?;
        flags.set(context.stream(stream)?.flags)
    }

    fn cuStreamGetPriority(stream: Handle, priority: Out<i32>) {
        let context = Context::usable()?;
        priority.set(context.stream(stream)?.priority)
    }

    fn cuStreamGetCtx(stream: Handle, context_out: Out<Handle>) {
        let context = Context::usable()?;
        context.stream(stream)?;
        context_out.set(current_handle())
    }

    fn cuLaunchHostFunc(
        stream: Handle,
        function: Option<HostFunction>,
        argument: *mut c_void,
    ) {
        let context = Context::usable()?;
        if function.is_none() {
            return Err(Code::InvalidValue.because("the function is null"));
        }
        context.submit(stream, Operation::Host(HostCall { function, argument }))
    }
}
