//! `cross_entropy`: 256 tokens against the GPT-2 vocabulary.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time, tokens};
use ltm_kernels::Buffer;
use ltm_kernels::ops::cross_entropy::{CrossEntropyDims, bwd_weight, fwd, reference};

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    checked(CrossEntropyDims { n: 70, c: 48, v: 301 })?;

    let [n, c, v] = match shape {
        None => [256, 512, 50258],
        Some(shape) => shape.extents("cross_entropy", ["n", "c", "v"])?,
    };
    let dims = CrossEntropyDims { n, c, v };
    time(criterion, "cross_entropy", &named("fwd", shape), dims.cost_fwd(), |bencher| {
        let mut call = Call::new(dims);
        bencher.iter(|| call.fwd().expect("checked"));
    });
    time(
        criterion,
        "cross_entropy",
        &named("bwd_weight", shape),
        dims.cost_bwd_weight(),
        |bencher| {
            let mut call = Call::new(dims);
            bencher.iter(|| call.bwd_weight().expect("checked"));
        },
    );
    Ok(())
}

/// Every buffer of a forward and a backward call.
struct Call {
    dims: CrossEntropyDims,
    h: Buffer,
    w: Buffer,
    targets: Buffer,
    dnll: Buffer,
    nll: Buffer,
    dh: Buffer,
    dw: Buffer,
    scratch: Buffer,
}

impl Call {
    fn new(dims: CrossEntropyDims) -> Self {
        let CrossEntropyDims { n, c, v } = dims;
        Self {
            dims,
            h: input(1, n * c, 1.0),
            w: input(2, v * c, 0.02),
            targets: tokens(3, n, v),
            dnll: input(4, n, 1.0),
            nll: output(n),
            dh: output(n * c),
            dw: output(v * c),
            scratch: output(dims.scratch_len(&DEVICE)),
        }
    }

    fn fwd(&mut self) -> ltm_kernels::Result<()> {
        let Self { dims, h, w, targets, nll, dh, scratch, .. } = self;
        fwd(&DEVICE, Some(nll), Some(dh), scratch, h, w, targets, *dims)
    }

    fn bwd_weight(&mut self) -> ltm_kernels::Result<()> {
        let Self { dims, h, w, targets, dnll, nll, dw, scratch, .. } = self;
        bwd_weight(&DEVICE, dw, scratch, dnll, nll, h, w, targets, *dims)
    }
}

fn checked(dims: CrossEntropyDims) -> Result<()> {
    let mut call = Call::new(dims);
    call.fwd()?;
    call.bwd_weight()?;
    let [h, w, dnll] = [&call.h, &call.w, &call.dnll].map(|x| x.to_f64().expect("on the CPU"));
    let [mut nll, mut dh, mut dw] = [&call.nll, &call.dh, &call.dw].map(|x| vec![0.0; x.len()]);
    let targets = call.targets.as_slice()?;
    let mut scratch = vec![0.0; dims.scratch_len(&DEVICE)];
    reference::fwd(Some(&mut nll), Some(&mut dh), &mut scratch, &h, &w, targets, dims);
    reference::bwd_weight(&mut dw, &mut scratch, &dnll, &h, &w, targets, dims);
    let terms = dims.c + dims.v;
    check("cross_entropy nll", &call.nll, &nll, terms)?;
    check("cross_entropy dh", &call.dh, &dh, terms)?;
    check("cross_entropy dw", &call.dw, &dw, terms + dims.n)
}
