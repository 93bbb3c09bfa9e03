//! Every rung of `embedding` against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::embedding::{EmbeddingDims, bwd, fwd, reference};
use ltm_kernels::{DType, Device};
use ltm_testkit::Tol;

use crate::harness::{
    F32_EPS, assert_refused, check, data, device, output, read, upload, upload_i32,
};

fn tokens_for(dims: EmbeddingDims) -> Vec<i32> {
    (0..dims.n).map(|n| (n * n * 7 % dims.v) as i32).collect()
}

/// At most N numbers within 3.5 added one after another.
fn sum_tol(dims: EmbeddingDims) -> Tol {
    Tol { abs: 3.5 * (dims.n * dims.n) as f64 * F32_EPS, rel: 0.0 }
}

fn agrees(device: &Device, rung: u32, dtype: DType, dims: EmbeddingDims) -> Vec<f64> {
    let EmbeddingDims { n, v, c } = dims;
    let tokens = tokens_for(dims);
    let (table, dout) = (data(1, v * c), data(2, n * c));
    let (table_dev, dout_dev) = (upload(device, dtype, &table), upload(device, dtype, &dout));
    let tokens_dev = upload_i32(device, &tokens);
    let (mut out, mut dtable) = (output(device, dtype, n * c), output(device, DType::F32, v * c));
    with_rung(rung, || {
        fwd(device, &mut out, &table_dev, &tokens_dev, dims)?;
        bwd(device, &mut dtable, &dout_dev, &tokens_dev, dims)
    })
    .expect("needs hold");
    let (mut expected, mut expected_dtable) = (vec![0.0; n * c], vec![0.0; v * c]);
    reference::fwd(&mut expected, &table, &tokens, dims);
    reference::bwd(&mut expected_dtable, &dout, &tokens, dims);
    let case = format!("v{rung} {dtype} {dims:?}");
    check(&format!("embedding fwd {case}"), &out, &expected, Tol { abs: 0.0, rel: 0.0 });
    check(&format!("embedding bwd {case}"), &dtable, &expected_dtable, sum_tol(dims));
    [out, dtable].iter().flat_map(read).collect()
}

#[test]
fn every_rung_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        let naive = [(1, 1, 1, 1), (1, 67, 7, 5), (1, 3, 257, 1)];
        // One token past what a block looks at together; more than it notes before it adds; more
        // columns than its threads have; more rows than there are blocks.
        let eights = [(2, 1, 1, 8), (2, 1025, 31, 24), (2, 2500, 2, 8), (2, 40, 90, 1032)];
        for (rung, n, v, c) in naive.into_iter().chain(eights).chain([(2, 70, 1030, 8)]) {
            let dims = EmbeddingDims { n, v, c };
            assert_eq!(agrees(&device, rung, dtype, dims), agrees(&device, rung, dtype, dims));
        }
    }
}

#[test]
fn gradients_of_rows_that_are_no_eights_agree() {
    let Some(device) = device() else { return };
    for (n, v, c) in [(1, 1, 1), (67, 5, 3), (1100, 1, 257)] {
        let dims = EmbeddingDims { n, v, c };
        let (tokens, dout) = (tokens_for(dims), data(2, n * c));
        let mut dtable = output(&device, DType::F32, v * c);
        let dout_dev = upload(&device, DType::BF16, &dout);
        with_rung(2, || bwd(&device, &mut dtable, &dout_dev, &upload_i32(&device, &tokens), dims))
            .expect("no needs");
        let mut expected = vec![0.0; v * c];
        reference::bwd(&mut expected, &dout, &tokens, dims);
        check(&format!("embedding bwd alone v2 {dims:?}"), &dtable, &expected, sum_tol(dims));
    }
}

#[test]
fn a_token_outside_shows_as_nan_and_touches_nothing() {
    let Some(device) = device() else { return };
    let dims = EmbeddingDims { n: 3, v: 2, c: 8 };
    let tokens = upload_i32(&device, &[1, 2, -1]);
    let (table, dout) = (data(1, 16), data(2, 24));
    for rung in [1, 2] {
        let (mut out, mut dtable) =
            (output(&device, DType::F32, 24), output(&device, DType::F32, 16));
        with_rung(rung, || {
            fwd(&device, &mut out, &upload(&device, DType::F32, &table), &tokens, dims)?;
            bwd(&device, &mut dtable, &upload(&device, DType::F32, &dout), &tokens, dims)
        })
        .expect("needs hold");
        let out = read(&out);
        assert_eq!(out[..8], table[8..]);
        assert!(out[8..].iter().all(|x| x.is_nan()));
        assert_eq!(read(&dtable), [&[0.0; 8][..], &dout[..8]].concat());
    }
}

#[test]
fn refusals() {
    let Some(device) = device() else { return };
    let dims = EmbeddingDims { n: 1, v: 1, c: 3 };
    let (table, tokens) = (output(&device, DType::F32, 3), upload_i32(&device, &[0]));
    let mut out = output(&device, DType::F32, 3);
    assert_refused(with_rung(2, || fwd(&device, &mut out, &table, &tokens, dims)), "[P1]");
}
