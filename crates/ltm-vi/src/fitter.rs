//! Latents of texts: fitted, and drawn from fits. Decodes nothing.

use std::sync::Arc;

use ltm_model::{DeviceWeights, ModelConfig, param_table};

use crate::error::argument;
use crate::fit::Observer;
use crate::key::Purpose;
use crate::{
    Batch, Error, Gaussian, InferKey, Inference, Latents, Posterior, Precision, Programs, Result,
    Sequences, SlowGradient, Start,
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
    /// Of one text.
    Posterior(Arc<Posterior>),
    Sample(Arc<[f32]>),
}

/// A prompt with what was fitted to it, which any number of texts may be drawn from.
#[derive(Clone)]
pub struct Prompt {
    pub(crate) tokens: Vec<i32>,
    pub(crate) latents: Fitted,
}

impl Prompt {
    /// Its tokens, the one that documents begin with among them.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }
}

/// A model with the method that infers its latents.
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

    /// Prompts of one length, each with latents fitted to it under a seed of its own, where `latents` asks for that, the
    /// model has some and the prompts a token to predict. Each is fitted as it would be alone; the steps that `observer` sees
    /// are sums over all.
    pub(crate) fn prompts(
        &mut self,
        prompts: &[(&[i32], u64)],
        latents: LatentSource,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<Prompt>> {
        prompts.iter().try_for_each(|(tokens, _)| self.check_prompt(tokens))?;
        let len = prompts.first().map_or(0, |(tokens, _)| tokens.len());
        if let Some((other, _)) = prompts.iter().find(|(tokens, _)| tokens.len() != len) {
            return Err(argument("prompts", format!("all of {len} tokens"), other.len()));
        }
        let fitted = match latents {
            LatentSource::Prompt if self.config.n_latents > 0 && len > 1 => {
                let seeds: Vec<u64> = prompts.iter().map(|(_, seed)| *seed).collect();
                let key = InferKey { seed: 0, step: 0, sequences: Sequences::Seeds(&seeds) };
                let texts: Vec<&[i32]> = prompts.iter().map(|(tokens, _)| *tokens).collect();
                let (inference, batch) = (self.inference.clone(), self.batch(&texts)?);
                self.fit_all(&inference, &batch, key, observer)?
            }
            _ => vec![Fitted::Prior; prompts.len()],
        };
        let prompt = |((tokens, _), latents): (&(&[i32], u64), _)| Prompt {
            tokens: tokens.to_vec(),
            latents,
        };
        Ok(prompts.iter().zip(fitted).map(prompt).collect())
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
    pub(crate) fn after(&self, before: &Fitted) -> Result<Inference> {
        Ok(match self.gaussian(before)? {
            Some(gaussian) => self.inference.from(Start::Given(Arc::new(gaussian))),
            None => self.inference.clone(),
        })
    }

    /// A text's posterior on the model's device, if it has one.
    pub(crate) fn gaussian(&self, latents: &Fitted) -> Result<Option<Gaussian>> {
        let Fitted::Posterior(posterior) = latents else { return Ok(None) };
        Gaussian::new(posterior, &self.weights.device(), self.weights.dtype()).map(Some)
    }

    /// Texts of one length, of at least two tokens, each to be predicted from those before it.
    pub(crate) fn batch(&self, texts: &[&[i32]]) -> Result<Batch> {
        let inputs: Vec<i32> =
            texts.iter().flat_map(|text| &text[..text.len() - 1]).copied().collect();
        let targets: Vec<i32> = texts.iter().flat_map(|text| &text[1..]).copied().collect();
        Batch::new(&self.config, texts.len(), &inputs, &targets)
    }

    /// Fits latents to a batch of one text.
    pub(crate) fn fit(
        &mut self,
        inference: &Inference,
        batch: &Batch,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Fitted> {
        Ok(self.fit_all(inference, batch, key, observer)?.swap_remove(0))
    }

    /// Fits latents to each text of a batch.
    fn fit_all(
        &mut self,
        inference: &Inference,
        batch: &Batch,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Vec<Fitted>> {
        let [b, t] = batch.shape();
        let mut problem = self.programs.get(b, t)?.problem(&self.weights, batch)?;
        Ok(match inference.infer(&mut problem, key, observer)? {
            Latents::None => vec![Fitted::Prior; b],
            Latents::Gaussian(gaussian) => {
                let rows = gaussian.to_host()?.rows(b).into_iter();
                rows.map(|posterior| Fitted::Posterior(Arc::new(posterior))).collect()
            }
            Latents::Sample(z) => {
                let z = z.to_f32()?;
                z.chunks(z.len() / b).map(|z| Fitted::Sample(z.into())).collect()
            }
        })
    }

    /// Latents `(L·Z,C)` drawn under `key`: the fit has seen its own noise. Empty for a model without latents.
    pub(crate) fn sample(&self, latents: &Fitted, key: InferKey) -> Result<Vec<f32>> {
        let len = self.config.n_latents * self.config.dim;
        match latents {
            Fitted::Posterior(posterior) => posterior.fresh_sample(&self.config, key, 0),
            Fitted::Sample(z) => Ok(z.to_vec()),
            Fitted::Prior => {
                let noise = key.normal([1, len], Purpose::ScoreNoise, 0, [0.0, 1.0])?;
                Ok(self.programs.prior().density(&self.weights)?.sample_f32(&noise))
            }
        }
    }
}
