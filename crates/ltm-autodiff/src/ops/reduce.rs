//! Sums and means over axes, and weighted sums down to one number.

use ltm_kernels::Cost;
use ltm_kernels::ops::reduce::SumAxisDims;
use ltm_kernels::ops::{elementwise, reduce};

use super::{
    broadcast, cast, check, check_dims, check_kind, check_shape, float_kind, reshape, scale,
    streaming_cost,
};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "dot";
const SUM: &str = "sum";

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

#[derive(Debug)]
struct Sum(SumAxisDims);

/// The sum of `x` over these axes, which remain with extent 1, so that the result can be repeated along them; see
/// [`reshape()`](super::reshape()) for dropping them.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for an axis that `x` does not have, or that is named twice.
pub fn sum(g: &mut Graph, x: Value, axes: &[usize]) -> Result<Value> {
    let kind = float_kind(g, SUM, &[x])?;
    let shape = g.shape(x);
    let mut is_summed = vec![false; shape.len()];
    for &axis in axes {
        let fresh = is_summed.get(axis) == Some(&false);
        check(SUM, fresh, || format!("{axes:?} are not different axes of {shape:?}"))?;
        is_summed[axis] = true;
    }
    trace_sum(g, x, &is_summed, kind)
}

/// The mean of `x` over these axes, as [`sum`].
///
/// # Errors
/// As [`sum`].
pub fn mean(g: &mut Graph, x: Value, axes: &[usize]) -> Result<Value> {
    let total = sum(g, x, axes)?;
    let n = g.spec(x).len() / g.spec(total).len().max(1);
    scale(g, total, 1.0 / n as f64)
}

/// The sum of all elements of `x` → `(1)` of [`Kind::Float`]: a loss.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` holds integers.
pub fn sum_all(g: &mut Graph, x: Value) -> Result<Value> {
    float_kind(g, SUM, &[x])?;
    let is_summed = vec![true; g.shape(x).len()];
    let total = trace_sum(g, x, &is_summed, Kind::Float)?;
    let total = cast(g, total, Kind::Float)?;
    reshape(g, total, &[1])
}

/// The mean of all elements of `x` → `(1)` of [`Kind::Float`]: a loss.
///
/// # Errors
/// As [`sum_all`].
pub fn mean_all(g: &mut Graph, x: Value) -> Result<Value> {
    let total = sum_all(g, x)?;
    let n = g.spec(x).len();
    scale(g, total, 1.0 / n as f64)
}

/// `x` summed over axes, which remain with extent 1; as a value of `kind` where anything is summed.
pub(super) fn trace_sum(
    g: &mut Graph,
    mut x: Value,
    is_summed: &[bool],
    kind: Kind,
) -> Result<Value> {
    let mut shape = g.shape(x).to_vec();
    let mut axis = 0;
    while axis < shape.len() {
        // Neighbouring axes are summed over together.
        let end = (axis..shape.len()).find(|&i| !is_summed[i]).unwrap_or(shape.len());
        let n = shape[axis..end].iter().fold(1, |n: usize, extent| n.saturating_mul(*extent));
        if n != 1 {
            let product = |of: &[usize]| of.iter().fold(1, |n: usize, e| n.saturating_mul(*e));
            let (outer, inner) = (product(&shape[..axis]), product(&shape[end..]));
            let dims = SumAxisDims { outer, n, inner };
            check_dims(SUM, dims.validate())?;
            shape[axis..end].fill(1);
            x = g.push1(Sum(dims), &[x], Spec::new(&shape, kind));
        }
        axis = end + 1;
    }
    Ok(x)
}

impl Operation for Sum {
    fn name(&self) -> &'static str {
        SUM
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(reduce::sum_axis(call.device, call.output(), x, self.0)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let Spec { shape, kind } = g.spec(node.inputs[0]).clone();
        let dout = cast(g, dout, kind)?;
        Ok(vec![Some(broadcast(g, dout, &shape)?)])
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }
}
