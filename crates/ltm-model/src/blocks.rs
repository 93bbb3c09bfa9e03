//! What layers are made of, as graphs: attention, the gated feed-forward, the residual stream. Knows no model.

use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{Graph, Kind, Result, Value};

use crate::{AttentionParams, FeedForwardParams, ModelConfig};

/// The residual stream. An addition is deferred to the norm that reads the sum, so that both are one pass
/// over memory.
pub(crate) struct Residual {
    pub sum: Value,
    /// The output of the last sublayer, not yet in the sum.
    pub last: Option<Value>,
    pub eps: f64,
}

impl Residual {
    /// The norm of the state.
    pub fn norm(&mut self, g: &mut Graph, weight: Value) -> Result<Value> {
        let Some(last) = self.last.take() else {
            return ops::rms_norm(g, self.sum, weight, self.eps);
        };
        let (sum, norm) = ops::add_rms_norm(g, self.sum, last, weight, self.eps)?;
        self.sum = sum;
        Ok(norm)
    }
}

/// The weights as the layers use them: matrices cast, once for all their readers, and the gains of the
/// norms unchanged.
pub(crate) fn cast_matrices(g: &mut Graph, weights: &[Value]) -> Result<Vec<Value>> {
    let cast = |w: &Value| match g.shape(*w).len() {
        2 => ops::cast(g, *w, Kind::MatmulWeight),
        _ => Ok(*w),
    };
    weights.iter().map(cast).collect()
}

/// Queries from `x (B,T,C)`, keys and values from `source (B,T_k,C)`: the same tokens, or what they attend
/// to, such as the layer's latents. `tables` holds the angles of both.
pub(crate) fn attention(
    g: &mut Graph,
    config: &ModelConfig,
    weights: &[Value],
    params: &AttentionParams<usize>,
    [x, source]: [Value; 2],
    tables: [Value; 2],
    mask: Mask,
) -> Result<Value> {
    let (n_heads, n_kv_heads) = (config.n_heads, config.n_kv_heads);
    let q = ops::linear(g, x, weights[params.wq])?;
    let q = ops::rope(g, q, tables[0], n_heads)?;
    let k = ops::linear(g, source, weights[params.wk])?;
    let k = ops::rope(g, k, tables[1], n_kv_heads)?;
    let v = ops::linear(g, source, weights[params.wv])?;
    let x = ops::attention(g, q, k, v, n_heads, n_kv_heads, mask)?;
    ops::linear(g, x, weights[params.wo])
}

pub(crate) fn feed_forward(
    g: &mut Graph,
    weights: &[Value],
    params: &FeedForwardParams<usize>,
    x: Value,
) -> Result<Value> {
    let gate = ops::linear(g, x, weights[params.w1])?;
    let up = ops::linear(g, x, weights[params.w3])?;
    let x = ops::swiglu(g, gate, up)?;
    ops::linear(g, x, weights[params.w2])
}
