//! `rope`: the queries of 1024 tokens. The backward call is the same rotation the other way.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::Buffer;
use ltm_kernels::ops::rope::{RopeDims, bwd, fwd, reference, table};

const THETA: f64 = 10000.0;

/// Two products and a sum.
const TERMS: usize = 4;

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    checked(RopeDims { b: 2, t: 33, h: 3, d: 10 })?;

    let [b, t, h, d] = match shape {
        None => [1, 1024, 8, 64],
        Some(shape) => shape.extents("rope", ["b", "t", "h", "d"])?,
    };
    let dims = RopeDims { b, t, h, d };
    dims.validate()?;
    time(criterion, "rope", &named("fwd", shape), dims.cost(), |bencher| {
        let n = dims.b * dims.t * dims.h * dims.d;
        let (x, table) = (input(1, n, 1.0), angles(dims).expect("d is even"));
        let mut out = output(n);
        bencher.iter(|| fwd(&DEVICE, &mut out, &x, &table, dims).expect("checked"));
    });
    Ok(())
}

fn angles(dims: RopeDims) -> ltm_kernels::Result<Buffer> {
    let positions = Buffer::from_vec((0i32..).take(dims.t).collect());
    let mut angles = output(dims.t * dims.d);
    table(&DEVICE, &mut angles, &positions, THETA, dims.d)?;
    Ok(angles)
}

fn checked(dims: RopeDims) -> Result<()> {
    let n = dims.b * dims.t * dims.h * dims.d;
    let (x, table) = (input(1, n, 1.0), angles(dims)?);
    let (mut out, mut dx) = (output(n), output(n));
    fwd(&DEVICE, &mut out, &x, &table, dims)?;
    bwd(&DEVICE, &mut dx, &x, &table, dims)?;
    let (mut out_f64, mut dx_f64) = (vec![0.0; n], vec![0.0; n]);
    reference::fwd(
        &mut out_f64,
        &x.to_f64().expect("on the CPU"),
        &table.to_f64().expect("on the CPU"),
        dims,
    );
    reference::bwd(
        &mut dx_f64,
        &x.to_f64().expect("on the CPU"),
        &table.to_f64().expect("on the CPU"),
        dims,
    );
    check("rope out", &out, &out_f64, TERMS)?;
    check("rope dx", &dx, &dx_f64, TERMS)
}
