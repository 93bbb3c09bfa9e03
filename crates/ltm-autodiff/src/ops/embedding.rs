//! Rows of a table picked by tokens.

use ltm_kernels::Cost;
use ltm_kernels::ops::embedding::{self, EmbeddingDims};

use super::{check, check_dims, check_kind, float_kind, own};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "embedding";

#[derive(Debug)]
struct Embedding(EmbeddingDims);

#[derive(Debug)]
struct EmbeddingBwdWeight(EmbeddingDims);

/// The table's row of every token: `table (V,C)`, `tokens (…)` of integers → `(…,C)`. A table of
/// [`Kind::MatmulWeight`] gives activations.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `table` is no matrix or `tokens` no integers. A token
/// outside `0..V` is refused when the plan runs.
pub fn embedding(g: &mut Graph, table: Value, tokens: Value) -> Result<Value> {
    own(g, OP, &[table, tokens])?;
    let kind = match g.spec(table).kind {
        Kind::MatmulWeight => Kind::Activation,
        _ => float_kind(g, OP, &[table])?,
    };
    check_kind(g, OP, Kind::Int, &[tokens])?;
    let shape = g.shape(table);
    check(OP, shape.len() == 2, || format!("table must be a matrix, found {shape:?}"))?;
    let (v, c) = (shape[0], shape[1]);
    let dims = EmbeddingDims { n: g.spec(tokens).len(), v, c };
    check_dims(OP, dims.validate())?;
    let shape = [g.shape(tokens), &[c]].concat();
    Ok(g.push1(Embedding(dims), &[table, tokens], Spec { shape, kind }))
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [table, tokens] = [call.inputs[0], call.inputs[1]];
        Ok(embedding::fwd(call.device, call.output(), table, tokens, self.0)?)
    }

    /// Tokens have no gradient.
    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let spec = g.gradient_spec(node.inputs[0]);
        let inputs = [dout, node.inputs[1]];
        Ok(vec![wanted[0].then(|| g.push1(EmbeddingBwdWeight(self.0), &inputs, spec)), None])
    }

    fn cost(&self) -> Cost {
        self.0.cost_fwd()
    }
}

impl Operation for EmbeddingBwdWeight {
    fn name(&self) -> &'static str {
        "embedding_bwd_weight"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dout, tokens] = [call.inputs[0], call.inputs[1]];
        Ok(embedding::bwd(call.device, call.output(), dout, tokens, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost_bwd()
    }
}
