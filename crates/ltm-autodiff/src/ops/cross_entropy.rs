//! Output layer and loss in one node, so that no value holds all logits.

use ltm_kernels::ops::cross_entropy::{self, CrossEntropyDims};
use ltm_kernels::ops::elementwise::{self, ScaleRowsDims};
use ltm_kernels::{Cost, Device};

use super::{check, check_dims, check_kind, check_shape, product_kind, rows};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "cross_entropy";

#[derive(Debug)]
struct CrossEntropy(CrossEntropyDims);

#[derive(Debug)]
struct CrossEntropyBwd(ScaleRowsDims);

#[derive(Debug)]
struct CrossEntropyBwdWeight(CrossEntropyDims);

/// Negative log-likelihood in nats of every target under `softmax(h Wᵀ)`: `h (…,C)` of `N` rows,
/// `w (V,C)`, `targets` of `N` integers → `(N)` of [`Kind::Float`]. A target of -1 is not scored: its loss
/// is 0.
///
/// The gradient with respect to `h` is computed in the same pass over the logits, when it is read.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the extents disagree. A target outside `-1..V` is
/// refused when the plan runs.
pub fn cross_entropy(g: &mut Graph, h: Value, w: Value, targets: Value) -> Result<Value> {
    product_kind(g, OP, h, w)?;
    check_kind(g, OP, Kind::Int, &[targets])?;
    let spec = g.spec(h).clone();
    let (n, c) = rows(OP, &spec.shape)?;
    let v = g.shape(w).first().copied().unwrap_or(0);
    check_shape(g, OP, "w", w, &[v, c])?;
    let n_targets = g.spec(targets).len();
    check(OP, n_targets == n, || format!("{n} rows of h have {n_targets} targets"))?;
    let dims = CrossEntropyDims { n, c, v };
    check_dims(OP, dims.validate())?;
    Ok(g.push(CrossEntropy(dims), &[h, w, targets], vec![Spec::float(&[n]), spec])[0])
}

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [h, w, targets] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (nll, dh) = (call.take(0), call.take(1));
        Ok(cross_entropy::fwd(call.device, nll, dh, call.scratch, h, w, targets, self.0)?)
    }

    /// Output 1 is the gradient of each row's loss; targets have no gradient.
    fn grad(&self, g: &mut Graph, node: &Io, dnll: Value, wanted: &[bool]) -> Result<Grads> {
        let &[h, w, targets] = node.inputs.as_slice() else {
            unreachable!("traced with three inputs")
        };
        let (dh, dw) = (g.spec(h).clone(), g.gradient_spec(w));
        let CrossEntropyDims { n, c, .. } = self.0;
        let (scale, bwd_weight) =
            (CrossEntropyBwd(ScaleRowsDims { rows: n, c }), CrossEntropyBwdWeight(self.0));
        let nll = node.outputs[0];
        Ok(vec![
            wanted[0].then(|| g.push1(scale, &[node.outputs[1], dnll], dh)),
            wanted[1].then(|| g.push1(bwd_weight, &[dnll, nll, h, w, targets], dw)),
            None,
        ])
    }

    fn scratch_len(&self, device: &Device) -> usize {
        self.0.scratch_len(device)
    }

    fn cost(&self) -> Cost {
        self.0.cost_fwd()
    }
}

impl Operation for CrossEntropyBwd {
    fn name(&self) -> &'static str {
        "cross_entropy_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [unit_dh, dnll] = [call.inputs[0], call.inputs[1]];
        Ok(elementwise::scale_rows(call.device, call.output(), unit_dh, dnll, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost()
    }
}

impl Operation for CrossEntropyBwdWeight {
    fn name(&self) -> &'static str {
        "cross_entropy_bwd_weight"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let &[dnll, nll, h, w, targets] = call.inputs else {
            unreachable!("traced with five inputs")
        };
        let dw = call.output();
        let Call { device, scratch, .. } = call;
        Ok(cross_entropy::bwd_weight(device, dw, scratch, dnll, nll, h, w, targets, self.0)?)
    }

    fn scratch_len(&self, device: &Device) -> usize {
        self.0.scratch_len(device)
    }

    fn cost(&self) -> Cost {
        self.0.cost_bwd_weight()
    }
}
