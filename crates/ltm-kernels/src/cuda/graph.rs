//! Work recorded once and replayed as a CUDA graph. Must not know any op.

use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::context::Context;
use super::driver::check;
use super::pool::Memory;
use crate::Result;

/// A capture that has begun on the context's stream. If it is dropped while open, because the
/// recorded code panicked, it ends the capture so that the stream can be used again.
struct OpenCapture {
    context: &'static Context,
    is_open: bool,
}

impl OpenCapture {
    fn end(&mut self) -> std::result::Result<sys::CUgraph, result::DriverError> {
        self.is_open = false;
        // SAFETY: a capture was begun on this stream, which lives as long as the context.
        unsafe { result::stream::end_capture(self.context.stream) }
    }
}

impl Drop for OpenCapture {
    fn drop(&mut self) {
        if self.is_open
            && let Ok(graph) = self.end()
        {
            // SAFETY: `graph` is what the capture returned, and nothing else knows it. A failure leaves nothing to be
            // done.
            let _ = unsafe { result::graph::destroy(graph) };
        }
    }
}

/// Work on a device, captured as a CUDA graph.
///
/// A replay runs the same kernels on the same addresses with the same arguments. The recording owns
/// the memory that the work uses, together with the buffers that it was allocated for, so that a
/// replay is safe even after they are gone.
#[derive(Debug)]
pub struct Recording {
    context: &'static Context,
    graph: sys::CUgraphExec,
    /// Freed after the graph: fields are dropped after the `Drop` of their owner has run.
    _memory: Vec<Arc<Memory>>,
}

// SAFETY: the handle may be used from any thread that the context is bound to, one at a time:
// `replay` holds the context's queue.
unsafe impl Send for Recording {}
// SAFETY: as for `Send`.
unsafe impl Sync for Recording {}

impl Recording {
    /// Records the work that `body` queues, without running it. Everything that `body` compiles or
    /// allocates must already exist; running `body` once beforehand ensures that. After an error
    /// the device is in the same state as before, so the caller can still run the work directly.
    ///
    /// # Errors
    /// Those of `body`, and [`Error::Cuda`](crate::Error::Cuda) when it did something that cannot
    /// be recorded, such as waiting for a result or copying from the host.
    pub fn capture<E: From<crate::Error>>(
        context: &'static Context,
        body: impl FnOnce() -> std::result::Result<(), E>,
    ) -> std::result::Result<Self, E> {
        let _capturing = context.enter_capture()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as the context, and no other thread uses it meanwhile.
        let begun = unsafe { result::stream::begin_capture(context.stream, mode) };
        check("begin capture", begun)?;
        let mut open = OpenCapture { context, is_open: true };
        let outcome = body();
        // The capture must end even if `body` failed.
        let ended = open.end();
        let memory = context.take_recorded();
        if let (Err(_), Ok(graph)) = (&outcome, &ended) {
            // SAFETY: `graph` is what the capture returned, and nothing else knows it. A failure
            // leaves nothing to be done.
            let _ = unsafe { result::graph::destroy(*graph) };
        }
        outcome?;
        let graph = check("end capture", ended)?;
        let flags =
            sys::CUgraphInstantiate_flags_enum::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
        // SAFETY: `graph` is the graph that the capture returned.
        let instance =
            check("instantiate graph", unsafe { result::graph::instantiate(graph, flags) });
        // SAFETY: the instance does not need the graph it was made from.
        check("destroy graph", unsafe { result::graph::destroy(graph) })?;
        Ok(Self { context, graph: instance?, _memory: memory })
    }

    /// Queues the recorded work on the device's stream.
    ///
    /// # Errors
    /// [`Error::Cuda`](crate::Error::Cuda) when the driver reports an error, or inside another
    /// recording, which would not own the memory of this one.
    pub fn replay(&self) -> Result<()> {
        let _queue = self.context.enter_unrecorded("replay")?;
        // SAFETY: graph and stream are alive, and so is the memory, which the recording owns.
        check("replay", unsafe { result::graph::launch(self.graph, self.context.stream) })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if let Ok(_queue) = self.context.enter() {
            // SAFETY: nobody else holds the handle. A failure leaves nothing to be done.
            let _ = unsafe { result::graph::exec_destroy(self.graph) };
        }
    }
}
