//! Latents of texts: fitted, and drawn from fits. Decodes nothing.

use std::sync::Arc;

use ltm_model::{DeviceWeights, ModelConfig, param_table};

use crate::error::argument;
use crate::fit::Observer;
use crate::key::Purpose;
use crate::{
    Batch, Error, FastStep, Gaussian, InferKey, Inference, Latents, Posterior, Precision, Programs,
    Result, Sequences, SlowGradient, Start,
};

/// The distribution of a generation's latents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LatentSource {
    /// The prior: conditioned on the prompt only through the decoder.
    Prior,
    /// `z ~ q(z|prompt)`, fitted to the prompt alone.
    Prompt,
}

/// What latents are drawn from.
#[derive(Clone)]
pub(crate) enum Fitted {
    /// Nothing was fitted.
    Prior,
    Posterior(Arc<Gaussian>, Arc<Posterior>),
    Sample(Arc<Vec<f32>>),
}

/// A prompt with what was fitted to it, which any number of texts may be drawn from.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) tokens: Vec<i32>,
    pub(crate) fit: Vec<FastStep>,
    pub(crate) latents: Fitted,
}

impl Prompt {
    /// Its tokens, the one that documents begin with among them.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The fast steps of its fit; empty where nothing was fitted.
    pub fn fit(&self) -> &[FastStep] {
        &self.fit
    }
}

/// A model with the method that infers its latents, one text at a time.
pub(crate) struct Fitter {
    pub(crate) config: ModelConfig,
    pub(crate) weights: DeviceWeights,
    pub(crate) inference: Inference,
    pub(crate) programs: Programs,
}

impl Fitter {
    /// # Errors
    /// [`Error::Model`] for a configuration or weights that do not fit.
    pub(crate) fn new(
        config: &ModelConfig,
        weights: &DeviceWeights,
        inference: &Inference,
        precision: Precision,
    ) -> Result<Self> {
        config.validate()?;
        weights.check(&param_table(config))?;
        let (device, none) = (weights.device(), SlowGradient::None);
        Ok(Self {
            config: *config,
            weights: weights.clone(),
            inference: inference.clone(),
            programs: Programs::new(config, &device, precision, none)?,
        })
    }

    /// A prompt with latents fitted to it under `seed`, where `latents` asks for that, the model has some and the prompt a
    /// token to predict.
    pub(crate) fn prompt(
        &mut self,
        tokens: &[i32],
        latents: LatentSource,
        seed: u64,
        observer: &mut Observer<'_>,
    ) -> Result<Prompt> {
        self.check_prompt(tokens)?;
        let mut fit = Vec::new();
        let latents = match latents {
            LatentSource::Prompt if self.config.n_latents > 0 && tokens.len() > 1 => {
                let key = InferKey { seed, step: 0, sequences: Sequences::From(0) };
                let inference = self.inference.clone();
                let batch = self.batch(tokens)?;
                self.fit(&inference, &batch, key, &mut |step| {
                    observer(step)?;
                    fit.push(step.clone());
                    Ok(())
                })?
            }
            _ => Fitted::Prior,
        };
        Ok(Prompt { tokens: tokens.to_vec(), fit, latents })
    }

    /// Refuses a prompt that is empty or longer than the context.
    pub(crate) fn check_prompt(&self, prompt: &[i32]) -> Result<()> {
        let max_seq_len = self.config.max_seq_len;
        match prompt.len() {
            0 => {
                let expected = "at least one token, such as the one that documents begin with";
                Err(argument("prompt", expected, "none"))
            }
            tokens if tokens > max_seq_len => Err(Error::PromptTooLong { tokens, max_seq_len }),
            _ => Ok(()),
        }
    }

    /// The method of inference from the posterior before, if there is one.
    pub(crate) fn after(&self, before: &Fitted) -> Inference {
        match before {
            Fitted::Posterior(gaussian, _) => self.inference.from(Start::Given(gaussian.clone())),
            Fitted::Prior | Fitted::Sample(_) => self.inference.clone(),
        }
    }

    /// A text of at least two tokens, each to be predicted from those before it.
    pub(crate) fn batch(&self, tokens: &[i32]) -> Result<Batch> {
        Batch::new(&self.config, 1, &tokens[..tokens.len() - 1], &tokens[1..])
    }

    /// Fits latents to a text.
    pub(crate) fn fit(
        &mut self,
        inference: &Inference,
        batch: &Batch,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Fitted> {
        let [b, t] = batch.shape();
        let mut problem = self.programs.get(b, t)?.problem(&self.weights, batch)?;
        Ok(match inference.infer(&mut problem, key, observer)? {
            Latents::None => Fitted::Prior,
            Latents::Gaussian(gaussian) => {
                let posterior = Arc::new(gaussian.to_host()?);
                Fitted::Posterior(Arc::new(gaussian), posterior)
            }
            Latents::Sample(z) => Fitted::Sample(Arc::new(z.to_f32()?)),
        })
    }

    /// Latents `(L·Z,C)` drawn under `key`: the fit has seen its own noise. Empty for a model without latents.
    pub(crate) fn sample(&self, latents: &Fitted, key: InferKey) -> Result<Vec<f32>> {
        let len = self.config.n_latents * self.config.dim;
        match latents {
            Fitted::Posterior(_, posterior) => posterior.fresh_sample(&self.config, key, 0),
            Fitted::Sample(z) => Ok(z.to_vec()),
            Fitted::Prior => {
                let noise = key.normal([1, len], Purpose::ScoreNoise, 0, [0.0, 1.0])?;
                Ok(self.programs.prior().density(&self.weights)?.sample_f32(&noise))
            }
        }
    }
}
