//! Streams: their work runs immediately, unless the stream captures.
//!
//! A second stream joins a capture by waiting for an event recorded in it, and must be joined back
//! before the capture ends. Knows the order of work. Must not know what the work is.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use super::capture::{Branch, Capture, CaptureMode, failure_of_merge, refuse_implicit_wait};
use super::code::{Code, Outcome};
use super::engine::Engine;
use super::graph::Node;
use super::handle::{Table, locked, new_handle};
use super::operation::Operation;

/// The highest priority of a stream, as numbered on hardware: lower is more urgent.
pub(super) const GREATEST_PRIORITY: i32 = -5;

/// The flag of a stream that the legacy stream does not wait for.
pub(super) const NON_BLOCKING: u32 = 1;

/// All streams that were created; each context has two more.
pub(super) static STREAMS: Table<Stream> = Table::new("stream");

/// A stream, made by `cuStreamCreate`.
pub(super) struct Stream {
    /// The id of its context.
    pub(super) context: usize,
    /// Unique id, for comparing streams.
    pub(super) id: usize,
    pub(super) flags: u32,
    pub(super) priority: i32,
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

    /// Runs an operation, or captures it.
    pub(super) fn submit(&self, engine: &Engine, operation: Operation) -> Outcome<()> {
        if self.legacy {
            refuse_implicit_wait(self.context)?;
        }
        if let Some(branch) = locked(&self.branch).as_mut() {
            return branch.add(operation);
        }
        operation.run(engine)
    }

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

    /// Called when the stream is destroyed.
    pub(super) fn abandon(&self) {
        let Some(Branch { capture, .. }) = self.branch() else { return };
        capture.invalidate();
        if capture.origin == self.id {
            // Nobody can end the capture any more; its nodes are dropped.
            let _ = end(&capture);
        }
    }
}

/// Releases the streams that take part in a capture, and returns its nodes.
fn end(capture: &Capture) -> Outcome<Vec<Node>> {
    STREAMS.for_each(|stream| {
        locked(&stream.branch).take_if(|branch| branch.capture.id == capture.id);
    });
    capture.end()
}

/// Ends the capture that began in `stream`; returns its nodes. The stream must wait for all of
/// them.
pub(super) fn end_capture(stream: &Stream) -> Outcome<Vec<Node>> {
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
    let nodes = end(&capture)?;
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
