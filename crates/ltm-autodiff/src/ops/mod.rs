//! One file per op: a free function that traces it, its shape rule and its gradient rule.
//!
//! Shapes are row-major. Where a value is described as `(…,C)`, its leading extents count as rows.
//! Float inputs are of one kind, which is also the kind of the result, unless the op specifies more.
//! Backward nodes are named after the op with `_bwd` appended, or `_bwd_weight` where the gradient
//! of a weight is a separate node. A value of another graph is refused with
//! [`Error::OtherGraph`].

mod attention;
mod binary;
mod cast;
mod concat;
mod cross_entropy;
mod elementwise;
mod embedding;
mod gaussian_kl;
mod matmul;
mod reduce;
mod reparam;
mod rms_norm;
mod rope;
mod shape;
mod slice;
mod softmax;
mod swiglu;
mod unary;

pub use attention::attention;
pub use binary::{div, mul, sub};
pub use cast::cast;
pub use concat::concat;
pub use cross_entropy::cross_entropy;
pub use elementwise::{add, fill};
pub use embedding::embedding;
pub use gaussian_kl::gaussian_kl;
pub use ltm_kernels::ops::attention::Mask;
pub use ltm_kernels::ops::matmul::Layout;
pub use matmul::{linear, matmul};
pub use reduce::{dot, mean, mean_all, sum, sum_all};
pub use reparam::reparam;
pub use rms_norm::{add_rms_norm, rms_norm};
pub use rope::{positions, rope, rope_table};
pub use shape::{broadcast, permute, reshape, transpose};
pub use slice::{narrow, slice};
pub use softmax::softmax;
pub use swiglu::swiglu;
pub use unary::{affine, exp, gelu, log, relu, scale, sigmoid, sqrt, tanh};

use ltm_kernels::Cost;

use crate::{Error, Graph, Kind, Result, Value};

/// Refuses to trace an op unless `holds`.
fn check(op: &'static str, holds: bool, reason: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Shape { op, reason: reason() }) }
}

/// Refuses inputs of an op that belong to another graph.
fn own(g: &Graph, op: &'static str, inputs: &[Value]) -> Result<()> {
    match inputs.iter().position(|v| !g.owns(*v)) {
        Some(i) => Err(Error::OtherGraph { what: format!("input {i} of `{op}`") }),
        None => Ok(()),
    }
}

/// The verdict of an op's dims on themselves, as a mistake in tracing.
fn check_dims<T>(op: &'static str, verdict: ltm_kernels::Result<T>) -> Result<T> {
    verdict.map_err(|error| match error {
        ltm_kernels::Error::Dims { reason, .. } => Error::Shape { op, reason },
        other => other.into(),
    })
}

/// Refuses values of another kind.
fn check_kind(g: &Graph, op: &'static str, kind: Kind, values: &[Value]) -> Result<()> {
    own(g, op, values)?;
    check(op, values.iter().all(|v| g.spec(*v).kind == kind), || {
        let found: Vec<_> = values.iter().map(|v| g.spec(*v).kind).collect();
        format!("needs inputs of kind {kind:?}, found {found:?}")
    })
}

/// The kind of float that all of `values` are; refuses integers and a mixture.
fn float_kind(g: &Graph, op: &'static str, values: &[Value]) -> Result<Kind> {
    own(g, op, values)?;
    let kind = g.spec(values[0]).kind;
    let expected = if kind == Kind::Int { Kind::Float } else { kind };
    check_kind(g, op, expected, values)?;
    Ok(kind)
}

/// The kind of the result of `x` with the factor `w`: that of `x`. Refuses all but equal kinds, and a
/// [`Kind::MatmulWeight`] for activations.
fn product_kind(g: &Graph, op: &'static str, x: Value, w: Value) -> Result<Kind> {
    own(g, op, &[x, w])?;
    let [x_kind, w_kind] = [x, w].map(|v| g.spec(v).kind);
    match (x_kind, w_kind) {
        (Kind::Activation, Kind::MatmulWeight) => Ok(Kind::Activation),
        _ => float_kind(g, op, &[x, w]),
    }
}

/// Refuses a value of another shape.
fn check_shape(
    g: &Graph,
    op: &'static str,
    arg: &str,
    value: Value,
    expected: &[usize],
) -> Result<()> {
    let found = g.shape(value);
    check(op, found == expected, || format!("{arg} must be {expected:?}, found {found:?}"))
}

/// A shape of at least one extent as rows and their width.
fn rows(op: &'static str, shape: &[usize]) -> Result<(usize, usize)> {
    check(op, !shape.is_empty(), || "needs at least one extent, found none".into())?;
    let (last, leading) = shape.split_last().expect("checked above");
    // As in `Spec::len`: an extent that no memory holds is refused where memory is allocated.
    Ok((leading.iter().fold(1, |n: usize, extent| n.saturating_mul(*extent)), *last))
}

/// A shape as the extents before an axis, the axis, and the extents after it.
fn around(op: &'static str, shape: &[usize], axis: usize) -> Result<[usize; 3]> {
    check(op, axis < shape.len(), || format!("axis {axis} is not one of {shape:?}"))?;
    let product = |extents: &[usize]| extents.iter().fold(1, |n: usize, e| n.saturating_mul(*e));
    Ok([product(&shape[..axis]), shape[axis], product(&shape[axis + 1..])])
}

/// The three extents of a shape.
fn extents3(g: &Graph, op: &'static str, arg: &str, value: Value) -> Result<[usize; 3]> {
    let shape = g.shape(value);
    shape.try_into().map_err(|_| Error::Shape {
        op,
        reason: format!("{arg} must have three extents, found {shape:?}"),
    })
}

/// The cost of `flops` operations over `moved` elements read or written.
fn streaming_cost(flops: usize, moved: usize) -> Cost {
    Cost { flops: flops as u64, bytes: 4 * moved as u64 }
}
