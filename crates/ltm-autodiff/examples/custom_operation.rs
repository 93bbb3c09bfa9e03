//! A custom operation: `softplus(x) = log(1 + e^x)` on the CPU, on CUDA with a custom kernel, and its gradient.
#![expect(unsafe_code, reason = "a launch vouches for its kernel")]

use ltm_autodiff::ltm_kernels::cuda::Geometry;
use ltm_autodiff::ltm_kernels::program::{Argument, Program};
use ltm_autodiff::ltm_kernels::{Buffer, Cost, DType, Device, Error as KernelError};
use ltm_autodiff::{
    Call, Grads, Graph, Io, Kind, Operation, Plan, Precision, Result, Store, UpdateRate, Value,
    grad, ops,
};

/// CUDA C++, compiled when first launched; headers in `kernels/` of this project may be included.
const KERNEL: Program = Program {
    name: "softplus.cu",
    text: r#"
#include "common/map.cuh"

extern "C" __global__ void softplus(float *out, const float *x, long long n) {
    for (long long i = grid_thread(); i < n; i += grid_threads())
        out[i] = fmaxf(x[i], 0.f) + log1pf(expf(-fabsf(x[i])));
}
"#,
};

#[derive(Debug)]
struct Softplus {
    n: usize,
}

/// Traces the operation: its shape rule.
pub fn softplus(g: &mut Graph, x: Value) -> Result<Value> {
    g.check("the argument of `softplus`", x)?;
    let spec = g.spec(x).clone();
    g.apply1(Softplus { n: spec.len() }, &[x], spec)
}

impl Operation for Softplus {
    fn name(&self) -> &'static str {
        "softplus"
    }

    fn run(&self, mut call: Call<'_, '_>) -> Result<()> {
        let (out, x) = (call.output(), call.inputs[0]);
        match (call.device, x.dtype()) {
            (Device::Cuda(context), DType::F32) => {
                let geometry = Geometry::threads(self.n);
                let n = Argument::I64(self.n as i64);
                let args = &mut [Argument::Write(out), Argument::Read(x), n];
                // SAFETY: the plan gives both buffers the n elements and the type of the traced value.
                Ok(unsafe { KERNEL.launch(context, "softplus", geometry, args) }?)
            }
            (Device::Cpu, DType::F32) => {
                on_cpu(out, x, |x: f32| x.max(0.0) + (-x.abs()).exp().ln_1p())
            }
            (Device::Cpu, DType::F64) => {
                on_cpu(out, x, |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p())
            }
            (_, got) => Err(KernelError::DType { expected: "f32, or f64 on the CPU", got }.into()),
        }
    }

    /// The slope is the sigmoid: more graph, of operations that exist.
    fn grad(&self, g: &mut Graph, node: &Io, dout: Value, _wanted: &[bool]) -> Result<Grads> {
        let slope = ops::sigmoid(g, node.inputs[0])?;
        Ok(vec![Some(ops::mul(g, dout, slope)?)])
    }

    fn cost(&self) -> Cost {
        Cost { flops: 4 * self.n as u64, bytes: 8 * self.n as u64 }
    }
}

fn on_cpu<T: ltm_autodiff::ltm_kernels::Float>(
    out: &mut Buffer,
    x: &Buffer,
    f: impl Fn(T) -> T,
) -> Result<()> {
    let x = x.as_slice::<T>()?;
    out.as_mut_slice::<T>()?.iter_mut().zip(x).for_each(|(out, x)| *out = f(*x));
    Ok(())
}

/// Prints the function and its slope at three points.
pub fn main() -> Result<()> {
    let x = [-2.0, 0.0, 3.0];
    let (y, dx) = run(&Device::Cpu, Precision::F32, &x)?;
    println!("softplus of {x:?} is {y:.4?}, its slope {dx:.4?}");
    Ok(())
}

/// `softplus` and its slope at each `x`.
pub fn run(device: &Device, precision: Precision, at: &[f32]) -> Result<(Vec<f64>, Vec<f64>)> {
    let mut g = Graph::new();
    let x = g.input("x", &[at.len()], Kind::Float, UpdateRate::Step);
    let y = softplus(&mut g, x)?;
    let loss = ops::sum_all(&mut g, y)?;
    let dx = grad(&mut g, loss, &[x])?[0];
    let mut store = Store::new(&g, device, precision)?;
    store.write_f32(x, at)?;
    let mut plan = Plan::new(&g, device, precision, &[y, dx])?;
    plan.run(&store)?;
    Ok((plan.output(y)?.to_f64()?, plan.output(dx)?.to_f64()?))
}
