//! Building blocks of other models, on the feed-forward layer of 1024 tokens, 1376 wide: `unary`, `binary`,
//! `softmax`, `strided`, and a sum over an axis.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::ops::binary::{self, BinaryDims, Operator};
use ltm_kernels::ops::reduce::{self, SumAxisDims};
use ltm_kernels::ops::softmax::{self, SoftmaxDims};
use ltm_kernels::ops::strided::{self, StridedDims};
use ltm_kernels::ops::unary::{self, Function};
use ltm_kernels::{Buffer, Cost, Result as KernelResult};

/// The ops of this file.
pub const OPS: &[&str] = &["unary", "binary", "strided", "softmax", "reduce"];

/// Roundings between an input and an output that is no sum, the exponential's included.
const TERMS: usize = 16;

/// A call that writes its output from its inputs.
type Run = Box<dyn Fn(&mut Buffer, &[Buffer]) -> KernelResult<()> + Send + Sync>;

/// What plain loops write.
type Reference = Box<dyn Fn(&mut [f64], &[Vec<f64>]) + Send + Sync>;

/// One op at one shape: its buffers, its call, and what plain loops make of the same inputs.
struct Case {
    op: &'static str,
    name: &'static str,
    inputs: Vec<usize>,
    output: usize,
    terms: usize,
    cost: Cost,
    run: Run,
    reference: Reference,
}

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    for case in cases(130, 65) {
        let inputs = case.inputs();
        let mut out = output(case.output);
        (case.run)(&mut out, &inputs)?;
        let inputs: Vec<_> = inputs.iter().map(|x| x.to_f64().expect("on the CPU")).collect();
        let mut expected = vec![0.0; case.output];
        (case.reference)(&mut expected, &inputs);
        check(&format!("{} {}", case.op, case.name), &out, &expected, case.terms)?;
    }
    let [rows, c] = match shape {
        None => [1024, 1376],
        Some(shape) => shape.extents("an op on arrays", ["rows", "c"])?,
    };
    for case in cases(rows, c) {
        time(criterion, case.op, &named(case.name, shape), case.cost, |bencher| {
            let (inputs, mut out) = (case.inputs(), output(case.output));
            bencher.iter(|| (case.run)(&mut out, &inputs).expect("checked"));
        });
    }
    Ok(())
}

impl Case {
    fn inputs(&self) -> Vec<Buffer> {
        (1..).zip(&self.inputs).map(|(seed, n)| input(seed, *n, 1.0)).collect()
    }
}

fn cases(rows: usize, c: usize) -> Vec<Case> {
    let n = rows * c;
    let (bias, _) = BinaryDims::broadcast(&[rows, c], &[c]).expect("they fit");
    let transposed = StridedDims::permute(&[rows, c], &[1, 0]).expect("an order");
    let soft = SoftmaxDims { rows, c };
    let sum = SumAxisDims { outer: 1, n: rows, inner: c };
    let gelu = Function::Gelu;
    vec![
        Case {
            op: "unary",
            name: "gelu_fwd",
            inputs: vec![n],
            output: n,
            terms: TERMS,
            cost: unary::cost_fwd(n),
            run: Box::new(move |out, x| unary::fwd(&DEVICE, out, &x[0], gelu)),
            reference: Box::new(move |out, x| unary::reference::fwd(out, &x[0], gelu)),
        },
        Case {
            op: "unary",
            name: "gelu_bwd",
            inputs: vec![n, n],
            output: n,
            terms: TERMS,
            cost: unary::cost_bwd(n),
            run: Box::new(move |out, x| unary::bwd(&DEVICE, out, &x[0], &x[1], gelu)),
            reference: Box::new(move |out, x| unary::reference::bwd(out, &x[0], &x[1], gelu)),
        },
        Case {
            op: "binary",
            name: "add_bias",
            inputs: vec![n, c],
            output: n,
            terms: 1,
            cost: bias.cost(),
            run: Box::new(move |out, x| {
                binary::fwd(&DEVICE, out, &x[0], &x[1], Operator::Add, bias)
            }),
            reference: Box::new(move |out, x| {
                binary::reference::fwd(out, &x[0], &x[1], Operator::Add, bias);
            }),
        },
        Case {
            op: "strided",
            name: "transpose",
            inputs: vec![n],
            output: n,
            terms: 1,
            cost: transposed.cost(),
            run: Box::new(move |out, x| strided::fwd(&DEVICE, out, &x[0], transposed)),
            reference: Box::new(move |out, x| strided::reference::fwd(out, &x[0], transposed)),
        },
        Case {
            op: "softmax",
            name: "fwd",
            inputs: vec![n],
            output: n,
            terms: c + TERMS,
            cost: soft.cost_fwd(),
            run: Box::new(move |out, x| softmax::fwd(&DEVICE, out, &x[0], soft)),
            reference: Box::new(move |out, x| softmax::reference::fwd(out, &x[0], soft)),
        },
        Case {
            op: "reduce",
            name: "sum_axis",
            inputs: vec![n],
            output: c,
            terms: rows,
            cost: sum.cost(),
            run: Box::new(move |out, x| reduce::sum_axis(&DEVICE, out, &x[0], sum)),
            reference: Box::new(move |out, x| reduce::reference::sum_axis(out, &x[0], sum)),
        },
    ]
}
