//! `swiglu`: the feed-forward layer of 1024 tokens, 1376 wide.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::ops::swiglu::{bwd, cost_bwd, cost_fwd, fwd, reference};

/// Roundings between an input and an output, the exponential's included.
const TERMS: usize = 16;

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    checked(1001)?;

    let [rows, f] = match shape {
        None => [1024, 1376],
        Some(shape) => shape.extents("swiglu", ["rows", "f"])?,
    };
    let n = rows * f;
    time(criterion, "swiglu", &named("fwd", shape), cost_fwd(n), |bencher| {
        let (gate, up) = (input(1, n, 1.0), input(2, n, 1.0));
        let mut out = output(n);
        bencher.iter(|| fwd(&DEVICE, &mut out, &gate, &up).expect("checked"));
    });
    time(criterion, "swiglu", &named("bwd", shape), cost_bwd(n), |bencher| {
        let (gate, up, dout) = (input(1, n, 1.0), input(2, n, 1.0), input(3, n, 1.0));
        let (mut dgate, mut dup) = (output(n), output(n));
        bencher.iter(|| {
            bwd(&DEVICE, Some(&mut dgate), Some(&mut dup), &dout, &gate, &up).expect("checked");
        });
    });
    Ok(())
}

fn checked(n: usize) -> Result<()> {
    let (gate, up, dout) = (input(1, n, 1.0), input(2, n, 1.0), input(3, n, 1.0));
    let (mut out, mut dgate, mut dup) = (output(n), output(n), output(n));
    fwd(&DEVICE, &mut out, &gate, &up)?;
    bwd(&DEVICE, Some(&mut dgate), Some(&mut dup), &dout, &gate, &up)?;

    let [gate, up, dout] = [&gate, &up, &dout].map(|x| x.to_f64().expect("on the CPU"));
    let [mut out_f64, mut dgate_f64, mut dup_f64] = [(); 3].map(|()| vec![0.0; n]);
    reference::fwd(&mut out_f64, &gate, &up);
    reference::bwd(Some(&mut dgate_f64), Some(&mut dup_f64), &dout, &gate, &up);
    check("swiglu out", &out, &out_f64, TERMS)?;
    check("swiglu dgate", &dgate, &dgate_f64, TERMS)?;
    check("swiglu dup", &dup, &dup_f64, TERMS)
}
