//! Every rung of `elementwise`, `cast`, `slice` and `reduce` against their references.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::elementwise::{self, RecordDims, ScaleRowsDims};
use ltm_kernels::ops::slice::{self, SliceDims};
use ltm_kernels::ops::{cast, reduce};
use ltm_kernels::{Buffer, DType, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, check_values, data, device, output, read, upload,
    upload_i32,
};

const F32: DType = DType::F32;
const BF16: DType = DType::BF16;
const EXACT: Tol = Tol { abs: 0.0, rel: 0.0 };

#[test]
fn elementwise_agrees() {
    let Some(device) = device() else { return };
    // 683 triples are one more than a block of the second rung takes.
    let extents =
        [(1, 1, 1), (1, 5, 7), (1, 257, 1), (2, 1, 1), (2, 683, 3), (2, 1, 8), (2, 17, 136)];
    for (rung, rows, c) in extents {
        for dtype in [F32, BF16] {
            let (dims, n) = (ScaleRowsDims { rows, c }, rows * c);
            // The second rung takes rows of whole eights alone.
            let rows_rung = if c % 8 == 0 { rung } else { 1 };
            let (a, b, s) = (data(1, n), data(2, n), data(3, rows));
            let (a_dev, b_dev) = (upload(&device, dtype, &a), upload(&device, dtype, &b));
            let (s_dev, three) = (upload(&device, F32, &s), upload(&device, F32, &[3.0]));
            let mut outs = [(); 6].map(|()| upload(&device, dtype, &data(4, n)));
            with_rung(rung, || {
                let [sum, own, scaled, filled, rows, outer] = &mut outs;
                elementwise::add(&device, sum, &a_dev, &b_dev)?;
                elementwise::add_assign(&device, own, &b_dev)?;
                elementwise::axpy(&device, scaled, 0.5, &b_dev)?;
                elementwise::fill(&device, filled, 0.25)?;
                with_rung(rows_rung, || {
                    elementwise::scale_rows(&device, rows, &a_dev, &s_dev, dims)
                })?;
                elementwise::outer_scale(&device, outer, &a_dev, &three)
            })
            .expect("needs hold");
            let mut expected = [(); 6].map(|()| data(4, n));
            let [sum, own, scaled, filled, rows, outer] = &mut expected;
            elementwise::reference::add(sum, &a, &b);
            elementwise::reference::axpy(own, 1.0, &b);
            elementwise::reference::axpy(scaled, 0.5, &b);
            filled.fill(0.25);
            elementwise::reference::scale_rows(rows, &a, &s, dims);
            elementwise::reference::scale(outer, &a, 3.0);
            // One rounding in f32, one to the output.
            let rel = F32_EPS + if dtype == BF16 { BF16_EPS } else { 0.0 };
            for (what, (got, expected)) in outs.iter().zip(&expected).enumerate() {
                let rung = if what == 4 { rows_rung } else { rung };
                let case = format!("elementwise {what} v{rung} {dtype} {dims:?}");
                check(&case, got, expected, Tol { abs: 0.0, rel });
            }
        }
    }
    let dims = ScaleRowsDims { rows: 1, c: 3 };
    let (x, s) = (output(&device, F32, 3), output(&device, F32, 1));
    let mut out = output(&device, F32, 3);
    let refused = with_rung(2, || elementwise::scale_rows(&device, &mut out, &x, &s, dims));
    assert_refused(refused, "[P1]");
    let refused = elementwise::add(&device, &mut output(&device, BF16, 3), &x, &x);
    assert!(matches!(refused, Err(Error::DType { .. })));
}

#[test]
fn steps_are_counted_and_recorded() {
    let Some(device) = device() else { return };
    let dims = RecordDims { rows: 2, width: 3, offset: 1, n: 2 };
    let (mut history, mut step) = (upload(&device, F32, &[0.0; 6]), upload_i32(&device, &[-1]));
    for x in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]] {
        let x = upload(&device, F32, &x);
        elementwise::record(&device, &mut history, &x, &step, dims).expect("shapes agree");
        elementwise::increment(&device, &mut step).expect("one integer");
    }
    assert_eq!(step.to_i32(), Ok(vec![3]));
    check("elementwise record", &history, &[0.0, 3.0, 4.0, 0.0, 5.0, 6.0], EXACT);
    // One past a block, in a history of one row.
    let (dims, x) = (RecordDims { rows: 1, width: 257, offset: 0, n: 257 }, data(1, 257));
    let (mut history, step) = (output(&device, F32, 257), upload_i32(&device, &[0]));
    elementwise::record(&device, &mut history, &upload(&device, F32, &x), &step, dims)
        .expect("shapes agree");
    check("elementwise record one past a block", &history, &x, EXACT);
}

#[test]
fn more_elements_than_a_grid_has_threads_are_all_reached() {
    let Some(device) = device() else { return };
    // 2^14 blocks of 256 threads take 1 element each, or 8, and then go round.
    for (rung, dtype, n) in [(1, F32, (1 << 22) + 5), (2, BF16, (1 << 25) + 5)] {
        let mut x = Buffer::zeros(&device, dtype, n).expect("a GPU has the room");
        with_rung(rung, || elementwise::fill(&device, &mut x, 0.5)).expect("no needs");
        let mut ends = output(&device, dtype, 64);
        ends.copy_range(0, &x, 0, 32).expect("within both");
        ends.copy_range(32, &x, n - 32, 32).expect("within both");
        check(&format!("elementwise fill v{rung} {n}"), &ends, &[0.5; 64], EXACT);
    }
}

#[test]
fn cast_rounds_to_nearest_and_widens_exactly() {
    let Some(device) = device() else { return };
    for (rung, n) in [1, 2].into_iter().flat_map(|rung| [(rung, 1), (rung, 2059)]) {
        // Between two neighbours in bf16, on ties and off them.
        let x: Vec<f64> =
            (0..n).map(|i| f64::from(f32::from_bits(0x3f80_0000 + 0x1234 * i as u32))).collect();
        let wide = upload(&device, F32, &x);
        let [mut narrow, mut narrow_copy] = [(); 2].map(|()| output(&device, BF16, n));
        let [mut back, mut copy] = [(); 2].map(|()| output(&device, F32, n));
        with_rung(rung, || {
            cast::fwd(&device, &mut narrow, &wide)?;
            cast::fwd(&device, &mut narrow_copy, &narrow)?;
            cast::fwd(&device, &mut back, &narrow)?;
            cast::fwd(&device, &mut copy, &wide)
        })
        .expect("needs hold");
        // The host rounds to nearest, ties to even, when it writes bf16.
        let expected = read(&upload(&device, BF16, &x));
        check(&format!("cast f32->bf16 v{rung} {n}"), &narrow, &expected, EXACT);
        check(&format!("cast bf16->bf16 v{rung} {n}"), &narrow_copy, &expected, EXACT);
        check(&format!("cast bf16->f32 v{rung} {n}"), &back, &expected, EXACT);
        check(&format!("cast f32->f32 v{rung} {n}"), &copy, &x, EXACT);
    }
}

#[test]
fn slice_agrees() {
    let Some(device) = device() else { return };
    for (rung, b, rows, start, len, c) in
        [(1, 1, 1, 0, 1, 1), (1, 3, 5, 2, 2, 7), (1, 1, 300, 0, 257, 1)].into_iter().chain([
            (2, 1, 2, 1, 1, 8),
            (2, 3, 19, 4, 9, 24),
            (2, 2, 257, 0, 257, 8),
        ])
    {
        for dtype in [F32, BF16] {
            let dims = SliceDims { b, rows, start, len, c };
            let (x, dout) = (data(1, b * rows * c), data(2, b * len * c));
            let (mut out, mut dx) =
                (output(&device, dtype, dout.len()), output(&device, dtype, x.len()));
            with_rung(rung, || {
                slice::fwd(&device, &mut out, &upload(&device, dtype, &x), dims)?;
                slice::bwd(&device, &mut dx, &upload(&device, dtype, &dout), dims)
            })
            .expect("needs hold");
            let (mut expected, mut expected_dx) = (vec![0.0; dout.len()], vec![0.0; x.len()]);
            slice::reference::fwd(&mut expected, &x, dims);
            slice::reference::bwd(&mut expected_dx, &dout, dims);
            check(&format!("slice fwd v{rung} {dtype} {dims:?}"), &out, &expected, EXACT);
            check(&format!("slice bwd v{rung} {dtype} {dims:?}"), &dx, &expected_dx, EXACT);
            let (mut placed, part) = (upload(&device, dtype, &x), upload(&device, dtype, &dout));
            with_rung(rung, || slice::place(&device, &mut placed, &part, dims))
                .expect("needs hold");
            let mut expected = x;
            slice::reference::place(&mut expected, &dout, dims);
            check(&format!("slice place v{rung} {dtype} {dims:?}"), &placed, &expected, EXACT);
        }
    }
    let dims = SliceDims { b: 1, rows: 1, start: 0, len: 1, c: 3 };
    let (x, mut out) = (output(&device, F32, 3), output(&device, F32, 3));
    assert_refused(with_rung(2, || slice::fwd(&device, &mut out, &x, dims)), "[P1]");
    assert_refused(with_rung(2, || slice::bwd(&device, &mut out, &x, dims)), "[P1]");
    assert_refused(with_rung(2, || slice::place(&device, &mut out, &x, dims)), "[P1]");
}

#[test]
fn reduce_sums_agree_and_repeat() {
    let Some(device) = device() else { return };
    let extents = [(1, 1, 1), (1, 3, 41), (1, 257, 1), (2, 1, 1), (2, 3, 257), (2, 2, 9001)];
    for (rung, groups, n) in extents {
        let (x, w) = (data(1, groups * n), data(2, groups * n));
        let (x_dev, w_dev) = (upload(&device, F32, &x), upload(&device, F32, &w));
        let run = || {
            let (mut sums, mut dot) = (output(&device, F32, groups), output(&device, F32, 1));
            let (squares, all) = with_rung(rung, || {
                reduce::sum_groups(&device, &mut sums, &x_dev)?;
                reduce::dot(&device, &mut dot, &x_dev, &w_dev)?;
                let squares = reduce::sum_squares(&device, &x_dev)?;
                Ok::<_, Error>((squares, reduce::sum_squares_all(&device, &[&x_dev, &w_dev])?))
            })
            .expect("needs hold");
            (read(&sums), read(&dot), squares, all)
        };
        let (sums, dot, squares, all) = run();
        assert_eq!((sums.clone(), dot.clone(), squares, all), run(), "same input, same bits");
        let mut expected = vec![0.0; groups];
        reduce::reference::sum_groups(&mut expected, &x);
        // Sums in f64 of numbers within 3.5², rounded once to f32 where a buffer takes them.
        let len = (groups * n) as f64;
        let abs = 12.25 * len * len * f64::EPSILON;
        let case = |part| format!("reduce {part} v{rung} {groups}x{n}");
        check_values(&case("sum_groups"), &sums, &expected, Tol { abs, rel: F32_EPS });
        let product = |a: &[f64], b: &[f64]| reduce::reference::dot(a, b);
        check_values(&case("dot"), &dot, &[product(&x, &w)], Tol { abs, rel: F32_EPS });
        let tol = Tol { abs: 2.0 * abs, rel: 0.0 };
        let (x_squares, w_squares) = (product(&x, &x), product(&w, &w));
        check_values(&case("squares"), &[squares, all], &[x_squares, x_squares + w_squares], tol);
    }
    // One more than the most blocks of a first stage take in one go: ones, whose sum is exact.
    let n = (1 << 21) + 1;
    let (mut x, mut dot) =
        (Buffer::zeros(&device, F32, n).expect("small"), output(&device, F32, 1));
    elementwise::fill(&device, &mut x, 1.0).expect("no needs");
    with_rung(2, || reduce::dot(&device, &mut dot, &x, &x)).expect("no needs");
    check("reduce dot past its blocks", &dot, &[n as f64], EXACT);
}

#[test]
fn reduce_finds_the_first_that_is_not_finite() {
    let Some(device) = device() else { return };
    for rung in [1, 2] {
        let first = |x: &[f64]| {
            let x: Buffer = upload(&device, F32, x);
            with_rung(rung, || reduce::first_non_finite(&device, &x)).expect("a float")
        };
        assert_eq!((first(&[0.0]), first(&[f64::NAN])), (None, Some(0)));
        let mut x = vec![f64::from(f32::MAX); 9001];
        assert_eq!(first(&x), None);
        x[9000] = f64::NEG_INFINITY;
        assert_eq!(first(&x), Some(9000));
        x[4711] = f64::NAN;
        assert_eq!(first(&x), Some(4711));
        x[0] = f64::INFINITY;
        assert_eq!(first(&x), Some(0));
    }
}
