//! A second stream, for exchanges between processes, and its order relative to the first. Must not know any kernel.

use std::ffi::c_void;

use cudarc::driver::{result, sys};

use super::context::Context;
use super::driver::check;
use crate::Result;

/// A stream of its own for a library that moves memory between processes, such as NCCL.
///
/// The library queues work on [`handle`](Self::handle) by addresses from [`Buffer::address`](crate::Buffer::address). The device's memory pool
/// knows only the first stream, so the buffers must live until [`is_done`](Self::is_done), and only then may the first
/// stream use what has arrived.
#[derive(Debug)]
pub struct SideStream {
    context: &'static Context,
    stream: sys::CUstream,
    event: sys::CUevent,
}

// SAFETY: the handles are the driver's, which may be used from any thread that the context is bound to.
unsafe impl Send for SideStream {}

impl SideStream {
    /// A new stream of the device.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda).
    pub fn new(context: &'static Context) -> Result<Self> {
        let _queue = context.enter()?;
        let kind = result::stream::StreamKind::NonBlocking;
        let stream = check("create stream", result::stream::create(kind))?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        let event = check("create event", result::event::create(flags))?;
        Ok(Self { context, stream, event })
    }

    /// The driver's handle, as libraries take it.
    pub fn handle(&self) -> *mut c_void {
        self.stream.cast()
    }

    /// What is queued here from now on waits for what the first stream holds now. Binds the device to this thread.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda).
    pub fn follow(&self) -> Result<()> {
        let _queue = self.context.enter_unrecorded("exchange between processes")?;
        // SAFETY: event and both streams belong to this context and are alive.
        check("record event", unsafe { result::event::record(self.event, self.context.stream) })?;
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: as above.
        check("wait for event", unsafe {
            result::stream::wait_event(self.stream, self.event, flags)
        })
    }

    /// Whether all that was queued here is done.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda) when some of it failed.
    pub fn is_done(&self) -> Result<bool> {
        // SAFETY: the stream is alive.
        match unsafe { sys::cuStreamQuery(self.stream) } {
            sys::CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            code => check("query stream", code.result()).map(|()| true),
        }
    }
}

impl Drop for SideStream {
    fn drop(&mut self) {
        // SAFETY: both were created in `new`, and the driver waits for what still uses them.
        unsafe {
            let _ = result::event::destroy(self.event);
            let _ = result::stream::destroy(self.stream);
        }
    }
}
