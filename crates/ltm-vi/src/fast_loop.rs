//! Tables with which a device runs the fast loop without the host: rates, noise, and the measurements of
//! each step. Knows no model and no plan.

use ltm_kernels::cuda::Recording;
use ltm_kernels::ops::adamw::{AdamW, Factors};
use ltm_kernels::ops::elementwise::{self, RecordDims};
use ltm_kernels::ops::philox::{self, NormalRowsDims};
use ltm_kernels::{Buffer, DType, Device};

use crate::posterior::Purpose;
use crate::{FastStep, InferConfig, InferKey, Noise, Result};

/// The device's side of a fit of `S` steps.
pub(crate) struct FastLoop {
    steps: usize,
    noise: Noise,
    /// Numbers of one step's NLL and KL.
    widths: [usize; 2],
    /// AdamW's factors, `(S,8)`.
    pub factors: Buffer,
    /// Generators of each step's next noise, `(S,B,4)`.
    keys: Buffer,
    keys_dims: NormalRowsDims,
    /// The step, `(1)`.
    pub step: Buffer,
    /// The measurements of each step, `(S, B·T + B·L)`.
    history: Buffer,
    /// One step, once it has been recorded; or why it cannot be, so that every step is run as it is.
    pub recording: Option<Result<Recording>>,
}

impl FastLoop {
    /// Tables for `infer` and `b` sequences of `n` latent numbers; a step measures `widths` numbers.
    pub fn new(
        device: &Device,
        infer: &InferConfig,
        b: usize,
        n: usize,
        widths: [usize; 2],
    ) -> Result<Self> {
        let steps = infer.steps;
        let floats = |len| Buffer::zeros(device, DType::F32, len);
        let integers = |len| Buffer::zeros(device, DType::I32, len);
        Ok(Self {
            steps,
            noise: infer.noise,
            widths,
            factors: floats(steps * 8)?,
            keys: integers(steps * b * 4)?,
            keys_dims: NormalRowsDims { steps, rows: b, n },
            step: integers(1)?,
            history: floats(steps * (widths[0] + widths[1]))?,
            recording: None,
        })
    }

    /// Whether the tables, and with them a recording, fit this configuration.
    pub fn serves(&self, infer: &InferConfig) -> bool {
        self.steps == infer.steps && self.noise == infer.noise
    }

    /// Fills the tables for a fit and sets the step to 0.
    pub fn begin(&mut self, infer: &InferConfig, progress: f64, key: InferKey) -> Result<()> {
        let InferConfig { beta1, beta2, eps, weight_decay, .. } = *infer;
        let (mut factors, mut keys) = (Vec::new(), Vec::new());
        for step in 0..self.steps {
            let lr = infer.lr_at(step, progress);
            let options = AdamW { lr, beta1, beta2, eps, weight_decay };
            factors.extend(Factors::<f32>::new(options, 1.0, step as u64 + 1).to_row());
            for sequence in 0..self.keys_dims.rows {
                let generator = key.generator(sequence, Purpose::FitNoise, step + 1);
                keys.extend(generator.words().map(u32::cast_signed));
            }
        }
        self.factors.write_f32(&factors)?;
        self.keys.write_i32(&keys)?;
        Ok(self.step.write_i32(&[0])?)
    }

    /// Records the measurements of the current step.
    pub fn record(&mut self, device: &Device, nll: &Buffer, kl: &Buffer) -> Result<()> {
        let [n, m] = self.widths;
        let dims = RecordDims { rows: self.steps, width: n + m, offset: 0, n };
        elementwise::record(device, &mut self.history, nll, &self.step, dims)?;
        let dims = RecordDims { offset: n, n: m, ..dims };
        Ok(elementwise::record(device, &mut self.history, kl, &self.step, dims)?)
    }

    /// Draws the next noise, if it is fresh, and increments the step.
    pub fn advance(&mut self, device: &Device, noise: &mut Buffer) -> Result<()> {
        if self.noise == Noise::Fresh {
            philox::normal_rows(device, noise, &self.keys, &self.step, self.keys_dims)?;
        }
        Ok(elementwise::increment(device, &mut self.step)?)
    }

    /// The measurements of all steps of a fit; waits for the device.
    pub fn steps(
        &self,
        infer: &InferConfig,
        progress: f64,
        n_layers: usize,
    ) -> Result<Vec<FastStep>> {
        let history = self.history.to_f64()?;
        let rows = history.chunks(self.widths[0] + self.widths[1]).enumerate();
        let read = |(step, row): (usize, &[f64])| {
            let (nll, kl) = row.split_at(self.widths[0]);
            FastStep::new(step, infer.lr_at(step, progress), nll.iter().sum(), kl, n_layers)
        };
        Ok(rows.map(read).collect())
    }
}
