//! Other shapes of the same elements: another list of extents, another order of axes, repetition.

use ltm_kernels::Cost;
use ltm_kernels::ops::strided::{self, StridedDims};

use super::binary::sum_to;
use super::{check, check_dims, float_kind, own};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

#[derive(Debug)]
struct Reshape;

/// Why an array is read with other strides: it names the node and gives its gradient.
#[derive(Debug)]
enum Reason {
    /// With the order of axes that restores the input's.
    Permute(Vec<usize>),
    Broadcast,
}

#[derive(Debug)]
struct Strided {
    reason: Reason,
    dims: StridedDims,
}

/// `x` with other extents, of as many elements in the same order. It costs nothing: a plan gives the result the
/// memory of `x`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the number of elements differs.
pub fn reshape(g: &mut Graph, x: Value, shape: &[usize]) -> Result<Value> {
    own(g, "reshape", &[x])?;
    let spec = Spec::new(shape, g.spec(x).kind);
    check("reshape", spec.len() == g.spec(x).len(), || {
        format!("{:?} does not have as many elements as {shape:?}", g.shape(x))
    })?;
    if g.shape(x) == shape {
        return Ok(x);
    }
    Ok(g.push1(Reshape, &[x], spec))
}

/// `x` with its axes in another order: axis `i` of the result is axis `axes[i]` of `x`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `axes` is no order of the axes of `x`, or moves more than four groups of them.
pub fn permute(g: &mut Graph, x: Value, axes: &[usize]) -> Result<Value> {
    let kind = float_kind(g, "permute", &[x])?;
    let shape = g.shape(x).to_vec();
    let dims = check_dims("permute", StridedDims::permute(&shape, axes))?;
    let mut back = vec![0; axes.len()];
    for (i, &axis) in axes.iter().enumerate() {
        back[axis] = i;
    }
    let spec = Spec { shape: axes.iter().map(|&axis| shape[axis]).collect(), kind };
    Ok(g.push1(Strided { reason: Reason::Permute(back), dims }, &[x], spec))
}

/// `x` with two of its axes exchanged, such as the last two for the transposition of matrices.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` does not have these axes.
pub fn transpose(g: &mut Graph, x: Value, i: usize, j: usize) -> Result<Value> {
    own(g, "transpose", &[x])?;
    let n = g.shape(x).len();
    check("transpose", i < n && j < n, || {
        format!("axes {i} and {j} are not both of {:?}", g.shape(x))
    })?;
    let mut axes: Vec<_> = (0..n).collect();
    axes.swap(i, j);
    permute(g, x, &axes)
}

/// `x` repeated to fill `shape`, as operands are by [`sub`](super::sub).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when it does not fit.
pub fn broadcast(g: &mut Graph, x: Value, shape: &[usize]) -> Result<Value> {
    let kind = float_kind(g, "broadcast", &[x])?;
    let dims = check_dims("broadcast", StridedDims::broadcast(g.shape(x), shape))?;
    if g.shape(x) == shape {
        return Ok(x);
    }
    Ok(g.push1(Strided { reason: Reason::Broadcast, dims }, &[x], Spec::new(shape, kind)))
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        Ok(call.output().copy_from(call.inputs[0])?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let shape = g.shape(node.inputs[0]).to_vec();
        Ok(vec![Some(reshape(g, dout, &shape)?)])
    }

    fn is_reshape(&self) -> bool {
        true
    }
}

impl Operation for Strided {
    fn name(&self) -> &'static str {
        match self.reason {
            Reason::Permute(_) => "permute",
            Reason::Broadcast => "broadcast",
        }
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(strided::fwd(call.device, call.output(), x, self.dims)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        Ok(vec![Some(match &self.reason {
            Reason::Permute(back) => permute(g, dout, back)?,
            Reason::Broadcast => sum_to(g, dout, node.inputs[0])?,
        })])
    }

    fn cost(&self) -> Cost {
        self.dims.cost()
    }
}
