//! Differences, products and quotients of two values, and sums of different shapes. Gradients are more of these
//! operations, so that they have gradients in turn.

use ltm_kernels::Cost;
use ltm_kernels::ops::binary::{self, BinaryDims, Operator};

use super::reduce::trace_sum;
use super::{check_dims, float_kind, reshape, scale};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

#[derive(Debug)]
struct Binary {
    operator: Operator,
    dims: BinaryDims,
}

/// `a - b`, with broadcasting.
///
/// As in NumPy, shapes are aligned at their innermost axes, and an axis that is missing or of extent 1 is repeated:
/// `(B,T,C)` and `(C)` → `(B,T,C)`, `(B,1,C)` and `(T,1)` → `(B,T,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes do not fit each other.
pub fn sub(g: &mut Graph, a: Value, b: Value) -> Result<Value> {
    trace(g, a, b, Operator::Sub)
}

/// `a · b`, element by element, with broadcasting as in [`sub`].
///
/// # Errors
/// As [`sub`].
pub fn mul(g: &mut Graph, a: Value, b: Value) -> Result<Value> {
    trace(g, a, b, Operator::Mul)
}

/// `a / b`, element by element, with broadcasting as in [`sub`].
///
/// # Errors
/// As [`sub`].
pub fn div(g: &mut Graph, a: Value, b: Value) -> Result<Value> {
    trace(g, a, b, Operator::Div)
}

pub(super) fn trace(g: &mut Graph, a: Value, b: Value, operator: Operator) -> Result<Value> {
    let op = name(operator);
    let kind = float_kind(g, op, &[a, b])?;
    let dims = BinaryDims::broadcast(g.shape(a), g.shape(b));
    let (dims, shape) = check_dims(op, dims)?;
    Ok(g.push1(Binary { operator, dims }, &[a, b], Spec::new(&shape, kind)))
}

fn name(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "add",
        Operator::Sub => "sub",
        Operator::Mul => "mul",
        Operator::Div => "div",
    }
}

/// `gradient` summed over the axes along which `value` was repeated.
pub(super) fn sum_to(g: &mut Graph, gradient: Value, value: Value) -> Result<Value> {
    let Spec { shape, kind } = g.gradient_spec(value);
    let filled = g.shape(gradient);
    let missing = filled.len() - shape.len();
    let is_repeated = |axis: usize| axis < missing || shape[axis - missing] != filled[axis];
    let is_summed: Vec<_> = (0..filled.len()).map(is_repeated).collect();
    let summed = trace_sum(g, gradient, &is_summed, kind)?;
    reshape(g, summed, &shape)
}

impl Operation for Binary {
    fn name(&self) -> &'static str {
        name(self.operator)
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [a, b] = [call.inputs[0], call.inputs[1]];
        Ok(binary::fwd(call.device, call.output(), a, b, self.operator, self.dims)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let ([a, b], out) = ([node.inputs[0], node.inputs[1]], node.outputs[0]);
        let mut grads = vec![None; 2];
        if wanted[0] {
            let da = match self.operator {
                Operator::Add | Operator::Sub => dout,
                Operator::Mul => mul(g, dout, b)?,
                Operator::Div => div(g, dout, b)?,
            };
            grads[0] = Some(sum_to(g, da, a)?);
        }
        if wanted[1] {
            let db = match self.operator {
                Operator::Add => dout,
                Operator::Sub => scale(g, dout, -1.0)?,
                Operator::Mul => mul(g, dout, a)?,
                Operator::Div => {
                    let product = mul(g, dout, out)?;
                    let quotient = div(g, product, b)?;
                    scale(g, quotient, -1.0)?
                }
            };
            grads[1] = Some(sum_to(g, db, b)?);
        }
        Ok(grads)
    }

    fn cost(&self) -> Cost {
        self.dims.cost()
    }
}
