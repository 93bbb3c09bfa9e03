//! Softmax attention, over all keys or within a causal window.

use ltm_kernels::ops::attention::{self, AttentionDims, Mask};
use ltm_kernels::{Cost, Device};

use super::{check, check_dims, check_shape, extents3, float_kind};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

const OP: &str = "attention";

#[derive(Clone, Copy, Debug)]
struct Attention {
    dims: AttentionDims,
    scale: f64,
}

#[derive(Debug)]
struct AttentionBwd(Attention);

/// Attention scaled by `1/sqrt(D)`: `q (B,T,H·D)`, `k` and `v (B,T_k,G·D)` → `(B,T,H·D)`. A query
/// sees the keys that `mask` lets it see; a window needs `T_k = T`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the head counts do not fit the widths, `k` and `v` do
/// not fit `q`, or the mask does not fit them.
pub fn attention(
    g: &mut Graph,
    q: Value,
    k: Value,
    v: Value,
    h: usize,
    g_heads: usize,
    mask: Mask,
) -> Result<Value> {
    float_kind(g, OP, &[q, k, v])?;
    let [b, t, c] = extents3(g, OP, "q", q)?;
    check(OP, h > 0 && c % h == 0, || format!("{h} heads do not divide the width {c}"))?;
    let d = c / h;
    let [_, t_k, _] = extents3(g, OP, "k", k)?;
    let dims = AttentionDims { b, t, t_k, h, g: g_heads, d, mask };
    check_dims(OP, dims.validate())?;
    check_shape(g, OP, "k", k, &[b, t_k, g_heads * d])?;
    check_shape(g, OP, "v", v, &[b, t_k, g_heads * d])?;
    let scale = 1.0 / (d as f64).sqrt();
    let specs = vec![g.spec(q).clone(), Spec::float(&[b, t, h])];
    Ok(g.push(Attention { dims, scale }, &[q, k, v], specs)[0])
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [q, k, v] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (out, lse) = (call.output(), call.take(1));
        let lse = lse.unwrap_or(call.scratch);
        Ok(attention::fwd(call.device, out, lse, q, k, v, self.scale, self.dims)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let inputs: Vec<_> =
            [dout].into_iter().chain(node.outputs.clone()).chain(node.inputs.clone()).collect();
        let specs = node.inputs.iter().map(|v| g.spec(*v).clone()).collect();
        let grads = g.push(AttentionBwd(*self), &inputs, specs);
        Ok(grads.into_iter().zip(wanted).map(|(v, wanted)| wanted.then_some(v)).collect())
    }

    /// Where the log-sum-exp goes when no backward reads it.
    fn scratch_len(&self, _device: &Device) -> usize {
        self.dims.b * self.dims.t * self.dims.h
    }

    fn cost(&self) -> Cost {
        self.dims.cost_fwd()
    }
}

impl Operation for AttentionBwd {
    fn name(&self) -> &'static str {
        "attention_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let &[dout, out, lse, q, k, v] = call.inputs else {
            unreachable!("traced with six inputs")
        };
        let (dq, dk, dv) = (call.take(0), call.take(1), call.take(2));
        let Attention { dims, scale } = self.0;
        let Call { device, scratch, .. } = call;
        Ok(attention::bwd(device, dq, dk, dv, scratch, dout, out, lse, q, k, v, scale, dims)?)
    }

    fn scratch_len(&self, device: &Device) -> usize {
        self.0.dims.scratch_len(device)
    }

    fn cost(&self) -> Cost {
        self.0.dims.cost_bwd()
    }
}
