//! `reduce` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::elementwise::fill;
use ltm_kernels::ops::reduce::{
    SumAxisDims, dot, first_non_finite, reference, sum_axis, sum_groups, sum_squares,
    sum_squares_all,
};
use ltm_kernels::{Buffer, DType, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16, EXACT, F32, F32_EPS, check, data, device, output, read, rounding, upload,
};
use crate::walk::{Case, Subject, f32_alone, no_needs};

pub fn subject() -> Subject {
    let extents =
        || f32_alone([(1, 1), (3, 41), (257, 1), (3, 257), (2, 9001)] as [(usize, usize); 5]);
    let groups = Case {
        pass: "sum_groups",
        calls: extents(),
        holds: no_needs,
        run: |device, _, &(groups, n)| {
            let mut sums = output(device, F32, groups);
            sum_groups(device, &mut sums, &upload(device, F32, &data(1, groups * n)))?;
            Ok(vec![read(&sums)])
        },
        expected: |_, &(groups, n), _| {
            let mut sums = vec![0.0; groups];
            reference::sum_groups(&mut sums, &data(1, groups * n));
            vec![("sum_groups", sums, Tol { abs: sum_error(groups * n), rel: F32_EPS })]
        },
    };
    let dot_case = Case {
        pass: "dot",
        calls: extents(),
        holds: no_needs,
        run: |device, _, &(groups, n)| {
            let [x, w] = [1, 2].map(|seed| upload(device, F32, &data(seed, groups * n)));
            let mut product = output(device, F32, 1);
            dot(device, &mut product, &x, &w)?;
            Ok(vec![read(&product)])
        },
        expected: |_, &(groups, n), _| {
            let n = groups * n;
            let product = reference::dot(&data(1, n), &data(2, n));
            vec![("dot", vec![product], Tol { abs: sum_error(n), rel: F32_EPS })]
        },
    };
    let total = Case {
        pass: "total",
        calls: extents(),
        holds: no_needs,
        run: |device, _, &(groups, n)| {
            let [x, w] = [1, 2].map(|seed| upload(device, F32, &data(seed, groups * n)));
            Ok(vec![vec![sum_squares(device, &x)?, sum_squares_all(device, &[&x, &w])?]])
        },
        expected: |_, &(groups, n), _| {
            let n = groups * n;
            let [x, w] = [1, 2].map(|seed| reference::dot(&data(seed, n), &data(seed, n)));
            vec![("squares", vec![x, x + w], Tol { abs: 2.0 * sum_error(n), rel: 0.0 })]
        },
    };
    let first = Case {
        pass: "first",
        calls: f32_alone([None, Some((0, f64::NAN)), Some((9000, f64::NEG_INFINITY))]),
        holds: no_needs,
        run: |device, _, found| {
            let mut x = vec![f64::from(f32::MAX); 9001];
            if let Some((place, value)) = found {
                x[*place] = *value;
            }
            let first = first_non_finite(device, &upload(device, F32, &x))?;
            Ok(vec![vec![first.map_or(-1.0, |first| first as f64)]])
        },
        expected: |_, found, _| {
            vec![(
                "first",
                vec![found.map_or(-1.0, |(place, _): (usize, f64)| place as f64)],
                EXACT,
            )]
        },
    };
    let dims = [
        (1, 1, 1),
        (3, 41, 5),
        (2, 3, 257),
        (3, 257, 1),
        (1, 9001, 1),
        (2, 41, 5),
        (3, 7, 33),
        (1, 300, 65),
    ]
    .map(|(outer, n, inner)| SumAxisDims { outer, n, inner });
    let types = [(F32, F32), (BF16, F32), (BF16, BF16)];
    let axis = Case {
        pass: "sum_axis",
        calls: dims.iter().flat_map(|dims| types.map(|(from, to)| (from, (to, *dims)))).collect(),
        holds: no_needs,
        run: |device, from, &(to, dims)| {
            let SumAxisDims { outer, n, inner } = dims;
            let mut out = output(device, to, outer * inner);
            sum_axis(device, &mut out, &upload(device, from, &data(1, outer * n * inner)), dims)?;
            Ok(vec![read(&out)])
        },
        expected: |_, (to, dims): &(DType, SumAxisDims), _| {
            let SumAxisDims { outer, n, inner } = *dims;
            let mut out = vec![0.0; outer * inner];
            reference::sum_axis(&mut out, &data(1, outer * n * inner), *dims);
            // Sums in f64 of numbers within 3.5, rounded to f32 and then to the output.
            let abs = 3.5 * (n * n) as f64 * f64::EPSILON;
            vec![("sum_axis", out, Tol { abs, rel: F32_EPS + rounding(*to) })]
        },
    };
    let cases: Vec<Box<dyn crate::walk::Pass>> = vec![
        Box::new(groups),
        Box::new(dot_case),
        Box::new(total),
        Box::new(first),
        Box::new(axis),
    ];
    Subject { op: "reduce", cases }
}

/// Of a sum in f64 of `n` products within 3.5², which is rounded once to f32 where a buffer takes it.
fn sum_error(n: usize) -> f64 {
    12.25 * (n * n) as f64 * f64::EPSILON
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn more_than_the_blocks_of_a_first_stage() {
    let Some(device) = device() else { return };
    // One more than they take in one go: ones, whose sum is exact.
    let n = (1 << 21) + 1;
    let (mut x, mut product) =
        (Buffer::zeros(&device, F32, n).expect("small"), output(&device, F32, 1));
    fill(&device, &mut x, 1.0).expect("no needs");
    with_rung(2, || dot(&device, &mut product, &x, &x)).expect("no needs");
    check("reduce dot past its blocks", &product, &[n as f64], EXACT);
}

#[test]
fn the_first_of_several_is_found() {
    let Some(device) = device() else { return };
    for rung in [1, 2] {
        let first = |x: &[f64]| {
            let x = upload(&device, F32, x);
            with_rung(rung, || first_non_finite(&device, &x)).expect("a float")
        };
        assert_eq!((first(&[0.0]), first(&[f64::NAN])), (None, Some(0)));
        let mut x = vec![f64::from(f32::MAX); 9001];
        x[9000] = f64::NEG_INFINITY;
        x[4711] = f64::NAN;
        assert_eq!(first(&x), Some(4711));
        x[0] = f64::INFINITY;
        assert_eq!(first(&x), Some(0));
    }
}

#[test]
fn sums_of_f32_are_f32() {
    let Some(device) = device() else { return };
    let dims = SumAxisDims { outer: 1, n: 3, inner: 1 };
    let refused = sum_axis(&device, &mut output(&device, BF16, 1), &output(&device, F32, 3), dims);
    assert!(matches!(refused, Err(Error::DType { .. })), "{refused:?}");
}
