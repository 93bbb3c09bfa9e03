//! Building blocks of other models: functions and operators on elements, copies with other strides, softmax, sums
//! over an axis.

use ltm_kernels::Device;
use ltm_kernels::ops::binary::{self, BinaryDims, Operator};
use ltm_kernels::ops::reduce::{self, SumAxisDims};
use ltm_kernels::ops::slice::{self, SliceDims};
use ltm_kernels::ops::softmax::{self, SoftmaxDims};
use ltm_kernels::ops::strided::{self, StridedDims};
use ltm_kernels::ops::unary::{self, Function};

use super::rows::plain;
use super::{TOKENS, WIDTH};
use crate::spec::{BOTH, Case, Spec, activation};

pub fn cases() -> Vec<Case> {
    let case = |op, pass, name, spec| Case {
        op,
        pass,
        name,
        dtypes: BOTH,
        is_composed: false,
        small: [13, 72, 0],
        full: [TOKENS, WIDTH, 0],
        spec,
    };
    let of_three =
        |op, pass, name, small, full, spec| Case { small, full, ..case(op, pass, name, spec) };
    vec![
        case("unary", "fwd", "gelu_fwd", gelu),
        case("unary", "bwd", "gelu_bwd", gelu_bwd),
        case("binary", "fwd", "mul", mul),
        case("binary", "fwd", "add_bias", add_bias),
        of_three("strided", "fwd", "heads", [2, 35, 24], [16, 1024, WIDTH], heads),
        case("strided", "fwd", "transpose", transpose),
        case("softmax", "fwd", "fwd", soft),
        case("softmax", "bwd", "bwd", soft_bwd),
        case("reduce", "sum_axis", "sum_rows", sum_rows),
        case("reduce", "sum_axis", "sum_columns", sum_columns),
        of_three("slice", "place", "place", [2, 6, 24], [16, 24, WIDTH], place),
    ]
}

/// `(rows, c, _)`, where nothing else is stated.
fn gelu([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![x], vec![x], 12, unary::cost_fwd(x.len), |device, inputs, outputs| {
        unary::fwd(device, &mut outputs[0], &inputs[0], Function::Gelu)
    })
}

fn gelu_bwd([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let x = activation(rows * c);
    plain(vec![x; 2], vec![x], 12, unary::cost_bwd(x.len), |device, inputs, outputs| {
        unary::bwd(device, &mut outputs[0], &inputs[0], &inputs[1], Function::Gelu)
    })
}

fn operate(a: &[usize], b: &[usize], operator: Operator) -> Spec {
    let (dims, shape) = BinaryDims::broadcast(a, b).expect("the shapes are stated below");
    let of = |shape: &[usize]| activation(shape.iter().product());
    plain(vec![of(a), of(b)], vec![of(&shape)], 1, dims.cost(), move |device, inputs, outputs| {
        binary::fwd(device, &mut outputs[0], &inputs[0], &inputs[1], operator, dims)
    })
}

fn mul([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    operate(&[rows, c], &[rows, c], Operator::Mul)
}

fn add_bias([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    operate(&[rows, c], &[c], Operator::Add)
}

fn permute(shape: &[usize], axes: &[usize]) -> Spec {
    let dims = StridedDims::permute(shape, axes).expect("the order is stated below");
    let x = activation(shape.iter().product());
    plain(vec![x], vec![x], 1, dims.cost(), move |device, inputs, outputs| {
        strided::fwd(device, &mut outputs[0], &inputs[0], dims)
    })
}

/// `(b, t, c)` with heads of 8: `(B,T,H,D)` to `(B,H,T,D)`.
fn heads([b, t, c]: [usize; 3], _: &Device) -> Spec {
    permute(&[b, t, c / 8, 8], &[0, 2, 1, 3])
}

fn transpose([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    permute(&[rows, c], &[1, 0])
}

fn soft([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let (dims, x) = (SoftmaxDims { rows, c }, activation(rows * c));
    plain(vec![x], vec![x], c, dims.cost_fwd(), move |device, inputs, outputs| {
        softmax::fwd(device, &mut outputs[0], &inputs[0], dims)
    })
}

fn soft_bwd([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    let (dims, x) = (SoftmaxDims { rows, c }, activation(rows * c));
    plain(vec![x; 2], vec![x], c, dims.cost_bwd(), move |device, inputs, outputs| {
        softmax::bwd(device, &mut outputs[0], &inputs[0], &inputs[1], dims)
    })
}

fn sum(outer: usize, n: usize, inner: usize) -> Spec {
    let dims = SumAxisDims { outer, n, inner };
    let (x, out) = (activation(outer * n * inner), activation(outer * inner));
    plain(vec![x], vec![out], n, dims.cost(), move |device, inputs, outputs| {
        reduce::sum_axis(device, &mut outputs[0], &inputs[0], dims)
    })
}

fn sum_rows([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    sum(1, rows, c)
}

fn sum_columns([rows, c, _]: [usize; 3], _: &Device) -> Spec {
    sum(rows, c, 1)
}

/// `(b, rows, c)`: a third of the rows.
fn place([b, rows, c]: [usize; 3], _: &Device) -> Spec {
    let dims = SliceDims { b, rows, start: rows / 3, len: rows / 3, c };
    let (part, out) = (activation(b * dims.len * c), activation(b * rows * c));
    plain(vec![part], vec![out], 1, dims.cost_fwd(), move |device, inputs, outputs| {
        slice::place(device, &mut outputs[0], &inputs[0], dims)
    })
}
