//! `attention`: one sequence of 1024 tokens through a window of 256, to the 8 latents of a layer, and to
//! all its tokens.

use anyhow::{Context as _, Result};
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::Buffer;
use ltm_kernels::ops::attention::{AttentionDims, Mask, bwd, fwd, reference};

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    let small = AttentionDims { b: 2, t: 130, t_k: 130, h: 4, g: 2, d: 32, mask: Mask::None };
    checked(AttentionDims { mask: Mask::Window(70), ..small })?;
    checked(AttentionDims { t_k: 8, ..small })?;

    let tokens = AttentionDims { b: 1, t: 1024, t_k: 1024, h: 8, g: 8, d: 64, mask: Mask::None };
    let cases = match shape {
        None => vec![
            ("window", AttentionDims { mask: Mask::Window(256), ..tokens }),
            ("latents", AttentionDims { t_k: 8, ..tokens }),
            ("tokens", tokens),
        ],
        Some(shape) => vec![named_dims(shape)?],
    };
    for (case, dims) in cases {
        dims.validate()?;
        let [fwd, bwd] = ["fwd", "bwd"].map(|pass| named(&format!("{pass}_{case}"), shape));
        time(criterion, "attention", &fwd, dims.cost_fwd(), |bencher| {
            let mut call = Call::new(dims);
            bencher.iter(|| call.fwd().expect("checked"));
        });
        time(criterion, "attention", &bwd, dims.cost_bwd(), |bencher| {
            let mut call = Call::new(dims);
            call.fwd().expect("checked");
            bencher.iter(|| call.bwd().expect("checked"));
        });
    }
    Ok(())
}

/// The mask and the dims of a shape of the user's: of a window `w`, or of `t_k` keys that every query sees.
fn named_dims(shape: &Shape) -> Result<(&'static str, AttentionDims)> {
    if let Ok([b, t, h, d, w]) = shape.extents("attention", ["b", "t", "h", "d", "w"]) {
        let mask = Mask::Window(w);
        return Ok(("window", AttentionDims { b, t, t_k: t, h, g: h, d, mask }));
    }
    let unmasked = shape.extents("attention", ["b", "t", "t_k", "h", "d"]);
    let [b, t, t_k, h, d] = unmasked.context("or `w` in place of `t_k`, for a window")?;
    Ok(("keys", AttentionDims { b, t, t_k, h, g: h, d, mask: Mask::None }))
}

/// Every buffer of a forward and a backward call.
struct Call {
    dims: AttentionDims,
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
    fn new(dims: AttentionDims) -> Self {
        let rows = dims.b * dims.t * dims.h;
        let (q_len, kv_len) = (rows * dims.d, dims.b * dims.t_k * dims.g * dims.d);
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

fn checked(dims: AttentionDims) -> Result<()> {
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
        check(&format!("attention {name}"), actual, expected, dims.d + dims.t_k + dims.t)?;
    }
    Ok(())
}
