//! Weighted sums down to one number.

use ltm_kernels::Cost;
use ltm_kernels::ops::{elementwise, reduce};

use super::{check_kind, check_shape, streaming_cost};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "dot";

#[derive(Debug)]
struct Dot {
    n: usize,
}

#[derive(Debug)]
struct DotBwd {
    n: usize,
}

/// `Σ x · w`, both of one shape → `(1)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn dot(g: &mut Graph, x: Value, w: Value) -> Result<Value> {
    check_kind(g, OP, Kind::Float, &[x, w])?;
    let spec = g.spec(x).clone();
    check_shape(g, OP, "w", w, &spec.shape)?;
    Ok(g.push1(Dot { n: spec.len() }, &[x, w], Spec::float(&[1])))
}

impl Operation for Dot {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [x, w] = [call.inputs[0], call.inputs[1]];
        Ok(reduce::dot(call.device, call.output(), x, w)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(node.inputs[0]).clone();
        let others = [node.inputs[1], node.inputs[0]];
        let mut grad = |other| g.push1(DotBwd { n: self.n }, &[other, dout], spec.clone());
        Ok(others.iter().zip(wanted).map(|(&v, wanted)| wanted.then(|| grad(v))).collect())
    }

    fn cost(&self) -> Cost {
        streaming_cost(2 * self.n, 2 * self.n + 1)
    }
}

impl Operation for DotBwd {
    fn name(&self) -> &'static str {
        "dot_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [other, dout] = [call.inputs[0], call.inputs[1]];
        Ok(elementwise::outer_scale(call.device, call.output(), other, dout)?)
    }

    fn cost(&self) -> Cost {
        streaming_cost(self.n, 2 * self.n + 1)
    }
}
