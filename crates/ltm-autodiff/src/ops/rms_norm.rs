//! Root-mean-square normalisation of rows.

use ltm_kernels::ops::rms_norm::{self, RmsNormDims};
use ltm_kernels::{Cost, Device};

use super::{check_dims, check_kind, check_shape, float_kind, rows};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "rms_norm";

#[derive(Clone, Copy, Debug)]
struct RmsNorm {
    dims: RmsNormDims,
    eps: f64,
}

#[derive(Debug)]
struct RmsNormBwd(RmsNorm);

#[derive(Debug)]
struct RmsNormBwdWeight(RmsNorm);

/// `x · w / sqrt(mean(x²) + eps)` for every row: `x (…,C)`, `w (C)` of [`Kind::Float`] → `(…,C)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the widths differ.
pub fn rms_norm(g: &mut Graph, x: Value, w: Value, eps: f64) -> Result<Value> {
    float_kind(g, OP, &[x])?;
    check_kind(g, OP, Kind::Float, &[w])?;
    let spec = g.spec(x).clone();
    let (rows, c) = rows(OP, &spec.shape)?;
    check_shape(g, OP, "w", w, &[c])?;
    let dims = RmsNormDims { rows, c };
    check_dims(OP, dims.validate())?;
    Ok(g.apply1(RmsNorm { dims, eps }, &[x, w], spec))
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
            wanted[0].then(|| g.apply1(RmsNormBwd(*self), &inputs, dx)),
            wanted[1].then(|| g.apply1(RmsNormBwdWeight(*self), &inputs, dw)),
        ])
    }

    fn cost(&self) -> Cost {
        self.dims.cost_fwd()
    }
}

impl Operation for RmsNormBwd {
    fn name(&self) -> &'static str {
        "rms_norm_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let RmsNorm { dims, eps } = self.0;
        let [dout, x, w] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let dx = call.take(0);
        Ok(rms_norm::bwd(call.device, dx, None, call.scratch, dout, x, w, None, eps, dims)?)
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
