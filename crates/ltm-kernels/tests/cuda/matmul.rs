//! Every rung of `matmul`, in every layout and type, against the reference.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::matmul::{Layout, MatmulDims, Write, fwd, reference};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16_EPS, F32_EPS, assert_refused, check, data, device, output, read, upload,
};

const LAYOUTS: [Layout; 2] = [Layout::Normal, Layout::Transposed];

fn inputs(dims: MatmulDims) -> [Vec<f64>; 3] {
    let MatmulDims { m, n, k, batch, .. } = dims;
    [data(1, batch * m * n), data(2, batch * m * k), data(3, batch * k * n)]
}

/// One call on `rung` for factors of type `input` and a result of type `result`, against the reference.
fn agrees(device: &Device, rung: u32, input: DType, result: DType, write: Write, dims: MatmulDims) {
    let [mut expected, a, b] = inputs(dims);
    let mut c = match write {
        Write::Overwrite => output(device, result, expected.len()),
        Write::Accumulate => upload(device, result, &expected),
    };
    let (a_dev, b_dev) = (upload(device, input, &a), upload(device, input, &b));
    with_rung(rung, || fwd(device, &mut c, &a_dev, &b_dev, write, dims)).expect("needs hold");
    reference::fwd(&mut expected, &a, &b, write, dims);
    // Inputs are exact and at most 3.5 in size; each of k + 1 additions rounds by half of eps of the
    // sum of sizes so far. A bf16 result is rounded once more.
    let terms = (dims.k + 1) as f64;
    let rel = if result == DType::BF16 { BF16_EPS } else { F32_EPS };
    let tol = Tol { abs: 12.25 * terms * terms * F32_EPS / 2.0, rel };
    check(&format!("matmul v{rung} {input}->{result} {write:?} {dims:?}"), &c, &expected, tol);
}

fn agrees_everywhere(device: &Device, rung: u32, types: &[(DType, DType)], extents: &[[usize; 4]]) {
    for &[m, n, k, batch] in extents {
        for (a, b) in LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b))) {
            for &(input, result) in types {
                for write in [Write::Overwrite, Write::Accumulate] {
                    let dims = MatmulDims { batch, a, b, ..MatmulDims::new(m, n, k) };
                    agrees(device, rung, input, result, write, dims);
                }
            }
        }
    }
}

const F32: (DType, DType) = (DType::F32, DType::F32);
const BF16: (DType, DType) = (DType::BF16, DType::BF16);
const WIDE: (DType, DType) = (DType::BF16, DType::F32);

#[test]
fn v1_agrees() {
    let Some(device) = device() else { return };
    agrees_everywhere(
        &device,
        1,
        &[F32, BF16, WIDE],
        &[[1, 1, 1, 1], [5, 17, 9, 3], [257, 1, 3, 1]],
    );
}

#[test]
fn v2_agrees() {
    let Some(device) = device() else { return };
    // The third is split over blocks, and so are both products of the fourth.
    let extents = [[1, 1, 1, 1], [65, 70, 17, 2], [6, 12, 600, 1], [3, 5, 521, 2]];
    agrees_everywhere(&device, 2, &[F32, BF16, WIDE], &extents);
}

#[test]
fn v3_agrees() {
    let Some(device) = device() else { return };
    // The second reaches past a tile, the third is split over blocks, and so are both products of
    // the fourth.
    let extents = [[8, 8, 8, 1], [72, 88, 136, 2], [8, 16, 840, 1], [16, 8, 520, 2]];
    agrees_everywhere(&device, 3, &[BF16, WIDE], &extents);
    // Extents that are contiguous in neither factor are free: rows of `nn` are k and n long.
    for [m, n, k, batch] in [[1, 1, 8, 1], [13, 37, 72, 1], [65, 65, 40, 1], [3, 5, 520, 2]] {
        let odd = MatmulDims { batch, b: Layout::Transposed, ..MatmulDims::new(m, n, k) };
        for write in [Write::Overwrite, Write::Accumulate] {
            agrees(&device, 3, DType::BF16, DType::BF16, write, odd);
            agrees(&device, 3, DType::BF16, DType::F32, write, odd);
        }
    }
}

#[test]
fn large_tiles_agree() {
    let Some(device) = device() else { return };
    // Many small sums, so that tiles of 128 are chosen: the batch counts as tiles do.
    let dims = MatmulDims { batch: 140, ..MatmulDims::new(72, 72, 8) };
    for (a, b) in LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b))) {
        for out in [DType::BF16, DType::F32] {
            agrees(&device, 3, DType::BF16, out, Write::Overwrite, MatmulDims { a, b, ..dims });
        }
    }
    // Three steps of 32 pass through the four stages of the pipeline.
    agrees(&device, 3, DType::BF16, DType::F32, Write::Accumulate, MatmulDims { k: 96, ..dims });
    for (dtype, out) in
        [(DType::F32, DType::F32), (DType::BF16, DType::BF16), (DType::BF16, DType::F32)]
    {
        agrees(&device, 2, dtype, out, Write::Overwrite, MatmulDims { k: 3, ..dims });
    }
    // One past a tile, and past a step of either rung, where no factor's rows have to be whole.
    let past = MatmulDims { batch: 35, b: Layout::Transposed, ..MatmulDims::new(129, 129, 40) };
    agrees(&device, 3, DType::BF16, DType::BF16, Write::Overwrite, past);
    agrees(&device, 2, DType::F32, DType::F32, Write::Overwrite, MatmulDims { k: 17, ..past });
}

#[test]
fn same_bits_twice() {
    let Some(device) = device() else { return };
    for (rung, dtype) in [(2, DType::F32), (3, DType::BF16)] {
        let dims = MatmulDims::new(16, 24, 1040);
        let [_, a, b] = inputs(dims).map(|x| upload(&device, dtype, &x));
        let run = || {
            let mut c = output(&device, dtype, 16 * 24);
            with_rung(rung, || fwd(&device, &mut c, &a, &b, Write::Overwrite, dims))
                .expect("needs hold");
            read(&c)
        };
        assert_eq!(run(), run());
    }
}

#[test]
fn needs_and_types_are_refused() {
    let Some(device) = device() else { return };
    let try_fwd = |rung, dtype, other, dims: MatmulDims| {
        let [c, a, b] = inputs(dims);
        let mut c = upload(&device, dtype, &c);
        let (a, b) = (upload(&device, dtype, &a), upload(&device, other, &b));
        with_rung(rung, || fwd(&device, &mut c, &a, &b, Write::Overwrite, dims))
    };
    for (n, k) in [(8, 9), (9, 8)] {
        let dims = MatmulDims::new(8, n, k);
        assert_refused(try_fwd(3, DType::BF16, DType::BF16, dims), "[P1]");
    }
    let many = MatmulDims { batch: 65_536, ..MatmulDims::new(1, 8, 8) };
    assert_refused(try_fwd(2, DType::F32, DType::F32, many), "[P1]");
    assert_refused(try_fwd(3, DType::BF16, DType::BF16, many), "[P2]");
    let mixed = try_fwd(1, DType::F32, DType::BF16, MatmulDims::new(8, 8, 8));
    assert!(matches!(mixed, Err(Error::DType { got: DType::BF16, .. })), "{mixed:?}");
}
