//! What works on rows or elements of activations: norms, rotations, the gate, the embedding, sums, casts, slices.

use ltm_kernels::ops::elementwise::{self, ScaleRowsDims};
use ltm_kernels::ops::embedding::{self, EmbeddingDims};
use ltm_kernels::ops::rms_norm::{self, RmsNormDims};
use ltm_kernels::ops::rope::{self, RopeDims};
use ltm_kernels::ops::slice::{self, SliceDims};
use ltm_kernels::ops::{cast, swiglu};
use ltm_kernels::{Buffer, Cost, Device, Result};

use super::{HIDDEN, TOKENS, VOCABULARY, WIDTH};
use crate::spec::{BF16_ONLY, BOTH, Case, Operand, Prepare, Spec, activation, float, index};

const EPS: f64 = 1e-5;
const THETA: f64 = 10_000.0;
const HEADS: usize = 8;

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
    let rows = [TOKENS, WIDTH, 0];
    let cast = |name, spec| Case {
        dtypes: BF16_ONLY,
        ..case("cast", "fwd", name, [13, 65, 0], rows, spec)
    };
    let element = |pass, spec| case("elementwise", pass, pass, [13, 72, 0], rows, spec);
    vec![
        case("rms_norm", "fwd", "fwd", [13, 72, 0], rows, norm),
        case("rms_norm", "fwd_add", "fwd_add", [13, 72, 0], rows, norm_add),
        case("rms_norm", "bwd", "bwd", [13, 72, 0], rows, norm_bwd),
        case("rope", "table", "table", [70, 64, 0], [1024, 64, 0], rope_table),
        case("rope", "fwd", "fwd", [2, 35, 8], [16, 1024, 64], rotate),
        case("rope", "fwd", "bwd", [2, 35, 8], [16, 1024, 64], rotate_back),
        case("swiglu", "fwd", "fwd", [1001, 1, 0], [TOKENS, HIDDEN, 0], gate),
        case("swiglu", "bwd", "bwd", [1001, 1, 0], [TOKENS, HIDDEN, 0], gate_bwd),
        case("embedding", "fwd", "fwd", [70, 31, 24], [TOKENS, VOCABULARY, WIDTH], embed),
        case("embedding", "bwd", "bwd", [70, 31, 24], [TOKENS, VOCABULARY, WIDTH], embed_bwd),
        case("slice", "fwd", "fwd", [2, 6, 24], [16, 24, WIDTH], slice_fwd),
        case("slice", "bwd", "bwd", [2, 6, 24], [16, 24, WIDTH], slice_bwd),
        element("add", add),
        element("axpy", axpy),
        element("fill", fill),
        element("scale_rows", scale_rows),
        element("outer_scale", outer_scale),
        cast("f32_to_bf16", narrow),
        cast("bf16_to_f32", widen),
    ]
}

/// A call without scratch whose inputs need no preparation.
pub fn plain(
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

/// `(rows, c, _)`.
fn norm([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let dims = RmsNormDims { rows, c };
    let inputs = vec![activation(rows * c), float(c)];
    plain(inputs, vec![activation(rows * c)], c, dims.cost_fwd(), move |device, inputs, outputs| {
        rms_norm::fwd(device, &mut outputs[0], &inputs[0], &inputs[1], EPS, dims)
    })
}

fn norm_add([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let dims = RmsNormDims { rows, c };
    let x = activation(rows * c);
    let mut cost = dims.cost_fwd();
    // The sum: one more input, one more output.
    cost.flops += x.len as u64;
    cost.bytes += 8 * x.len as u64;
    plain(vec![x, x, float(c)], vec![x, x], c, cost, move |device, inputs, outputs| {
        let [x, residual, weight] = inputs else { unreachable!("three inputs are stated above") };
        let [sum, out] = outputs else { unreachable!("two outputs are stated above") };
        rms_norm::fwd_add(device, sum, out, x, residual, weight, EPS, dims)
    })
}

fn norm_bwd([rows, c, _]: [usize; 3], device: &Device) -> Spec {
    let dims = RmsNormDims { rows, c };
    let x = activation(rows * c);
    let inputs = vec![x, x, float(c)];
    let call = plain(
        inputs,
        vec![x, float(c)],
        c + rows,
        dims.cost_bwd(),
        move |device, inputs, outputs| {
            let [dout, x, weight] = inputs else { unreachable!("three inputs are stated above") };
            let [dx, dweight, scratch] = outputs else {
                unreachable!("three outputs are stated above")
            };
            rms_norm::bwd(
                device,
                Some(dx),
                Some(dweight),
                scratch,
                dout,
                x,
                weight,
                None,
                EPS,
                dims,
            )
        },
    );
    Spec { scratch: dims.scratch_len(device), ..call }
}

/// `(t, d, _)`.
fn rope_table([t, d, _]: [usize; 3], _: &Device) -> Spec {
    let mut cost = RopeDims { b: 1, t, h: 1, d }.cost();
    cost.bytes = 4 * (t + t * d) as u64;
    // Two roundings make an angle of up to 1024, so its sine is off by that many times the type's precision.
    plain(
        vec![index(t, 1024)],
        vec![float(t * d)],
        2 * 1024,
        cost,
        move |device, inputs, outputs| rope::table(device, &mut outputs[0], &inputs[0], THETA, d),
    )
}

/// `(b, t, d)` with 8 heads; the second input becomes the table of positions `0..t`.
fn rotation(
    [b, t, d]: [usize; 3],
    call: fn(&Device, &mut Buffer, &Buffer, &Buffer, RopeDims) -> Result<()>,
) -> Spec {
    let dims = RopeDims { b, t, h: HEADS, d };
    let x = activation(b * t * HEADS * d);
    let prepare: Prepare = Box::new(move |device, inputs| {
        let positions = Buffer::from_vec((0..t as i32).collect()).to_device(device)?;
        rope::table(device, &mut inputs[1], &positions, THETA, d)
    });
    let run = move |device: &Device, inputs: &[Buffer], outputs: &mut [Buffer]| {
        call(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    };
    let spec = plain(vec![x, float(t * d)], vec![x], 2 * t, dims.cost(), run);
    Spec { prepare: Some(prepare), ..spec }
}

fn rotate(shape: [usize; 3], _: &Device) -> Spec {
    rotation(shape, rope::fwd)
}

fn rotate_back(shape: [usize; 3], _: &Device) -> Spec {
    rotation(shape, rope::bwd)
}

/// `(rows, f, _)`.
fn gate([rows, f, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * f);
    plain(vec![x; 2], vec![x], 16, swiglu::cost_fwd(x.len), |device, inputs, outputs| {
        swiglu::fwd(device, &mut outputs[0], &inputs[0], &inputs[1])
    })
}

fn gate_bwd([rows, f, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * f);
    plain(vec![x; 3], vec![x; 2], 16, swiglu::cost_bwd(x.len), |device, inputs, outputs| {
        let [dout, gate, up] = inputs else { unreachable!("three inputs are stated above") };
        let [dgate, dup] = outputs else { unreachable!("two outputs are stated above") };
        swiglu::bwd(device, Some(dgate), Some(dup), dout, gate, up)
    })
}

/// `(n, v, c)`.
fn embed([n, v, c]: [usize; 3], _: &Device) -> Spec {
    let dims = EmbeddingDims { n, v, c };
    let inputs = vec![activation(v * c), index(n, v)];
    plain(inputs, vec![activation(n * c)], 1, dims.cost_fwd(), move |device, inputs, outputs| {
        embedding::fwd(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

fn embed_bwd([n, v, c]: [usize; 3], _: &Device) -> Spec {
    let dims = EmbeddingDims { n, v, c };
    let inputs = vec![activation(n * c), index(n, v)];
    plain(inputs, vec![float(v * c)], n, dims.cost_bwd(), move |device, inputs, outputs| {
        embedding::bwd(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

/// `(b, rows, c)`: a layer's third of the latents.
fn third([b, rows, c]: [usize; 3]) -> SliceDims {
    SliceDims { b, rows, start: rows / 3, len: rows / 3, c }
}

fn slice_fwd(shape: [usize; 3], _: &Device) -> Spec {
    let dims = third(shape);
    let (x, part) =
        (activation(dims.b * dims.rows * dims.c), activation(dims.b * dims.len * dims.c));
    plain(vec![x], vec![part], 1, dims.cost_fwd(), move |device, inputs, outputs| {
        slice::fwd(device, &mut outputs[0], &inputs[0], dims)
    })
}

fn slice_bwd(shape: [usize; 3], _: &Device) -> Spec {
    let dims = third(shape);
    let (x, part) =
        (activation(dims.b * dims.rows * dims.c), activation(dims.b * dims.len * dims.c));
    plain(vec![part], vec![x], 1, dims.cost_bwd(), move |device, inputs, outputs| {
        slice::bwd(device, &mut outputs[0], &inputs[0], dims)
    })
}

/// What an operation on each element costs: one operation, each buffer moved once.
fn each(operands: &[Operand]) -> Cost {
    let bytes = operands.iter().map(|operand| 4 * operand.len as u64).sum();
    Cost { flops: operands.first().map_or(0, |operand| operand.len as u64), bytes }
}

/// `(rows, c, _)`, here and below.
fn add([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![x; 2], vec![x], 1, each(&[x; 3]), |device, inputs, outputs| {
        elementwise::add(device, &mut outputs[0], &inputs[0], &inputs[1])
    })
}

/// The output is added to, so it is read as well.
fn axpy([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![x], vec![x], 2, each(&[x; 3]), |device, inputs, outputs| {
        elementwise::axpy(device, &mut outputs[0], 0.5, &inputs[0])
    })
}

fn fill([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![], vec![x], 1, each(&[x]), |device, _, outputs| {
        elementwise::fill(device, &mut outputs[0], 0.25)
    })
}

fn scale_rows([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let dims = ScaleRowsDims { rows, c };
    let x = activation(rows * c);
    plain(vec![x, float(rows)], vec![x], 1, dims.cost(), move |device, inputs, outputs| {
        elementwise::scale_rows(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

fn outer_scale([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![x, float(1)], vec![x], 1, each(&[x; 2]), |device, inputs, outputs| {
        elementwise::outer_scale(device, &mut outputs[0], &inputs[0], &inputs[1])
    })
}

fn narrow([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let n = rows * c;
    plain(vec![float(n)], vec![activation(n)], 1, cast::cost(n), |device, inputs, outputs| {
        cast::fwd(device, &mut outputs[0], &inputs[0])
    })
}

fn widen([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let n = rows * c;
    plain(vec![activation(n)], vec![float(n)], 1, cast::cost(n), |device, inputs, outputs| {
        cast::fwd(device, &mut outputs[0], &inputs[0])
    })
}
