//! `adamw`: a small model's latents (the fast step of 8 sequences) and one large weight (the slow step).

use anyhow::Result;
use criterion::Criterion;
use ltm_bench::{DEVICE, Shape, check, input, named, output, time};
use ltm_kernels::ops::adamw::{AdamW, Factors, cost, reference, step};

const ADAMW: AdamW = AdamW { lr: 4e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// Roundings in one element over the few steps of the check.
const TERMS: usize = 64;

pub fn bench(criterion: &mut Criterion, shape: Option<&Shape>) -> Result<()> {
    checked(1001)?;

    let own = [("latents", 8 * 24 * 512), ("embedding", 50258 * 512)];
    let cases = match shape {
        None => own.to_vec(),
        Some(shape) => vec![("step", shape.extents("adamw", ["n"])?[0])],
    };
    for (case, n) in cases {
        time(criterion, "adamw", &named(case, shape), cost(n), |bencher| {
            let (mut param, grad) = (input(1, n, 0.02), input(2, n, 1.0));
            let (mut m, mut v) = (output(n), output(n));
            let mut count = 0;
            bencher.iter(|| {
                count += 1;
                step(&DEVICE, &mut param, &mut m, &mut v, &grad, 0.5, ADAMW, count)
                    .expect("checked");
            });
        });
    }
    Ok(())
}

fn checked(n: usize) -> Result<()> {
    let (mut param, mut m, mut v) = (input(1, n, 0.02), output(n), output(n));
    let [mut param_f64, mut m_f64, mut v_f64] =
        [&param, &m, &v].map(|x| x.to_f64().expect("on the CPU"));
    for count in 1..=4 {
        let grad = input(1 + count, n, 1.0);
        step(&DEVICE, &mut param, &mut m, &mut v, &grad, 0.5, ADAMW, count)?;
        let factors = Factors::new(ADAMW, 0.5, count);
        reference::step(
            &mut param_f64,
            &mut m_f64,
            &mut v_f64,
            &grad.to_f64().expect("on the CPU"),
            factors,
        );
    }
    check("adamw param", &param, &param_f64, TERMS)?;
    check("adamw m", &m, &m_f64, TERMS)?;
    check("adamw v", &v, &v_f64, TERMS)
}
