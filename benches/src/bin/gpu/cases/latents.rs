//! What works on the latents and on the weights in f32: samples, divergences, noise, AdamW, sums.

use ltm_kernels::ops::adamw::{self, AdamW, Factors};
use ltm_kernels::ops::gaussian_kl::{self, GaussianKlDims};
use ltm_kernels::ops::philox::{self, NormalRowsDims, PhiloxKey};
use ltm_kernels::ops::{reduce, reparam};
use ltm_kernels::{Buffer, Cost, Device, Result};

use super::{VOCABULARY, WIDTH};
use crate::spec::{Case, F32_ONLY, Operand, Spec, float, index};

const ADAMW: AdamW = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };
const KEY: PhiloxKey = PhiloxKey { seed: 1, stream: 2, step: 3 };

/// A batch's layers, and the latent numbers of a layer.
const LATENTS: [usize; 3] = [16 * 3, 8 * WIDTH, 0];
/// The largest weight: the embedding.
const WEIGHTS: [usize; 3] = [VOCABULARY, WIDTH, 0];

pub fn cases() -> Vec<Case> {
    let case = |op, pass, name, full, spec| Case {
        op,
        pass,
        name,
        dtypes: F32_ONLY,
        is_composed: false,
        small: [3, 264, 0],
        full,
        spec,
    };
    vec![
        case("reparam", "fwd", "fwd", LATENTS, sample),
        case("reparam", "bwd", "bwd", LATENTS, sample_bwd),
        case("gaussian_kl", "fwd", "fwd", LATENTS, divergence),
        case("gaussian_kl", "bwd", "bwd", LATENTS, divergence_bwd),
        case("philox", "normal", "normal", LATENTS, normal),
        case("philox", "normal_rows", "normal_rows", LATENTS, normal_rows),
        case("adamw", "fwd", "weights", WEIGHTS, adamw_step),
        case("adamw", "fwd_scheduled", "latents", LATENTS, adamw_scheduled),
        case("reduce", "sum_groups", "sum_groups", [16, 1024, 0], sum_groups),
        case("reduce", "dot", "dot", WEIGHTS, dot),
    ]
}

/// A call on f32 alone, without scratch or preparation.
fn plain(
    inputs: Vec<Operand>,
    outputs: Vec<Operand>,
    terms: usize,
    cost: Cost,
    run: impl Fn(&Device, &[Buffer], &mut [Buffer]) -> Result<()> + 'static,
) -> Spec {
    Spec {
        inputs,
        outputs,
        scratch: 0,
        terms,
        cost,
        product: None,
        prepare: None,
        run: Box::new(run),
    }
}

/// `(rows, n, _)`, here and below.
fn sample([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    let cost = Cost { flops: 3 * x.len as u64, bytes: 16 * x.len as u64 };
    plain(vec![x; 3], vec![x], 8, cost, |device, inputs, outputs| {
        let [mu, log_var, noise] = inputs else { unreachable!("three inputs are stated above") };
        reparam::fwd(device, &mut outputs[0], mu, log_var, noise)
    })
}

fn sample_bwd([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    let cost = Cost { flops: 4 * x.len as u64, bytes: 16 * x.len as u64 };
    plain(vec![x; 3], vec![x], 8, cost, |device, inputs, outputs| {
        let [dz, log_var, noise] = inputs else { unreachable!("three inputs are stated above") };
        reparam::bwd(device, &mut outputs[0], dz, log_var, noise)
    })
}

fn divergence([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let dims = GaussianKlDims { rows, n };
    let x = float(rows * n);
    plain(vec![x; 2], vec![float(rows)], 16, dims.cost_fwd(), move |device, inputs, outputs| {
        gaussian_kl::fwd(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

fn divergence_bwd([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let dims = GaussianKlDims { rows, n };
    let x = float(rows * n);
    let inputs = vec![float(rows), x, x];
    plain(inputs, vec![x; 2], 16, dims.cost_bwd(), move |device, inputs, outputs| {
        let [dkl, mu, log_var] = inputs else { unreachable!("three inputs are stated above") };
        let [dmu, dlog_var] = outputs else { unreachable!("two outputs are stated above") };
        gaussian_kl::bwd(device, Some(dmu), Some(dlog_var), dkl, mu, log_var, dims)
    })
}

/// What drawing `n` numbers costs: they are written, and the generator's integers are not counted.
fn drawn(n: usize) -> Cost {
    Cost { flops: 0, bytes: 4 * n as u64 }
}

fn normal([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    plain(vec![], vec![x], 8, drawn(x.len), |device, _, outputs| {
        philox::normal(device, &mut outputs[0], KEY, 0.0, 1.0)
    })
}

/// Any integers are a generator's words; step 0 is the only one.
fn normal_rows([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let dims = NormalRowsDims { steps: 1, rows, n };
    let inputs = vec![index(rows * 4, i32::MAX as usize), index(1, 1)];
    plain(inputs, vec![float(rows * n)], 8, drawn(rows * n), move |device, inputs, outputs| {
        philox::normal_rows(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

/// Parameters and moments start at zero, which the warm-up's steps end.
fn adamw_step([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    plain(vec![x], vec![x; 3], 16, adamw::cost(x.len), |device, inputs, outputs| {
        let [param, m, v] = outputs else { unreachable!("three outputs are stated above") };
        adamw::step(device, param, m, v, &inputs[0], 0.5, ADAMW, 1)
    })
}

/// As [`adamw_step`], with a table of one row.
fn adamw_scheduled([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    let inputs = vec![x, float(adamw::FACTORS), index(1, 1)];
    let run = |device: &Device, inputs: &[Buffer], outputs: &mut [Buffer]| {
        let [grad, factors, step] = inputs else { unreachable!("three inputs are stated above") };
        let [param, m, v] = outputs else { unreachable!("three outputs are stated above") };
        adamw::scheduled(device, param, m, v, grad, factors, step)
    };
    let spec = plain(inputs, vec![x; 3], 16, adamw::cost(x.len), run);
    let row = Factors::<f32>::new(ADAMW, 0.5, 1).to_row();
    Spec { prepare: Some(Box::new(move |_, inputs| inputs[1].write_f32(&row))), ..spec }
}

/// Sums of either sign in f64, so that what is left of them is as precise as f32 can say.
fn sum_groups([groups, n, _]: [usize; 3], _: &Device) -> Spec {
    let (inputs, outputs) = (vec![float(groups * n)], vec![float(groups)]);
    plain(inputs, outputs, 2, reduce::cost(groups * n), |device, inputs, outputs| {
        reduce::sum_groups(device, &mut outputs[0], &inputs[0])
    })
}

fn dot([rows, n, _]: [usize; 3], _: &Device) -> Spec {
    let x = float(rows * n);
    let cost = Cost { flops: 2 * x.len as u64, bytes: 8 * x.len as u64 };
    plain(vec![x; 2], vec![float(1)], 2, cost, |device, inputs, outputs| {
        reduce::dot(device, &mut outputs[0], &inputs[0], &inputs[1])
    })
}
