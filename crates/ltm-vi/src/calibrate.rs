//! The scales of an encoder, set from texts before training. Knows no optimiser.

use ltm_autodiff::Plan;
use ltm_model::encoder::Normed;
use ltm_model::{DeviceWeights, Weights};

use crate::{Batch, Program, Result};

/// Added to a variance, so that a feature that is the same for all texts stays finite.
const EPS: f64 = 1e-5;

impl Program {
    /// `weights` with the encoder's gains and shifts set such that every number that it [normalises](Normed) has mean 0
    /// and variance 1 over the texts of `batches`; unchanged for a model without an encoder.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for another model's weights, [`Error::Argument`](crate::Error::Argument) for
    /// a batch of another shape or vocabulary, [`Error::Autodiff`](crate::Error::Autodiff) when a kernel fails.
    pub fn calibrated(&mut self, weights: &Weights, batches: &[Batch]) -> Result<Weights> {
        let mut calibrated = weights.clone();
        let normed = self.nodes.encoder.as_ref().map(|encoder| encoder.encoded.normed.clone());
        // Each depends on those before it.
        for Normed { x, params } in normed.unwrap_or_default() {
            let device_weights =
                DeviceWeights::of(&self.params, &calibrated, &self.device, self.precision)?;
            let mut plan = Plan::new(&self.graph, &self.device, self.precision, &[x])?;
            let mut moments = Moments::default();
            for batch in batches {
                let mut problem = self.problem(&device_weights, batch)?;
                problem.load_batch()?;
                plan.run(problem.program.store.with(device_weights.parameters()))?;
                let [_, t] = batch.shape();
                let numbers = plan.output(x)?.to_f64()?;
                let n = numbers.len() / batch.shape()[0];
                let has_text = |targets: &[i32]| targets.iter().any(|id| *id >= 0);
                let rows = numbers.chunks(n).zip(batch.targets().chunks(t));
                for (row, _) in rows.filter(|(_, targets)| has_text(targets)) {
                    moments.add(row);
                }
            }
            let [gains, shifts] = moments.scales();
            if !gains.is_empty() {
                calibrated.params[params.gain] = gains;
                calibrated.params[params.shift] = shifts;
            }
        }
        Ok(calibrated)
    }
}

/// Running sums of each number.
#[derive(Default)]
struct Moments {
    rows: f64,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Moments {
    fn add(&mut self, row: &[f64]) {
        self.rows += 1.0;
        self.sums.resize(row.len(), 0.0);
        self.squares.resize(row.len(), 0.0);
        for ((sum, square), x) in self.sums.iter_mut().zip(&mut self.squares).zip(row) {
            *sum += x;
            *square += x * x;
        }
    }

    /// The gains and shifts that bring each number to mean 0 and variance 1.
    fn scales(&self) -> [Vec<f32>; 2] {
        let scale = |(sum, square): (&f64, &f64)| {
            let mean = sum / self.rows;
            let variance = (square / self.rows - mean * mean).max(0.0);
            let gain = 1.0 / (variance + EPS).sqrt();
            (gain as f32, (-mean * gain) as f32)
        };
        let scales = self.sums.iter().zip(&self.squares).map(scale);
        let (gains, shifts) = scales.unzip();
        [gains, shifts]
    }
}
