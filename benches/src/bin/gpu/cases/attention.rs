//! Attention with 8 heads of 64: to a window of tokens, to the latents, to all tokens, of one token to a cache.

use ltm_kernels::Device;
use ltm_kernels::ops::attention::{self, AttentionDims, Mask};

use crate::spec::{BOTH, Case, Spec, activation, float};

const HEADS: usize = 8;
const HEAD_DIM: usize = 64;
const WIDTH: usize = HEADS * HEAD_DIM;
/// `1/sqrt(HEAD_DIM)`.
const SCALE: f64 = 0.125;

pub fn cases() -> Vec<Case> {
    let case = |pass, name, small, full, spec| Case {
        op: "attention",
        pass,
        name,
        dtypes: BOTH,
        is_composed: false,
        small,
        full,
        spec,
    };
    let window = ([1, 70, 33], [16, 1024, 256]);
    let latents = ([1, 70, 8], [16, 1024, 8]);
    let tokens = ([1, 70, 70], [16, 1024, 1024]);
    vec![
        case("fwd", "fwd_window", window.0, window.1, |shape, _| forward(windowed(shape))),
        case("bwd", "bwd_window", window.0, window.1, |shape, device| {
            backward(windowed(shape), device)
        }),
        case("fwd", "fwd_latents", latents.0, latents.1, |shape, _| forward(unmasked(shape))),
        case("bwd", "bwd_latents", latents.0, latents.1, |shape, device| {
            backward(unmasked(shape), device)
        }),
        case("fwd", "fwd_tokens", tokens.0, tokens.1, |shape, _| forward(unmasked(shape))),
        case("bwd", "bwd_tokens", tokens.0, tokens.1, |shape, device| {
            backward(unmasked(shape), device)
        }),
        case("fwd", "one_token", [2, 1, 40], [16, 1, 96], |shape, _| forward(unmasked(shape))),
    ]
}

/// `(b, t, w)`.
fn windowed([b, t, w]: [usize; 3]) -> AttentionDims {
    AttentionDims { mask: Mask::Window(w), ..unmasked([b, t, t]) }
}

/// `(b, t, t_k)`.
fn unmasked([b, t, t_k]: [usize; 3]) -> AttentionDims {
    AttentionDims { b, t, t_k, h: HEADS, g: HEADS, d: HEAD_DIM, mask: Mask::None }
}

/// How many keys a query sees at most, and how many queries see a key.
fn visible(dims: AttentionDims) -> [usize; 2] {
    match dims.mask {
        Mask::None => [dims.t_k, dims.t],
        Mask::Window(w) => [w.min(dims.t); 2],
    }
}

fn forward(dims: AttentionDims) -> Spec {
    let rows = dims.b * dims.t;
    let (row, key_row) = (activation(rows * WIDTH), activation(dims.b * dims.t_k * WIDTH));
    let [keys, _] = visible(dims);
    Spec {
        inputs: vec![row, key_row, key_row],
        outputs: vec![row, float(rows * HEADS)],
        scratch: 0,
        terms: HEAD_DIM + keys,
        cost: dims.cost_fwd(),
        product: None,
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [q, k, v] = inputs else { unreachable!("three inputs are stated above") };
            let [out, lse] = outputs else { unreachable!("two outputs are stated above") };
            attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        }),
    }
}

/// `out` and `lse` among its inputs are the forward pass's.
fn backward(dims: AttentionDims, device: &Device) -> Spec {
    let rows = dims.b * dims.t;
    let (row, key_row) = (activation(rows * WIDTH), activation(dims.b * dims.t_k * WIDTH));
    let [keys, queries] = visible(dims);
    Spec {
        inputs: vec![row, row, float(rows * HEADS), row, key_row, key_row],
        outputs: vec![row, key_row, key_row],
        scratch: dims.scratch_len(device),
        terms: HEAD_DIM + keys + queries,
        cost: dims.cost_bwd(),
        product: None,
        prepare: Some(Box::new(move |device, inputs| {
            let [_, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        })),
        run: Box::new(move |device, inputs, outputs| {
            let [dout, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            let [dq, dk, dv, scratch] = outputs else {
                unreachable!("four outputs are stated above")
            };
            let (dq, dk, dv) = (Some(dq), Some(dk), Some(dv));
            attention::bwd(device, dq, dk, dv, scratch, dout, out, lse, q, k, v, SCALE, dims)
        }),
    }
}
