//! `matmul` on its devices.

use ltm_kernels::cuda::with_rung;
use ltm_kernels::ops::matmul::{Layout, MatmulDims, Write, fwd, reference};
use ltm_kernels::{DType, Device, Error};
use ltm_testkit::Tol;

use crate::harness::{
    BF16, BF16_EPS, F32, F32_EPS, check_values, data, device, output, read, upload,
};
use crate::walk::{Case, Expected, Results, Subject, no_needs};

/// Dims, how the product is written, and the type of the result.
type Product = (MatmulDims, Write, DType);

const LAYOUTS: [Layout; 2] = [Layout::Normal, Layout::Transposed];
const TYPES: [(DType, DType); 3] = [(F32, F32), (BF16, BF16), (BF16, F32)];
const WRITES: [Write; 2] = [Write::Overwrite, Write::Accumulate];

pub fn subject() -> Subject {
    // One more than a grid has blocks along z.
    let too_many = transposed([1, 1, 8, 65_536]);
    let naive = in_layouts(&[[1, 1, 1, 1], [5, 17, 9, 3], [257, 1, 3, 1]]);
    // The second reaches past a tile; the sums of the others are split over blocks.
    let mut tiles = in_layouts(&[[1, 1, 1, 1], [65, 70, 17, 2], [6, 12, 600, 1], [3, 5, 521, 2]]);
    tiles.push(too_many);
    // As above, then rows that are whole in some layouts.
    let mut tensor_cores = in_layouts(&[
        [8, 8, 8, 1],
        [72, 88, 136, 1],
        [8, 16, 840, 1],
        [16, 8, 520, 2],
        [8, 9, 8, 1],
        [9, 8, 8, 1],
    ]);
    // Extents that are contiguous in neither factor are free: rows of `nt` are k long.
    let free = [[1, 1, 8, 1], [13, 37, 72, 1], [65, 65, 40, 1], [3, 5, 520, 2]];
    tensor_cores.extend(free.map(transposed));
    tensor_cores.push(too_many);
    let of_rung =
        |rung, dims| Case { pass: "fwd", calls: calls(dims), holds, run, expected }.of_rung(rung);
    let cases = vec![of_rung(1, naive), of_rung(2, tiles), of_rung(3, tensor_cores)];
    Subject { op: "matmul", cases }
}

fn in_layouts(extents: &[[usize; 4]]) -> Vec<MatmulDims> {
    let layouts = || LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b)));
    let all = extents.iter().flat_map(|[m, n, k, batch]| {
        layouts().map(|(a, b)| MatmulDims { batch: *batch, a, b, ..MatmulDims::new(*m, *n, *k) })
    });
    all.collect()
}

/// With the second factor transposed.
fn transposed([m, n, k, batch]: [usize; 4]) -> MatmulDims {
    MatmulDims { batch, b: Layout::Transposed, ..MatmulDims::new(m, n, k) }
}

/// In every type, overwriting and accumulating.
fn calls(dims: Vec<MatmulDims>) -> Vec<(DType, Product)> {
    let types =
        dims.into_iter().flat_map(|dims| TYPES.map(|(input, output)| (dims, input, output)));
    types
        .flat_map(|(dims, input, output)| WRITES.map(|write| (input, (dims, write, output))))
        .collect()
}

fn holds(need: &str, dtype: DType, product: &Product) -> bool {
    let MatmulDims { m, n, k, batch, a, b } = product.0;
    let lda = if a == Layout::Normal { k } else { m };
    let ldb = if b == Layout::Normal { n } else { k };
    match need {
        "[P1] rows of a and b are multiples of 16 bytes" => lda % 8 == 0 && ldb % 8 == 0,
        "[P1] batch <= 65535" | "[P2] batch <= 65535" => batch <= 65_535,
        _ => no_needs(need, dtype, product),
    }
}

fn inputs(dims: MatmulDims) -> [Vec<f64>; 3] {
    let MatmulDims { m, n, k, batch, .. } = dims;
    [data(1, batch * m * n), data(2, batch * m * k), data(3, batch * k * n)]
}

fn run(device: &Device, input: DType, &(dims, write, result): &Product) -> Results {
    let [c, a, b] = inputs(dims);
    let mut c = match write {
        Write::Overwrite => output(device, result, c.len()),
        Write::Accumulate => upload(device, result, &c),
    };
    fwd(device, &mut c, &upload(device, input, &a), &upload(device, input, &b), write, dims)?;
    Ok(vec![read(&c)])
}

fn expected(_: DType, &(dims, write, result): &Product, _: &[Vec<f64>]) -> Vec<Expected> {
    let [mut c, a, b] = inputs(dims);
    reference::fwd(&mut c, &a, &b, write, dims);
    // Inputs are exact and at most 3.5 in size; each of k + 1 additions rounds by half of eps of the
    // sum of sizes so far. A bf16 result is rounded once more.
    let terms = (dims.k + 1) as f64;
    let rel = if result == BF16 { BF16_EPS } else { F32_EPS };
    vec![("product", c, Tol { abs: 12.25 * terms * terms * F32_EPS / 2.0, rel })]
}

#[test]
fn every_rung_agrees() {
    subject().walk();
}

/// One call on `rung`, against the reference.
fn agrees(device: &Device, rung: u32, input: DType, result: DType, write: Write, dims: MatmulDims) {
    let product = (dims, write, result);
    let results = with_rung(rung, || run(device, input, &product)).expect("needs hold");
    let (what, expected, tol) = &expected(input, &product, &results)[0];
    let case = format!("matmul {what} v{rung} {input}->{result} {write:?} {dims:?}");
    check_values(&case, &results[0], expected, *tol);
}

#[test]
fn large_tiles_agree() {
    let Some(device) = device() else { return };
    // Many small sums, so that tiles of 128 are chosen: the batch counts as tiles do.
    let dims = MatmulDims { batch: 140, ..MatmulDims::new(72, 72, 8) };
    for (a, b) in LAYOUTS.into_iter().flat_map(|a| LAYOUTS.map(|b| (a, b))) {
        for out in [BF16, F32] {
            agrees(&device, 3, BF16, out, Write::Overwrite, MatmulDims { a, b, ..dims });
        }
    }
    // Three steps of 32 pass through the four stages of the pipeline.
    agrees(&device, 3, BF16, F32, Write::Accumulate, MatmulDims { k: 96, ..dims });
    for (dtype, out) in TYPES {
        agrees(&device, 2, dtype, out, Write::Overwrite, MatmulDims { k: 3, ..dims });
    }
    // One past a tile, and past a step of either rung, where no factor's rows have to be whole.
    let past = MatmulDims { batch: 35, b: Layout::Transposed, ..MatmulDims::new(129, 129, 40) };
    agrees(&device, 3, BF16, BF16, Write::Overwrite, past);
    agrees(&device, 2, F32, F32, Write::Overwrite, MatmulDims { k: 17, ..past });
}

#[test]
fn factors_of_two_types_are_refused() {
    let Some(device) = device() else { return };
    let dims = MatmulDims::new(8, 8, 8);
    let [c, a, b] = inputs(dims);
    let (mut c, a) = (upload(&device, F32, &c), upload(&device, F32, &a));
    let mixed = fwd(&device, &mut c, &a, &upload(&device, BF16, &b), Write::Overwrite, dims);
    assert!(matches!(mixed, Err(Error::DType { got: DType::BF16, .. })), "{mixed:?}");
}
