//! The softmax of rows.

use ltm_kernels::Cost;
use ltm_kernels::ops::softmax::{self, SoftmaxDims};

use super::{check_dims, float_kind, rows};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Value};

const OP: &str = "softmax";

#[derive(Debug)]
struct Softmax(SoftmaxDims);

#[derive(Debug)]
struct SoftmaxBwd(SoftmaxDims);

/// `exp(x) / Σ exp(x)` over the innermost axis: `x (…,C)` → `(…,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` has no axis or holds integers.
pub fn softmax(g: &mut Graph, x: Value) -> Result<Value> {
    float_kind(g, OP, &[x])?;
    let spec = g.spec(x).clone();
    let (rows, c) = rows(OP, &spec.shape)?;
    let dims = SoftmaxDims { rows, c };
    check_dims(OP, dims.validate())?;
    Ok(g.push1(Softmax(dims), &[x], spec))
}

impl Operation for Softmax {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(softmax::fwd(call.device, call.output(), x, self.0)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(dout).clone();
        Ok(vec![Some(g.push1(SoftmaxBwd(self.0), &[dout, node.outputs[0]], spec))])
    }

    fn cost(&self) -> Cost {
        self.0.cost_fwd()
    }
}

impl Operation for SoftmaxBwd {
    fn name(&self) -> &'static str {
        "softmax_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dout, out] = [call.inputs[0], call.inputs[1]];
        Ok(softmax::bwd(call.device, call.output(), dout, out, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost_bwd()
    }
}
