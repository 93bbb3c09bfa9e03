//! `elementwise` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::elementwise::{
    RecordDims, ScaleRowsDims, add, add_assign, axpy, fill, increment, outer_scale, record,
    reference, scale_rows,
};
use ltm_kernels::{Buffer, DType, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16, EXACT, F32, F32_EPS, check, data, device, output, read, rounding, upload, upload_i32,
};
use crate::walk::{Case, Pass, Subject, both, f32_alone, no_needs};

pub fn subject() -> Subject {
    // 2049 are one more than a block of the second rung takes.
    let extents = || both([1usize, 7, 8, 257, 2049, 2312]);
    let add_case = Case {
        pass: "add",
        calls: extents(),
        holds: of_other_passes,
        run: |device, dtype, &n| {
            let [a, b] = [1, 2].map(|seed| upload(device, dtype, &data(seed, n)));
            let (mut sum, mut own) = (output(device, dtype, n), upload(device, dtype, &data(4, n)));
            add(device, &mut sum, &a, &b)?;
            add_assign(device, &mut own, &b)?;
            Ok(vec![read(&sum), read(&own)])
        },
        expected: |dtype, &n, _| {
            let (mut sum, mut own) = (vec![0.0; n], data(4, n));
            reference::add(&mut sum, &data(1, n), &data(2, n));
            reference::axpy(&mut own, 1.0, &data(2, n));
            vec![("add", sum, tol(dtype)), ("add_assign", own, tol(dtype))]
        },
    };
    let axpy_case = Case {
        pass: "axpy",
        calls: extents(),
        holds: of_other_passes,
        run: |device, dtype, &n| {
            let mut y = upload(device, dtype, &data(4, n));
            axpy(device, &mut y, 0.5, &upload(device, dtype, &data(2, n)))?;
            Ok(vec![read(&y)])
        },
        expected: |dtype, &n, _| {
            let mut y = data(4, n);
            reference::axpy(&mut y, 0.5, &data(2, n));
            vec![("axpy", y, tol(dtype))]
        },
    };
    let fill_case = Case {
        pass: "fill",
        calls: extents(),
        holds: of_other_passes,
        run: |device, dtype, &n| {
            let mut out = output(device, dtype, n);
            fill(device, &mut out, 0.25)?;
            Ok(vec![read(&out)])
        },
        expected: |_, &n, _| vec![("fill", vec![0.25; n], EXACT)],
    };
    let rows = [(1, 1), (5, 7), (257, 1), (683, 3), (1, 8), (17, 136)];
    let scale_case = Case {
        pass: "scale_rows",
        calls: both(rows.map(|(rows, c)| ScaleRowsDims { rows, c })),
        holds: |need, _, dims| match need {
            "[P1] C % 8 == 0" => dims.c.is_multiple_of(8),
            _ => no_needs(need, F32, dims),
        },
        run: |device, dtype, dims| {
            let n = dims.rows * dims.c;
            let (x, s) = (upload(device, dtype, &data(1, n)), data(3, dims.rows));
            let mut out = output(device, dtype, n);
            scale_rows(device, &mut out, &x, &upload(device, F32, &s), *dims)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, dims, _| {
            let n = dims.rows * dims.c;
            let mut out = vec![0.0; n];
            reference::scale_rows(&mut out, &data(1, n), &data(3, dims.rows), *dims);
            vec![("scale_rows", out, tol(dtype))]
        },
    };
    let outer_case = Case {
        pass: "outer_scale",
        calls: extents(),
        holds: of_other_passes,
        run: |device, dtype, &n| {
            let (w, three) = (upload(device, dtype, &data(1, n)), upload(device, F32, &[3.0]));
            let mut out = output(device, dtype, n);
            outer_scale(device, &mut out, &w, &three)?;
            Ok(vec![read(&out)])
        },
        expected: |dtype, &n, _| {
            let mut out = vec![0.0; n];
            reference::scale(&mut out, &data(1, n), 3.0);
            vec![("outer_scale", out, tol(dtype))]
        },
    };
    let increment_case = Case {
        pass: "increment",
        calls: vec![(DType::I32, -1), (DType::I32, 41)],
        holds: no_needs,
        run: |device, _, &count| {
            let mut counter = upload_i32(device, &[count]);
            increment(device, &mut counter)?;
            Ok(vec![counter.to_i32()?.into_iter().map(f64::from).collect()])
        },
        expected: |_, &count, _| vec![("increment", vec![f64::from(count + 1)], EXACT)],
    };
    // One past a block, in the second row of a history.
    let histories = [(3, 1, 2), (257, 0, 257), (300, 7, 258)];
    let record_case = Case {
        pass: "record",
        calls: f32_alone(histories.map(|(width, offset, n)| RecordDims {
            rows: 2,
            width,
            offset,
            n,
        })),
        holds: no_needs,
        run: |device, _, dims| {
            let mut history = upload(device, F32, &data(1, 2 * dims.width));
            let (x, step) = (upload(device, F32, &data(2, dims.n)), upload_i32(device, &[1]));
            record(device, &mut history, &x, &step, *dims)?;
            Ok(vec![read(&history)])
        },
        expected: |_, dims, _| {
            let mut history = data(1, 2 * dims.width);
            let start = dims.width + dims.offset;
            history[start..start + dims.n].copy_from_slice(&data(2, dims.n));
            vec![("record", history, EXACT)]
        },
    };
    let cases: Vec<Box<dyn Pass>> = vec![
        Box::new(add_case),
        Box::new(axpy_case),
        Box::new(fill_case),
        Box::new(scale_case),
        Box::new(outer_case),
        Box::new(increment_case),
        Box::new(record_case),
    ];
    Subject { op: "elementwise", cases }
}

/// The needs of the file are those of `scale_rows`.
fn of_other_passes(need: &str, dtype: DType, n: &usize) -> bool {
    need == "[P1] C % 8 == 0" || no_needs(need, dtype, n)
}

/// One rounding in f32, one to the output.
fn tol(dtype: DType) -> Tol {
    Tol { abs: 0.0, rel: F32_EPS + rounding(dtype) }
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn other_types_are_refused() {
    let Some(device) = device() else { return };
    let x = output(&device, F32, 3);
    let refused = add(&device, &mut output(&device, BF16, 3), &x, &x);
    assert!(matches!(refused, Err(Error::DType { .. })));
}

#[test]
fn steps_are_counted_and_recorded() {
    let Some(device) = device() else { return };
    let dims = RecordDims { rows: 2, width: 3, offset: 1, n: 2 };
    let (mut history, mut step) = (upload(&device, F32, &[0.0; 6]), upload_i32(&device, &[-1]));
    for x in [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]] {
        let x = upload(&device, F32, &x);
        record(&device, &mut history, &x, &step, dims).expect("shapes agree");
        increment(&device, &mut step).expect("one integer");
    }
    assert_eq!(step.to_i32(), Ok(vec![3]));
    check("elementwise record", &history, &[0.0, 3.0, 4.0, 0.0, 5.0, 6.0], EXACT);
    // One past a block, in a history of one row.
    let (dims, x) = (RecordDims { rows: 1, width: 257, offset: 0, n: 257 }, data(1, 257));
    let (mut history, step) = (output(&device, F32, 257), upload_i32(&device, &[0]));
    record(&device, &mut history, &upload(&device, F32, &x), &step, dims).expect("shapes agree");
    check("elementwise record one past a block", &history, &x, EXACT);
}

#[test]
fn more_elements_than_a_grid_has_threads_are_all_reached() {
    let Some(device) = device() else { return };
    // 2^14 blocks of 256 threads take 1 element each, or 8, and then go round.
    for (rung, dtype, n) in [(1, F32, (1 << 22) + 5), (2, BF16, (1 << 25) + 5)] {
        let mut x = Buffer::zeros(&device, dtype, n).expect("a GPU has the room");
        with_rung(rung, || fill(&device, &mut x, 0.5)).expect("no needs");
        let mut ends = output(&device, dtype, 64);
        ends.copy_range(0, &x, 0, 32).expect("within both");
        ends.copy_range(32, &x, n - 32, 32).expect("within both");
        check(&format!("elementwise fill v{rung} {n}"), &ends, &[0.5; 64], EXACT);
    }
}
