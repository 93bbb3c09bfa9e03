//! Helpers for the tests of ops: rounded inputs, poisoned outputs, runs with several thread counts,
//! the `needs` of contracts and their refusal.

use std::collections::BTreeSet;

use ltm_testkit::seeded;

use crate::cuda::with_rung;
use crate::registry::{self, FILES};
use crate::{Buffer, Error, Result};

/// Relative spacing of `f32`.
pub(crate) const EPS: f64 = f32::EPSILON as f64;

/// `n` seeded random numbers that are exact in both precisions.
pub(crate) fn data(seed: u64, n: usize) -> Vec<f64> {
    seeded(seed, n).into_iter().map(|x| f64::from(x as f32)).collect()
}

pub(crate) fn f32s(x: &[f64]) -> Buffer {
    Buffer::from_vec(x.iter().map(|&x| x as f32).collect::<Vec<f32>>())
}

pub(crate) fn f64s(x: &[f64]) -> Buffer {
    Buffer::from_vec(x.to_vec())
}

/// An `f32` output filled with NaN, so that elements an op fails to write are noticed.
pub(crate) fn out32(n: usize) -> Buffer {
    f32s(&vec![f64::NAN; n])
}

/// An `f64` output filled with NaN, so that elements an op fails to write are noticed.
pub(crate) fn out64(n: usize) -> Buffer {
    f64s(&vec![f64::NAN; n])
}

/// `Σ a·b`: a loss whose gradient with respect to `a` is `b`.
pub(crate) fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Asserts that `run` returns the same bits on pools of 1, 2 and 3 threads, and no NaN.
pub(crate) fn assert_same_on_any_pool(run: impl Fn() -> Vec<f64> + Sync) {
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.expect("threads start").install(&run)
    };
    let one = on(1);
    assert!(one == on(2) && one == on(3), "results depend on the number of threads");
}

/// A file in an op's folder under `kernels/`, and a line of its contract's `needs`.
pub(crate) type Need = (&'static str, &'static str);

/// Every need in the contracts of an op's kernels.
pub(crate) fn needs(op: &str) -> BTreeSet<Need> {
    let files = FILES.iter().filter(|file| file.op == op);
    let needs = files.flat_map(|file| {
        let (_, name) = file.name.split_once('/').expect("a file is in its op's folder");
        file.needs.iter().map(move |need| (name, *need))
    });
    needs.collect()
}

/// The need for which `choose` rejects the rung of this file.
#[track_caller]
pub(crate) fn refusal(op: &str, file: &'static str, choose: impl FnOnce() -> Result<u32>) -> Need {
    let rung = registry::file(&format!("{op}/{file}")).expect("a file of the table").rung;
    match with_rung(rung, choose) {
        Err(Error::Unsupported { op: by, rung: got, need }) if (by, got) == (op, rung) => {
            (file, need)
        }
        other => panic!("{file} is not refused: {other:?}"),
    }
}

/// Whether `choose` accepts this rung when it is requested.
pub(crate) fn taken(rung: u32, choose: impl FnOnce() -> Result<u32>) -> bool {
    with_rung(rung, choose) == Ok(rung)
}
