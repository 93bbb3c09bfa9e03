//! The encoder's posterior, computed in one pass, and the bound that trains encoder and decoder
//! together. Knows no fast steps.

use ltm_autodiff::{Graph, Kind, Plan, UpdateRate, Value, ops};
use ltm_model::{ModelConfig, encoder};

use super::Engine;
use crate::{Method, Posterior, Result};

/// The encoder in an engine's graph.
pub(super) struct Encoder {
    /// `(B,T)`: the batch's targets, and `V` where a position is not scored.
    text: Value,
    /// `(B,L·Z)`: the index of each latent.
    latents: Value,
    mu: Value,
    log_var: Value,
    /// `(B·L)`: one entry per layer of a sequence.
    kl: Value,
    /// `(B·L)`: the weight of each of them in the bound.
    kl_weight: Value,
    plan: Option<Plan>,
}

impl Encoder {
    /// Traces the encoder of `config`.
    pub fn trace(
        g: &mut Graph,
        config: &ModelConfig,
        weights: &[Value],
        b: usize,
        t: usize,
    ) -> Result<Self> {
        let rows = b * config.n_layers;
        let text = g.input("text", &[b, t], Kind::Int, UpdateRate::Batch);
        let latents = g.input("latents", &[b, config.n_latents], Kind::Int, UpdateRate::Batch);
        let kl_weight = g.input("encoder_kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
        let [mu, log_var] = encoder::trace(g, config, weights, text, latents)?;
        let kl = ops::gaussian_kl(g, mu, log_var, rows)?;
        Ok(Self { text, latents, mu, log_var, kl, kl_weight, plan: None })
    }

    /// The sample of the encoder's posterior by this noise, through which gradients flow.
    pub fn sample(&self, g: &mut Graph, noise: Value) -> Result<Value> {
        Ok(ops::reparam(g, self.mu, self.log_var, noise)?)
    }

    /// `sum(token_weight · nll) + sum(kl_weight · kl)`.
    pub fn bound(&self, g: &mut Graph, nll: Value, token_weight: Value) -> Result<Value> {
        let nll = ops::dot(g, nll, token_weight)?;
        let kl = ops::dot(g, self.kl, self.kl_weight)?;
        Ok(ops::add(g, nll, kl)?)
    }

    /// Mean and log-variance.
    pub fn outputs(&self) -> [Value; 2] {
        [self.mu, self.log_var]
    }

    /// The encoder's own plan, after its first run.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }
}

impl Engine {
    /// Writes the index of each latent, once for the engine's life.
    pub(super) fn name_latents(&mut self) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let row = 0..self.config.n_latents as i32;
        let ids: Vec<i32> = (0..self.b).flat_map(|_| row.clone()).collect();
        Ok(self.store.write_i32(encoder.latents, &ids)?)
    }

    /// Writes the encoder's text: the scored targets, and nothing else.
    pub(super) fn set_text(&mut self, targets: &[i32]) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let nothing = self.config.vocab_size as i32;
        let text: Vec<i32> =
            targets.iter().map(|id| if *id == -1 { nothing } else { *id }).collect();
        Ok(self.store.write_i32(encoder.text, &text)?)
    }

    /// Gives the KL of a sequence the mean weight of its scored tokens, times the KL warm-up's weight, so
    /// that equal token weights give the bound per token.
    pub(super) fn set_encoder_kl_weight(&mut self, token_weight: &[f32]) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let mut weights = Vec::with_capacity(self.b * self.config.n_layers);
        for (targets, weight) in self.host_targets.chunks(self.t).zip(token_weight.chunks(self.t)) {
            let scored = || targets.iter().zip(weight).filter(|(id, _)| **id >= 0);
            let total: f32 = scored().map(|(_, weight)| weight).sum();
            let mean = total / scored().count().max(1) as f32;
            weights.extend(std::iter::repeat_n(self.kl_weight * mean, self.config.n_layers));
        }
        Ok(self.store.write_f32(encoder.kl_weight, &weights)?)
    }

    /// Sets the encoder's posterior, with the noise of `start`. Without an encoder, which
    /// [`infer`](Self::infer) has refused, the posterior is `start`.
    pub(super) fn encode(&mut self, start: Posterior) -> Result<()> {
        self.set_posterior(&start)?;
        let (Some(encoder), Some(latents)) = (&mut self.encoder, &self.latents) else {
            return Ok(());
        };
        let outputs = [encoder.mu, encoder.log_var];
        let plan = match &mut encoder.plan {
            Some(plan) => plan,
            empty => empty.insert(Plan::new(&self.graph, &self.device, self.precision, &outputs)?),
        };
        plan.run(&self.store)?;
        for (from, to) in outputs.into_iter().zip([latents.mu, latents.log_var]) {
            self.store.get_mut(to)?.copy_from(plan.output(from)?)?;
        }
        self.method = Method::Amortised;
        Ok(())
    }
}
