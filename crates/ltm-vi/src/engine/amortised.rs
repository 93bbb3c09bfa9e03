//! The posterior by an encoder, in one pass, and the bound that trains encoder and decoder together.
//! Knows no steps.

use ltm_autodiff::{Graph, Kind, Plan, UpdateRate, Value, ops};
use ltm_model::{ModelConfig, encoder};

use super::{Engine, argument};
use crate::{Method, Posterior, Result};

/// The encoder in an engine's graph.
pub(super) struct Encoder {
    /// `(B,T)`: the text, which are the batch's targets, and `V` where there is none.
    text: Value,
    /// `(B,L·Z)`: which latent is which.
    latents: Value,
    mu: Value,
    log_var: Value,
    /// `(B·L)`: one entry a layer of a sequence.
    kl: Value,
    /// `(B·L)`: what each of them counts in the bound.
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

    /// What one pass of the encoder computes.
    pub fn outputs(&self) -> [Value; 2] {
        [self.mu, self.log_var]
    }

    /// The plan of the encoder alone, once it has run.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }
}

impl Engine {
    /// Says which latent is which, for as long as the engine lives.
    pub(super) fn name_latents(&mut self) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let row = 0..self.config.n_latents as i32;
        let ids: Vec<i32> = (0..self.b).flat_map(|_| row.clone()).collect();
        Ok(self.store.write_i32(encoder.latents, &ids)?)
    }

    /// Gives the encoder its text: the targets, and nothing of what is not scored.
    pub(super) fn set_text(&mut self, targets: &[i32]) -> Result<()> {
        let Some(encoder) = &self.encoder else { return Ok(()) };
        let nothing = self.config.vocab_size as i32;
        let text: Vec<i32> =
            targets.iter().map(|id| if *id == -1 { nothing } else { *id }).collect();
        Ok(self.store.write_i32(encoder.text, &text)?)
    }

    /// Lets the KL of a sequence count as much as the sequence's scored tokens do on average, so that
    /// equal weights give the bound a token; but for `kl_warmup`.
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

    /// Puts the encoder's posterior in the place of a fitted one; of `start` only the noise stays.
    pub(super) fn encode(&mut self, start: Posterior) -> Result<()> {
        self.set_posterior(&start)?;
        let (Some(encoder), Some(latents)) = (&mut self.encoder, &self.latents) else {
            let expected = "a method without an encoder, for a model without `encoder_layers`";
            return Err(argument("infer.method", expected, "amortised"));
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
