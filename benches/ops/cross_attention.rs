//! `cross_attention`: 1024 tokens that read the 8 latents of a layer.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, check, input, output, time};
use ltm_kernels::Buffer;
use ltm_kernels::ops::cross_attention::{CrossAttentionDims, bwd, fwd, reference};

pub fn bench(criterion: &mut Criterion) -> Result<()> {
    checked(CrossAttentionDims { b: 2, t: 130, z: 8, h: 4, g: 2, d: 32 })?;

    let dims = CrossAttentionDims { b: 1, t: 1024, z: 8, h: 8, g: 8, d: 64 };
    time(criterion, "cross_attention", "fwd", dims.cost_fwd(), |bencher| {
        let mut call = Call::new(dims);
        bencher.iter(|| call.fwd().expect("checked"));
    });
    time(criterion, "cross_attention", "bwd", dims.cost_bwd(), |bencher| {
        let mut call = Call::new(dims);
        call.fwd().expect("checked");
        bencher.iter(|| call.bwd().expect("checked"));
    });
    Ok(())
}

/// Every buffer of a forward and a backward call.
struct Call {
    dims: CrossAttentionDims,
    scale: f64,
    q: Buffer,
    k: Buffer,
    v: Buffer,
    dout: Buffer,
    out: Buffer,
    lse: Buffer,
    dq: Buffer,
    dk: Buffer,
    dv: Buffer,
    scratch: Buffer,
}

impl Call {
    fn new(dims: CrossAttentionDims) -> Self {
        let rows = dims.b * dims.t * dims.h;
        let (q_len, kv_len) = (rows * dims.d, dims.b * dims.z * dims.g * dims.d);
        Self {
            dims,
            scale: 1.0 / (dims.d as f64).sqrt(),
            q: input(1, q_len, 1.0),
            k: input(2, kv_len, 1.0),
            v: input(3, kv_len, 1.0),
            dout: input(4, q_len, 1.0),
            out: output(q_len),
            lse: output(rows),
            dq: output(q_len),
            dk: output(kv_len),
            dv: output(kv_len),
            scratch: output(dims.scratch_len(&DEVICE)),
        }
    }

    fn fwd(&mut self) -> ltm_kernels::Result<()> {
        let Self { dims, scale, q, k, v, out, lse, .. } = self;
        fwd(&DEVICE, out, lse, q, k, v, *scale, *dims)
    }

    fn bwd(&mut self) -> ltm_kernels::Result<()> {
        let Self { dims, scale, q, k, v, dout, out, lse, dq, dk, dv, scratch } = self;
        let (dq, dk, dv) = (Some(dq), Some(dk), Some(dv));
        bwd(&DEVICE, dq, dk, dv, scratch, dout, out, lse, q, k, v, *scale, *dims)
    }
}

fn checked(dims: CrossAttentionDims) -> Result<()> {
    let mut call = Call::new(dims);
    call.fwd()?;
    call.bwd()?;
    let [q, k, v, dout] =
        [&call.q, &call.k, &call.v, &call.dout].map(|x| x.to_f64().expect("on the CPU"));
    let [mut out, mut lse] = [&call.out, &call.lse].map(|x| vec![0.0; x.len()]);
    reference::fwd(&mut out, &mut lse, &q, &k, &v, call.scale, dims);
    let [mut dq, mut dk, mut dv] = [&call.dq, &call.dk, &call.dv].map(|x| vec![0.0; x.len()]);
    let scale = call.scale;
    reference::bwd(&mut dq, &mut dk, &mut dv, &dout, &out, &lse, &q, &k, &v, scale, dims);
    for (name, actual, expected) in [
        ("out", &call.out, &out),
        ("lse", &call.lse, &lse),
        ("dq", &call.dq, &dq),
        ("dk", &call.dk, &dk),
        ("dv", &call.dv, &dv),
    ] {
        // A score of D terms inside sums over keys, then over queries.
        check(&format!("cross_attention {name}"), actual, expected, dims.d + dims.z + dims.t)?;
    }
    Ok(())
}
