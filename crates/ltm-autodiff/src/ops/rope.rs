//! Rotary positions: the positions, the table of their angles, and the rotation by it.

use ltm_kernels::Cost;
use ltm_kernels::ops::rope::{self, RopeDims};

use super::{check, check_dims, check_kind, check_shape, extents3, float_kind, streaming_cost};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "rope";

#[derive(Debug)]
struct Positions {
    stride: i32,
}

/// The integers `0, stride, 2·stride, …`, `t` of them.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the last one is past `i32::MAX`.
pub fn positions(g: &mut Graph, t: usize, stride: usize) -> Result<Value> {
    let last = t.saturating_sub(1).saturating_mul(stride);
    check("positions", last.max(stride) <= i32::MAX as usize, || {
        format!("the last of {t} positions {stride} apart is past {}", i32::MAX)
    })?;
    let spec = Spec { shape: vec![t], kind: Kind::Int };
    Ok(g.push1(Positions { stride: stride as i32 }, &[], spec))
}

impl Operation for Positions {
    fn name(&self) -> &'static str {
        "positions"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let out = call.output();
        let positions: Vec<i32> = (0..).map(|i| self.stride * i).take(out.len()).collect();
        Ok(out.write_i32(&positions)?)
    }
}

#[derive(Debug)]
struct RopeTable {
    t: usize,
    theta: f64,
    d: usize,
}

/// `(cos, sin)` of every position's angles: `positions (T)` of integers → `(T,D/2,2)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `d` is odd or 0, or `positions` not one row of integers.
pub fn rope_table(g: &mut Graph, positions: Value, theta: f64, d: usize) -> Result<Value> {
    check_kind(g, "rope_table", Kind::Int, &[positions])?;
    let t = g.spec(positions).len();
    check_shape(g, "rope_table", "positions", positions, &[t])?;
    check_dims("rope_table", RopeDims { b: 1, t, h: 1, d }.validate())?;
    Ok(g.push1(RopeTable { t, theta, d }, &[positions], Spec::float(&[t, d / 2, 2])))
}

impl Operation for RopeTable {
    fn name(&self) -> &'static str {
        "rope_table"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let positions = call.inputs[0];
        Ok(rope::table(call.device, call.output(), positions, self.theta, self.d)?)
    }

    fn cost(&self) -> Cost {
        streaming_cost(self.t * self.d, self.t * (self.d + 1))
    }
}

#[derive(Debug)]
struct Rope(RopeDims);

#[derive(Debug)]
struct RopeBwd(RopeDims);

/// Rotates every head's interleaved pairs: `x (B,T,heads·D)`, `table (T,D/2,2)` of
/// [`Kind::Float`] → as `x`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `heads` does not divide the width, or `table` is for
/// other positions or another head width.
pub fn rope(g: &mut Graph, x: Value, table: Value, heads: usize) -> Result<Value> {
    float_kind(g, OP, &[x])?;
    check_kind(g, OP, Kind::Float, &[table])?;
    let [b, t, width] = extents3(g, OP, "x", x)?;
    check(OP, heads > 0 && width % heads == 0, || {
        format!("{heads} heads do not divide the width {width}")
    })?;
    let dims = RopeDims { b, t, h: heads, d: width / heads };
    check_dims(OP, dims.validate())?;
    check_shape(g, OP, "table", table, &[t, dims.d / 2, 2])?;
    let spec = g.spec(x).clone();
    Ok(g.push1(Rope(dims), &[x, table], spec))
}

impl Operation for Rope {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [x, table] = [call.inputs[0], call.inputs[1]];
        Ok(rope::fwd(call.device, call.output(), x, table, self.0)?)
    }

    /// The table has no gradient.
    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let spec = g.spec(dout).clone();
        let inputs = [dout, node.inputs[1]];
        Ok(vec![wanted[0].then(|| g.push1(RopeBwd(self.0), &inputs, spec)), None])
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }
}

impl Operation for RopeBwd {
    fn name(&self) -> &'static str {
        "rope_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dout, table] = [call.inputs[0], call.inputs[1]];
        Ok(rope::bwd(call.device, call.output(), dout, table, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }
}
