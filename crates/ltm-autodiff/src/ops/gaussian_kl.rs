//! Divergence of a diagonal Gaussian from the standard one.

use ltm_kernels::Cost;
use ltm_kernels::ops::gaussian_kl::{self, GaussianKlDims};

use super::{check, check_dims, check_kind, check_shape};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Kind, Operation, Result, Spec, Value};

const OP: &str = "gaussian_kl";

#[derive(Debug)]
struct GaussianKl(GaussianKlDims);

#[derive(Debug)]
struct GaussianKlBwd(GaussianKlDims);

/// `½ Σ (mu² + exp(log_var) - 1 - log_var)` over each of `rows` equal parts of `mu` and `log_var`,
/// in nats → `(rows)`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ or `rows` does not divide them.
pub fn gaussian_kl(g: &mut Graph, mu: Value, log_var: Value, rows: usize) -> Result<Value> {
    check_kind(g, OP, Kind::Float, &[mu, log_var])?;
    let spec = g.spec(mu).clone();
    check_shape(g, OP, "log_var", log_var, &spec.shape)?;
    check(OP, rows > 0 && spec.len().is_multiple_of(rows), || {
        format!("{rows} rows do not divide {} elements", spec.len())
    })?;
    let dims = GaussianKlDims { rows, n: spec.len() / rows };
    check_dims(OP, dims.validate())?;
    Ok(g.push1(GaussianKl(dims), &[mu, log_var], Spec::float(&[rows])))
}

impl Operation for GaussianKl {
    fn name(&self) -> &'static str {
        OP
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [mu, log_var] = [call.inputs[0], call.inputs[1]];
        Ok(gaussian_kl::fwd(call.device, call.output(), mu, log_var, self.0)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dkl: Value, wanted: &[bool]) -> Result<Grads> {
        let (mu, log_var) = (node.inputs[0], node.inputs[1]);
        let specs = vec![g.spec(mu).clone(); 2];
        let grads = g.push(GaussianKlBwd(self.0), &[dkl, mu, log_var], specs);
        Ok(grads.into_iter().zip(wanted).map(|(v, wanted)| wanted.then_some(v)).collect())
    }

    fn cost(&self) -> Cost {
        self.0.cost_fwd()
    }
}

impl Operation for GaussianKlBwd {
    fn name(&self) -> &'static str {
        "gaussian_kl_bwd"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dkl, mu, log_var] = [call.inputs[0], call.inputs[1], call.inputs[2]];
        let (dmu, dlog_var) = (call.take(0), call.take(1));
        Ok(gaussian_kl::bwd(call.device, dmu, dlog_var, dkl, mu, log_var, self.0)?)
    }

    fn cost(&self) -> Cost {
        self.0.cost_bwd()
    }
}
