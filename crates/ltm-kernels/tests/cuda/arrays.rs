//! Every rung of `unary`, `binary`, `strided`, `softmax` and of sums over an axis against their references.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::binary::{self, BinaryDims, Operator};
use ltm_kernels::ops::reduce::{self, SumAxisDims};
use ltm_kernels::ops::softmax::{self, SoftmaxDims};
use ltm_kernels::ops::strided::{self, StridedDims};
use ltm_kernels::ops::unary::{self, Function};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload,
};

const F32: DType = DType::F32;
const BF16: DType = DType::BF16;
const EXACT: Tol = Tol { abs: 0.0, rel: 0.0 };

/// Of `terms` roundings in f32 and one to the output, next to numbers of this size.
fn tol(dtype: DType, terms: f64, size: f64) -> Tol {
    let own = if dtype == BF16 { BF16_EPS } else { 0.0 };
    Tol { abs: size * terms * F32_EPS, rel: terms * F32_EPS + own }
}

#[test]
fn unary_functions_agree() {
    let Some(device) = device() else { return };
    let functions = [
        Function::Affine { scale: -0.5, shift: 0.25 },
        Function::Exp,
        Function::Log,
        Function::Sqrt,
        Function::Tanh,
        Function::Sigmoid,
        Function::Gelu,
        Function::Relu,
    ];
    for f in functions {
        for (rung, n) in [(1, 1), (1, 263), (2, 1), (2, 8), (2, 2061)] {
            for dtype in [F32, BF16] {
                let needs_positive = matches!(f, Function::Log | Function::Sqrt);
                let x = data(1, n).into_iter().map(|x| match needs_positive {
                    true => x.abs().max(0.125),
                    false => x,
                });
                let (x, dout): (Vec<_>, _) = (x.collect(), data(2, n));
                let [x_dev, dout_dev] = [&x, &dout].map(|x| upload(&device, dtype, x));
                let [mut out, mut dx] = [(); 2].map(|()| output(&device, dtype, n));
                with_rung(rung, || {
                    unary::fwd(&device, &mut out, &x_dev, f)?;
                    unary::bwd(&device, &mut dx, &dout_dev, &x_dev, f)
                })
                .expect("no needs");
                let [mut expected, mut expected_dx] = [(); 2].map(|()| vec![0.0; n]);
                unary::reference::fwd(&mut expected, &x, f);
                unary::reference::bwd(&mut expected_dx, &dout, &x, f);
                let tol = tol(dtype, 12.0, 3.5);
                check(&format!("unary fwd {f:?} v{rung} {dtype} {n}"), &out, &expected, tol);
                check(&format!("unary bwd {f:?} v{rung} {dtype} {n}"), &dx, &expected_dx, tol);
            }
        }
    }
    let x = output(&device, F32, 3);
    let refused = unary::fwd(&device, &mut output(&device, BF16, 3), &x, Function::Exp);
    assert!(matches!(refused, Err(Error::DType { .. })));
}

#[test]
fn unary_far_tails_are_what_they_approach() {
    let Some(device) = device() else { return };
    let x = upload(&device, F32, &[-1e30, -1e4, -90.0, 90.0, 1e4, 1e30]);
    let ones = upload(&device, F32, &[1.0; 6]);
    for (f, values, slopes) in [
        (Function::Tanh, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [0.0; 6]),
        (Function::Sigmoid, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0; 6]),
        (Function::Gelu, [0.0, 0.0, 0.0, 90.0, 1e4, 1e30], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    ] {
        let [mut out, mut dx] = [(); 2].map(|()| output(&device, F32, 6));
        unary::fwd(&device, &mut out, &x, f).expect("shapes agree");
        unary::bwd(&device, &mut dx, &ones, &x, f).expect("shapes agree");
        let tol = Tol { abs: 1e-30, rel: F32_EPS };
        check(&format!("unary far tails {f:?}"), &out, &values, tol);
        check(&format!("unary slopes of far tails {f:?}"), &dx, &slopes, tol);
    }
}

fn operators_agree(device: &Device, rung: u32, dtype: DType, a: &[usize], b: &[usize]) {
    let (dims, shape) = BinaryDims::broadcast(a, b).expect("the shapes fit");
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    // Divisors stay away from 0; both types hold the sum.
    let away = |x: f64| if x.abs() < 0.5 { x.signum() } else { x };
    let (x, y) = (data(1, len(a)), data(2, len(b)).into_iter().map(away).collect::<Vec<_>>());
    let (x_dev, y_dev) = (upload(device, dtype, &x), upload(device, dtype, &y));
    for operator in [Operator::Add, Operator::Sub, Operator::Mul, Operator::Div] {
        let mut out = output(device, dtype, len(&shape));
        with_rung(rung, || binary::fwd(device, &mut out, &x_dev, &y_dev, operator, dims))
            .expect("needs hold");
        let mut expected = vec![0.0; len(&shape)];
        binary::reference::fwd(&mut expected, &x, &y, operator, dims);
        let case = format!("binary {operator:?} v{rung} {dtype} {a:?} {b:?}");
        check(&case, &out, &expected, tol(dtype, 1.0, 0.0));
    }
}

#[test]
fn binary_operators_agree_on_operands_that_are_repeated() {
    let Some(device) = device() else { return };
    for dtype in [F32, BF16] {
        for (a, b) in [
            (&[1][..], &[1][..]),
            (&[7, 41], &[7, 41]),
            (&[3, 5, 7], &[7]),
            (&[3, 1, 7], &[5, 1]),
            (&[2, 1, 3, 1], &[1, 5, 1, 7]),
            (&[1], &[257]),
        ] {
            operators_agree(&device, 1, dtype, a, b);
        }
        for (a, b) in [
            (&[8][..], &[8][..]),
            (&[17, 136], &[17, 136]),
            (&[3, 5, 24], &[24]),
            (&[24], &[3, 5, 24]),
            (&[3, 1, 8], &[5, 1]),
            (&[2, 1, 3, 1], &[1, 5, 1, 16]),
            (&[1], &[2056]),
        ] {
            operators_agree(&device, 2, dtype, a, b);
        }
    }
    let (dims, _) = BinaryDims::broadcast(&[3], &[3]).expect("one shape");
    let (x, mut out) = (output(&device, F32, 3), output(&device, F32, 3));
    let refused = with_rung(2, || binary::fwd(&device, &mut out, &x, &x, Operator::Add, dims));
    assert_refused(refused, "[P1]");
}

#[test]
fn strided_copies_agree() {
    let Some(device) = device() else { return };
    let permute =
        |shape: &[usize], axes: &[usize]| StridedDims::permute(shape, axes).expect("an order");
    let fill = |shape: &[usize], to: &[usize]| StridedDims::broadcast(shape, to).expect("fits");
    let cases = [
        (1, permute(&[1], &[0])),
        (1, permute(&[7, 41], &[1, 0])),
        (1, permute(&[3, 5, 2, 9], &[3, 1, 0, 2])),
        (1, fill(&[3, 1, 5], &[3, 7, 5])),
        (1, fill(&[], &[257])),
        (2, permute(&[3, 5, 24], &[1, 0, 2])),
        (2, permute(&[2, 9, 5, 32], &[0, 2, 1, 3])),
        (2, fill(&[24], &[11, 24])),
        (2, fill(&[3, 1], &[3, 8])),
        (2, fill(&[], &[2056])),
    ];
    for (rung, dims) in cases {
        let pairs = || dims.extents.iter().zip(&dims.strides);
        let n = dims.extents.iter().product();
        let x = data(1, 1 + pairs().map(|(extent, stride)| (extent - 1) * stride).sum::<usize>());
        for dtype in [F32, BF16] {
            let mut out = output(&device, dtype, n);
            with_rung(rung, || strided::fwd(&device, &mut out, &upload(&device, dtype, &x), dims))
                .expect("needs hold");
            let mut expected = vec![0.0; n];
            strided::reference::fwd(&mut expected, &x, dims);
            check(&format!("strided v{rung} {dtype} {dims:?}"), &out, &expected, EXACT);
        }
    }
    let (x, mut out) = (output(&device, F32, 24), output(&device, F32, 24));
    let transposed = permute(&[8, 3], &[1, 0]);
    let refused = with_rung(2, || strided::fwd(&device, &mut out, &x, transposed));
    assert_refused(refused, "[P2]");
    let (x, mut out) = (output(&device, F32, 3), output(&device, F32, 3));
    let refused = with_rung(2, || strided::fwd(&device, &mut out, &x, permute(&[3], &[0])));
    assert_refused(refused, "[P1]");
}

#[test]
fn softmax_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for (rung, rows, c) in
        [(1, 1, 1), (1, 5, 7), (1, 257, 3), (2, 1, 1), (2, 9, 33), (2, 3, 300), (2, 11, 31)]
    {
        for dtype in [F32, BF16] {
            let (dims, n) = (SoftmaxDims { rows, c }, rows * c);
            let (x, dout) = (data(1, n), data(2, n));
            let run = || {
                let [mut out, mut dx] = [(); 2].map(|()| output(&device, dtype, n));
                with_rung(rung, || {
                    softmax::fwd(&device, &mut out, &upload(&device, dtype, &x), dims)?;
                    softmax::bwd(&device, &mut dx, &upload(&device, dtype, &dout), &out, dims)
                })
                .expect("no needs");
                (out, dx)
            };
            let (out, dx) = run();
            let (again, dx_again) = run();
            assert_eq!((read(&out), read(&dx)), (read(&again), read(&dx_again)), "same bits");
            let [mut expected, mut expected_dx] = [(); 2].map(|()| vec![0.0; n]);
            softmax::reference::fwd(&mut expected, &x, dims);
            // The gradient starts from the result as it was rounded.
            softmax::reference::bwd(&mut expected_dx, &dout, &read(&out), dims);
            // Sums of c numbers with a few roundings each; differences of up to 7.
            let terms = c as f64 + 8.0;
            let case = format!("v{rung} {dtype} {rows}x{c}");
            check(&format!("softmax fwd {case}"), &out, &expected, tol(dtype, terms, 0.0));
            check(&format!("softmax bwd {case}"), &dx, &expected_dx, tol(dtype, terms, 7.0));
        }
    }
    let x = upload(&device, F32, &[1e4, 1e4, f64::NEG_INFINITY, -1e4, -1e4, -2e4]);
    for rung in [1, 2] {
        let mut out = output(&device, F32, 6);
        let dims = SoftmaxDims { rows: 2, c: 3 };
        with_rung(rung, || softmax::fwd(&device, &mut out, &x, dims)).expect("no needs");
        check("softmax of large and excluded scores", &out, &[0.5, 0.5, 0.0, 0.5, 0.5, 0.0], EXACT);
    }
}

#[test]
fn reduce_sums_over_an_axis_agree_and_repeat() {
    let Some(device) = device() else { return };
    for (rung, outer, n, inner) in [
        (1, 1, 1, 1),
        (1, 3, 41, 5),
        (1, 2, 3, 257),
        (2, 1, 1, 1),
        (2, 3, 257, 1),
        (2, 1, 9001, 1),
        (2, 2, 41, 5),
        (2, 3, 7, 33),
        (2, 1, 300, 65),
    ] {
        let dims = SumAxisDims { outer, n, inner };
        let x = data(1, outer * n * inner);
        let mut expected = vec![0.0; outer * inner];
        reduce::reference::sum_axis(&mut expected, &x, dims);
        for (from, to) in [(F32, F32), (BF16, F32), (BF16, BF16)] {
            let x = upload(&device, from, &x);
            let run = || {
                let mut out = output(&device, to, outer * inner);
                with_rung(rung, || reduce::sum_axis(&device, &mut out, &x, dims))
                    .expect("no needs");
                out
            };
            let out = run();
            assert_eq!(read(&out), read(&run()), "same input, same bits");
            // Sums in f64 of numbers within 3.5, rounded to f32 and then to the output.
            let rel = F32_EPS + if to == BF16 { BF16_EPS } else { 0.0 };
            let abs = 3.5 * (n * n) as f64 * f64::EPSILON;
            let case = format!("reduce sum_axis v{rung} {from}->{to} {dims:?}");
            check(&case, &out, &expected, Tol { abs, rel });
        }
    }
    let dims = SumAxisDims { outer: 1, n: 3, inner: 1 };
    let x = output(&device, F32, 3);
    let refused = reduce::sum_axis(&device, &mut output(&device, BF16, 1), &x, dims);
    assert!(matches!(refused, Err(Error::DType { .. })), "sums of f32 are f32");
}
