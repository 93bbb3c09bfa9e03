//! Stream capture.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::driver::capture::{Branch, Capture, CaptureMode};
use crate::driver::code::{Code, Outcome};
use crate::driver::context::Context;
use crate::driver::ffi::Out;
use crate::driver::graph::{GRAPHS, Graph};
use crate::driver::handle::{Handle, locked};
use crate::driver::stream::{NON_BLOCKING, Stream, end_capture};

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
    let stream = context.stream(stream)?;
    if graph.is_wanted() || dependencies.is_wanted() || dependency_count.is_wanted() {
        return Err(Code::NotSupported
            .because("the graph of a capture in progress is not available; pass null"));
    }
    id.set_if_wanted(stream.branch().map_or(0, |branch| branch.capture.id as u64));
    status.set(capture_status(&stream))
}

driver_functions! {
    fn cuStreamBeginCapture_v2(stream: Handle, mode: u32) {
        let context = Context::usable()?;
        let stream = context.stream(stream)?;
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
        let blocking = stream.flags & NON_BLOCKING == 0;
        let capture = Capture::begin(context.id, stream.id, blocking, mode);
        *branch = Some(Branch { capture, tail: BTreeSet::new() });
        Ok(())
    }

    fn cuStreamEndCapture(stream: Handle, graph_out: Out<Handle>) {
        let context = Context::usable()?;
        let stream = context.stream(stream)?;
        graph_out.set(0)?;
        let graph = Graph { context: context.id, nodes: end_capture(&stream)? };
        graph_out.set(GRAPHS.insert(Arc::new(graph)))
    }

    fn cuStreamIsCapturing(stream: Handle, status: Out<u32>) {
        let context = Context::usable()?;
        status.set(capture_status(&*context.stream(stream)?))
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
