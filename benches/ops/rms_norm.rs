//! `rms_norm`: 1024 tokens of a 512-wide model.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::Buffer;
use ltm_kernels::ops::rms_norm::{RmsNormDims, bwd, fwd, reference};

const EPS: f64 = 1e-5;

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    checked(RmsNormDims { rows: 130, c: 65 })?;

    let [rows, c] = match shape {
        None => [1024, 512],
        Some(shape) => shape.extents("rms_norm", ["rows", "c"])?,
    };
    let dims = RmsNormDims { rows, c };
    time(criterion, "rms_norm", &named("fwd", shape), dims.cost_fwd(), |bencher| {
        let mut call = Call::new(dims);
        bencher.iter(|| call.fwd().expect("checked"));
    });
    time(criterion, "rms_norm", &named("bwd", shape), dims.cost_bwd(), |bencher| {
        let mut call = Call::new(dims);
        bencher.iter(|| call.bwd().expect("checked"));
    });
    Ok(())
}

/// Every buffer of a forward and a backward call.
struct Call {
    dims: RmsNormDims,
    x: Buffer,
    weight: Buffer,
    dout: Buffer,
    out: Buffer,
    dx: Buffer,
    dweight: Buffer,
    scratch: Buffer,
}

impl Call {
    fn new(dims: RmsNormDims) -> Self {
        let RmsNormDims { rows, c } = dims;
        Self {
            dims,
            x: input(1, rows * c, 1.0),
            weight: input(2, c, 1.0),
            dout: input(3, rows * c, 1.0),
            out: output(rows * c),
            dx: output(rows * c),
            dweight: output(c),
            scratch: output(dims.scratch_len(&DEVICE)),
        }
    }

    fn fwd(&mut self) -> ltm_kernels::Result<()> {
        fwd(&DEVICE, &mut self.out, &self.x, &self.weight, EPS, self.dims)
    }

    fn bwd(&mut self) -> ltm_kernels::Result<()> {
        let Self { dims, x, weight, dout, dx, dweight, scratch, .. } = self;
        bwd(&DEVICE, Some(dx), Some(dweight), scratch, dout, x, weight, None, EPS, *dims)
    }
}

fn checked(dims: RmsNormDims) -> Result<()> {
    let mut call = Call::new(dims);
    call.fwd()?;
    call.bwd()?;
    let [x, weight, dout] =
        [&call.x, &call.weight, &call.dout].map(|x| x.to_f64().expect("on the CPU"));
    let [mut out, mut dx, mut dweight] =
        [&call.out, &call.dx, &call.dweight].map(|x| vec![0.0; x.len()]);
    reference::fwd(&mut out, &x, &weight, EPS, dims);
    reference::bwd_x(&mut dx, &dout, &x, &weight, None, EPS, dims);
    reference::bwd_weight(&mut dweight, &dout, &x, EPS, dims);
    check("rms_norm out", &call.out, &out, dims.c)?;
    check("rms_norm dx", &call.dx, &dx, dims.c)?;
    check("rms_norm dweight", &call.dweight, &dweight, dims.c + dims.rows)
}
