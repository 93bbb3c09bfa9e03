//! The buffers of a graph's inputs, shared by every plan made from that graph.

use ltm_kernels::{Buffer, Device};

use crate::{Error, Graph, Precision, Result, Value};

struct Slot {
    name: String,
    buffer: Buffer,
    /// Grows with every write; 0 until the first.
    version: u64,
}

/// One buffer per input. Writing one is what makes plans recompute what depends on it.
pub struct Store {
    pub(crate) graph_id: u64,
    slots: Vec<Option<Slot>>,
}

/// Bytes of memory that a [`Store`] of `g` would hold: known from the graph alone, so that nothing is allocated.
pub fn store_bytes(g: &Graph, precision: Precision) -> usize {
    let inputs = g.nodes.iter().filter(|node| node.op.is_none()).map(|node| &node.outputs[0]);
    inputs.map(|spec| spec.len() * precision.dtype(spec.kind).size_bytes()).sum()
}

impl Store {
    /// Allocates every input of `g` in the types of `precision`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device runs out of memory, [`Error::Precision`] when it does not
    /// compute in this precision.
    pub fn new(g: &Graph, device: &Device, precision: Precision) -> Result<Self> {
        precision.check(device)?;
        let mut slots = Vec::with_capacity(g.nodes.len());
        for node in &g.nodes {
            slots.push(if node.op.is_none() {
                let spec = &node.outputs[0];
                let buffer = Buffer::zeros(device, precision.dtype(spec.kind), spec.len())?;
                Some(Slot { name: node.name.clone(), buffer, version: 0 })
            } else {
                None
            });
        }
        Ok(Self { graph_id: g.id, slots })
    }

    /// Copies floats into an input. An error changes nothing.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph, [`Error::Kernel`] when the length differs or the input holds integers.
    pub fn write_f32(&mut self, input: Value, data: &[f32]) -> Result<()> {
        let slot = self.slot_mut(input)?;
        slot.buffer.write_f32(data)?;
        slot.version += 1;
        Ok(())
    }

    /// Copies integers into an input. An error changes nothing.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph, [`Error::Kernel`] when the length differs or the input holds floats.
    pub fn write_i32(&mut self, input: Value, data: &[i32]) -> Result<()> {
        let slot = self.slot_mut(input)?;
        slot.buffer.write_i32(data)?;
        slot.version += 1;
        Ok(())
    }

    /// An input's buffer, to be read.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph, [`Error::Unwritten`] before the
    /// first write.
    pub fn get(&self, input: Value) -> Result<&Buffer> {
        self.check(input)?;
        self.written(input.node).map(|slot| &slot.buffer)
    }

    /// An input's buffer, to be changed; counts as a write of the whole input.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph.
    pub fn get_mut(&mut self, input: Value) -> Result<&mut Buffer> {
        let slot = self.slot_mut(input)?;
        slot.version += 1;
        Ok(&mut slot.buffer)
    }

    fn slot_mut(&mut self, input: Value) -> Result<&mut Slot> {
        self.check(input)?;
        let slot = self.slots.get_mut(input.node).and_then(Option::as_mut);
        slot.ok_or(Error::Unknown { what: "an input of this graph" })
    }

    fn check(&self, input: Value) -> Result<()> {
        match input.graph == self.graph_id {
            true => Ok(()),
            false => Err(Error::OtherGraph { what: "the input".into() }),
        }
    }

    pub(crate) fn version(&self, node: usize) -> Result<u64> {
        self.written(node).map(|slot| slot.version)
    }

    pub(crate) fn buffer(&self, node: usize) -> Result<&Buffer> {
        self.written(node).map(|slot| &slot.buffer)
    }

    fn written(&self, node: usize) -> Result<&Slot> {
        let slot = self.slots.get(node).and_then(Option::as_ref);
        let slot = slot.ok_or(Error::Unknown { what: "an input of this graph" })?;
        if slot.version == 0 {
            return Err(Error::Unwritten { name: slot.name.clone() });
        }
        Ok(slot)
    }
}
