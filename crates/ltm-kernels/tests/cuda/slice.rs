//! `slice` on its devices.

use ltm_kernels::DType;
use ltm_kernels::ops::slice::{SliceDims, bwd, fwd, place, reference};

use crate::harness::{EXACT, F32, data, output, read, upload};
use crate::walk::{Case, Subject, both, no_needs};

pub fn subject() -> Subject {
    let calls = || {
        both(
            [
                (1, 1, 0, 1, 1),
                (3, 5, 2, 2, 7),
                (1, 300, 0, 257, 1),
                (1, 2, 1, 1, 8),
                (3, 19, 4, 9, 24),
                (2, 257, 0, 257, 8),
            ]
            .map(|(b, rows, start, len, c)| SliceDims { b, rows, start, len, c }),
        )
    };
    let fwd = Case {
        pass: "fwd",
        calls: calls(),
        holds,
        run: |device, dtype, dims| {
            let mut out = output(device, dtype, part_len(dims));
            fwd(device, &mut out, &upload(device, dtype, &data(1, whole_len(dims))), *dims)?;
            Ok(vec![read(&out)])
        },
        expected: |_, dims, _| {
            let mut out = vec![0.0; part_len(dims)];
            reference::fwd(&mut out, &data(1, whole_len(dims)), *dims);
            vec![("fwd", out, EXACT)]
        },
    };
    let bwd = Case {
        pass: "bwd",
        calls: calls(),
        holds,
        run: |device, dtype, dims| {
            let mut dx = output(device, dtype, whole_len(dims));
            bwd(device, &mut dx, &upload(device, dtype, &data(2, part_len(dims))), *dims)?;
            Ok(vec![read(&dx)])
        },
        expected: |_, dims, _| {
            let mut dx = vec![0.0; whole_len(dims)];
            reference::bwd(&mut dx, &data(2, part_len(dims)), *dims);
            vec![("bwd", dx, EXACT)]
        },
    };
    let place = Case {
        pass: "place",
        calls: calls(),
        holds,
        run: |device, dtype, dims| {
            let mut whole = upload(device, dtype, &data(1, whole_len(dims)));
            place(device, &mut whole, &upload(device, dtype, &data(2, part_len(dims))), *dims)?;
            Ok(vec![read(&whole)])
        },
        expected: |_, dims, _| {
            let mut whole = data(1, whole_len(dims));
            reference::place(&mut whole, &data(2, part_len(dims)), *dims);
            vec![("place", whole, EXACT)]
        },
    };
    Subject { op: "slice", cases: vec![Box::new(fwd), Box::new(bwd), Box::new(place)] }
}

fn holds(need: &str, _: DType, dims: &SliceDims) -> bool {
    match need {
        "[P1] C % 8 == 0" => dims.c.is_multiple_of(8),
        _ => no_needs(need, F32, dims),
    }
}

fn whole_len(dims: &SliceDims) -> usize {
    dims.b * dims.rows * dims.c
}

fn part_len(dims: &SliceDims) -> usize {
    dims.b * dims.len * dims.c
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}
