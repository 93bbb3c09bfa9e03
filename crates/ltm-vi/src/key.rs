//! Random numbers as a function of what they are for. Knows no model and no history.

use ltm_kernels::ops::philox::{self, Philox, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};

use crate::Result;
use crate::error::argument;

/// What the random numbers of a fit or an estimate are a function of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InferKey<'a> {
    /// The experiment's seed.
    pub seed: u64,
    /// The training step, or another number that separates one use of the seed from the next.
    pub step: u64,
    /// The numbers of the batch's sequences. A sequence draws the same random numbers in whichever batch it is.
    pub sequences: Sequences<'a>,
}

/// The numbers of the sequences of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sequences<'a> {
    /// Consecutive ones from this one on.
    From(u64),
    /// These, one per sequence of the batch.
    These(&'a [u64]),
    /// Number 0 of each of these seeds, one per sequence of the batch, in place of the key's seed.
    Seeds(&'a [u64]),
}

/// What numbers are drawn for. "tho" and a digit or letter in ASCII separate these streams from others of the
/// same seed; the draw's index is added to the lower half.
#[derive(Clone, Copy, Debug)]
#[repr(u64)]
pub(crate) enum Purpose {
    Sequence = 0x7468_6f30 << 32,
    InitMu = 0x7468_6f31 << 32,
    InitLogVar = 0x7468_6f32 << 32,
    FitNoise = 0x7468_6f33 << 32,
    ScoreNoise = 0x7468_6f34 << 32,
    Token = 0x7468_6f35 << 32,
    MaskCount = 0x7468_6f36 << 32,
    Mask = 0x7468_6f37 << 32,
    Prefix = 0x7468_6f38 << 32,
    SlowNoise = 0x7468_6f39 << 32,
    InitColumns = 0x7468_6f61 << 32,
    FitColumns = 0x7468_6f62 << 32,
    ScoreColumns = 0x7468_6f63 << 32,
    SlowColumns = 0x7468_6f64 << 32,
}

/// What samples of a posterior are for: each kind has noise of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) enum SampleOf {
    Fit,
    Score,
    Slow,
}

impl SampleOf {
    /// What the noise of the numbers and that of a factor's columns are drawn for.
    pub(crate) fn purposes(self) -> [Purpose; 2] {
        match self {
            Self::Fit => [Purpose::FitNoise, Purpose::FitColumns],
            Self::Score => [Purpose::ScoreNoise, Purpose::ScoreColumns],
            Self::Slow => [Purpose::SlowNoise, Purpose::SlowColumns],
        }
    }
}

/// The standard normal noise of one sample of each sequence's posterior.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    /// Of the numbers, `(B,L·Z,C)`.
    pub(crate) numbers: Vec<f32>,
    /// Of a factor's columns, `(B,L,R)`; empty without one.
    pub(crate) columns: Vec<f32>,
}

impl InferKey<'_> {
    /// The seed and the number of the sequence at place `at` in the batch.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there are fewer numbers or seeds than sequences.
    pub fn seed_and_number(&self, at: usize) -> Result<(u64, u64)> {
        let of = |numbers: &[u64]| {
            let expected = "one per sequence of the batch";
            numbers.get(at).copied().ok_or_else(|| argument("sequences", expected, numbers.len()))
        };
        Ok(match self.sequences {
            Sequences::From(first) => (self.seed, first.wrapping_add(at as u64)),
            Sequences::These(numbers) => (self.seed, of(numbers)?),
            Sequences::Seeds(seeds) => (of(seeds)?, 0),
        })
    }

    /// Standard normal numbers `(B,L·Z,C)` of `b` sequences of `len` numbers, scaled and shifted: draw `index` for
    /// `purpose`.
    pub(crate) fn normal(
        &self,
        [b, len]: [usize; 2],
        purpose: Purpose,
        index: usize,
        [mean, std]: [f64; 2],
    ) -> Result<Vec<f32>> {
        let mut one = Buffer::zeros(&Device::Cpu, DType::F32, len)?;
        let mut all = Vec::with_capacity(b * len);
        for sequence in 0..b {
            let key = self.philox_key(sequence, purpose, index)?;
            philox::normal(&Device::Cpu, &mut one, key, mean, std)?;
            all.extend_from_slice(one.as_slice()?);
        }
        Ok(all)
    }

    /// The noise of sample `index` of `b` posteriors of `len` numbers, with `columns` columns in all their layers.
    pub(crate) fn draw(
        &self,
        [b, len, columns]: [usize; 3],
        of: SampleOf,
        index: usize,
    ) -> Result<Draw> {
        let [numbers, column] = of.purposes();
        Ok(Draw {
            numbers: self.normal([b, len], numbers, index, [0.0, 1.0])?,
            columns: match columns {
                0 => Vec::new(),
                columns => self.normal([b, columns], column, index, [0.0, 1.0])?,
            },
        })
    }

    /// The generator of draw `index` for the batch's sequence number `sequence`.
    pub(crate) fn generator(
        &self,
        sequence: usize,
        purpose: Purpose,
        index: usize,
    ) -> Result<Philox> {
        Ok(Philox::new(self.philox_key(sequence, purpose, index)?))
    }

    fn philox_key(&self, sequence: usize, purpose: Purpose, index: usize) -> Result<PhiloxKey> {
        // Each sequence has a seed of its own, so that step, purpose and index are free.
        let (seed, number) = self.seed_and_number(sequence)?;
        let key = PhiloxKey { seed, stream: Purpose::Sequence as u64, step: number };
        let [low, high, ..] = Philox::new(key).u32x4(0);
        Ok(PhiloxKey {
            seed: (u64::from(high) << 32) | u64::from(low),
            stream: purpose as u64 + index as u64,
            step: self.step,
        })
    }
}
