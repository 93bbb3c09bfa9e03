//! A plan: memory for what some outputs need, and its repeated runs. Knows no op.

mod count;
mod layout;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use ltm_kernels::{Buffer, Cost, Device};

use self::count::add_count;
use self::layout::{Layout, Place, Step, check, origin};
use crate::graph::{Call, MAX_INPUTS, MAX_OUTPUTS};
use crate::store::check_precision;
use crate::{Error, Graph, Inputs, Precision, Result, UpdateRate, Value};

pub use self::count::{NodeCount, count};

/// The part of a graph that some outputs need, ready to run.
///
/// Nodes are ordered by update rate, so that a run after a change of, say, the step's inputs is a
/// suffix of the whole. A slot is a buffer of one exact size; a value takes over a free slot of its
/// size once the slot's last reader has run. Values that outlive their part (read by a more
/// volatile node, or outputs) keep their slot.
pub struct Plan {
    device: Device,
    graph_id: u64,
    steps: Vec<Step>,
    slots: Vec<Buffer>,
    scratch: HashMap<usize, Buffer>,
    outputs: HashMap<Value, Place>,
    /// The outputs that are final once a step has run, by step.
    finished: Vec<Vec<Value>>,
    /// The inputs read, with their update rate and the version last seen.
    seen: Vec<(usize, UpdateRate, u64)>,
    /// Whether every slot holds what its last run left: false before a first and after a failed run.
    complete: bool,
}

impl Plan {
    /// Plans the computation of `outputs` in the types of `precision`. Allocates all memory it will
    /// use.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device runs out of memory, [`Error::Precision`] when it does not
    /// compute in this precision, [`Error::OtherGraph`] for an output of another graph.
    pub fn new(
        g: &Graph,
        device: &Device,
        precision: Precision,
        outputs: &[Value],
    ) -> Result<Self> {
        check_precision(precision, device)?;
        check(g, outputs)?;
        let Layout { steps, sizes, places, order } = Layout::new(g, precision, outputs);
        let slots = sizes
            .iter()
            .map(|&(len, dtype)| Buffer::zeros(device, dtype, len))
            .collect::<std::result::Result<_, _>>()?;
        let mut scratch = HashMap::new();
        for step in &steps {
            let len = step.op.scratch_len(device);
            if len > 0 && !scratch.contains_key(&len) {
                scratch.insert(len, Buffer::zeros(device, precision.float, len)?);
            }
        }
        let seen = order
            .iter()
            .filter(|&&node| g.nodes[node].op.is_none())
            .map(|&node| (node, g.nodes[node].update_rate, 0))
            .collect();
        let place = |v: &Value| (*v, places[&origin(g, precision, *v)]);
        let mut finished = vec![Vec::new(); steps.len()];
        for (value, place) in outputs.iter().map(place) {
            let Place::Slot(slot) = place else { continue };
            let writes = |step: &Step| step.outputs.contains(&Some(slot));
            if let Some(last) = steps.iter().rposition(writes)
                && !finished[last].contains(&value)
            {
                finished[last].push(value);
            }
        }
        let outputs = outputs.iter().map(place).collect();
        Ok(Self {
            device: *device,
            graph_id: g.id,
            steps,
            slots,
            scratch,
            outputs,
            finished,
            seen,
            complete: false,
        })
    }

    /// Brings the outputs up to date with the store: runs every node whose update rate is at least
    /// that of the least volatile input written since this plan's last run, and no other.
    ///
    /// # Errors
    /// [`Error::Unwritten`] when an input was never written, [`Error::Kernel`] when an op refuses
    /// its input (say, a token past the vocabulary), [`Error::OtherGraph`] for another graph's store.
    pub fn run<'a>(&mut self, inputs: impl Into<Inputs<'a>>) -> Result<()> {
        self.run_handing(inputs, &mut |_, _| Ok(()))
    }

    /// As [`run`](Self::run), and hands each output over as soon as it is final, while the others are still to be computed:
    /// always in the order of [`finish_order`](Self::finish_order).
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and of `hand`, which ends the run.
    pub fn run_handing<'a, E: From<Error> + Send>(
        &mut self,
        inputs: impl Into<Inputs<'a>>,
        hand: &mut (dyn FnMut(Value, &Buffer) -> std::result::Result<(), E> + Send),
    ) -> std::result::Result<(), E> {
        let inputs = inputs.into();
        self.check(inputs)?;
        let mut stale = if self.complete { None } else { Some(UpdateRate::Constant) };
        for (node, update_rate, version) in &self.seen {
            if inputs.version(*node)? != *version {
                stale = Some(stale.map_or(*update_rate, |s| s.min(*update_rate)));
            }
        }
        let first = match stale {
            Some(stale) => self.steps.partition_point(|step| step.update_rate < stale),
            None => self.steps.len(),
        };
        self.complete = self.complete && stale.is_none();
        let Self { steps, finished, device, slots, scratch, outputs, .. } = self;
        let mut each = |at: usize, step: &mut Step| {
            if at >= first {
                step.run(device, inputs, slots, scratch)?;
            }
            finished[at].iter().try_for_each(|value| match outputs[value] {
                Place::Slot(slot) => hand(*value, &slots[slot]),
                Place::Input(_) => Ok(()),
            })
        };
        device.run(|| steps.iter_mut().enumerate().try_for_each(|(at, step)| each(at, step)))?;
        for (node, _, version) in &mut self.seen {
            *version = inputs.version(*node)?;
        }
        self.complete = true;
        Ok(())
    }

    /// The outputs that the plan computes, in the order in which a run finishes them.
    pub fn finish_order(&self) -> impl Iterator<Item = Value> + '_ {
        self.finished.iter().flatten().copied()
    }

    /// Brings up to date everything that precedes the fast loop: every stale node but those of
    /// [`UpdateRate::Step`], which [`run_step`](Self::run_step) runs.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn prepare<'a>(&mut self, inputs: impl Into<Inputs<'a>>) -> Result<()> {
        let inputs = inputs.into();
        self.check(inputs)?;
        let mut stale = if self.complete { UpdateRate::Step } else { UpdateRate::Constant };
        for (node, update_rate, version) in &self.seen {
            if inputs.version(*node)? != *version {
                stale = stale.min(*update_rate);
            }
        }
        self.complete = false;
        let first = self.steps.partition_point(|step| step.update_rate < stale);
        let last = self.steps.partition_point(|step| step.update_rate < UpdateRate::Step);
        self.run_range(first..last, inputs)?;
        for (node, update_rate, version) in &mut self.seen {
            // What a step reads counts as unseen, so that a later `run` starts there at least.
            *version = if *update_rate < UpdateRate::Step { inputs.version(*node)? } else { 0 };
        }
        self.complete = true;
        Ok(())
    }

    /// Runs the nodes of [`UpdateRate::Step`], whether or not their inputs changed. Everything below
    /// must be up to date, see [`prepare`](Self::prepare): then a run can be recorded and replayed.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn run_step<'a>(&mut self, inputs: impl Into<Inputs<'a>>) -> Result<()> {
        let inputs = inputs.into();
        self.check(inputs)?;
        for (node, ..) in &self.seen {
            inputs.version(*node)?;
        }
        let first = self.steps.partition_point(|step| step.update_rate < UpdateRate::Step);
        self.run_range(first..self.steps.len(), inputs)
    }

    fn check(&self, inputs: Inputs<'_>) -> Result<()> {
        match inputs.store.graph_id == self.graph_id {
            true => Ok(()),
            false => Err(Error::OtherGraph { what: "the store".into() }),
        }
    }

    fn run_range(&mut self, range: Range<usize>, inputs: Inputs<'_>) -> Result<()> {
        let Self { steps, device, slots, scratch, .. } = self;
        let steps = &mut steps[range];
        device
            .run(|| steps.iter_mut().try_for_each(|step| step.run(device, inputs, slots, scratch)))
    }

    /// An output, as the last run left it.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `value` is not among the plan's outputs, or is a graph input (read
    /// it from the store).
    pub fn output(&self, value: Value) -> Result<&Buffer> {
        match self.outputs.get(&value) {
            Some(Place::Slot(slot)) => Ok(&self.slots[*slot]),
            _ => Err(Error::Unknown { what: "an output of this plan" }),
        }
    }

    /// Runs by kind of node since the plan was made, sorted by name.
    pub fn counts(&self) -> Vec<NodeCount> {
        let mut counts: Vec<NodeCount> = Vec::new();
        for step in &self.steps {
            add_count(&mut counts, step.op.as_ref(), step.runs, step.time);
        }
        counts.sort_unstable_by_key(|count| count.name);
        counts
    }

    /// Arithmetic and traffic of a run that starts at `since`.
    pub fn cost(&self, since: UpdateRate) -> Cost {
        let costs = self.steps.iter().filter(|s| s.update_rate >= since).map(|s| s.op.cost());
        costs.fold(Cost::default(), |sum, cost| Cost {
            flops: sum.flops + cost.flops,
            bytes: sum.bytes + cost.bytes,
        })
    }

    /// Bytes of memory that the plan holds.
    pub fn size_bytes(&self) -> usize {
        self.slots.iter().chain(self.scratch.values()).map(Buffer::size_bytes).sum()
    }
}

impl Step {
    fn run(
        &mut self,
        device: &Device,
        given: Inputs<'_>,
        slots: &mut [Buffer],
        scratch: &mut HashMap<usize, Buffer>,
    ) -> Result<()> {
        let started = Instant::now();
        // Outputs leave their slots while the op runs, so that inputs can be borrowed from the rest.
        let mut taken: [Buffer; MAX_OUTPUTS] = std::array::from_fn(|_| Buffer::empty());
        for (taken, slot) in taken.iter_mut().zip(&self.outputs) {
            if let Some(slot) = slot {
                std::mem::swap(taken, &mut slots[*slot]);
            }
        }
        let mut none = Buffer::empty();
        let scratch = scratch.get_mut(&self.op.scratch_len(device)).unwrap_or(&mut none);
        let result = {
            let nothing = Buffer::empty();
            let mut inputs: [&Buffer; MAX_INPUTS] = [&nothing; MAX_INPUTS];
            for (input, place) in inputs.iter_mut().zip(&self.inputs) {
                *input = match place {
                    // No early return here: it would lose the buffers taken.
                    Place::Input(node) => {
                        given.buffer(*node).expect("Plan::run found every input written")
                    }
                    Place::Slot(slot) => &slots[*slot],
                };
            }
            let mut outputs: [Option<&mut Buffer>; MAX_OUTPUTS] = [const { None }; MAX_OUTPUTS];
            for ((output, taken), slot) in outputs.iter_mut().zip(&mut taken).zip(&self.outputs) {
                *output = slot.map(|_| taken);
            }
            let call = Call {
                device,
                outputs: &mut outputs[..self.outputs.len()],
                inputs: &inputs[..self.inputs.len()],
                scratch,
            };
            if self.in_place { self.op.run_in_place(call) } else { self.op.run(call) }
        };
        for (taken, slot) in taken.iter_mut().zip(&self.outputs) {
            if let Some(slot) = slot {
                std::mem::swap(taken, &mut slots[*slot]);
            }
        }
        self.runs += 1;
        self.time += started.elapsed();
        result
    }
}

/// Bytes of memory that a [`Plan`] of `outputs` would hold, see [`Plan::size_bytes`]: known from the graph alone,
/// so that nothing is allocated.
///
/// # Errors
/// [`Error::OtherGraph`] for an output of another graph.
pub fn plan_bytes(
    g: &Graph,
    device: &Device,
    precision: Precision,
    outputs: &[Value],
) -> Result<usize> {
    check(g, outputs)?;
    let Layout { steps, sizes, .. } = Layout::new(g, precision, outputs);
    let slots = sizes.iter().map(|(len, dtype)| len * dtype.size_bytes());
    let mut scratch: Vec<usize> = steps.iter().map(|step| step.op.scratch_len(device)).collect();
    scratch.sort_unstable();
    scratch.dedup();
    let scratch = scratch.iter().map(|len| len * precision.float.size_bytes());
    Ok(slots.chain(scratch).sum())
}
