//! Every rung of `swiglu` against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::swiglu::{bwd, fwd, reference};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{BF16_EPS, F32_EPS, check, data, device, output, read, upload};

fn agrees(device: &Device, rung: u32, dtype: DType, n: usize) -> Vec<f64> {
    let [gate, up, dout] = [1, 2, 3].map(|seed| data(seed, n));
    let [gate_dev, up_dev, dout_dev] = [&gate, &up, &dout].map(|x| upload(device, dtype, x));
    let [mut out, mut dgate, mut dup, mut alone] = [(); 4].map(|()| output(device, dtype, n));
    with_rung(rung, || {
        fwd(device, &mut out, &gate_dev, &up_dev)?;
        bwd(device, Some(&mut dgate), Some(&mut dup), &dout_dev, &gate_dev, &up_dev)?;
        bwd(device, None, Some(&mut alone), &dout_dev, &gate_dev, &up_dev)
    })
    .expect("needs hold");
    let [mut expected, mut expected_dgate, mut expected_dup] = [(); 3].map(|()| vec![0.0; n]);
    reference::fwd(&mut expected, &gate, &up);
    let wanted = (Some(&mut expected_dgate[..]), Some(&mut expected_dup[..]));
    reference::bwd(wanted.0, wanted.1, &dout, &gate, &up);
    // A dozen roundings of products of three numbers within 3.5, then one to the output.
    let rel = if dtype == DType::BF16 { BF16_EPS } else { 0.0 };
    let tol = Tol { abs: 3.5f64.powi(3) * 12.0 * F32_EPS, rel };
    check(&format!("swiglu fwd v{rung} {dtype} {n}"), &out, &expected, tol);
    check(&format!("swiglu dgate v{rung} {dtype} {n}"), &dgate, &expected_dgate, tol);
    check(&format!("swiglu dup v{rung} {dtype} {n}"), &dup, &expected_dup, tol);
    assert_eq!(read(&alone), read(&dup), "one gradient does not depend on the other");
    [out, dgate, dup].iter().flat_map(read).collect()
}

#[test]
fn every_rung_agrees_and_repeats() {
    let Some(device) = device() else { return };
    for (rung, dtype) in [1, 2].into_iter().flat_map(|r| [(r, DType::F32), (r, DType::BF16)]) {
        for n in [1, 7, 8, 2061] {
            assert_eq!(agrees(&device, rung, dtype, n), agrees(&device, rung, dtype, n));
        }
    }
}

#[test]
fn far_tails_are_finite() {
    let Some(device) = device() else { return };
    let gate = upload(&device, DType::F32, &[-1e4, -90.0, 90.0, 1e4]);
    let up = upload(&device, DType::F32, &[2.0; 4]);
    let mut out = output(&device, DType::F32, 4);
    fwd(&device, &mut out, &gate, &up).expect("shapes agree");
    let tol = Tol { abs: 1e-30, rel: F32_EPS };
    check("swiglu far tails", &out, &[0.0, 0.0, 180.0, 2e4], tol);
    let mut wrong = output(&device, DType::BF16, 4);
    assert!(matches!(fwd(&device, &mut wrong, &gate, &up), Err(Error::DType { .. })));
}
