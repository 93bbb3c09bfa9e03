//! Part of a value along one axis.

use ltm_kernels::Cost;
use ltm_kernels::ops::slice::{self, SliceDims};

use super::{around, check_dims, extents3, float_kind};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

const OP: &str = "slice";

#[derive(Debug)]
pub(super) struct Slice(pub SliceDims);

#[derive(Debug)]
struct SliceBwd(SliceDims);

/// `x[:, start..start+len, :]`: `x (B,R,C)` → `(B,len,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` has not three extents or too few rows.
pub fn slice(g: &mut Graph, x: Value, start: usize, len: usize) -> Result<Value> {
    let kind = float_kind(g, OP, &[x])?;
    let [b, rows, c] = extents3(g, OP, "x", x)?;
    let dims = SliceDims { b, rows, start, len, c };
    check_dims(OP, dims.validate())?;
    Ok(g.push1(Slice(dims), &[x], Spec::new(&[b, len, c], kind)))
}

/// Entries `start..start+len` of `x` along `axis`: `(…,R,…)` → `(…,len,…)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` has no such axis or too few entries along it.
pub fn narrow(g: &mut Graph, x: Value, axis: usize, start: usize, len: usize) -> Result<Value> {
    let kind = float_kind(g, OP, &[x])?;
    let mut shape = g.shape(x).to_vec();
    let [b, rows, c] = around(OP, &shape, axis)?;
    let dims = SliceDims { b, rows, start, len, c };
    check_dims(OP, dims.validate())?;
    shape[axis] = len;
    Ok(g.push1(Slice(dims), &[x], Spec::new(&shape, kind)))
}

impl Operation for Slice {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(slice::fwd(call.device, call.output(), x, self.0)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(node.inputs[0]).clone();
        Ok(vec![Some(g.push1(SliceBwd(self.0), &[dout], spec))])
    }

    fn cost(&self) -> Cost {
        self.0.cost_fwd()
    }
}

impl Operation for SliceBwd {
    fn name(&self) -> &'static str {
        "slice_bwd"
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(node.inputs[0]).clone();
        Ok(vec![Some(g.push1(Slice(self.0), &[dout], spec))])
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let dout = call.inputs[0];
        Ok(slice::bwd(call.device, call.output(), dout, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost_bwd()
    }
}
