//! `binary` on its devices.

use ltm_kernels::ops::binary::{BinaryDims, Operator, fwd, reference};

use crate::harness::{F32, data, output, read, rounded_terms, upload};
use crate::walk::{Case, Subject, both, no_needs};

/// The shapes of two operands.
type Shapes = (Operator, &'static [usize], &'static [usize]);

const SHAPES: [(&[usize], &[usize]); 13] = [
    (&[1], &[1]),
    (&[7, 41], &[7, 41]),
    (&[3, 5, 7], &[7]),
    (&[3, 1, 7], &[5, 1]),
    (&[2, 1, 3, 1], &[1, 5, 1, 7]),
    (&[1], &[257]),
    (&[8], &[8]),
    (&[17, 136], &[17, 136]),
    (&[3, 5, 24], &[24]),
    (&[24], &[3, 5, 24]),
    (&[3, 1, 8], &[5, 1]),
    (&[2, 1, 3, 1], &[1, 5, 1, 16]),
    (&[1], &[2056]),
];

pub fn subject() -> Subject {
    let operators = [Operator::Add, Operator::Sub, Operator::Mul, Operator::Div];
    let case = Case {
        pass: "fwd",
        calls: both(operators.iter().flat_map(|of| SHAPES.map(|(a, b)| (*of, a, b)))),
        holds: |need, _, shapes: &Shapes| match need {
            "[P1] the innermost extent % 8 == 0" => {
                let (_, a, b) = shapes;
                let last = |shape: &[usize]| *shape.last().expect("not empty");
                last(a).max(last(b)).is_multiple_of(8)
            }
            _ => no_needs(need, F32, shapes),
        },
        run: |device, dtype, &(operator, a, b)| {
            let (dims, shape) = BinaryDims::broadcast(a, b).expect("the shapes fit");
            let (x, y) = inputs(a, b);
            let mut out = output(device, dtype, len(&shape));
            let [x, y] = [x, y].map(|x| upload(device, dtype, &x));
            fwd(device, &mut out, &x, &y, operator, dims)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, &(operator, a, b), _| {
            let (dims, shape) = BinaryDims::broadcast(a, b).expect("the shapes fit");
            let (x, y) = inputs(a, b);
            let mut out = vec![0.0; len(&shape)];
            reference::fwd(&mut out, &x, &y, operator, dims);
            vec![("fwd", out, rounded_terms(dtype, 1.0, 0.0))]
        },
    };
    Subject { op: "binary", cases: vec![Box::new(case)] }
}

fn len(shape: &[usize]) -> usize {
    shape.iter().product()
}

/// Divisors stay away from 0; both types hold them.
fn inputs(a: &[usize], b: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let away = |x: f64| if x.abs() < 0.5 { x.signum() } else { x };
    (data(1, len(a)), data(2, len(b)).into_iter().map(away).collect())
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}
