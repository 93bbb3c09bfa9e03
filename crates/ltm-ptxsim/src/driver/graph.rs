//! Graphs: captured work, and executable graphs for replay.
//!
//! Nodes are stored and replayed in the order of capture, which respects every dependency. Must not
//! know how work is captured or what it does.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::handle::{Handle, Table};
use super::operation::Operation;

/// All graphs.
pub(super) static GRAPHS: Table<Graph> = Table::new("graph");
/// All executable graphs.
pub(super) static EXECUTABLES: Table<Executable> = Table::new("executable graph");

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
    pub(super) operations: Vec<Operation>,
}

/// The handle of a node: the handle of its graph, with the node's index plus 1 in the low bits.
pub(super) fn node_handle(graph: Handle, index: usize) -> Handle {
    graph | (index + 1)
}

/// The graph in the language of Graphviz.
pub(super) fn picture(graph: &Graph) -> String {
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
