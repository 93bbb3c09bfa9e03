//! `unary` on its devices.

use ltm_kernels::Error;
use ltm_kernels::ops::unary::{Function, bwd, fwd, reference};
use ltm_testkit::Tol;

use crate::harness::{
    BF16, F32, F32_EPS, check, data, device, output, read, rounded_terms, upload,
};
use crate::walk::{Case, Subject, both, no_needs};

const FUNCTIONS: [Function; 8] = [
    Function::Affine { scale: -0.5, shift: 0.25 },
    Function::Exp,
    Function::Log,
    Function::Sqrt,
    Function::Tanh,
    Function::Sigmoid,
    Function::Gelu,
    Function::Relu,
];

pub fn subject() -> Subject {
    let calls = || both(FUNCTIONS.iter().flat_map(|f| [1, 8, 263, 2061].map(|n| (*f, n))));
    let fwd = Case {
        pass: "fwd",
        calls: calls(),
        holds: no_needs,
        run: |device, dtype, &(f, n)| {
            let mut out = output(device, dtype, n);
            fwd(device, &mut out, &upload(device, dtype, &input(f, n)), f)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, &(f, n), _| {
            let mut out = vec![0.0; n];
            reference::fwd(&mut out, &input(f, n), f);
            vec![("fwd", out, rounded_terms(dtype, 12.0, 3.5))]
        },
    };
    let bwd = Case {
        pass: "bwd",
        calls: calls(),
        holds: no_needs,
        run: |device, dtype, &(f, n)| {
            let [dout, x] = [data(2, n), input(f, n)].map(|x| upload(device, dtype, &x));
            let mut dx = output(device, dtype, n);
            bwd(device, &mut dx, &dout, &x, f)?;
            Ok(vec![read(&dx)])
        },
        expected: |dtype, &(f, n), _| {
            let mut dx = vec![0.0; n];
            reference::bwd(&mut dx, &data(2, n), &input(f, n), f);
            vec![("bwd", dx, rounded_terms(dtype, 12.0, 3.5))]
        },
    };
    Subject { op: "unary", cases: vec![Box::new(fwd), Box::new(bwd)] }
}

/// Numbers for which the function is defined.
fn input(f: Function, n: usize) -> Vec<f64> {
    let needs_positive = matches!(f, Function::Log | Function::Sqrt);
    let numbers = data(1, n).into_iter();
    numbers.map(|x| if needs_positive { x.abs().max(0.125) } else { x }).collect()
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn other_types_are_refused() {
    let Some(device) = device() else { return };
    let x = output(&device, F32, 3);
    let refused = fwd(&device, &mut output(&device, BF16, 3), &x, Function::Exp);
    assert!(matches!(refused, Err(Error::DType { .. })));
}

#[test]
fn far_tails_are_what_they_approach() {
    let Some(device) = device() else { return };
    let x = upload(&device, F32, &[-1e30, -1e4, -90.0, 90.0, 1e4, 1e30]);
    let ones = upload(&device, F32, &[1.0; 6]);
    for (f, values, slopes) in [
        (Function::Tanh, [-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], [0.0; 6]),
        (Function::Sigmoid, [0.0, 0.0, 0.0, 1.0, 1.0, 1.0], [0.0; 6]),
        (Function::Gelu, [0.0, 0.0, 0.0, 90.0, 1e4, 1e30], [0.0, 0.0, 0.0, 1.0, 1.0, 1.0]),
    ] {
        let [mut out, mut dx] = [(); 2].map(|()| output(&device, F32, 6));
        fwd(&device, &mut out, &x, f).expect("shapes agree");
        bwd(&device, &mut dx, &ones, &x, f).expect("shapes agree");
        let tol = Tol { abs: 1e-30, rel: F32_EPS };
        check(&format!("unary far tails {f:?}"), &out, &values, tol);
        check(&format!("unary slopes of far tails {f:?}"), &dx, &slopes, tol);
    }
}
