//! What is run: each op's buffers and call at a small shape, for the check, and at a model's, for the clock.

use ltm_kernels::ops::cross_attention::{self, CrossAttentionDims};
use ltm_kernels::ops::matmul::{self, Layout, MatmulDims, Write};
use ltm_kernels::ops::rms_norm::{self, RmsNormDims};
use ltm_kernels::ops::self_attention::{self, SelfAttentionDims};
use ltm_kernels::ops::swiglu;
use ltm_kernels::{Buffer, Cost, DType, Device, Result};

/// What a buffer holds.
#[derive(Clone, Copy)]
pub enum Element {
    /// The type under test.
    Activation,
    F32,
}

type Run = Box<dyn Fn(&Device, &[Buffer], &mut [Buffer]) -> Result<()>>;

/// The buffers of a call by length and type, and the call.
pub struct Spec {
    pub inputs: Vec<(usize, Element)>,
    pub outputs: Vec<(usize, Element)>,
    /// How many of the outputs are results; the others are scratch.
    pub checked: usize,
    /// The longest chain of roundings behind one result.
    pub terms: usize,
    pub cost: Cost,
    pub run: Run,
}

/// One op at two shapes, which its `spec` reads as it likes.
pub struct Case {
    pub op: &'static str,
    pub pass: &'static str,
    pub name: &'static str,
    pub dtypes: &'static [DType],
    pub small: [usize; 3],
    pub full: [usize; 3],
    pub spec: fn([usize; 3]) -> Spec,
}

const BOTH: &[DType] = &[DType::F32, DType::BF16];

/// Tokens of the full shapes: 16 sequences of 1024.
const TOKENS: usize = 16 * 1024;

/// Every case, op by op.
pub fn all() -> Vec<Case> {
    let gemm = |name, full| Case {
        op: "matmul",
        pass: "fwd",
        name,
        dtypes: BOTH,
        small: [72, 40, 136],
        full,
        spec: linear,
    };
    let case = |op, pass, small, full, spec| Case {
        op,
        pass,
        name: pass,
        dtypes: BOTH,
        small,
        full,
        spec,
    };
    vec![
        gemm("qkv", [TOKENS, 1536, 512]),
        gemm("projection", [TOKENS, 512, 512]),
        gemm("feed_forward_up", [TOKENS, 2752, 512]),
        gemm("feed_forward_down", [TOKENS, 512, 1376]),
        gemm("logits", [4096, 50258, 512]),
        case("rms_norm", "fwd", [13, 65, 0], [TOKENS, 512, 0], norm),
        case("swiglu", "fwd", [1001, 1, 0], [TOKENS, 1376, 0], gate),
        case("self_attention", "fwd", [1, 70, 33], [16, 1024, 256], window),
        case("cross_attention", "fwd", [1, 70, 8], [16, 1024, 8], thoughts),
    ]
}

/// `(m, n, k)` with the weight's rows as columns, as the linear layers have it.
fn linear([m, n, k]: [usize; 3]) -> Spec {
    let dims = MatmulDims { b: Layout::Transposed, ..MatmulDims::new(m, n, k) };
    Spec {
        inputs: vec![(m * k, Element::Activation), (n * k, Element::Activation)],
        outputs: vec![(m * n, Element::Activation)],
        checked: 1,
        terms: k,
        cost: dims.cost(),
        run: Box::new(move |device, inputs, outputs| {
            let [a, b] = inputs else { unreachable!("two inputs are stated above") };
            matmul::fwd(device, &mut outputs[0], a, b, Write::Overwrite, dims)
        }),
    }
}

/// `(rows, c, _)`.
fn norm([rows, c, _]: [usize; 3]) -> Spec {
    let dims = RmsNormDims { rows, c };
    Spec {
        inputs: vec![(rows * c, Element::Activation), (c, Element::F32)],
        outputs: vec![(rows * c, Element::Activation)],
        checked: 1,
        terms: c,
        cost: dims.cost_fwd(),
        run: Box::new(move |device, inputs, outputs| {
            let [x, weight] = inputs else { unreachable!("two inputs are stated above") };
            rms_norm::fwd(device, &mut outputs[0], x, weight, 1e-5, dims)
        }),
    }
}

/// `(rows, f, _)`.
fn gate([rows, f, _]: [usize; 3]) -> Spec {
    let n = rows * f;
    Spec {
        inputs: vec![(n, Element::Activation), (n, Element::Activation)],
        outputs: vec![(n, Element::Activation)],
        checked: 1,
        terms: 16,
        cost: swiglu::cost_fwd(n),
        run: Box::new(move |device, inputs, outputs| {
            let [gate, up] = inputs else { unreachable!("two inputs are stated above") };
            swiglu::fwd(device, &mut outputs[0], gate, up)
        }),
    }
}

/// `(b, t, w)` with 8 heads of 64.
fn window([b, t, w]: [usize; 3]) -> Spec {
    let dims = SelfAttentionDims { b, t, h: 8, g: 8, d: 64, w };
    let (n, scale) = (b * t * 512, 0.125);
    Spec {
        inputs: vec![(n, Element::Activation); 3],
        outputs: vec![(n, Element::Activation), (b * t * 8, Element::F32)],
        checked: 2,
        terms: 64 + w,
        cost: dims.cost_fwd(),
        run: Box::new(move |device, inputs, outputs| {
            let [q, k, v] = inputs else { unreachable!("three inputs are stated above") };
            let [out, lse] = outputs else { unreachable!("two outputs are stated above") };
            self_attention::fwd(device, out, lse, q, k, v, scale, dims)
        }),
    }
}

/// `(b, t, z)` with 8 heads of 64.
fn thoughts([b, t, z]: [usize; 3]) -> Spec {
    let dims = CrossAttentionDims { b, t, z, h: 8, g: 8, d: 64 };
    let (q_len, kv_len, scale) = (b * t * 512, b * z * 512, 0.125);
    Spec {
        inputs: vec![
            (q_len, Element::Activation),
            (kv_len, Element::Activation),
            (kv_len, Element::Activation),
        ],
        outputs: vec![(q_len, Element::Activation), (b * t * 8, Element::F32)],
        checked: 2,
        terms: 64 + z,
        cost: dims.cost_fwd(),
        run: Box::new(move |device, inputs, outputs| {
            let [q, k, v] = inputs else { unreachable!("three inputs are stated above") };
            let [out, lse] = outputs else { unreachable!("two outputs are stated above") };
            cross_attention::fwd(device, out, lse, q, k, v, scale, dims)
        }),
    }
}
