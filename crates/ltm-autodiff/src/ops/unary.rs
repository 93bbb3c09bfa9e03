//! Functions of each element.

use ltm_kernels::Cost;
use ltm_kernels::ops::unary::{self, Function};

use super::float_kind;
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Value};

#[derive(Clone, Copy, Debug)]
struct Unary {
    n: usize,
    f: Function,
}

#[derive(Debug)]
struct UnaryBwd(Unary);

/// `scale · x + shift`.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `x` holds integers.
pub fn affine(g: &mut Graph, x: Value, scale: f64, shift: f64) -> Result<Value> {
    trace(g, x, Function::Affine { scale, shift })
}

/// `factor · x`.
///
/// # Errors
/// As [`affine`].
pub fn scale(g: &mut Graph, x: Value, factor: f64) -> Result<Value> {
    affine(g, x, factor, 0.0)
}

/// `e^x`.
///
/// # Errors
/// As [`affine`].
pub fn exp(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Exp)
}

/// The natural logarithm of `x`: NaN below 0.
///
/// # Errors
/// As [`affine`].
pub fn log(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Log)
}

/// The square root of `x`: NaN below 0.
///
/// # Errors
/// As [`affine`].
pub fn sqrt(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Sqrt)
}

/// The hyperbolic tangent of `x`.
///
/// # Errors
/// As [`affine`].
pub fn tanh(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Tanh)
}

/// `1 / (1 + e^-x)`.
///
/// # Errors
/// As [`affine`].
pub fn sigmoid(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Sigmoid)
}

/// The Gaussian error linear unit in its form with tanh, see [`Function::Gelu`].
///
/// # Errors
/// As [`affine`].
pub fn gelu(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Gelu)
}

/// `max(x, 0)`; the slope at 0 is 0.
///
/// # Errors
/// As [`affine`].
pub fn relu(g: &mut Graph, x: Value) -> Result<Value> {
    trace(g, x, Function::Relu)
}

fn trace(g: &mut Graph, x: Value, f: Function) -> Result<Value> {
    float_kind(g, name(f).0, &[x])?;
    let spec = g.spec(x).clone();
    Ok(g.push1(Unary { n: spec.len(), f }, &[x], spec))
}

/// The names of a function's node and of its gradient's.
fn name(f: Function) -> (&'static str, &'static str) {
    match f {
        Function::Affine { .. } => ("affine", "affine_bwd"),
        Function::Exp => ("exp", "exp_bwd"),
        Function::Log => ("log", "log_bwd"),
        Function::Sqrt => ("sqrt", "sqrt_bwd"),
        Function::Tanh => ("tanh", "tanh_bwd"),
        Function::Sigmoid => ("sigmoid", "sigmoid_bwd"),
        Function::Gelu => ("gelu", "gelu_bwd"),
        Function::Relu => ("relu", "relu_bwd"),
    }
}

impl Operation for Unary {
    fn name(&self) -> &'static str {
        name(self.f).0
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let x = call.inputs[0];
        Ok(unary::fwd(call.device, call.output(), x, self.f)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        if let Function::Affine { scale: factor, .. } = self.f {
            return Ok(vec![Some(scale(g, dout, factor)?)]);
        }
        let spec = g.spec(dout).clone();
        Ok(vec![Some(g.push1(UnaryBwd(*self), &[dout, node.inputs[0]], spec))])
    }

    fn cost(&self) -> Cost {
        unary::cost_fwd(self.n)
    }
}

impl Operation for UnaryBwd {
    fn name(&self) -> &'static str {
        name(self.0.f).1
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [dout, x] = [call.inputs[0], call.inputs[1]];
        Ok(unary::bwd(call.device, call.output(), dout, x, self.0.f)?)
    }

    fn cost(&self) -> Cost {
        unary::cost_bwd(self.0.n)
    }
}
