//! Where a fit begins. Knows no method.

use std::sync::Arc;

use ltm_autodiff::Plan;
use ltm_kernels::Buffer;

use crate::key::{Purpose, SampleOf};
use crate::{Error, Extents, Factor, Gaussian, InferKey, Initial, Posterior, Problem, Result};

/// The length of the columns that a fit begins with. At length 0 the gradient has mean 0, so that no direction would grow but
/// by noise: a column along a direction in which the posterior is wider grows in proportion to its length. A random one costs
/// 0.013 nats.
const COLUMN_LENGTH: f64 = 0.5;

/// The posterior that a fit begins with.
#[derive(Clone, Debug)]
pub enum Start {
    /// The prior's mean and variance; of a learned prior those of a Gaussian like it.
    Prior,
    /// Drawn under the fit's key, as in the published code.
    Drawn(Initial),
    /// What the model's encoder predicts: a learned start, and amortised inference when no step follows.
    Encoder,
    /// What the model's encoder predicts, or the prior's mean and variance for a model without one.
    EncoderOrPrior,
    /// A posterior kept from before, of as many sequences.
    Given(Arc<Gaussian>),
}

impl Start {
    /// Whether a model of these extents begins at what its encoder predicts.
    pub(crate) fn encodes(&self, model: Extents) -> bool {
        match self {
            Self::Encoder => true,
            Self::EncoderOrPrior => model.has_encoder,
            Self::Prior | Self::Drawn(_) | Self::Given(_) => false,
        }
    }
}

impl Problem<'_> {
    /// The posterior that `start` stands for. All but a given one have noise drawn under `key`.
    ///
    /// # Errors
    /// [`Error::Unsuitable`] for a model without latents, or an encoder that it does not have;
    /// [`Error::Argument`] for a given posterior of another shape; [`Error::Kernel`] when memory runs out, and
    /// [`Error::Autodiff`] when the encoder fails.
    pub fn start(&mut self, start: &Start, key: InferKey) -> Result<Gaussian> {
        let extents = self.extents();
        if extents.n_latents == 0 {
            return Err(crate::suits::no_latents());
        }
        let [b, _] = self.batch().shape();
        let shape = [b, extents.latent_len()];
        let (device, dtype) = (self.device(), self.dtype());
        let noise = || key.normal(shape, Purpose::FitNoise, 0, [0.0, 1.0]);
        let posterior = match start {
            Start::Prior => {
                let [mean, log_var] = self.prior()?.moments(shape[1]);
                let (mu, log_var) = (mean.repeat(b), log_var.repeat(b));
                Posterior { mu, log_var, noise: noise()?, factor: None }
            }
            Start::Drawn(initial) => Posterior::drawn(extents, *initial, b, key)?,
            Start::Encoder => {
                let noise = crate::latents::upload(&noise()?, &device, dtype)?;
                let [mu, log_var] = self.encode()?;
                return Ok(Gaussian { mu, log_var, noise, factor: None });
            }
            Start::EncoderOrPrior => {
                let start = if start.encodes(extents) { Start::Encoder } else { Start::Prior };
                return self.start(&start, key);
            }
            Start::Given(gaussian) => {
                self.check_gaussian(gaussian)?;
                return gaussian.try_clone();
            }
        };
        Gaussian::new(&posterior, &device, dtype)
    }

    /// `q` for a fit with `rank` columns per layer: with its own where it has as many, with short random ones otherwise.
    pub(crate) fn with_columns(&self, q: Gaussian, rank: usize, key: InferKey) -> Result<Gaussian> {
        if q.rank() == rank {
            return Ok(q);
        }
        if rank == 0 {
            return Ok(Gaussian { factor: None, ..q });
        }
        let (extents, [b, _]) = (self.extents(), self.batch().shape());
        let len = extents.latent_len();
        let std = COLUMN_LENGTH / ((len / extents.n_layers) as f64).sqrt();
        let columns = key.normal([b, rank * len], Purpose::InitColumns, 0, [0.0, std])?;
        let noise = key.draw([b, len, rank * extents.n_layers], SampleOf::Fit, 0)?.columns;
        let upload =
            |numbers: &[f32]| crate::latents::upload(numbers, &self.device(), self.dtype());
        let factor = Factor { columns: upload(&columns)?, noise: upload(&noise)? };
        Ok(Gaussian { factor: Some(factor), ..q })
    }

    /// Mean and log-variance that the encoder predicts.
    fn encode(&mut self) -> Result<[Buffer; 2]> {
        self.load_batch()?;
        let program = &mut *self.program;
        let Some(encoder) = &program.nodes.encoder else { return Err(crate::suits::no_encoder()) };
        let outputs = [encoder.encoded.mu, encoder.encoded.log_var];
        let plan = match &mut program.plans.encoder {
            Some(plan) => plan,
            empty => empty.insert(Plan::new(
                &program.graph,
                &program.device,
                program.precision,
                &outputs,
            )?),
        };
        plan.run(program.store.with(self.weights.parameters()))?;
        let copy = |value| Ok::<_, Error>(plan.output(value)?.try_clone()?);
        Ok([copy(outputs[0])?, copy(outputs[1])?])
    }
}
