//! Values one after the other along an axis.

use ltm_kernels::Cost;
use ltm_kernels::ops::slice::{self, SliceDims};

use super::slice::Slice;
use super::{around, check, check_dims, float_kind};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

const OP: &str = "concat";

/// Where each part is in the result.
#[derive(Debug)]
struct Concat(Vec<SliceDims>);

/// The parts one after the other along `axis`: `(…,R,…)`, `(…,S,…)`, … → `(…,R+S+…,…)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when there is no part, no such axis, or another extent differs;
/// [`Error::Limit`](crate::Error::Limit) for more than 8 parts.
pub fn concat(g: &mut Graph, parts: &[Value], axis: usize) -> Result<Value> {
    check(OP, !parts.is_empty(), || "needs at least one part".into())?;
    let kind = float_kind(g, OP, parts)?;
    let mut shape = g.shape(parts[0]).to_vec();
    let [b, _, c] = around(OP, &shape, axis)?;
    let mut rows = 0usize;
    for part in parts {
        let part = g.shape(*part);
        let fits =
            part.len() == shape.len() && (0..part.len()).all(|i| i == axis || part[i] == shape[i]);
        check(OP, fits, || format!("{shape:?} and {part:?} differ beside axis {axis}"))?;
        rows = rows.saturating_add(part[axis]);
    }
    shape[axis] = rows;
    let mut places = Vec::with_capacity(parts.len());
    let mut start = 0;
    for part in parts {
        let len = g.shape(*part)[axis];
        let dims = SliceDims { b, rows, start, len, c };
        check_dims(OP, dims.validate())?;
        places.push(dims);
        start += len;
    }
    g.apply1(Concat(places), parts, Spec::new(&shape, kind))
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let out = call.output();
        for (dims, part) in self.0.iter().zip(call.inputs) {
            slice::place(call.device, out, part, *dims)?;
        }
        Ok(())
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let parts = self.0.iter().zip(&node.inputs).zip(wanted);
        let grad = |((dims, part), wanted): ((&SliceDims, &Value), &bool)| {
            let spec = Spec { kind: g.spec(dout).kind, ..g.spec(*part).clone() };
            wanted.then(|| g.push1(Slice(*dims), &[dout], spec))
        };
        Ok(parts.map(grad).collect())
    }

    fn cost(&self) -> Cost {
        self.0.iter().fold(Cost::default(), |sum, dims| {
            let Cost { flops, bytes } = dims.cost_fwd();
            Cost { flops: sum.flops + flops, bytes: sum.bytes + bytes }
        })
    }
}
