//! The gated unit of the feed-forward.

use ltm_kernels::Cost;
use ltm_kernels::ops::swiglu;

use super::{check_shape, float_kind};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Value};

const OP: &str = "swiglu";

#[derive(Debug)]
struct Swiglu {
    n: usize,
}

#[derive(Debug)]
struct SwigluBwd {
    n: usize,
}

/// `silu(gate) · up`, both of one shape.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn swiglu(g: &mut Graph, gate: Value, up: Value) -> Result<Value> {
    float_kind(g, OP, &[gate, up])?;
    let spec = g.spec(gate).clone();
    check_shape(g, OP, "up", up, &spec.shape)?;
    Ok(g.push1(Swiglu { n: spec.len() }, &[gate, up], spec))
}

impl Operation for Swiglu {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [gate, up] = [call.inputs[0], call.inputs[1]];
        Ok(swiglu::fwd(call.device, call.output(), gate, up)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let specs = vec![g.spec(dout).clone(); 2];
        let inputs = [dout, node.inputs[0], node.inputs[1]];
        let grads = g.push(SwigluBwd { n: self.n }, &inputs, specs);
        Ok(grads.into_iter().zip(wanted).map(|(v, wanted)| wanted.then_some(v)).collect())
    }

    fn cost(&self) -> Cost {
        swiglu::cost_fwd(self.n)
    }
}

impl Operation for SwigluBwd {
    fn name(&self) -> &'static str {
        "swiglu_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dout, gate, up] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (dgate, dup) = (call.take(0), call.take(1));
        Ok(swiglu::bwd(call.device, dgate, dup, dout, gate, up)?)
    }

    fn cost(&self) -> Cost {
        swiglu::cost_bwd(self.n)
    }
}
