//! `strided` on its devices.

use ltm_kernels::ops::strided::{StridedDims, fwd, reference};

use crate::harness::{EXACT, F32, data, output, read, upload};
use crate::walk::{Case, Subject, both, no_needs};

pub fn subject() -> Subject {
    let permute =
        |shape: &[usize], axes: &[usize]| StridedDims::permute(shape, axes).expect("an order");
    let fill = |shape: &[usize], to: &[usize]| StridedDims::broadcast(shape, to).expect("fits");
    let case = Case {
        pass: "fwd",
        calls: both([
            permute(&[1], &[0]),
            permute(&[7, 41], &[1, 0]),
            permute(&[8, 3], &[1, 0]),
            permute(&[3, 5, 2, 9], &[3, 1, 0, 2]),
            fill(&[3, 1, 5], &[3, 7, 5]),
            fill(&[], &[257]),
            permute(&[3, 5, 24], &[1, 0, 2]),
            permute(&[2, 9, 5, 32], &[0, 2, 1, 3]),
            fill(&[24], &[11, 24]),
            fill(&[3, 1], &[3, 8]),
            fill(&[], &[2056]),
        ]),
        holds: |need, _, dims| match need {
            "[P1] the innermost extent % 8 == 0" => dims.extents[3] % 8 == 0,
            "[P2] the innermost stride is 0, or 1 with the others % 8 == 0" => match dims.strides {
                [.., 0] => true,
                [a, b, c, 1] => [a, b, c].iter().all(|stride| stride % 8 == 0),
                _ => false,
            },
            _ => no_needs(need, F32, dims),
        },
        run: |device, dtype, dims| {
            let mut out = output(device, dtype, dims.extents.iter().product());
            fwd(device, &mut out, &upload(device, dtype, &input(dims)), *dims)?;
            Ok(vec![read(&out)])
        },
        expected: |_, dims, _| {
            let mut out = vec![0.0; dims.extents.iter().product()];
            reference::fwd(&mut out, &input(dims), *dims);
            vec![("fwd", out, EXACT)]
        },
    };
    Subject { op: "strided", cases: vec![Box::new(case)] }
}

/// As long as the strides reach.
fn input(dims: &StridedDims) -> Vec<f64> {
    let pairs = dims.extents.iter().zip(&dims.strides);
    data(1, 1 + pairs.map(|(extent, stride)| (extent - 1) * stride).sum::<usize>())
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}
