//! Samples of a diagonal Gaussian as a function of its parameters.

use ltm_kernels::Cost;
use ltm_kernels::ops::reparam;

use super::{check_kind, check_shape};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Value};

const OP: &str = "reparam";

#[derive(Debug)]
struct Reparam {
    n: usize,
}

#[derive(Debug)]
struct ReparamBwd {
    n: usize,
}

/// `mu + noise · exp(log_var / 2)`, all of one shape. The noise has no gradient.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn reparam(g: &mut Graph, mu: Value, log_var: Value, noise: Value) -> Result<Value> {
    check_kind(g, OP, Kind::Float, &[mu, log_var, noise])?;
    let spec = g.spec(mu).clone();
    check_shape(g, OP, "log_var", log_var, &spec.shape)?;
    check_shape(g, OP, "noise", noise, &spec.shape)?;
    Ok(g.push1(Reparam { n: spec.len() }, &[mu, log_var, noise], spec))
}

impl Operation for Reparam {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [mu, log_var, noise] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        Ok(reparam::fwd(call.device, call.output(), mu, log_var, noise)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dz: Value, wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(dz).clone();
        let inputs = [dz, node.inputs[1], node.inputs[2]];
        Ok(vec![
            Some(dz),
            wanted[1].then(|| g.push1(ReparamBwd { n: self.n }, &inputs, spec)),
            None,
        ])
    }

    fn cost(&self) -> Cost {
        reparam::cost(self.n)
    }
}

impl Operation for ReparamBwd {
    fn name(&self) -> &'static str {
        "reparam_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dz, log_var, noise] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        Ok(reparam::bwd(call.device, call.output(), dz, log_var, noise)?)
    }

    fn cost(&self) -> Cost {
        reparam::cost(self.n)
    }
}
