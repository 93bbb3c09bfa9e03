//! Captures: record work as the nodes of a graph, and reject what is forbidden meanwhile.
//!
//! Must not know what the work is, nor the streams that take part.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};
use std::thread::ThreadId;

use super::code::{Code, Failure, Outcome};
use super::graph::Node;
use super::handle::{locked, new_handle};
use super::operation::Operation;

/// A stream's participation in a capture.
#[derive(Clone)]
pub(super) struct Branch {
    pub(super) capture: Arc<Capture>,
    /// The nodes that the next node of this stream must wait for.
    pub(super) tail: BTreeSet<usize>,
}

/// A capture in progress.
pub(super) struct Capture {
    pub(super) id: usize,
    pub(super) context: usize,
    /// The id of the stream in which it began.
    pub(super) origin: usize,
    blocking: bool,
    pub(super) mode: CaptureMode,
    pub(super) thread: ThreadId,
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

/// Which calls a capture forbids, and to whom.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CaptureMode {
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
}

impl Capture {
    /// Begins a capture in the stream `origin` of a context; `blocking` is whether the legacy stream waits for it.
    pub(super) fn begin(
        context: usize,
        origin: usize,
        blocking: bool,
        mode: CaptureMode,
    ) -> Arc<Capture> {
        let capture = Arc::new(Capture {
            id: new_handle(),
            context,
            origin,
            blocking,
            mode,
            thread: std::thread::current().id(),
            progress: Mutex::new(Progress::Recording(Vec::new())),
        });
        locked(&CAPTURES).push(Arc::downgrade(&capture));
        capture
    }

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

    /// Ends the capture, and returns its nodes.
    pub(super) fn end(&self) -> Outcome<Vec<Node>> {
        locked(&CAPTURES).retain(|other| other.upgrade().is_some_and(|other| other.id != self.id));
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

pub(super) fn failure_of_merge() -> Failure {
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
pub(super) fn refuse_during_capture(context: usize, what: &str) -> Outcome<()> {
    let active = captures(|capture| capture.context == context);
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
pub(super) fn refuse_implicit_wait(context: usize) -> Outcome<()> {
    let waited_for = captures(|capture| capture.context == context && capture.blocking);
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
