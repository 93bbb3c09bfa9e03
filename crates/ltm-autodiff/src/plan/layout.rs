//! What to run, in which order and in which memory: known from the graph alone. Allocates and runs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ltm_kernels::DType;

use crate::graph::Operation;
use crate::{Error, Graph, Precision, Result, UpdateRate, Value};

/// Where a value lives while a plan runs.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// A graph input: the node in the store.
    Input(usize),
    /// A slot of the plan.
    Slot(usize),
}

/// One run of a node.
pub(super) struct Step {
    pub op: Arc<dyn Operation>,
    pub update_rate: UpdateRate,
    pub inputs: Vec<Place>,
    /// `None` for an output nobody reads.
    pub outputs: Vec<Option<usize>>,
    pub in_place: bool,
    pub runs: u64,
    pub time: Duration,
}

/// What a plan runs and the slots that it needs, before any memory is allocated.
pub(super) struct Layout {
    pub steps: Vec<Step>,
    /// Length and type of each slot.
    pub sizes: Vec<(usize, DType)>,
    pub places: HashMap<Value, Place>,
    pub order: Vec<usize>,
}

impl Layout {
    pub fn new(g: &Graph, precision: Precision, outputs: &[Value]) -> Self {
        let origin = |v: &Value| origin(g, precision, *v);
        let order = order(g, outputs);
        let last_use = last_use(g, &order, outputs, origin);
        let type_of = |v: Value| (g.spec(v).len(), precision.dtype(g.spec(v).kind));

        let mut sizes: Vec<(usize, DType)> = Vec::new();
        let mut free: HashMap<(usize, DType), Vec<usize>> = HashMap::new();
        let mut places: HashMap<Value, Place> = HashMap::new();
        let mut steps = Vec::with_capacity(order.len());
        for (position, &node_idx) in order.iter().enumerate() {
            let node = &g.nodes[node_idx];
            let Some(op) = node.op.clone() else {
                places.insert(g.value(node_idx, 0), Place::Input(node_idx));
                continue;
            };
            let value = g.value(node_idx, 0);
            if origin(&value) != value {
                continue;
            }
            let read: Vec<_> = node.inputs.iter().map(origin).collect();
            let inputs: Vec<_> = read.iter().map(|v| places[v]).collect();
            let dies_here = |v: &Value| last_use.get(v) == Some(&Some(position));
            let in_place = op.in_place().and_then(|i| {
                let v = read.get(i)?;
                let read_once = read.iter().filter(|other| *other == v).count() == 1;
                let fits = type_of(*v) == type_of(value);
                match places[v] {
                    Place::Slot(slot) if dies_here(v) && read_once && fits => Some(slot),
                    _ => None,
                }
            });
            let mut slots = Vec::with_capacity(node.outputs.len());
            let mut unread = Vec::new();
            for output in 0..node.outputs.len() {
                let value = g.value(node_idx, output);
                let is_read = last_use.contains_key(&value);
                if !is_read && !op.writes_all() {
                    slots.push(None);
                    continue;
                }
                let size = type_of(value);
                let slot = match in_place {
                    Some(slot) if output == 0 => slot,
                    _ => free.get_mut(&size).and_then(Vec::pop).unwrap_or_else(|| {
                        sizes.push(size);
                        sizes.len() - 1
                    }),
                };
                places.insert(value, Place::Slot(slot));
                slots.push(Some(slot));
                if !is_read {
                    unread.push(slot);
                }
            }
            let mut dying: Vec<_> = read.iter().filter(|v| dies_here(v)).collect();
            dying.sort_unstable();
            dying.dedup();
            for v in dying {
                if let Place::Slot(slot) = places[v]
                    && Some(slot) != in_place
                {
                    free.entry(sizes[slot]).or_default().push(slot);
                }
            }
            for slot in unread {
                free.entry(sizes[slot]).or_default().push(slot);
            }
            steps.push(Step {
                op,
                update_rate: node.update_rate,
                inputs,
                outputs: slots,
                in_place: in_place.is_some(),
                runs: 0,
                time: Duration::ZERO,
            });
        }
        Self { steps, sizes, places, order }
    }
}

/// Refuses outputs of another graph.
pub(super) fn check(g: &Graph, outputs: &[Value]) -> Result<()> {
    match outputs.iter().position(|v| !g.owns(*v)) {
        Some(i) => Err(Error::OtherGraph { what: format!("output {i} of the plan") }),
        None => Ok(()),
    }
}

/// The nodes that `outputs` need, by update rate and then in the order they were traced. An edge never
/// leads to a less volatile node, so this is a topological order.
pub(super) fn order(g: &Graph, outputs: &[Value]) -> Vec<usize> {
    let mut needed = vec![false; g.nodes.len()];
    for value in outputs {
        needed[value.node] = true;
    }
    for node in (0..g.nodes.len()).rev() {
        if needed[node] {
            for value in &g.nodes[node].inputs {
                needed[value.node] = true;
            }
        }
    }
    let mut order: Vec<_> = (0..g.nodes.len()).filter(|&node| needed[node]).collect();
    order.sort_by_key(|&node| g.nodes[node].update_rate);
    order
}

/// The value whose memory holds `value`: itself, or what it is cast from where the cast changes no
/// type, or what it is a reshaped form of.
pub(super) fn origin(g: &Graph, precision: Precision, mut value: Value) -> Value {
    while let Some(from) = g.cast_from(value).or_else(|| g.reshaped_from(value))
        && precision.dtype(g.spec(from).kind) == precision.dtype(g.spec(value).kind)
    {
        value = from;
    }
    value
}

/// For each value that is read: the position of its last reader, or `None` when it must be kept.
fn last_use(
    g: &Graph,
    order: &[usize],
    outputs: &[Value],
    origin: impl Fn(&Value) -> Value,
) -> HashMap<Value, Option<usize>> {
    let mut last_use = HashMap::new();
    for (position, &node) in order.iter().enumerate() {
        for value in g.nodes[node].inputs.iter().map(&origin) {
            let outlives = g.update_rate(value) < g.nodes[node].update_rate;
            let entry = last_use.entry(value).or_insert(Some(position));
            *entry = if outlives || entry.is_none() { None } else { Some(position) };
        }
    }
    last_use.extend(outputs.iter().map(|v| (origin(v), None)));
    last_use
}
