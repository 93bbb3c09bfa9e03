//! `matmul`: the linear layers over 1024 tokens, one step of decoding, a weight's gradient.

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::ops::matmul::{Layout, MatmulDims, Write, fwd, reference};

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    let linear = |m, n, k| MatmulDims { b: Layout::Transposed, ..MatmulDims::new(m, n, k) };
    checked(linear(65, 33, 129))?;
    checked(MatmulDims { a: Layout::Transposed, batch: 3, ..MatmulDims::new(33, 65, 17) })?;

    let gradient = MatmulDims { a: Layout::Transposed, ..MatmulDims::new(512, 512, 1024) };
    let own = [
        ("projection", linear(1024, 512, 512)),
        ("feed_forward_up", linear(1024, 1376, 512)),
        ("feed_forward_down", linear(1024, 512, 1376)),
        ("weight_gradient", gradient),
        ("logits", linear(128, 50258, 512)),
        ("decode_logits", linear(1, 50258, 512)),
    ];
    let cases = match shape {
        None => own.to_vec(),
        Some(shape) => {
            let [m, n, k] = shape.extents("matmul", ["m", "n", "k"])?;
            vec![("linear", linear(m, n, k))]
        }
    };
    for (case, dims) in cases {
        time(criterion, "matmul", &named(case, shape), dims.cost(), |bencher| {
            let a = input(1, dims.m * dims.k, 1.0);
            let b = input(2, dims.k * dims.n, 0.02);
            let mut c = output(dims.m * dims.n);
            bencher.iter(|| fwd(&DEVICE, &mut c, &a, &b, Write::Overwrite, dims).expect("checked"));
        });
    }
    Ok(())
}

fn checked(dims: MatmulDims) -> Result<()> {
    let a = input(1, dims.batch * dims.m * dims.k, 1.0);
    let b = input(2, dims.batch * dims.k * dims.n, 1.0);
    let mut c = output(dims.batch * dims.m * dims.n);
    let mut expected = c.to_f64().expect("on the CPU");
    fwd(&DEVICE, &mut c, &a, &b, Write::Overwrite, dims)?;
    reference::fwd(
        &mut expected,
        &a.to_f64().expect("on the CPU"),
        &b.to_f64().expect("on the CPU"),
        Write::Overwrite,
        dims,
    );
    check("matmul", &c, &expected, dims.k)
}
