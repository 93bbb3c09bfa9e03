//! What one micro-batch contributes to a slow step: its fit, its gradients, its nats. Knows no optimiser and no other
//! process.

use ltm_kernels::Buffer;
use ltm_model::DeviceWeights;
use ltm_vi::{
    Cut, InferKey, Inference, Latents, Program, Sequences, SlowLoss, StartKind, TakeGradient,
    mask_batch,
};
use serde::{Deserialize, Serialize};

use super::sums::{Gradients, in_tree};
use crate::Result;
use crate::config::Config;
use crate::data::Batch;
use crate::posteriors::{Posteriors, ended};

/// What the micro-batches of a step share.
pub(super) struct Shared<'a> {
    pub config: &'a Config,
    pub step: u64,
    pub inference: Inference,
    pub kl_weight: f64,
    /// The weight of a token: one over the step's scored tokens.
    pub share: f64,
    /// That of a token that follows a prefix, with `train.prefix_weight`.
    pub prefix_share: f64,
}

impl Shared<'_> {
    /// What the random numbers of micro-batch `number` are a function of.
    fn key(&self, number: usize) -> InferKey<'static> {
        key_of(self.config, self.step, number)
    }
}

/// What the random numbers of a step's micro-batch are a function of.
pub(super) fn key_of(config: &Config, step: u64, number: usize) -> InferKey<'static> {
    let first = (number * config.train.batch) as u64;
    InferKey { seed: config.run.seed, step, sequences: Sequences::From(first) }
}

/// The numbers of some micro-batches of a step, besides their gradients.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Found {
    /// Nats of all scored tokens.
    pub nll: f64,
    /// KL of all rows; `None` where the latents have no density.
    pub kl: Option<f64>,
    /// The posteriors that are to be kept.
    pub kept: Posteriors,
}

impl Found {
    /// Those of several, one after the other, in the order of the gradients' sum.
    pub fn sum(parts: Vec<Self>) -> Self {
        let kl = parts.iter().map(|part| part.kl).collect::<Option<Vec<_>>>();
        Self {
            nll: in_tree(parts.iter().map(|part| part.nll)),
            kl: kl.map(|kl| in_tree(kl.into_iter())),
            kept: Posteriors { rows: parts.into_iter().flat_map(|part| part.kept.rows).collect() },
        }
    }
}

/// What computes a micro-batch.
pub(super) struct Learning<'a> {
    pub program: &'a mut Program,
    pub weights: &'a DeviceWeights,
    /// Where fits begin, under `infer.start = "given"`.
    pub posteriors: &'a Posteriors,
    pub shared: &'a Shared<'a>,
}

impl Learning<'_> {
    /// Fits micro-batch `number` of the step and adds its gradients: those of the whole texts, and those of the texts after
    /// prefixes if it was `cut`.
    pub fn add_gradients(
        &mut self,
        number: usize,
        batch: &Batch,
        cut: Option<&Cut>,
        to: &mut dyn Gradients,
    ) -> Result<Found> {
        if self.program.extents().mask_id.is_some() {
            return self.unmask(number, batch, to);
        }
        let found = self.read(number, batch, cut.is_none(), to)?;
        if let Some(cut) = cut {
            self.read_on(number, cut, to)?;
        }
        Ok(found)
    }

    /// Adds the gradients of whole texts, which are the last ones if nothing follows.
    fn read(
        &mut self,
        number: usize,
        batch: &Batch,
        is_last: bool,
        to: &mut dyn Gradients,
    ) -> Result<Found> {
        let Self { program, weights, posteriors, shared } = self;
        let Shared { config, step, inference, kl_weight, share, .. } = *shared;
        let (train, key) = (&config.train, shared.key(number));
        let extents = program.extents();
        let numbers = &batch.numbers[..batch.rows];
        let batch = ltm_vi::Batch::new(extents, train.batch, &batch.tokens, &batch.targets)?;
        let mut problem = program.problem(weights, &batch)?;
        let keeps = config.infer.start == StartKind::Given;
        let start = match keeps {
            true => posteriors.start(&mut problem, inference.start(), key, numbers)?,
            false => inference.start().clone(),
        };
        let latents = inference.from(start).infer(&mut problem, key, &mut |_| Ok(()))?;
        let kept = match latents.gaussian() {
            Some(q) if keeps => ended(q, extents.latent_len(), numbers, *step)?,
            _ => Posteriors::default(),
        };
        for (param, gradient) in program.trajectory_gradients().iter().enumerate() {
            to.add(param, gradient)?;
        }
        let token_weight = vec![*share as f32; train.batch * train.seq_len];
        let samples = train.samples_at(train.progress(*step));
        let (mut left, n) = (0, program.params().len());
        let mut problem = program.problem(weights, &batch)?;
        let (nll, kl) = match &latents {
            Latents::Gaussian(q) if samples > 1 => {
                left += samples * n;
                let mut take = |param, gradient: &Buffer| {
                    left -= 1;
                    // Only the last sample's complete the sum.
                    add(to, is_last && left < n, param, gradient)
                };
                let found = problem.each_importance_gradient(
                    q,
                    samples,
                    key,
                    &token_weight,
                    *kl_weight,
                    &mut take,
                )?;
                (found.nll, Some(found.kl))
            }
            latents => {
                let take: &mut TakeGradient<'_> =
                    &mut |param, gradient: &Buffer| add(to, is_last, param, gradient);
                let SlowLoss { nll, kl } =
                    problem.each_weight_gradient(latents, &token_weight, *kl_weight, take)?;
                (nll, kl)
            }
        };
        let kl = match (&latents, kl) {
            (Latents::Sample(_), _) => None,
            (_, None) => Some(0.0),
            (_, Some(kl)) => Some(kl.iter().take(numbers.len()).sum()),
        };
        Ok(Found { nll: nll.iter().sum(), kl, kept })
    }

    /// Adds the gradients of a bound on a random prefix of each text with what follows it, whose posterior has read the
    /// prefix alone, times `train.prefix_weight`.
    fn read_on(&mut self, number: usize, cut: &Cut, to: &mut dyn Gradients) -> Result<()> {
        let Self { program, weights, shared, .. } = self;
        let Shared { inference, kl_weight, prefix_share, .. } = *shared;
        let Cut { known, rest, counted } = cut;
        let share = *prefix_share as f32;
        let token_weight: Vec<f32> =
            counted.iter().map(|counts| if *counts { share } else { 0.0 }).collect();
        let mut problem = program.problem(weights, known)?;
        let latents = inference.infer(&mut problem, shared.key(number), &mut |_| Ok(()))?;
        let mut problem = problem.with_batch(rest)?;
        let take: &mut TakeGradient<'_> =
            &mut |param, gradient: &Buffer| add(to, true, param, gradient);
        problem.each_weight_gradient(&latents, &token_weight, *kl_weight, take)?;
        Ok(())
    }

    /// Adds the gradients of a batch's masked-diffusion bound under masks drawn for this step, whose nats it returns.
    fn unmask(&mut self, number: usize, batch: &Batch, to: &mut dyn Gradients) -> Result<Found> {
        let Self { program, weights, shared, .. } = self;
        let Shared { config, share, .. } = *shared;
        let (train, extents) = (&config.train, program.extents());
        let masked =
            mask_batch(extents, shared.key(number), &batch.tokens, &batch.targets, train.seq_len)?;
        let batch = ltm_vi::Batch::new(extents, train.batch, &masked.tokens, &masked.targets)?;
        let weight: Vec<f32> = masked.weight.iter().map(|w| w * *share as f32).collect();
        let mut problem = program.problem(weights, &batch)?;
        let take: &mut TakeGradient<'_> =
            &mut |param, gradient: &Buffer| add(to, true, param, gradient);
        let found = problem.each_weight_gradient(&Latents::None, &weight, 1.0, take)?;
        let nll = found.nll.iter().zip(&masked.weight);
        let nll = nll.map(|(nll, w)| nll * f64::from(*w)).sum();
        Ok(Found { nll, kl: Some(0.0), kept: Posteriors::default() })
    }
}

/// Adds a gradient; `completes` says whether none of this weight follows.
fn add(
    to: &mut dyn Gradients,
    completes: bool,
    param: usize,
    gradient: &Buffer,
) -> ltm_vi::Result<()> {
    let added = match completes {
        true => to.add_last(param, gradient),
        false => to.add(param, gradient),
    };
    Ok(added?)
}
