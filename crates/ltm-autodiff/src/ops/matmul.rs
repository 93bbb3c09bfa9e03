//! Matrix products. The gradient of a product is two more products with layouts exchanged.

use std::sync::Arc;

use ltm_kernels::ops::matmul::{self, Layout, MatmulDims, Write};
use ltm_kernels::{Buffer, Cost, Device};

use super::{check, check_dims, own, product_kind, rows, streaming_cost};
use crate::graph::Grads;
use crate::{Call, Graph, Io, Operation, Result, Spec, Value};

const OP: &str = "matmul";

/// Why a product is in the graph: it names the node, and the nodes of its gradient.
#[derive(Clone, Copy, Debug)]
enum Role {
    Product,
    /// The right factor is a weight.
    Linear,
    Bwd,
    BwdWeight,
}

#[derive(Clone, Debug)]
struct Matmul {
    dims: MatmulDims,
    role: Role,
}

/// A product added to what a first input holds, in the memory of that.
#[derive(Debug)]
struct AddMatmul(Matmul);

/// `op(a) op(b)`, where each factor counts as a matrix of its rows `(…,columns)` and is transposed or
/// not.
///
/// The result is `(…,N)` with the leading extents of `a` when that is not transposed, and
/// `(M,N)` otherwise.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the extents summed over differ.
pub fn matmul(
    g: &mut Graph,
    a: Value,
    b: Value,
    a_layout: Layout,
    b_layout: Layout,
) -> Result<Value> {
    trace(g, a, b, [a_layout, b_layout], Role::Product, None)
}

/// `x Wᵀ`: `x (…,K)`, `w (N,K)` → `(…,N)`. For activations `w` may be of
/// [`Kind::MatmulWeight`](crate::Kind::MatmulWeight).
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when `K` differs or `w` is no matrix.
pub fn linear(g: &mut Graph, x: Value, w: Value) -> Result<Value> {
    own(g, OP, &[x, w])?;
    check(OP, g.shape(w).len() == 2, || format!("w must be a matrix, found {:?}", g.shape(w)))?;
    trace(g, x, w, [Layout::Normal, Layout::Transposed], Role::Linear, None)
}

fn trace(
    g: &mut Graph,
    a: Value,
    b: Value,
    [a_layout, b_layout]: [Layout; 2],
    role: Role,
    spec: Option<Spec>,
) -> Result<Value> {
    let kind = product_kind(g, OP, a, b)?;
    let (a_rows, a_columns) = rows(OP, g.shape(a))?;
    let (b_rows, b_columns) = rows(OP, g.shape(b))?;
    let (m, k) = match a_layout {
        Layout::Normal => (a_rows, a_columns),
        Layout::Transposed => (a_columns, a_rows),
    };
    let (b_k, n) = match b_layout {
        Layout::Normal => (b_rows, b_columns),
        Layout::Transposed => (b_columns, b_rows),
    };
    check(OP, k == b_k, || {
        format!("{:?} and {:?} do not multiply: K is {k} and {b_k}", g.shape(a), g.shape(b))
    })?;
    let dims = MatmulDims { a: a_layout, b: b_layout, ..MatmulDims::new(m, n, k) };
    check_dims(OP, dims.validate())?;
    let spec = spec.unwrap_or_else(|| match a_layout {
        Layout::Normal => {
            let mut shape = g.shape(a).to_vec();
            *shape.last_mut().expect("rows() refused an empty shape") = n;
            Spec { shape, kind }
        }
        Layout::Transposed => Spec::new(&[m, n], kind),
    });
    Ok(g.push1(Matmul { dims, role }, &[a, b], spec))
}

fn flip(layout: Layout) -> Layout {
    match layout {
        Layout::Normal => Layout::Transposed,
        Layout::Transposed => Layout::Normal,
    }
}

impl Operation for Matmul {
    fn name(&self) -> &'static str {
        match self.role {
            Role::Product | Role::Linear => OP,
            Role::Bwd => "matmul_bwd",
            Role::BwdWeight => "matmul_bwd_weight",
        }
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let [a, b] = [call.inputs[0], call.inputs[1]];
        Ok(matmul::fwd(call.device, call.output(), a, b, Write::Overwrite, self.dims)?)
    }

    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let MatmulDims { a: a_layout, b: b_layout, .. } = self.dims;
        let mut grads = vec![None; 2];
        if wanted[0] {
            let spec = Some(g.gradient_spec(a));
            grads[0] = Some(match a_layout {
                Layout::Normal => {
                    trace(g, dout, b, [Layout::Normal, flip(b_layout)], Role::Bwd, spec)?
                }
                Layout::Transposed => {
                    trace(g, b, dout, [b_layout, Layout::Transposed], Role::Bwd, spec)?
                }
            });
        }
        if wanted[1] {
            let role = if matches!(self.role, Role::Linear) { Role::BwdWeight } else { Role::Bwd };
            let spec = Some(g.gradient_spec(b));
            grads[1] = Some(match b_layout {
                Layout::Normal => trace(g, a, dout, [flip(a_layout), Layout::Normal], role, spec)?,
                Layout::Transposed => {
                    trace(g, dout, a, [Layout::Transposed, a_layout], role, spec)?
                }
            });
        }
        Ok(grads)
    }

    fn adding(&self) -> Option<Arc<dyn Operation>> {
        Some(Arc::new(AddMatmul(self.clone())))
    }

    fn cost(&self) -> Cost {
        self.dims.cost()
    }
}

impl AddMatmul {
    fn accumulate(&self, device: &Device, out: &mut Buffer, inputs: &[&Buffer]) -> Result<()> {
        Ok(matmul::fwd(device, out, inputs[1], inputs[2], Write::Accumulate, self.0.dims)?)
    }
}

impl Operation for AddMatmul {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let out = call.output();
        out.copy_from(call.inputs[0])?;
        self.accumulate(call.device, out, call.inputs)
    }

    fn in_place(&self) -> Option<usize> {
        Some(0)
    }

    fn run_in_place(&self, mut call: Call<'_, '_>) -> Result<()> {
        self.accumulate(call.device, call.output(), call.inputs)
    }

    /// As of a sum of the first input and the product of the others.
    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, wanted: &[bool]) -> Result<Grads> {
        let product = Io { inputs: node.inputs[1..].to_vec(), outputs: node.outputs.clone() };
        let grads = self.0.grad(g, &product, dout, &wanted[1..])?;
        Ok([wanted[0].then_some(dout)].into_iter().chain(grads).collect())
    }

    fn cost(&self) -> Cost {
        let MatmulDims { m, n, .. } = self.0.dims;
        let Cost { flops, bytes } = self.0.dims.cost();
        let read = streaming_cost(m * n, m * n);
        Cost { flops: flops + read.flops, bytes: bytes + read.bytes }
    }
}
