//! Matrix products of a training step, and the output layer with its loss.

use ltm_kernels::ops::cross_entropy::{self, CrossEntropyDims};
use ltm_kernels::ops::matmul::{self, Layout, MatmulDims, Write};
use ltm_kernels::{Buffer, DType, Device};

use super::{HIDDEN, LOGITS_PITCH, TOKENS, VOCABULARY, WIDTH};
use crate::spec::{BF16_ONLY, BOTH, Case, Operand, Spec, activation, float, index};

/// Rows of the output layer: the largest number whose logits are in memory at one time.
const LOGIT_ROWS: usize = 4096;

pub fn cases() -> Vec<Case> {
    let product = |name, dtypes, small, full, spec| Case {
        op: "matmul",
        pass: "fwd",
        name,
        dtypes,
        is_composed: false,
        small,
        full,
        spec,
    };
    let linear = |name, full| product(name, BOTH, [72, 40, 136], full, linear);
    let output = |pass, name, spec| Case {
        op: "cross_entropy",
        pass,
        name,
        dtypes: BOTH,
        is_composed: true,
        small: [70, 48, 301],
        full: [LOGIT_ROWS, WIDTH, VOCABULARY],
        spec,
    };
    vec![
        linear("qkv", [TOKENS, 3 * WIDTH, WIDTH]),
        linear("projection", [TOKENS, WIDTH, WIDTH]),
        linear("feed_forward_up", [TOKENS, 2 * HIDDEN, WIDTH]),
        linear("feed_forward_down", [TOKENS, WIDTH, HIDDEN]),
        // A dense product whose rows are as far apart as the output layer's.
        linear("logits", [LOGIT_ROWS, LOGITS_PITCH, WIDTH]),
        linear("one_token", [16, 3 * WIDTH, WIDTH]),
        product("qkv_dx", BOTH, [72, 40, 136], [TOKENS, WIDTH, 3 * WIDTH], linear_dx),
        product("feed_forward_up_dx", BOTH, [72, 40, 136], [TOKENS, WIDTH, 2 * HIDDEN], linear_dx),
        product("feed_forward_down_dx", BOTH, [72, 40, 136], [TOKENS, HIDDEN, WIDTH], linear_dx),
        product("qkv_dw", BOTH, [24, 40, 840], [3 * WIDTH, WIDTH, TOKENS], linear_dw),
        product("feed_forward_up_dw", BOTH, [24, 40, 840], [2 * HIDDEN, WIDTH, TOKENS], linear_dw),
        product("feed_forward_down_dw", BOTH, [24, 40, 840], [WIDTH, HIDDEN, TOKENS], linear_dw),
        product("both_transposed", BF16_ONLY, [72, 40, 136], [TOKENS, WIDTH, WIDTH], transposed),
        output("fwd", "loss", loss),
        output("fwd", "loss_and_dh", loss_and_dh),
        output("fwd", "bwd_weight", bwd_weight),
    ]
}

fn product(dims: MatmulDims, c: Operand) -> Spec {
    let MatmulDims { m, n, k, .. } = dims;
    Spec {
        inputs: vec![activation(m * k), activation(n * k)],
        outputs: vec![c],
        scratch: 0,
        terms: k,
        cost: dims.cost(),
        product: Some(dims),
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [a, b] = inputs else { unreachable!("two inputs are stated above") };
            matmul::fwd(device, &mut outputs[0], a, b, Write::Overwrite, dims)
        }),
    }
}

/// `(m, n, k)` with the weight's rows as columns, as the linear layers have it: `y = x Wᵀ`.
fn linear([m, n, k]: [usize; 3], _: &Device) -> Spec {
    product(MatmulDims { b: Layout::Transposed, ..MatmulDims::new(m, n, k) }, activation(m * n))
}

/// `(m, n, k)` of `dx = dy W`.
fn linear_dx([m, n, k]: [usize; 3], _: &Device) -> Spec {
    product(MatmulDims::new(m, n, k), activation(m * n))
}

/// `(m, n, k)` of `dW = dyᵀ x`, a sum over all tokens that is split over blocks; f32 from either type.
fn linear_dw([m, n, k]: [usize; 3], _: &Device) -> Spec {
    product(MatmulDims { a: Layout::Transposed, ..MatmulDims::new(m, n, k) }, float(m * n))
}

fn transposed([m, n, k]: [usize; 3], _: &Device) -> Spec {
    let (a, b) = (Layout::Transposed, Layout::Transposed);
    product(MatmulDims { a, b, ..MatmulDims::new(m, n, k) }, activation(m * n))
}

/// `(n, c, v)`. Weights of `1/sqrt(c)` make logits of the size that a model's are.
fn output_layer([n, c, v]: [usize; 3]) -> (CrossEntropyDims, [Operand; 3]) {
    let weight = Operand { std: 1.0 / (c as f64).sqrt(), ..activation(v * c) };
    (CrossEntropyDims { n, c, v }, [activation(n * c), weight, index(n, v)])
}

fn loss(shape: [usize; 3], device: &Device) -> Spec {
    let (dims, inputs) = output_layer(shape);
    let mut cost = dims.cost_fwd();
    // Without the gradient's product and its result.
    cost.flops -= 2 * (dims.n * dims.v * dims.c) as u64;
    cost.bytes -= 4 * (dims.n * dims.c) as u64;
    Spec {
        inputs: inputs.into(),
        outputs: vec![float(dims.n)],
        scratch: dims.scratch_len(device),
        terms: dims.c + dims.v,
        cost,
        product: None,
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [h, w, targets] = inputs else { unreachable!("three inputs are stated above") };
            let [nll, scratch] = outputs else { unreachable!("two outputs are stated above") };
            cross_entropy::fwd(device, Some(nll), None, scratch, h, w, targets, dims)
        }),
    }
}

fn loss_and_dh(shape: [usize; 3], device: &Device) -> Spec {
    let (dims, inputs) = output_layer(shape);
    Spec {
        inputs: inputs.into(),
        outputs: vec![float(dims.n), activation(dims.n * dims.c)],
        scratch: dims.scratch_len(device),
        terms: dims.c + dims.v,
        cost: dims.cost_fwd(),
        product: None,
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [h, w, targets] = inputs else { unreachable!("three inputs are stated above") };
            let [nll, dh, scratch] = outputs else {
                unreachable!("three outputs are stated above")
            };
            cross_entropy::fwd(device, Some(nll), Some(dh), scratch, h, w, targets, dims)
        }),
    }
}

fn bwd_weight(shape: [usize; 3], device: &Device) -> Spec {
    let (dims, [h, w, targets]) = output_layer(shape);
    Spec {
        inputs: vec![float(dims.n), float(dims.n), h, w, targets],
        outputs: vec![float(dims.v * dims.c)],
        scratch: dims.scratch_len(device),
        terms: dims.c + dims.v + dims.n,
        cost: dims.cost_bwd_weight(),
        product: None,
        prepare: Some(Box::new(move |device, inputs| {
            let [_, nll, h, w, targets] = inputs else {
                unreachable!("five inputs are stated above")
            };
            let mut scratch = Buffer::zeros(device, DType::F32, dims.scratch_len(device))?;
            cross_entropy::fwd(device, Some(nll), None, &mut scratch, h, w, targets, dims)
        })),
        run: Box::new(move |device, inputs, outputs| {
            let [dnll, nll, h, w, targets] = inputs else {
                unreachable!("five inputs are stated above")
            };
            let [dw, scratch] = outputs else { unreachable!("two outputs are stated above") };
            cross_entropy::bwd_weight(device, dw, scratch, dnll, nll, h, w, targets, dims)
        }),
    }
}
