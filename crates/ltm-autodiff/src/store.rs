//! The buffers behind a graph's inputs, shared by every plan made from that graph.

use ltm_kernels::{Buffer, Device};

use crate::{Error, Graph, Precision, Result, Value};

struct Slot {
    name: String,
    buffer: Buffer,
    /// Grows with every write; 0 until the first.
    version: u64,
}

/// One buffer an input. Writing one is what makes plans recompute what depends on it.
pub struct Store {
    pub(crate) graph_id: u64,
    slots: Vec<Option<Slot>>,
}

impl Store {
    /// Allocates every input of `g` in the types of `precision`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device runs out of memory.
    pub fn new(g: &Graph, device: &Device, precision: Precision) -> Result<Self> {
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

    /// Copies floats into an input.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the length differs or the input holds integers.
    pub fn write_f32(&mut self, input: Value, data: &[f32]) -> Result<()> {
        Ok(self.get_mut(input)?.write_f32(data)?)
    }

    /// Copies integers into an input.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the length differs or the input holds floats.
    pub fn write_i32(&mut self, input: Value, data: &[i32]) -> Result<()> {
        Ok(self.get_mut(input)?.write_i32(data)?)
    }

    /// An input's buffer, to be read.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph, [`Error::Unwritten`] before the
    /// first write.
    pub fn get(&self, input: Value) -> Result<&Buffer> {
        self.written(input.node).map(|slot| &slot.buffer)
    }

    /// An input's buffer, to be changed; counts as a write.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input of the graph.
    pub fn get_mut(&mut self, input: Value) -> Result<&mut Buffer> {
        let slot = self.slots.get_mut(input.node).and_then(Option::as_mut);
        let slot = slot.ok_or(Error::Unknown { what: "the input" })?;
        slot.version += 1;
        Ok(&mut slot.buffer)
    }

    pub(crate) fn version(&self, node: usize) -> Result<u64> {
        self.written(node).map(|slot| slot.version)
    }

    pub(crate) fn buffer(&self, node: usize) -> Result<&Buffer> {
        self.written(node).map(|slot| &slot.buffer)
    }

    fn written(&self, node: usize) -> Result<&Slot> {
        let slot = self.slots.get(node).and_then(Option::as_ref);
        let slot = slot.ok_or(Error::Unknown { what: "the input" })?;
        if slot.version == 0 {
            return Err(Error::Unwritten { name: slot.name.clone() });
        }
        Ok(slot)
    }
}
