//! Nodes, handles and the trait an operation implements. Knows nothing of any particular op, nor of memory.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ltm_kernels::{Buffer, Cost, Device};

use crate::{Error, Kind, Result};

/// Most inputs of an operation, so that a run gathers them on the stack.
pub(crate) const MAX_INPUTS: usize = 8;
/// Most outputs of an operation.
pub(crate) const MAX_OUTPUTS: usize = 4;

/// A handle on one output of one node of a [`Graph`]. Other graphs refuse it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    pub(crate) graph: u64,
    pub(crate) node: usize,
    pub(crate) output: usize,
}

/// How often an input changes, from never to every step of the inner loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum UpdateRate {
    /// Never: computed from no input at all.
    Constant,
    /// With every update of the weights.
    Weights,
    /// With every batch.
    Batch,
    /// With every step of the fast loop.
    Step,
}

/// Shape and kind of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Extents, outermost first.
    pub shape: Vec<usize>,
    /// Numbers or indices.
    pub kind: Kind,
}

impl Spec {
    /// A value of this shape and kind.
    pub fn new(shape: &[usize], kind: Kind) -> Self {
        Self { shape: shape.to_vec(), kind }
    }

    /// A value of this shape in full precision.
    pub fn float(shape: &[usize]) -> Self {
        Self::new(shape, Kind::Float)
    }

    /// Number of elements; `usize::MAX` where that many cannot be addressed, which no device
    /// allocates.
    pub fn len(&self) -> usize {
        match self.shape.contains(&0) {
            true => 0,
            false => self.shape.iter().fold(1, |n, extent| n.saturating_mul(*extent)),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a running operation is given.
pub struct Call<'a, 'b> {
    /// Where it runs.
    pub device: &'a Device,
    /// One buffer per output; `None` where nobody reads it, see [`Operation::writes_all`].
    pub outputs: &'a mut [Option<&'b mut Buffer>],
    /// One buffer per input, in order.
    pub inputs: &'a [&'a Buffer],
    /// [`Operation::scratch_len`] elements of working memory, in the type of [`Kind::Float`].
    pub scratch: &'a mut Buffer,
}

impl<'b> Call<'_, 'b> {
    /// Takes the buffer of output 0 of an operation that has just one.
    ///
    /// # Panics
    /// When nobody reads output 0, or when it was taken before.
    pub fn output(&mut self) -> &'b mut Buffer {
        self.outputs[0].take().expect("a plan runs no node whose outputs are all unread")
    }

    /// Takes output `i`'s buffer, `None` where nobody reads it.
    pub fn take(&mut self, i: usize) -> Option<&'b mut Buffer> {
        self.outputs.get_mut(i)?.take()
    }
}

/// One kind of node: a shape rule, an implementation and a gradient rule.
///
/// The gradient of a loss flows through output 0 only, and further outputs are auxiliary, unless an
/// operation defines [`Operation::grad_outputs`].
pub trait Operation: Debug + Send + Sync {
    /// The op's name, the same as its folder in `ltm-kernels` with a suffix such as `_bwd`.
    fn name(&self) -> &'static str;

    /// Computes the outputs from the inputs.
    ///
    /// # Errors
    /// Whatever the kernels refuse.
    fn run(&self, call: Call<'_, '_>) -> Result<()>;

    /// Adds the gradient for each wanted input, given the gradient of output 0.
    ///
    /// # Errors
    /// [`Error::NoGradient`] unless overridden: a missing gradient is never dropped silently.
    fn grad(&self, _g: &mut Graph, _node: &Io, _dout: Value, wanted: &[bool]) -> Result<Grads> {
        let position = wanted.iter().position(|w| *w).unwrap_or(0);
        Err(Error::NoGradient { op: self.name(), position })
    }

    /// As [`Operation::grad`] for an operation of several outputs that a loss may depend on, given the
    /// gradient of each, `None` where the loss does not depend on it; at least one is given.
    ///
    /// # Errors
    /// [`Error::NoGradient`] for a gradient of an output other than 0, unless overridden.
    fn grad_outputs(
        &self,
        g: &mut Graph,
        node: &Io,
        douts: &[Option<Value>],
        wanted: &[bool],
    ) -> Result<Grads> {
        match (douts[0], douts[1..].iter().position(Option::is_some)) {
            (Some(dout), None) => self.grad(g, node, dout, wanted),
            (_, auxiliary) => {
                let position = auxiliary.map_or(0, |i| i + 1);
                Err(Error::NoGradient { op: self.name(), position })
            }
        }
    }

    /// The operation whose only output is this one's added to one more input, which comes first and
    /// whose memory it takes over; `None` where a separate addition is as good.
    fn adding(&self) -> Option<Arc<dyn Operation>> {
        None
    }

    /// Whether a run writes every output: otherwise an output that nobody reads has no buffer.
    fn writes_all(&self) -> bool {
        false
    }

    /// Elements of working memory needed while running on `device`.
    fn scratch_len(&self, _device: &Device) -> usize {
        0
    }

    /// Arithmetic and traffic of one run.
    fn cost(&self) -> Cost {
        Cost::default()
    }

    /// Whether output 0 holds the numbers of the only input, in another kind. A plan omits such a
    /// node where its precision gives both kinds the same type.
    fn is_cast(&self) -> bool {
        false
    }

    /// Whether output 0 holds the elements of the only input, in the same kind and order, in another shape. A plan
    /// omits such a node.
    fn is_reshape(&self) -> bool {
        false
    }

    /// An input whose memory output 0 may take over when nobody reads the input afterwards.
    fn in_place(&self) -> Option<usize> {
        None
    }

    /// As [`Operation::run`], with output 0 already holding the input named by
    /// [`Operation::in_place`], and that input's entry in `call.inputs` empty.
    ///
    /// # Errors
    /// Whatever the kernels refuse.
    fn run_in_place(&self, call: Call<'_, '_>) -> Result<()> {
        self.run(call)
    }
}

/// One gradient per input, `None` where it was not wanted.
pub type Grads = Vec<Option<Value>>;

/// A node's inputs and outputs, as its gradient rule sees them.
#[derive(Clone, Debug)]
pub struct Io {
    /// The values that went in.
    pub inputs: Vec<Value>,
    /// The values that came out.
    pub outputs: Vec<Value>,
}

pub(crate) struct Node {
    /// `None` for a graph input.
    pub op: Option<Arc<dyn Operation>>,
    /// An input's name; empty otherwise.
    pub name: String,
    pub inputs: Vec<Value>,
    pub outputs: Vec<Spec>,
    pub update_rate: UpdateRate,
}

/// A traced computation with static shapes. Nodes only ever refer to earlier nodes.
pub struct Graph {
    pub(crate) id: u64,
    pub(crate) nodes: Vec<Node>,
}

impl Default for Graph {
    fn default() -> Self {
        Self::new()
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), nodes: Vec::new() }
    }

    /// Declares an input.
    pub fn input(
        &mut self,
        name: &str,
        shape: &[usize],
        kind: Kind,
        update_rate: UpdateRate,
    ) -> Value {
        self.nodes.push(Node {
            op: None,
            name: name.to_owned(),
            inputs: Vec::new(),
            outputs: vec![Spec { shape: shape.to_vec(), kind }],
            update_rate,
        });
        self.value(self.nodes.len() - 1, 0)
    }

    /// Adds a node whose outputs have these specs; returns one value per output.
    ///
    /// # Errors
    /// [`Error::OtherGraph`] for an input of another graph, [`Error::Limit`] for more than 8 inputs, or
    /// for no output or more than 4.
    pub fn apply(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        outputs: Vec<Spec>,
    ) -> Result<Vec<Value>> {
        let name = op.name();
        if let Some(i) = inputs.iter().position(|v| !self.owns(*v)) {
            return Err(Error::OtherGraph { what: format!("input {i} of `{name}`") });
        }
        for (what, found, limits) in
            [("inputs", inputs.len(), 0..=MAX_INPUTS), ("outputs", outputs.len(), 1..=MAX_OUTPUTS)]
        {
            if !limits.contains(&found) {
                return Err(Error::Limit { op: name, what, found, limits });
            }
        }
        Ok(self.push(op, inputs, outputs))
    }

    /// As [`Graph::apply`] for an operation with one output.
    ///
    /// # Errors
    /// As [`Graph::apply`].
    pub fn apply1(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        output: Spec,
    ) -> Result<Value> {
        Ok(self.apply(op, inputs, vec![output])?[0])
    }

    /// As [`Graph::apply`], of inputs that have been checked.
    pub(crate) fn push(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        outputs: Vec<Spec>,
    ) -> Vec<Value> {
        self.push_shared(Arc::new(op), inputs, outputs)
    }

    /// As [`Graph::push`] for an operation with one output.
    pub(crate) fn push1(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        output: Spec,
    ) -> Value {
        self.push(op, inputs, vec![output])[0]
    }

    /// As [`Graph::push`], of an operation that is shared already.
    pub(crate) fn push_shared(
        &mut self,
        op: Arc<dyn Operation>,
        inputs: &[Value],
        outputs: Vec<Spec>,
    ) -> Vec<Value> {
        let update_rate = inputs
            .iter()
            .map(|v| self.nodes[v.node].update_rate)
            .max()
            .unwrap_or(UpdateRate::Constant);
        let n_outputs = outputs.len();
        self.nodes.push(Node {
            op: Some(op),
            name: String::new(),
            inputs: inputs.to_vec(),
            outputs,
            update_rate,
        });
        let node = self.nodes.len() - 1;
        (0..n_outputs).map(|output| self.value(node, output)).collect()
    }

    /// The handle of an output of one of the nodes.
    pub(crate) fn value(&self, node: usize, output: usize) -> Value {
        Value { graph: self.id, node, output }
    }

    /// Whether a value belongs to this graph.
    pub fn owns(&self, value: Value) -> bool {
        value.graph == self.id
    }

    /// Refuses a value of another graph, naming it `what`.
    ///
    /// # Errors
    /// [`Error::OtherGraph`].
    pub fn check(&self, what: &str, value: Value) -> Result<()> {
        match self.owns(value) {
            true => Ok(()),
            false => Err(Error::OtherGraph { what: what.into() }),
        }
    }

    /// A value's spec.
    ///
    /// # Panics
    /// When the value belongs to another graph, see [`Graph::owns`].
    pub fn spec(&self, value: Value) -> &Spec {
        assert!(self.owns(value), "the value belongs to another graph");
        &self.nodes[value.node].outputs[value.output]
    }

    /// A value's shape.
    ///
    /// # Panics
    /// As [`Graph::spec`].
    pub fn shape(&self, value: Value) -> &[usize] {
        &self.spec(value).shape
    }

    /// The result of the cast of `value` to `kind`, if there is one.
    pub(crate) fn cast_of(&self, value: Value, kind: Kind) -> Option<Value> {
        let is_it = |node: &Node| {
            let casts = node.op.as_ref().is_some_and(|op| op.is_cast());
            casts && node.inputs == [value] && node.outputs[0].kind == kind
        };
        let node = self.nodes.iter().position(is_it)?;
        Some(self.value(node, 0))
    }

    /// What `value` is cast from, if it is the result of a cast.
    pub(crate) fn cast_from(&self, value: Value) -> Option<Value> {
        let node = &self.nodes[value.node];
        node.op.as_ref().filter(|op| op.is_cast()).and_then(|_| node.inputs.first().copied())
    }

    /// What `value` is a reshaped form of, if it is one.
    pub(crate) fn reshaped_from(&self, value: Value) -> Option<Value> {
        let node = &self.nodes[value.node];
        node.op.as_ref().filter(|op| op.is_reshape()).and_then(|_| node.inputs.first().copied())
    }

    /// The spec of the gradient of `value`: what was cast from full precision gets its gradient back
    /// in full precision, so that sums of such gradients lose nothing.
    pub(crate) fn gradient_spec(&self, value: Value) -> Spec {
        let mut origin = value;
        while let Some(from) = self.reshaped_from(origin) {
            origin = from;
        }
        let origin = self.cast_from(origin).unwrap_or(origin);
        Spec { shape: self.shape(value).to_vec(), kind: self.spec(origin).kind }
    }

    /// How often a value changes.
    ///
    /// # Panics
    /// As [`Graph::spec`].
    pub fn update_rate(&self, value: Value) -> UpdateRate {
        assert!(self.owns(value), "the value belongs to another graph");
        self.nodes[value.node].update_rate
    }
}
