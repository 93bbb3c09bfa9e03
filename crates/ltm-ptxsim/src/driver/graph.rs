//! Graphs: captured work, and executable graphs for replay.
//!
//! Nodes are stored and replayed in the order of capture, which respects every dependency. Must not
//! know how work is captured or what it does.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use super::context::Context;
use super::error::Code;
use super::ffi::{Name, Out};
use super::operation::Operation;
use super::state::{Handle, NODE_BITS, require_init, state};
use super::stream::{resolve, submit};

/// An operation, and the indices of the nodes it waits for.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) operation: Operation,
    pub(super) after: BTreeSet<usize>,
}

/// The result of a capture.
pub(super) struct Graph {
    /// The id of the context it was captured in.
    pub(super) context: usize,
    pub(super) nodes: Vec<Node>,
}

/// An executable graph: the operations of a graph at the time it was instantiated.
pub(super) struct Executable {
    /// The id of its context.
    pub(super) context: usize,
    operations: Vec<Operation>,
}

/// The flags of `cuGraphInstantiate`.
const AUTO_FREE_ON_LAUNCH: u64 = 1;
const DEVICE_LAUNCH: u64 = 4;
const ALL_FLAGS: u64 = 15;

/// The handle of a node: the handle of its graph, with the node's index plus 1 in the low bits.
fn node_handle(graph: Handle, index: usize) -> Handle {
    graph | (index + 1)
}

fn picture(graph: &Graph) -> String {
    let mut dot = String::from("digraph capture {\n");
    for (index, node) in graph.nodes.iter().enumerate() {
        let label = node.operation.label();
        // Writing to a String cannot fail.
        let _ = writeln!(dot, "  node{index} [shape=box label=\"{index}: {label}\"];");
        for before in &node.after {
            let _ = writeln!(dot, "  node{before} -> node{index};");
        }
    }
    dot + "}\n"
}

driver_functions! {
    fn cuGraphInstantiateWithFlags(executable_out: Out<Handle>, graph: Handle, flags: u64) {
        let context = Context::usable()?;
        let graph = state().graphs.get(graph)?;
        if flags & !ALL_FLAGS != 0 || flags & 5 == AUTO_FREE_ON_LAUNCH | DEVICE_LAUNCH {
            return Err(Code::InvalidValue.because(format!("invalid instantiation flags {flags:#x}")));
        }
        if flags & DEVICE_LAUNCH != 0 {
            return Err(Code::NotSupported.because("graph launches from the device are not supported"));
        }
        if graph.context != context.id {
            return Err(Code::InvalidContext.because("the graph was captured in another context"));
        }
        let operations = graph.nodes.iter().map(|node| node.operation.clone()).collect();
        let executable = Executable { context: context.id, operations };
        executable_out.set(state().executables.insert(Arc::new(executable)))
    }

    fn cuGraphUpload(executable: Handle, stream: Handle) {
        let context = Context::usable()?;
        state().executables.get(executable)?;
        resolve(&context, stream).map(|_| ())
    }

    fn cuGraphLaunch(executable: Handle, stream: Handle) {
        let context = Context::usable()?;
        let executable = state().executables.get(executable)?;
        if executable.context != context.id {
            return Err(Code::InvalidHandle.because("the graph belongs to another context"));
        }
        for operation in &executable.operations {
            submit(&context, stream, operation.clone())?;
        }
        Ok(())
    }

    fn cuGraphExecDestroy(executable: Handle) {
        let context = Context::current()?;
        state().executables.remove(executable)?;
        context.check_fault()
    }

    fn cuGraphDestroy(graph: Handle) {
        require_init()?;
        state().graphs.remove(graph).map(|_| ())
    }

    fn cuGraphGetNodes(graph: Handle, nodes: Out<Handle>, count: Out<usize>) {
        require_init()?;
        let found = state().graphs.get(graph)?;
        if !nodes.is_wanted() {
            return count.set(found.nodes.len());
        }
        let room = count.get()?;
        let handles: Vec<Handle> =
            (0..found.nodes.len()).map(|index| node_handle(graph, index)).collect();
        nodes.set_all(&handles, room)?;
        count.set(handles.len().min(room))
    }

    fn cuGraphNodeGetType(node: Handle, node_type: Out<u32>) {
        require_init()?;
        let number = node & ((1 << NODE_BITS) - 1);
        let graph = state().graphs.get(node - number)?;
        let found = number.checked_sub(1).and_then(|index| graph.nodes.get(index));
        node_type.set(found.ok_or(Code::InvalidHandle)?.operation.node_type())
    }

    fn cuGraphDebugDotPrint(graph: Handle, path: Name, flags: u32) {
        // The flags select how much detail is printed; there is only one level.
        let _ = flags;
        require_init()?;
        let graph = state().graphs.get(graph)?;
        let path = path.text()?;
        std::fs::write(path, picture(&graph))
            .map_err(|error| Code::OperatingSystem.because(format!("cannot write {path}: {error}")))
    }
}
