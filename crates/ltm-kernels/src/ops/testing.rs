//! What the ops' tests share: rounded inputs, poisoned outputs, runs on pools of several sizes.

use ltm_testkit::seeded;

use crate::Buffer;

/// Relative spacing of `f32`.
pub(crate) const EPS: f64 = f32::EPSILON as f64;

/// `n` seeded numbers that both precisions hold exactly.
pub(crate) fn data(seed: u64, n: usize) -> Vec<f64> {
    seeded(seed, n).into_iter().map(|x| f64::from(x as f32)).collect()
}

pub(crate) fn f32s(x: &[f64]) -> Buffer {
    Buffer::from_vec(x.iter().map(|&x| x as f32).collect::<Vec<f32>>())
}

pub(crate) fn f64s(x: &[f64]) -> Buffer {
    Buffer::from_vec(x.to_vec())
}

/// An output in `f32` in which what an op forgets to write stays visible.
pub(crate) fn out32(n: usize) -> Buffer {
    f32s(&vec![f64::NAN; n])
}

/// An output in `f64` in which what an op forgets to write stays visible.
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
