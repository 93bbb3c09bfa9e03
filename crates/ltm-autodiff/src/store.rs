//! The buffers of a graph's inputs, shared by every plan made from that graph, and those that many graphs share.

use std::sync::atomic::{AtomicU64, Ordering};

use ltm_kernels::{Buffer, Device};

use crate::{Error, Graph, Precision, Result, Value};

struct Slot {
    name: String,
    place: Place,
}

/// Where an input's numbers are.
enum Place {
    /// In the store. The version grows with every write; 0 until the first.
    Own { buffer: Buffer, version: u64 },
    /// In the [`Parameters`] that a run is given, at this index.
    Parameter(usize),
}

/// One buffer per input. Writing one is what makes plans recompute what depends on it.
///
/// Inputs that several graphs share, such as a model's weights, need not be in a store: see [`Parameters`].
pub struct Store {
    pub(crate) graph_id: u64,
    slots: Vec<Option<Slot>>,
}

/// Buffers outside any store, which plans of many graphs read: the weights of a model.
///
/// A run [borrows](Store::with) them. A plan recomputes what depends on them when they have changed since its last
/// run, or are others than then.
#[derive(Debug)]
pub struct Parameters {
    buffers: Vec<Buffer>,
    id: u64,
    version: u64,
}

/// A number that no other set or version of [`Parameters`] has.
fn stamp() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Parameters {
    /// Takes these buffers in.
    pub fn new(buffers: Vec<Buffer>) -> Self {
        Self { buffers, id: stamp(), version: stamp() }
    }

    /// The buffers, to be read.
    pub fn buffers(&self) -> &[Buffer] {
        &self.buffers
    }

    /// Buffer `i`, to be changed; `None` when there are `i` or fewer. Counts as a change of all.
    pub fn get_mut(&mut self, i: usize) -> Option<&mut Buffer> {
        let buffer = self.buffers.get_mut(i)?;
        self.version = stamp();
        Some(buffer)
    }

    /// A number that no other parameters have, the same after a change: what a recording of work on their memory
    /// belongs to.
    pub fn id(&self) -> u64 {
        self.id
    }
}

/// What a run reads: a store, and the parameters that its graph shares with others.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    pub(crate) store: &'a Store,
    parameters: Option<&'a Parameters>,
}

impl<'a> From<&'a Store> for Inputs<'a> {
    /// A store that holds all inputs.
    fn from(store: &'a Store) -> Self {
        Self { store, parameters: None }
    }
}

impl Inputs<'_> {
    pub(crate) fn version(&self, node: usize) -> Result<u64> {
        let slot = self.store.slot(node)?;
        match (&slot.place, self.parameters) {
            (Place::Own { version: version @ 1.., .. }, _) => Ok(*version),
            (Place::Parameter(i), Some(all)) if *i < all.buffers.len() => Ok(all.version),
            _ => Err(Error::Unwritten { name: slot.name.clone() }),
        }
    }

    pub(crate) fn buffer(&self, node: usize) -> Option<&Buffer> {
        match (&self.store.slot(node).ok()?.place, self.parameters) {
            (Place::Own { buffer, .. }, _) => Some(buffer),
            (Place::Parameter(i), Some(parameters)) => parameters.buffers.get(*i),
            (Place::Parameter(_), None) => None,
        }
    }
}

/// Bytes of memory that a [`Store`] of `g` would hold: known from the graph alone, so that nothing is allocated.
pub fn store_bytes(g: &Graph, precision: Precision) -> usize {
    let inputs = g.nodes.iter().filter(|node| node.op.is_none()).map(|node| &node.outputs[0]);
    inputs.map(|spec| spec.len() * precision.dtype(spec.kind).size_bytes()).sum()
}

/// Refuses a precision that the device does not compute in.
pub(crate) fn check_precision(precision: Precision, device: &Device) -> Result<()> {
    if precision.fits(device) {
        return Ok(());
    }
    Err(Error::Precision { precision, device: device.to_string() })
}

impl Store {
    /// Allocates every input of `g` in the types of `precision`.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device runs out of memory, [`Error::Precision`] when it does not
    /// compute in this precision.
    pub fn new(g: &Graph, device: &Device, precision: Precision) -> Result<Self> {
        Self::with_parameters(g, device, precision, &[])
    }

    /// As [`new`](Self::new) for all inputs but `parameters`, which a run reads from [`Parameters`] in this order.
    ///
    /// # Errors
    /// Those of [`new`](Self::new), and [`Error::OtherGraph`] for a value of another graph.
    pub fn with_parameters(
        g: &Graph,
        device: &Device,
        precision: Precision,
        parameters: &[Value],
    ) -> Result<Self> {
        check_precision(precision, device)?;
        for value in parameters {
            g.check("a parameter", *value)?;
        }
        let mut slots = Vec::with_capacity(g.nodes.len());
        for (idx, node) in g.nodes.iter().enumerate() {
            if node.op.is_some() {
                slots.push(None);
                continue;
            }
            let place = match parameters.iter().position(|value| value.node == idx) {
                Some(index) => Place::Parameter(index),
                None => {
                    let spec = &node.outputs[0];
                    let buffer = Buffer::zeros(device, precision.dtype(spec.kind), spec.len())?;
                    Place::Own { buffer, version: 0 }
                }
            };
            slots.push(Some(Slot { name: node.name.clone(), place }));
        }
        Ok(Self { graph_id: g.id, slots })
    }

    /// This store, and the parameters that it was made [for](Self::with_parameters).
    pub fn with<'a>(&'a self, parameters: &'a Parameters) -> Inputs<'a> {
        Inputs { store: self, parameters: Some(parameters) }
    }

    /// Copies floats into an input. An error changes nothing.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input in this store, [`Error::Kernel`] when the length differs or the input holds integers.
    pub fn write_f32(&mut self, input: Value, data: &[f32]) -> Result<()> {
        let (buffer, version) = self.own_mut(input)?;
        buffer.write_f32(data)?;
        *version += 1;
        Ok(())
    }

    /// Copies integers into an input. An error changes nothing.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input in this store, [`Error::Kernel`] when the length differs or the input holds floats.
    pub fn write_i32(&mut self, input: Value, data: &[i32]) -> Result<()> {
        let (buffer, version) = self.own_mut(input)?;
        buffer.write_i32(data)?;
        *version += 1;
        Ok(())
    }

    /// An input's buffer, to be read.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input in this store, [`Error::Unwritten`] before the
    /// first write.
    pub fn get(&self, input: Value) -> Result<&Buffer> {
        self.check(input)?;
        let slot = self.slot(input.node)?;
        match &slot.place {
            Place::Own { version: 0, .. } => Err(Error::Unwritten { name: slot.name.clone() }),
            Place::Own { buffer, .. } => Ok(buffer),
            Place::Parameter(_) => Err(Error::Unknown { what: "an input in this store" }),
        }
    }

    /// An input's buffer, to be changed; counts as a write of the whole input.
    ///
    /// # Errors
    /// [`Error::Unknown`] when `input` is no input in this store.
    pub fn get_mut(&mut self, input: Value) -> Result<&mut Buffer> {
        let (buffer, version) = self.own_mut(input)?;
        *version += 1;
        Ok(buffer)
    }

    fn own_mut(&mut self, input: Value) -> Result<(&mut Buffer, &mut u64)> {
        self.check(input)?;
        match self.slots.get_mut(input.node).and_then(Option::as_mut) {
            Some(Slot { place: Place::Own { buffer, version }, .. }) => Ok((buffer, version)),
            _ => Err(Error::Unknown { what: "an input in this store" }),
        }
    }

    fn check(&self, input: Value) -> Result<()> {
        match input.graph == self.graph_id {
            true => Ok(()),
            false => Err(Error::OtherGraph { what: "the input".into() }),
        }
    }

    fn slot(&self, node: usize) -> Result<&Slot> {
        let slot = self.slots.get(node).and_then(Option::as_ref);
        slot.ok_or(Error::Unknown { what: "an input of this graph" })
    }
}
