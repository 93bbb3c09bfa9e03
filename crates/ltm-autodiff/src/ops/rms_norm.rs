//! Root-mean-square normalisation of rows, alone or of a sum.

use ltm_kernels::ops::rms_norm::{self, RmsNormDims};
use ltm_kernels::{Cost, Device};

use super::{check_dims, check_kind, check_shape, float_kind, rows, streaming_cost};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "rms_norm";

#[derive(Clone, Copy, Debug)]
struct RmsNorm {
    dims: RmsNormDims,
    eps: f64,
}

/// With the sum as output 0 and its norm as output 1.
#[derive(Debug)]
struct AddRmsNorm(RmsNorm);

/// With a gradient that reaches `x` past the norm where there is a fourth input.
#[derive(Debug)]
struct RmsNormBwd(RmsNorm);

#[derive(Debug)]
struct RmsNormBwdWeight(RmsNorm);

/// `x · w / sqrt(mean(x²) + eps)` for every row: `x (…,C)`, `w (C)` of [`Kind::Float`] → `(…,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the widths differ.
pub fn rms_norm(g: &mut Graph, x: Value, w: Value, eps: f64) -> Result<Value> {
    let norm = norm_of(g, x, w, eps)?;
    let spec = g.spec(x).clone();
    Ok(g.push1(norm, &[x, w], spec))
}

/// `a + b`, and [`rms_norm()`] of that, in one pass over memory: `a` and `b (…,C)`, `w (C)` of
/// [`Kind::Float`] → the sum and its norm, both `(…,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes or widths differ.
pub fn add_rms_norm(
    g: &mut Graph,
    a: Value,
    b: Value,
    w: Value,
    eps: f64,
) -> Result<(Value, Value)> {
    float_kind(g, OP, &[a, b])?;
    let norm = norm_of(g, a, w, eps)?;
    let spec = g.spec(a).clone();
    check_shape(g, OP, "b", b, &spec.shape)?;
    let outputs = g.push(AddRmsNorm(norm), &[a, b, w], vec![spec; 2]);
    Ok((outputs[0], outputs[1]))
}

/// The norm of `x`, if `w` fits it.
fn norm_of(g: &Graph, x: Value, w: Value, eps: f64) -> Result<RmsNorm> {
    float_kind(g, OP, &[x])?;
    check_kind(g, OP, Kind::Float, &[w])?;
    let (rows, c) = rows(OP, g.shape(x))?;
    check_shape(g, OP, "w", w, &[c])?;
    let dims = RmsNormDims { rows, c };
    check_dims(OP, dims.validate())?;
    Ok(RmsNorm { dims, eps })
}

impl Operation for RmsNorm {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [x, w] = [call.inputs[0], call.inputs[1]];
        Ok(rms_norm::fwd(call.device, call.output(), x, w, self.eps, self.dims)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let (x, w) = (node.inputs[0], node.inputs[1]);
        let inputs = [dout, x, w];
        let (dx, dw) = (g.spec(x).clone(), Spec::float(&[self.dims.c]));
        Ok(vec![
            wanted[0].then(|| g.push1(RmsNormBwd(*self), &inputs, dx)),
            wanted[1].then(|| g.push1(RmsNormBwdWeight(*self), &inputs, dw)),
        ])
    }

    fn cost(&self) -> Cost {
        self.dims.cost_fwd()
    }
}

impl Operation for AddRmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm_add"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let RmsNorm { dims, eps } = self.0;
        let [a, b, w] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (sum, out) = (call.take(0), call.take(1));
        let (sum, out) = sum.zip(out).expect("a plan keeps both, see `writes_all`");
        Ok(rms_norm::fwd_add(call.device, sum, out, a, b, w, eps, dims)?)
    }

    fn writes_all(&self) -> bool {
        true
    }

    fn grad_outputs(
        &self,
        g: &mut Graph,
        node: &Io,
        douts: &[Option<Value>],
        wanted: &[bool],
    ) -> Result<Grads> {
        let (sum, w) = (node.outputs[0], node.inputs[2]);
        let (dsum, dout) = (douts[0], douts[1]);
        let Some(dout) = dout else {
            return Ok(vec![dsum, dsum, None]);
        };
        let inputs: Vec<_> = [dout, sum, w].into_iter().chain(dsum).collect();
        let (dx, dw) = (g.spec(sum).clone(), Spec::float(&[self.0.dims.c]));
        let dx = (wanted[0] || wanted[1]).then(|| g.push1(RmsNormBwd(self.0), &inputs, dx));
        let dw = wanted[2].then(|| g.push1(RmsNormBwdWeight(self.0), &inputs[..3], dw));
        Ok(vec![dx, dx, dw])
    }

    fn cost(&self) -> Cost {
        let Cost { flops, bytes } = self.0.dims.cost_fwd();
        let n = self.0.dims.rows * self.0.dims.c;
        let add = streaming_cost(n, 2 * n);
        Cost { flops: flops + add.flops, bytes: bytes + add.bytes }
    }
}

impl Operation for RmsNormBwd {
    fn name(&self) -> &'static str {
        "rms_norm_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let RmsNorm { dims, eps } = self.0;
        let [dout, x, w] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (dx, past) = (call.take(0), call.inputs.get(3).copied());
        Ok(rms_norm::bwd(call.device, dx, None, call.scratch, dout, x, w, past, eps, dims)?)
    }

    fn cost(&self) -> Cost {
        self.0.dims.cost_bwd()
    }
}

impl Operation for RmsNormBwdWeight {
    fn name(&self) -> &'static str {
        "rms_norm_bwd_weight"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let RmsNorm { dims, eps } = self.0;
        let [dout, x, w] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let dw = call.take(0);
        Ok(rms_norm::bwd(call.device, None, dw, call.scratch, dout, x, w, None, eps, dims)?)
    }

    fn scratch_len(&self, device: &Device) -> usize {
        self.0.dims.scratch_len(device)
    }

    fn cost(&self) -> Cost {
        self.0.dims.cost_bwd()
    }
}
