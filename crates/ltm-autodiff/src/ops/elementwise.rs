//! Sums, and constants.

use ltm_kernels::Cost;
use ltm_kernels::ops::binary::Operator;
use ltm_kernels::ops::elementwise;

use super::{binary, float_kind, streaming_cost};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

#[derive(Debug)]
struct Add {
    n: usize,
}

/// `a + b`, with broadcasting as in [`sub`](super::sub). If both have one shape, in `a`'s memory where nobody reads `a`
/// afterwards.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes do not fit each other.
pub fn add(g: &mut Graph, a: Value, b: Value) -> Result<Value> {
    float_kind(g, "add", &[a, b])?;
    let spec = g.spec(a).clone();
    if g.shape(b) != spec.shape {
        return binary::trace(g, a, b, Operator::Add);
    }
    Ok(g.push1(Add { n: spec.len() }, &[a, b], spec))
}

impl Operation for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [a, b] = [call.inputs[0], call.inputs[1]];
        Ok(elementwise::add(call.device, call.output(), a, b)?)
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn run_in_place(&self, mut call: Call<'_, '_>) -> Result<()> {
        let b = call.inputs[1];
        Ok(elementwise::add_assign(call.device, call.output(), b)?)
    }

    fn grad(&self, _g: &mut Graph, _node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        Ok(wanted.iter().map(|wanted| wanted.then_some(dout)).collect())
    }

    fn cost(&self) -> Cost {
        streaming_cost(self.n, 3 * self.n)
    }
}

#[derive(Debug)]
struct Fill {
    n: usize,
    value: f64,
}

/// A value of this shape and of [`Kind::Float`](crate::Kind::Float) whose every element is `value`.
pub fn fill(g: &mut Graph, shape: &[usize], value: f64) -> Value {
    let spec = Spec::float(shape);
    g.push1(Fill { n: spec.len(), value }, &[], spec)
}

impl Operation for Fill {
    fn name(&self) -> &'static str {
        "fill"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        Ok(elementwise::fill(call.device, call.output(), self.value)?)
    }

    fn cost(&self) -> Cost {
        streaming_cost(0, self.n)
    }
}
