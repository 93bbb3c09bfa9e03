//! The step from one kind of float to another. The only op that a plan may leave out.

use ltm_kernels::Cost;
use ltm_kernels::ops::cast;

use super::float_kind;
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "cast";

#[derive(Debug)]
struct Cast {
    n: usize,
}

/// `x` as a value of `kind`, rounded to nearest where that is narrower; `x` itself where it is of that
/// kind. A value is cast once: asking again gives the same node.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` holds integers, or `kind` is one of integers.
pub fn cast(g: &mut Graph, x: Value, kind: Kind) -> Result<Value> {
    let from = float_kind(g, OP, &[x])?;
    super::check(OP, kind != Kind::Int, || "casts to floats only".into())?;
    if from == kind {
        return Ok(x);
    }
    if let Some(earlier) = g.cast_of(x, kind) {
        return Ok(earlier);
    }
    let spec = Spec::new(g.shape(x), kind);
    Ok(g.push1(Cast { n: spec.len() }, &[x], spec))
}

impl Operation for Cast {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(cast::fwd(call.device, call.output(), x)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let kind = g.spec(node.inputs[0]).kind;
        Ok(vec![Some(cast(g, dout, kind)?)])
    }

    fn is_cast(&self) -> bool {
        true
    }

    fn cost(&self) -> Cost {
        cast::cost(self.n)
    }
}
