//! Counter-based random numbers: number `i` of a key is a pure function of the key and `i`, so it
//! does not depend on the order of calls or the number of threads.

mod cuda;
pub mod reference;

use rayon::prelude::*;

use crate::shape::{check_extents, check_len, on_float};
use crate::{Buffer, Device, Float, Result};

use super::parallel::CHUNK;

const OP: &str = "philox";

/// Identifies one stream of random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PhiloxKey {
    /// The experiment's seed.
    pub seed: u64,
    /// The purpose of the numbers; streams of one seed never overlap.
    pub stream: u64,
    /// When they are drawn, for example the training step.
    pub step: u64,
}

/// The numbers of one [`PhiloxKey`], by index.
#[derive(Clone, Copy, Debug)]
pub struct Philox {
    key: [u32; 2],
    high: [u32; 2],
}

impl Philox {
    /// The generator of `key`.
    ///
    /// Philox has 192 bits of key and counter; an index and the three fields need 256. So `(stream,
    /// step)` is encrypted once under `seed`, a bijection, and the result is the key and the upper
    /// counter words.
    pub fn new(key: PhiloxKey) -> Self {
        let [step_low, step_high] = words(key.step);
        let [stream_low, stream_high] = words(key.stream);
        let counter = [step_low, step_high, stream_low, stream_high];
        let mixed = reference::philox4x32_10(counter, words(key.seed));
        Self { key: [mixed[0], mixed[1]], high: [mixed[2], mixed[3]] }
    }

    /// The key and the upper counter words, which fully determine this generator; used in the
    /// tables of [`normal_rows`].
    pub fn words(&self) -> [u32; 4] {
        let ([k0, k1], [h0, h1]) = (self.key, self.high);
        [k0, k1, h0, h1]
    }

    /// The generator with these [`words`](Self::words).
    pub fn from_words([k0, k1, h0, h1]: [u32; 4]) -> Self {
        Self { key: [k0, k1], high: [h0, h1] }
    }

    /// Block `i`: 128 random bits.
    pub fn u32x4(&self, i: u64) -> [u32; 4] {
        let [low, high] = words(i);
        reference::philox4x32_10([low, high, self.high[0], self.high[1]], self.key)
    }

    /// Number `i`, uniform in `[0, 1)` with 53 random bits.
    pub fn uniform(&self, i: u64) -> f64 {
        let [a, b, _, _] = self.u32x4(i);
        bits53(a, b) * SCALE53
    }

    /// Number `i`, in `0..n` (0 if `n` is 0); see [`below`].
    pub fn below(&self, i: u64, n: u64) -> u64 {
        let [a, b, _, _] = self.u32x4(i);
        let bits = (u64::from(b) << 32) | u64::from(a);
        ((u128::from(bits) * u128::from(n)) >> 64) as u64
    }

    /// The standard normal numbers `2·pair` and `2·pair + 1`, by the Box–Muller transform.
    fn normal_pair(&self, pair: u64) -> [f64; 2] {
        let [a, b, c, d] = self.u32x4(pair);
        // The radius uses a uniform number in (0, 1], whose logarithm is finite.
        let radius = (-2.0 * ((bits53(a, b) + 1.0) * SCALE53).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * bits53(c, d) * SCALE53).sin_cos();
        [radius * cos, radius * sin]
    }
}

const SCALE53: f64 = 1.0 / (1u64 << 53) as f64;

/// The upper 53 of 64 bits as an integer-valued double.
fn bits53(low: u32, high: u32) -> f64 {
    (((u64::from(high) << 32) | u64::from(low)) >> 11) as f64
}

fn words(x: u64) -> [u32; 2] {
    [x as u32, (x >> 32) as u32]
}

/// Fills `out` with normal numbers; element `i` depends only on `key` and `i`.
///
/// # Errors
/// [`Error::DType`](crate::Error::DType) for an integer buffer.
///
/// # Source
/// Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"; Box and Muller 1958, in `f64` whatever
/// the buffer's type.
pub fn normal(
    device: &Device,
    out: &mut Buffer,
    key: PhiloxKey,
    mean: f64,
    std: f64,
) -> Result<()> {
    let philox = Philox::new(key);
    match device {
        Device::Cuda(context) => cuda::normal(context, out, philox, mean, std),
        Device::Cpu => on_float!(out.dtype(), T => {
            draw::<T>(out.as_mut_slice()?, philox, mean, std);
            Ok(())
        }),
    }
}

fn draw<T: Float>(out: &mut [T], philox: Philox, mean: f64, std: f64) {
    out.par_chunks_mut(CHUNK).enumerate().for_each(|(chunk, out)| {
        let first = chunk * CHUNK / 2;
        for (pair, out) in out.chunks_mut(2).enumerate() {
            let draws = philox.normal_pair((first + pair) as u64);
            out.iter_mut().zip(draws).for_each(|(x, z)| *x = T::from_f64(mean + std * z));
        }
    });
}

/// Extents of [`normal_rows`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormalRowsDims {
    /// Rows of the table of generators, one per step.
    pub steps: usize,
    /// Rows to draw, each with its own generator.
    pub rows: usize,
    /// Numbers per row.
    pub n: usize,
}

impl NormalRowsDims {
    /// Refuses empty extents and products past the address space.
    ///
    /// # Errors
    /// [`Error::Dims`](crate::Error::Dims) naming the extent.
    pub fn validate(&self) -> Result<()> {
        check_extents(OP, &[("rows", self.rows), ("n", self.n)])?;
        check_extents(OP, &[("steps", self.steps), ("rows", self.rows), ("words", 4)])
    }
}

/// Fills each row of `out` with standard normal numbers: those that [`normal`] draws with the row's
/// generator for step `step[0]`. Generators and step number are on the device, so many steps can
/// run without the host.
///
/// # Shapes
/// `keys (S,rows,4)` of `i32` holds the bits of [`Philox::words`], `step (1)` of `i32` counts from 0 →
/// `out (rows,n)`.
///
/// # Errors
/// [`Error::Dims`](crate::Error::Dims), [`Error::Shape`](crate::Error::Shape) or
/// [`Error::DType`](crate::Error::DType) when dims, lengths or types disagree;
/// [`Error::Index`](crate::Error::Index) on the CPU when the step is outside the table; on CUDA
/// `out` becomes NaN then.
pub fn normal_rows(
    device: &Device,
    out: &mut Buffer,
    keys: &Buffer,
    step: &Buffer,
    dims: NormalRowsDims,
) -> Result<()> {
    dims.validate()?;
    check_len(OP, "out", out.len(), dims.rows * dims.n)?;
    check_len(OP, "keys", keys.len(), dims.steps * dims.rows * 4)?;
    check_len(OP, "step", step.len(), 1)?;
    match device {
        Device::Cuda(context) => cuda::normal_rows(context, out, keys, step, dims),
        Device::Cpu => on_float!(out.dtype(), T => {
            let (keys, got) = (keys.as_slice::<i32>()?.as_chunks::<4>().0, step.as_slice::<i32>()?[0]);
            let step = usize::try_from(got).ok().filter(|&step| step < dims.steps);
            let limit = dims.steps;
            let step = step.ok_or(crate::Error::Index { op: OP, position: 0, got: got.into(), limit })?;
            let rows = out.as_mut_slice::<T>()?.chunks_exact_mut(dims.n);
            for (row, words) in rows.zip(&keys[step * dims.rows..]) {
                draw(row, Philox::from_words(words.map(i32::cast_unsigned)), 0.0, 1.0);
            }
            Ok(())
        }),
    }
}

/// Number `i` of `key`, in `0..n` (0 if `n` is 0).
///
/// The upper half of the product of 64 random bits with `n`; no value is favoured by more than
/// `n/2^64`.
pub fn below(key: PhiloxKey, i: u64, n: u64) -> u64 {
    Philox::new(key).below(i, n)
}

/// Shuffles `items` (Fisher–Yates); the order depends only on `key` and the length.
pub fn shuffle(key: PhiloxKey, items: &mut [u32]) {
    let philox = Philox::new(key);
    for i in (1..items.len()).rev() {
        items.swap(i, philox.below(i as u64, i as u64 + 1) as usize);
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};

    use super::*;
    use crate::Error;
    use crate::ops::testing::{EPS, assert_same_on_any_pool, out32, out64};

    const KEY: PhiloxKey = PhiloxKey { seed: 1, stream: 2, step: 3 };

    #[test]
    fn known_answers() {
        let check = |counter, key, expected| {
            assert_eq!(reference::philox4x32_10(counter, key), expected);
        };
        // Test vectors published with Random123.
        check([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        check([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    #[test]
    fn every_part_of_the_key_and_the_index_matter() {
        let base = Philox::new(KEY).u32x4(0);
        for (key, i) in [
            (PhiloxKey { seed: 2, ..KEY }, 0),
            (PhiloxKey { stream: 1 << 40, ..KEY }, 0),
            (PhiloxKey { step: 4, ..KEY }, 0),
            (PhiloxKey { stream: 3, step: 2, ..KEY }, 0),
            (KEY, 1),
            (KEY, 1 << 32),
        ] {
            assert_ne!(Philox::new(key).u32x4(i), base, "{key:?} {i}");
        }
    }

    #[test]
    fn normal_has_the_moments_asked_for_and_an_element_depends_on_its_index_alone() {
        let n = 100_001;
        let draw = |n, mut out: Buffer| {
            normal(&Device::Cpu, &mut out, KEY, 3.0, 2.0).expect("a float");
            out.to_f64().expect("on the CPU")[..n].to_vec()
        };
        let z = draw(n, out64(n));
        let mean = z.iter().sum::<f64>() / n as f64;
        let variance = z.iter().map(|z| (z - mean) * (z - mean)).sum::<f64>() / n as f64;
        // Five standard errors: 2/sqrt(n) for the mean, 4·sqrt(2/n) for the variance.
        assert_close(&[mean], &[3.0], Tol { abs: 5.0 * 2.0 / (n as f64).sqrt(), rel: 0.0 });
        assert_close(
            &[variance],
            &[4.0],
            Tol { abs: 5.0 * 4.0 * (2.0 / n as f64).sqrt(), rel: 0.0 },
        );
        assert_eq!(draw(777, out64(777)), z[..777]);
        assert_close(&draw(777, out32(777)), &z[..777], Tol { abs: 0.0, rel: EPS / 2.0 });
        assert_same_on_any_pool(|| draw(n, out32(n)));
    }

    #[test]
    fn rows_are_those_of_their_generators() {
        let dims = NormalRowsDims { steps: 2, rows: 3, n: 7 };
        let key = |i| PhiloxKey { stream: i, ..KEY };
        let words = (0..6).flat_map(|i| Philox::new(key(i)).words().map(u32::cast_signed));
        let keys = Buffer::from_vec(words.collect::<Vec<i32>>());
        let take = |step: i32| {
            let mut out = out32(21);
            normal_rows(&Device::Cpu, &mut out, &keys, &Buffer::from_vec(vec![step]), dims)?;
            out.to_f64()
        };
        let expected = (3..6).flat_map(|i| {
            let mut row = out32(7);
            normal(&Device::Cpu, &mut row, key(i), 0.0, 1.0).expect("a float");
            row.to_f64().expect("on the CPU")
        });
        assert_eq!(take(1), Ok(expected.collect()));
        for got in [2, -1] {
            let outside = Error::Index { op: OP, position: 0, got: got.into(), limit: 2 };
            assert_eq!(take(got), Err(outside));
        }
    }

    #[test]
    fn uniform_and_below_stay_in_range_and_cover_it() {
        let philox = Philox::new(KEY);
        let mut counts = [0u32; 7];
        for i in 0..70_000 {
            assert!((0.0..1.0).contains(&philox.uniform(i)));
            counts[below(KEY, i, 7) as usize] += 1;
        }
        // Five standard deviations of a binomial count of mean 10_000.
        assert!(counts.iter().all(|&count| count.abs_diff(10_000) < 465), "{counts:?}");
        assert_eq!([below(KEY, 0, 0), below(KEY, 0, 1)], [0, 0]);
    }

    #[test]
    fn shuffle_permutes() {
        let mut items: Vec<u32> = (0..1000).collect();
        shuffle(KEY, &mut items);
        assert_ne!(items[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        items.sort_unstable();
        assert!(items.iter().enumerate().all(|(i, &item)| i as u32 == item));
        shuffle(KEY, &mut []);
    }

    #[test]
    fn refuses_integers() {
        let mut integers = Buffer::from_vec(vec![0i32; 3]);
        assert!(matches!(
            normal(&Device::Cpu, &mut integers, KEY, 0.0, 1.0),
            Err(Error::DType { .. })
        ));
    }
}
