//! `embedding` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::embedding::{EmbeddingDims, bwd, fwd, reference};
use ltm_testkit::Tol;

use crate::harness::{EXACT, F32, F32_EPS, data, device, output, read, upload, upload_i32};
use crate::walk::{Case, Subject, both, no_needs};

pub fn subject() -> Subject {
    let dims = |all: &[[usize; 3]]| {
        both(all.iter().map(|&[n, v, c]| EmbeddingDims { n, v, c }).collect::<Vec<_>>())
    };
    let fwd = Case {
        pass: "fwd",
        calls: dims(&[
            [1, 1, 1],
            [67, 7, 5],
            [3, 257, 1],
            [1, 1, 8],
            [1025, 31, 24],
            [40, 90, 1032],
        ]),
        holds: |need, _, dims| match need {
            "[P1] C % 8 == 0" => dims.c.is_multiple_of(8),
            _ => no_needs(need, F32, dims),
        },
        run: |device, dtype, dims| {
            let EmbeddingDims { n, v, c } = *dims;
            let mut out = output(device, dtype, n * c);
            let (table, tokens) = (data(1, v * c), upload_i32(device, &tokens(dims)));
            fwd(device, &mut out, &upload(device, dtype, &table), &tokens, *dims)?;
            Ok(vec![read(&out)])
        },
        expected: |_, dims, _| {
            let EmbeddingDims { n, v, c } = *dims;
            let mut out = vec![0.0; n * c];
            reference::fwd(&mut out, &data(1, v * c), &tokens(dims), *dims);
            vec![("fwd", out, EXACT)]
        },
    };
    // One token past what a block looks at together; more than it notes before it adds; more
    // columns than its threads have; more rows than there are blocks; rows that are no eights.
    let past_tiles = [[1025, 31, 24], [2500, 2, 8], [40, 90, 1032], [70, 1030, 8], [1100, 1, 257]];
    let small = [[1, 1, 1], [67, 7, 5], [3, 257, 1], [1, 1, 8], [67, 5, 3]];
    let bwd = Case {
        pass: "bwd",
        calls: dims(&[small, past_tiles].concat()),
        holds: no_needs,
        run: |device, dtype, dims| {
            let EmbeddingDims { n, v, c } = *dims;
            let mut dtable = output(device, F32, v * c);
            let (dout, tokens) = (data(2, n * c), upload_i32(device, &tokens(dims)));
            bwd(device, &mut dtable, &upload(device, dtype, &dout), &tokens, *dims)?;
            Ok(vec![read(&dtable)])
        },
        expected: |_, dims, _| {
            let EmbeddingDims { n, v, c } = *dims;
            let mut dtable = vec![0.0; v * c];
            reference::bwd(&mut dtable, &data(2, n * c), &tokens(dims), *dims);
            // At most N numbers within 3.5 added one after another.
            let tol = Tol { abs: 3.5 * (n * n) as f64 * F32_EPS, rel: 0.0 };
            vec![("bwd", dtable, tol)]
        },
    };
    Subject { op: "embedding", cases: vec![Box::new(fwd), Box::new(bwd)] }
}

fn tokens(dims: &EmbeddingDims) -> Vec<i32> {
    (0..dims.n).map(|n| (n * n * 7 % dims.v) as i32).collect()
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

#[test]
fn a_token_outside_shows_as_nan_and_touches_nothing() {
    let Some(device) = device() else { return };
    let dims = EmbeddingDims { n: 3, v: 2, c: 8 };
    let tokens = upload_i32(&device, &[1, 2, -1]);
    let (table, dout) = (data(1, 16), data(2, 24));
    for rung in [1, 2] {
        let (mut out, mut dtable) = (output(&device, F32, 24), output(&device, F32, 16));
        with_rung(rung, || {
            fwd(&device, &mut out, &upload(&device, F32, &table), &tokens, dims)?;
            bwd(&device, &mut dtable, &upload(&device, F32, &dout), &tokens, dims)
        })
        .expect("needs hold");
        let out = read(&out);
        assert_eq!(out[..8], table[8..]);
        assert!(out[8..].iter().all(|x| x.is_nan()));
        assert_eq!(read(&dtable), [&[0.0; 8][..], &dout[..8]].concat());
    }
}
