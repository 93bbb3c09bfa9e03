//! Stream capture: records a stream's work as the nodes of a graph, and rejects what is forbidden
//! during a capture.
//!
//! A second stream joins a capture by waiting for an event recorded in it, and must be joined back
//! before the capture ends. Must not know what the work is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::thread::ThreadId;

use super::context::Context;
use super::error::{Code, Failure, Outcome};
use super::ffi::Out;
use super::graph::{Graph, Node};
use super::operation::Operation;
use super::state::{Handle, locked, new_handle, state};
use super::stream::{NON_BLOCKING, Stream, resolve};

/// A stream's participation in a capture.
#[derive(Clone)]
pub(super) struct Branch {
    pub(super) capture: Arc<Capture>,
    /// The nodes that the next node of this stream must wait for.
    pub(super) tail: BTreeSet<usize>,
}

/// A capture in progress.
pub(super) struct Capture {
    id: usize,
    context: usize,
    /// The id of the stream in which it began.
    origin: usize,
    blocking: bool,
    mode: CaptureMode,
    thread: ThreadId,
    progress: Mutex<Progress>,
}

/// State of a capture.
enum Progress {
    /// The nodes recorded so far.
    Recording(Vec<Node>),
    /// A forbidden call was made; the capture can only be ended.
    Invalid,
    Ended,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum CaptureMode {
    Global,
    ThreadLocal,
    Relaxed,
}

/// All captures in progress in this process.
static CAPTURES: Mutex<Vec<Weak<Capture>>> = Mutex::new(Vec::new());

impl Branch {
    /// Records work as the next node.
    pub(super) fn add(&mut self, operation: Operation) -> Outcome<()> {
        let mut progress = locked(&self.capture.progress);
        let Progress::Recording(nodes) = &mut *progress else {
            return Err(Code::StreamCaptureInvalidated.into());
        };
        nodes.push(Node { operation, after: std::mem::take(&mut self.tail) });
        self.tail.insert(nodes.len() - 1);
        Ok(())
    }

    /// Called when the stream is destroyed.
    pub(super) fn abandon(&self, stream: &Stream) {
        self.capture.invalidate();
        if self.capture.origin == stream.id {
            // Nobody can end the capture any more; its nodes are dropped.
            let _ = self.capture.end();
        }
    }
}

impl Stream {
    /// Makes later work in this stream wait for `tail`, joining the capture if necessary.
    pub(super) fn wait_for(&self, capture: &Arc<Capture>, tail: &BTreeSet<usize>) -> Outcome<()> {
        capture.check_valid()?;
        let mut branch = locked(&self.branch);
        match branch.as_mut() {
            Some(own) if own.capture.id == capture.id => own.tail.extend(tail),
            Some(own) => {
                own.capture.invalidate();
                capture.invalidate();
                return Err(failure_of_merge());
            }
            None if self.legacy => {
                capture.invalidate();
                return Err(Code::StreamCaptureImplicit.into());
            }
            None => *branch = Some(Branch { capture: capture.clone(), tail: tail.clone() }),
        }
        Ok(())
    }
}

impl Capture {
    /// Fails if the capture is invalid or has ended.
    pub(super) fn check_valid(&self) -> Outcome<()> {
        match *locked(&self.progress) {
            Progress::Recording(_) => Ok(()),
            Progress::Invalid => Err(Code::StreamCaptureInvalidated.into()),
            Progress::Ended => {
                Err(Code::CapturedEvent.because("the event was last recorded in a past capture"))
            }
        }
    }

    /// Invalidates the capture; the nodes recorded so far are dropped.
    pub(super) fn invalidate(&self) {
        let mut progress = locked(&self.progress);
        if matches!(*progress, Progress::Recording(_)) {
            *progress = Progress::Invalid;
        }
    }

    /// Releases the streams that take part, and returns the nodes.
    fn end(&self) -> Outcome<Vec<Node>> {
        locked(&CAPTURES).retain(|other| other.upgrade().is_some_and(|other| other.id != self.id));
        state().streams.for_each(|stream| {
            locked(&stream.branch).take_if(|branch| branch.capture.id == self.id);
        });
        match std::mem::replace(&mut *locked(&self.progress), Progress::Ended) {
            Progress::Recording(nodes) => Ok(nodes),
            Progress::Invalid | Progress::Ended => Err(Code::StreamCaptureInvalidated.into()),
        }
    }

    /// Invalidates the capture because of a forbidden call, and returns the failure of that call.
    pub(super) fn refuse(&self, what: &str) -> Failure {
        self.invalidate();
        Code::StreamCaptureUnsupported
            .because(format!("not allowed during a capture, which is now invalid: {what}"))
    }
}

fn failure_of_merge() -> Failure {
    Code::StreamCaptureMerge.because("the wait would merge two captures; both are now invalid")
}

/// The captures in progress that satisfy `concerns`.
fn captures(concerns: impl Fn(&Capture) -> bool) -> Vec<Arc<Capture>> {
    locked(&CAPTURES).iter().filter_map(Weak::upgrade).filter(|capture| concerns(capture)).collect()
}

/// Rejects a call that a capture forbids to all threads (mode global) or to its own thread (mode
/// thread-local), because the call might implicitly wait for the capturing stream.
pub(super) fn refuse_unsafe_call(what: &str) -> Outcome<()> {
    let me = std::thread::current().id();
    let forbidding = captures(|capture| match capture.mode {
        CaptureMode::Global => true,
        CaptureMode::ThreadLocal => capture.thread == me,
        CaptureMode::Relaxed => false,
    });
    refuse_all(&forbidding, what)
}

/// Rejects waiting for a whole context while any of its streams captures.
pub(super) fn refuse_during_capture(context: &Context, what: &str) -> Outcome<()> {
    let active = captures(|capture| capture.context == context.id);
    refuse_all(&active, what)
}

fn refuse_all(captures: &[Arc<Capture>], what: &str) -> Outcome<()> {
    let mut outcome = Ok(());
    for capture in captures {
        outcome = Err(capture.refuse(what));
    }
    outcome
}

/// Rejects work in the legacy stream while a blocking stream captures, for which it would have to
/// wait.
pub(super) fn refuse_implicit_wait(context: &Context) -> Outcome<()> {
    let waited_for = captures(|capture| capture.context == context.id && capture.blocking);
    for capture in &waited_for {
        capture.invalidate();
    }
    if waited_for.is_empty() {
        return Ok(());
    }
    Err(Code::StreamCaptureImplicit.because(
        "the legacy stream would wait for a capturing stream; capture in a non-blocking one",
    ))
}

/// The `CUstreamCaptureStatus` of a stream.
fn capture_status(stream: &Stream) -> u32 {
    match stream.branch() {
        None => 0,
        Some(branch) if branch.capture.check_valid().is_ok() => 1,
        Some(_) => 2,
    }
}

fn capture_info(
    stream: Handle,
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<Handle>,
    dependencies: Out<usize>,
    dependency_count: Out<usize>,
) -> Outcome<()> {
    let context = Context::usable()?;
    let stream = resolve(&context, stream)?;
    if graph.is_wanted() || dependencies.is_wanted() || dependency_count.is_wanted() {
        return Err(Code::NotSupported
            .because("the graph of a capture in progress is not available; pass null"));
    }
    id.set_if_wanted(stream.branch().map_or(0, |branch| branch.capture.id as u64));
    status.set(capture_status(&stream))
}

/// Ends the capture that began in `stream`; returns its nodes. The stream must wait for all of
/// them.
fn end_capture(stream: &Stream) -> Outcome<Vec<Node>> {
    let branch = stream.branch();
    let branch = branch.ok_or(Code::IllegalState.because("the stream does not capture"))?;
    let capture = branch.capture;
    if capture.origin != stream.id {
        capture.invalidate();
        return Err(
            Code::StreamCaptureUnmatched.because("end the capture in the stream it began in")
        );
    }
    if capture.mode != CaptureMode::Relaxed && capture.thread != std::thread::current().id() {
        capture.invalidate();
        return Err(
            Code::StreamCaptureWrongThread.because("end the capture in the thread it began in")
        );
    }
    *locked(&stream.branch) = None;
    let nodes = capture.end()?;
    let mut joined = branch.tail;
    // A node waits only for earlier ones, so one backward pass reaches all ancestors.
    for index in (0..nodes.len()).rev() {
        if joined.contains(&index) {
            joined.extend(&nodes[index].after);
        } else {
            return Err(Code::StreamCaptureUnjoined.because(format!(
                "the first stream does not wait for: {}; record an event there, and wait for it",
                nodes[index].operation.label()
            )));
        }
    }
    Ok(nodes)
}

driver_functions! {
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) {
        let context = Context::usable()?;
        let stream = resolve(&context, stream)?;
        if stream.legacy {
            return Err(Code::StreamCaptureUnsupported
                .because("the legacy stream cannot capture; create a stream"));
        }
        let mode = match mode {
            0 => CaptureMode::Global,
            1 => CaptureMode::ThreadLocal,
            2 => CaptureMode::Relaxed,
            _ => return Err(Code::InvalidValue.because(format!("capture mode {mode} is unknown"))),
        };
        let mut branch = locked(&stream.branch);
        if branch.is_some() {
            return Err(Code::IllegalState.because("the stream captures already"));
        }
        let capture = Arc::new(Capture {
            id: new_handle(),
            context: context.id,
            origin: stream.id,
            blocking: stream.flags & NON_BLOCKING == 0,
            mode,
            thread: std::thread::current().id(),
            progress: Mutex::new(Progress::Recording(Vec::new())),
        });
        locked(&CAPTURES).push(Arc::downgrade(&capture));
        *branch = Some(Branch { capture, tail: BTreeSet::new() });
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph_out: Out<Handle>) {
        let context = Context::usable()?;
        let stream = resolve(&context, stream)?;
        graph_out.set(0)?;
        let graph = Graph { context: context.id, nodes: end_capture(&stream)? };
        graph_out.set(state().graphs.insert(Arc::new(graph)))
    }

    fn cuStreamIsCapturing(stream: Handle, status: Out<u32>) {
        let context = Context::usable()?;
        status.set(capture_status(&*resolve(&context, stream)?))
    }

    fn cuStreamGetCaptureInfo_v2(
        stream: Handle,
        status: Out<u32>,
        id: Out<u64>,
        graph: Out<Handle>,
        dependencies: Out<usize>,
        dependency_count: Out<usize>,
    ) {
        capture_info(stream, status, id, graph, dependencies, dependency_count)
    }

    fn cuStreamGetCaptureInfo_v3(
        stream: Handle,
        status: Out<u32>,
        id: Out<u64>,
        graph: Out<Handle>,
        dependencies: Out<usize>,
        edges: Out<usize>,
        dependency_count: Out<usize>,
    ) {
        if edges.is_wanted() {
            return Err(Code::NotSupported.because("the edges of a capture in progress are not available; pass null"));
        }
        capture_info(stream, status, id, graph, dependencies, dependency_count)
    }
}
