//! Attention to a window of tokens and to the latents, with 8 heads of 64.

use ltm_kernels::Device;
use ltm_kernels::ops::cross_attention::{self, CrossAttentionDims};
use ltm_kernels::ops::self_attention::{self, SelfAttentionDims};

use crate::spec::{BOTH, Case, Operand, Spec, activation, float};

const HEADS: usize = 8;
const HEAD_DIM: usize = 64;
const WIDTH: usize = HEADS * HEAD_DIM;
/// `1/sqrt(HEAD_DIM)`.
const SCALE: f64 = 0.125;

pub fn cases() -> Vec<Case> {
    let case = |op, pass, name, small, full, spec| Case {
        op,
        pass,
        name,
        dtypes: BOTH,
        is_composed: false,
        small,
        full,
        spec,
    };
    let one_token = [16, 1, 96];
    vec![
        case("self_attention", "fwd", "fwd", [1, 70, 33], [16, 1024, 256], window),
        case("self_attention", "bwd", "bwd", [1, 70, 33], [16, 1024, 256], window_bwd),
        case("cross_attention", "fwd", "fwd", [1, 70, 8], [16, 1024, 8], thoughts),
        case("cross_attention", "fwd", "one_token", [2, 1, 40], one_token, thoughts),
        case("cross_attention", "bwd", "bwd", [1, 70, 8], [16, 1024, 8], thoughts_bwd),
    ]
}

/// `(b, t, w)`.
fn window([b, t, w]: [usize; 3], _: &Device) -> Spec {
    let dims = SelfAttentionDims { b, t, h: HEADS, g: HEADS, d: HEAD_DIM, w };
    Spec {
        inputs: vec![activation(b * t * WIDTH); 3],
        outputs: vec![activation(b * t * WIDTH), float(b * t * HEADS)],
        scratch: 0,
        terms: HEAD_DIM + w,
        cost: dims.cost_fwd(),
        product: None,
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [q, k, v] = inputs else { unreachable!("three inputs are stated above") };
            let [out, lse] = outputs else { unreachable!("two outputs are stated above") };
            self_attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        }),
    }
}

/// `dout, out, lse, q, k, v` for `queries` rows of queries and `keys` of keys; `out` and `lse` are the forward
/// pass's.
fn backward_inputs(queries: usize, keys: usize) -> Vec<Operand> {
    let (row, key_row) = (activation(queries * WIDTH), activation(keys * WIDTH));
    vec![row, row, float(queries * HEADS), row, key_row, key_row]
}

fn window_bwd([b, t, w]: [usize; 3], device: &Device) -> Spec {
    let dims = SelfAttentionDims { b, t, h: HEADS, g: HEADS, d: HEAD_DIM, w };
    Spec {
        inputs: backward_inputs(b * t, b * t),
        outputs: vec![activation(b * t * WIDTH); 3],
        scratch: dims.scratch_len(device),
        terms: 2 * (HEAD_DIM + w),
        cost: dims.cost_bwd(),
        product: None,
        prepare: Some(Box::new(move |device, inputs| {
            let [_, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            self_attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        })),
        run: Box::new(move |device, inputs, outputs| {
            let [dout, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            let [dq, dk, dv, scratch] = outputs else {
                unreachable!("four outputs are stated above")
            };
            let (dq, dk, dv) = (Some(dq), Some(dk), Some(dv));
            self_attention::bwd(device, dq, dk, dv, scratch, dout, out, lse, q, k, v, SCALE, dims)
        }),
    }
}

/// `(b, t, z)`.
fn thoughts([b, t, z]: [usize; 3], _: &Device) -> Spec {
    let dims = CrossAttentionDims { b, t, z, h: HEADS, g: HEADS, d: HEAD_DIM };
    let keys = activation(b * z * WIDTH);
    Spec {
        inputs: vec![activation(b * t * WIDTH), keys, keys],
        outputs: vec![activation(b * t * WIDTH), float(b * t * HEADS)],
        scratch: 0,
        terms: HEAD_DIM + z,
        cost: dims.cost_fwd(),
        product: None,
        prepare: None,
        run: Box::new(move |device, inputs, outputs| {
            let [q, k, v] = inputs else { unreachable!("three inputs are stated above") };
            let [out, lse] = outputs else { unreachable!("two outputs are stated above") };
            cross_attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        }),
    }
}

fn thoughts_bwd([b, t, z]: [usize; 3], device: &Device) -> Spec {
    let dims = CrossAttentionDims { b, t, z, h: HEADS, g: HEADS, d: HEAD_DIM };
    let keys = activation(b * z * WIDTH);
    Spec {
        inputs: backward_inputs(b * t, b * z),
        outputs: vec![activation(b * t * WIDTH), keys, keys],
        scratch: dims.scratch_len(device),
        terms: HEAD_DIM + z + t,
        cost: dims.cost_bwd(),
        product: None,
        prepare: Some(Box::new(move |device, inputs| {
            let [_, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            cross_attention::fwd(device, out, lse, q, k, v, SCALE, dims)
        })),
        run: Box::new(move |device, inputs, outputs| {
            let [dout, out, lse, q, k, v] = inputs else {
                unreachable!("six inputs are stated above")
            };
            let [dq, dk, dv, scratch] = outputs else {
                unreachable!("four outputs are stated above")
            };
            let (dq, dk, dv) = (Some(dq), Some(dk), Some(dv));
            cross_attention::bwd(device, dq, dk, dv, scratch, dout, out, lse, q, k, v, SCALE, dims)
        }),
    }
}
