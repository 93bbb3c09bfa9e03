//! Counts of a plan's nodes, by name. Runs nothing.

use std::time::Duration;

use ltm_kernels::Cost;

use super::layout::{check, order, origin};
use crate::graph::Operation;
use crate::{Graph, Precision, Result, UpdateRate, Value};

/// How often the nodes of one kind have run, and what that took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCount {
    /// The op's name.
    pub name: &'static str,
    /// Nodes of that name in the plan.
    pub nodes: u64,
    /// Runs of those nodes, added up.
    pub runs: u64,
    /// Time of those runs by the host's clock; on CUDA, the time to queue them.
    pub time: Duration,
    /// Arithmetic and traffic of those runs.
    pub cost: Cost,
}

/// The counts of one run of `outputs` that starts at `since`, sorted by name: known from the graph alone, so
/// that nothing is allocated.
///
/// # Errors
/// [`Error::OtherGraph`](crate::Error::OtherGraph) for an output of another graph.
pub fn count(
    g: &Graph,
    precision: Precision,
    outputs: &[Value],
    since: UpdateRate,
) -> Result<Vec<NodeCount>> {
    check(g, outputs)?;
    let mut counts = Vec::new();
    for node_idx in order(g, outputs) {
        let node = &g.nodes[node_idx];
        let value = g.value(node_idx, 0);
        match &node.op {
            Some(op) if node.update_rate >= since && origin(g, precision, value) == value => {
                add_count(&mut counts, op.as_ref(), 1, Duration::ZERO);
            }
            _ => {}
        }
    }
    counts.sort_unstable_by_key(|count| count.name);
    Ok(counts)
}

/// Adds a node that ran `runs` times to those of its name.
pub(super) fn add_count(
    counts: &mut Vec<NodeCount>,
    op: &dyn Operation,
    runs: u64,
    time: Duration,
) {
    let name = op.name();
    let found = counts.iter().position(|count| count.name == name).unwrap_or(counts.len());
    if found == counts.len() {
        let (time, cost) = (Duration::ZERO, Cost::default());
        counts.push(NodeCount { name, nodes: 0, runs: 0, time, cost });
    }
    let (count, cost) = (&mut counts[found], op.cost());
    count.nodes += 1;
    count.runs += runs;
    count.time += time;
    count.cost.flops += runs * cost.flops;
    count.cost.bytes += runs * cost.bytes;
}
