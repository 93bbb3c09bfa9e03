//! The device's side of a fit without the host: what each step reads, and where it writes what it measures. Knows
//! neither the method nor the model.

use ltm_kernels::cuda::Recording;
use ltm_kernels::ops::elementwise::{self, RecordDims};
use ltm_kernels::ops::philox::{self, NormalRowsDims};
use ltm_kernels::{Buffer, DType, Device};

use crate::key::{Purpose, SampleOf};
use crate::{Error, InferKey, Noise, Result, Units};

/// The device's side of a fit of `S` steps.
pub(crate) struct Tables {
    steps: usize,
    noise: Noise,
    units: Units,
    /// Numbers of one step's NLL and KL.
    widths: [usize; 2],
    /// AdamW's factors of means and log-variances, and those of columns, each `(S,8)`.
    pub(crate) factors: [Buffer; 2],
    /// Generators of each step's next noise of the numbers, and of the columns where a factor has any.
    drawn: Vec<Drawn>,
    /// The step, `(1)`.
    pub(crate) step: Buffer,
    /// The measurements of each step, `(S, B·T + B·L)`.
    history: Buffer,
    /// One step, once it has been recorded; or why it cannot be, so that every step is run as it is.
    pub(crate) recording: Option<Result<Recording>>,
    /// The weights whose memory it reads.
    pub(crate) recorded_of: u64,
}

/// Generators of one input's noise.
struct Drawn {
    purpose: Purpose,
    /// `(S,B,4)`.
    keys: Buffer,
    dims: NormalRowsDims,
}

impl Tables {
    /// Tables for `steps` steps on `b` sequences whose samples take `numbers` numbers of noise, those of columns last; a step
    /// measures `widths` numbers.
    pub(crate) fn new(
        device: &Device,
        steps: usize,
        (noise, units): (Noise, Units),
        b: usize,
        numbers: [usize; 2],
        widths: [usize; 2],
    ) -> Result<Self> {
        let floats = |len| Buffer::zeros(device, DType::F32, len);
        let integers = |len| Buffer::zeros(device, DType::I32, len);
        let inputs = SampleOf::Fit.purposes().into_iter().zip(numbers).filter(|(_, n)| *n > 0);
        let drawn = inputs.map(|(purpose, n)| {
            let dims = NormalRowsDims { steps, rows: b, n };
            Ok(Drawn { purpose, keys: integers(steps * b * 4)?, dims })
        });
        Ok(Self {
            steps,
            noise,
            units,
            widths,
            factors: [floats(steps * 8)?, floats(steps * 8)?],
            drawn: drawn.collect::<Result<_>>()?,
            step: integers(1)?,
            history: floats(steps * (widths[0] + widths[1]))?,
            recording: None,
            recorded_of: 0,
        })
    }

    /// Whether the tables, and with them a recording, are for such fits.
    pub(crate) fn serve(&self, steps: usize, noise: Noise, units: Units) -> bool {
        (self.steps, self.noise, self.units) == (steps, noise, units)
    }

    /// Why a step could not be recorded, if it could not.
    pub(crate) fn recording_failure(&self) -> Option<&Error> {
        self.recording.as_ref()?.as_ref().err()
    }

    /// Fills the tables for a fit with these factors, `(S,8)`, and sets the step to 0.
    pub(crate) fn begin(&mut self, factors: [&[f32]; 2], key: InferKey) -> Result<()> {
        for Drawn { purpose, keys, dims } in &mut self.drawn {
            let mut words = Vec::new();
            for step in 0..self.steps {
                for sequence in 0..dims.rows {
                    let generator = key.generator(sequence, *purpose, step + 1)?;
                    words.extend(generator.words().map(u32::cast_signed));
                }
            }
            keys.write_i32(&words)?;
        }
        for (own, factors) in self.factors.iter_mut().zip(factors) {
            own.write_f32(factors)?;
        }
        Ok(self.step.write_i32(&[0])?)
    }

    /// Records the measurements of the current step.
    pub(crate) fn record(&mut self, device: &Device, nll: &Buffer, kl: &Buffer) -> Result<()> {
        let [n, m] = self.widths;
        let dims = RecordDims { rows: self.steps, width: n + m, offset: 0, n };
        elementwise::record(device, &mut self.history, nll, &self.step, dims)?;
        let dims = RecordDims { offset: n, n: m, ..dims };
        Ok(elementwise::record(device, &mut self.history, kl, &self.step, dims)?)
    }

    /// Draws the next noise of input number `input`, if it is fresh.
    pub(crate) fn draw(&self, device: &Device, noise: &mut Buffer, input: usize) -> Result<()> {
        if self.noise == Noise::Fresh {
            let Drawn { keys, dims, .. } = &self.drawn[input];
            philox::normal_rows(device, noise, keys, &self.step, *dims)?;
        }
        Ok(())
    }

    /// Increments the step.
    pub(crate) fn advance(&mut self, device: &Device) -> Result<()> {
        Ok(elementwise::increment(device, &mut self.step)?)
    }

    /// The NLL and the KL of every step of a fit; waits for the device.
    pub(crate) fn measured(&self) -> Result<Vec<(Vec<f64>, Vec<f64>)>> {
        let [n, m] = self.widths;
        let history = self.history.to_f64()?;
        let row = |row: &[f64]| {
            let (nll, kl) = row.split_at(n);
            (nll.to_vec(), kl.to_vec())
        };
        Ok(history.chunks(n + m).map(row).collect())
    }
}
