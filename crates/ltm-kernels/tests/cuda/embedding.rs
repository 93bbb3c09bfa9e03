//! Every rung of `embedding` against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::embedding::{EmbeddingDims, bwd, fwd, reference};
use ltm_kernels::{DType, Device};
use ltm_testkit::Tol;

use crate::harness::{
    F32_EPS, assert_refused, check, data, device, output, read, upload, upload_i32,
};

fn agrees(device: &Device, rung: u32, dtype: DType, dims: EmbeddingDims) -> Vec<f64> {
    let EmbeddingDims { n, v, c } = dims;
    let tokens: Vec<i32> = (0..n).map(|n| (n * n * 7 % v) as i32).collect();
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
    // At most N numbers within 3.5 added one after another.
    let tol = Tol { abs: 3.5 * (n * n) as f64 * F32_EPS, rel: 0.0 };
    check(&format!("embedding bwd {case}"), &dtable, &expected_dtable, tol);
    [out, dtable].iter().flat_map(read).collect()
}

#[test]
fn every_rung_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for dtype in [DType::F32, DType::BF16] {
        for (rung, n, v, c) in
            [(1, 1, 1, 1), (1, 19, 7, 5), (2, 1, 1, 8), (2, 300, 31, 24), (2, 40, 90, 264)]
        {
            let dims = EmbeddingDims { n, v, c };
            assert_eq!(agrees(&device, rung, dtype, dims), agrees(&device, rung, dtype, dims));
        }
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
