//! Nodes, handles and the trait an operation implements. Knows nothing of any particular op, nor of memory.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ltm_kernels::{Buffer, Cost, Device};

use crate::{Error, Result};

/// A handle on one output of one node of a [`Graph`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
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

/// Numbers or indices. Of which type numbers are is said by a plan's [`Precision`](crate::Precision).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats in full precision: weights, latents, statistics, losses, and the gradients of all these.
    Float,
    /// Floats that flow through the model and may be narrower. [`ops::cast`](crate::ops::cast) leads
    /// from one kind to another.
    Activation,
    /// Matrices that activations are multiplied with, cast from weights in full precision.
    MatmulWeight,
    /// `i32` token ids, targets or positions.
    Int,
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

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
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
    /// One buffer an output; `None` where nobody reads it, see [`Operation::writes_all`].
    pub outputs: &'a mut [Option<&'b mut Buffer>],
    /// One buffer an input, in order.
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
        self.outputs[i].take()
    }
}

/// One kind of node: a shape rule, an implementation and a gradient rule.
///
/// The gradient of a loss flows through output 0 only, and further outputs are auxiliary, unless an
/// operation defines [`Operation::grad_outputs`].
pub trait Operation: Debug + Send + Sync {
    /// The op's name, the same as its folder in `ltm-kernels` with `_bwd` and the like behind it.
    fn name(&self) -> &'static str;

    /// Computes the outputs from the inputs.
    ///
    /// # Errors
    /// Whatever the kernels refuse.
    fn run(&self, call: Call<'_, '_>) -> Result<()>;

    /// Adds the gradient for each wanted input, given the gradient of output 0.
    ///
    /// # Errors
    /// [`Error::NoGradient`] unless overridden: a missing gradient is never dropped in silence.
    fn grad(&self, _g: &mut Graph, _node: &Io, _dout: Value, wanted: &[bool]) -> Result<Grads> {
        let position = wanted.iter().position(|w| *w).unwrap_or(0);
        Err(Error::NoGradient { op: self.name(), position })
    }

    /// As [`Operation::grad`] for an operation of several outputs that a loss may depend on, given the
    /// gradient of each, `None` where the loss does not depend on it; one at least is there.
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
    /// whose memory it takes over; `None` where an addition of its own is as good.
    fn adding(&self) -> Option<Arc<dyn Operation>> {
        None
    }

    /// Whether a run writes every output: else an output that nobody reads has no buffer.
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

    /// Whether output 0 holds the numbers of the only input, in another kind. A plan leaves such a
    /// node out where its precision gives both kinds one type.
    fn is_cast(&self) -> bool {
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

/// One gradient an input, `None` where it was not wanted.
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
        Value { node: self.nodes.len() - 1, output: 0 }
    }

    /// Adds a node whose outputs have these specs; returns one value an output.
    pub fn apply(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        outputs: Vec<Spec>,
    ) -> Vec<Value> {
        self.push(Arc::new(op), inputs, outputs)
    }

    /// As [`Graph::apply`], of an operation that is shared already.
    pub(crate) fn push(
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
        (0..n_outputs).map(|output| Value { node, output }).collect()
    }

    /// As [`Graph::apply`] for an operation with one output.
    pub fn apply1(
        &mut self,
        op: impl Operation + 'static,
        inputs: &[Value],
        output: Spec,
    ) -> Value {
        self.apply(op, inputs, vec![output])[0]
    }

    /// A value's spec.
    pub fn spec(&self, value: Value) -> &Spec {
        &self.nodes[value.node].outputs[value.output]
    }

    /// A value's shape.
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
        Some(Value { node, output: 0 })
    }

    /// What `value` is cast from, if it is the result of a cast.
    pub(crate) fn cast_from(&self, value: Value) -> Option<Value> {
        let node = &self.nodes[value.node];
        node.op.as_ref().filter(|op| op.is_cast()).map(|_| node.inputs[0])
    }

    /// The spec of the gradient of `value`: what was cast from full precision gets its gradient back
    /// in full precision, so that sums of such gradients lose nothing.
    pub(crate) fn gradient_spec(&self, value: Value) -> Spec {
        let origin = self.cast_from(value).unwrap_or(value);
        self.spec(origin).clone()
    }

    /// How often a value changes.
    pub fn update_rate(&self, value: Value) -> UpdateRate {
        self.nodes[value.node].update_rate
    }
}
