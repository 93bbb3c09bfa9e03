//! Weight gradients at given latents: what a slow step sums over its micro-batches. Knows no weight optimiser.

use ltm_autodiff::Plan;
use ltm_kernels::Buffer;
use ltm_kernels::ops::elementwise;
use ltm_model::ParamSpec;

use crate::error::argument;
use crate::{Batch, Error, Latents, Problem, Program, Result};

/// The loss of a slow step on one batch, and its gradients on the device.
#[derive(Debug)]
pub struct WeightGradients<'a> {
    params: &'a [ParamSpec],
    /// One gradient per weight, in the order of [`Program::params`].
    pub gradients: Vec<&'a Buffer>,
    /// Negative log-likelihood of each target, `(B·T)`, in nats.
    pub nll: Vec<f64>,
    /// KL of each sequence's posterior from the prior, `(B)`, in nats; `None` for latents without a density, or none.
    pub kl: Option<Vec<f64>>,
}

/// The loss of a slow step on one batch.
#[derive(Clone, Debug, PartialEq)]
pub struct SlowLoss {
    /// Negative log-likelihood of each target, `(B·T)`, in nats.
    pub nll: Vec<f64>,
    /// KL of each sequence's posterior from the prior, `(B)`, in nats; `None` for latents without a density, or none.
    pub kl: Option<Vec<f64>>,
}

/// Takes the gradient of the weight of this number.
pub type TakeGradient<'a> = dyn FnMut(usize, &Buffer) -> Result<()> + Send + 'a;

impl Problem<'_> {
    /// Gradients of `sum(token_weight · nll)` for each weight at the sample of `latents`. With `token_weight (B·T)` of
    /// one over the number of scored tokens they are those of the mean.
    ///
    /// Those of a learned prior's weights are of `kl_weight·sum_b w_b·KL_b` at the same sample, where `w_b` is the mean weight
    /// of the sequence's scored tokens that have one. Those of an encoder's weights are of the bound at the encoder's sample
    /// by the latents' noise, `sum(token_weight · nll) + kl_weight·sum_b w_b·KL_b`; for
    /// [`SlowGradient::Joint`](crate::SlowGradient::Joint) those of all weights are.
    ///
    /// # Errors
    /// [`Error::NoSlowGradient`] for a program without weight gradients, [`Error::Argument`] when a length
    /// differs, [`Error::Autodiff`] when a kernel fails.
    pub fn weight_gradients(
        &mut self,
        latents: &Latents,
        token_weight: &[f32],
        kl_weight: f64,
    ) -> Result<WeightGradients<'_>> {
        let SlowLoss { nll, kl } =
            self.each_weight_gradient(latents, token_weight, kl_weight, &mut |_, _| Ok(()))?;
        let gradients = self.computed_gradients()?;
        Ok(WeightGradients { params: &self.program.params, gradients, nll, kl })
    }

    /// As [`weight_gradients`](Self::weight_gradients), and hands over each gradient as soon as it is computed, while others
    /// still are: in the order of [`Program::gradient_order`].
    ///
    /// # Errors
    /// Those of [`weight_gradients`](Self::weight_gradients), and of `take`, which ends the computation.
    pub fn each_weight_gradient(
        &mut self,
        latents: &Latents,
        token_weight: &[f32],
        kl_weight: f64,
        take: &mut TakeGradient<'_>,
    ) -> Result<SlowLoss> {
        let [b, t] = self.batch.shape();
        if self.program.nodes.slow.is_none() {
            return Err(Error::NoSlowGradient);
        }
        if token_weight.len() != b * t {
            let expected = format!("{} numbers, B·T", b * t);
            return Err(argument("token_weight", expected, token_weight.len()));
        }
        self.load(latents)?;
        let found =
            self.each_gradient_at_stored(token_weight, token_weight, None, kl_weight, take)?;
        let kl = found.kl.filter(|_| matches!(latents, Latents::Gaussian(_)));
        Ok(SlowLoss { kl, ..found })
    }

    /// The same at the latents in the store. `encoder_weight` is the `token_weight` of the bound of an encoder beside a
    /// fit, and `sample_weight` the importance of each sequence's sample, 1 without.
    pub(crate) fn each_gradient_at_stored(
        &mut self,
        token_weight: &[f32],
        encoder_weight: &[f32],
        sample_weight: Option<&[f32]>,
        kl_weight: f64,
        take: &mut TakeGradient<'_>,
    ) -> Result<SlowLoss> {
        let [b, _] = self.batch.shape();
        self.load_batch()?;
        self.load_token_weight(token_weight, encoder_weight, kl_weight as f32)?;
        let n_layers = self.program.extents.n_layers;
        self.program.slow_plan()?;
        let Program { nodes, plans, store, .. } = &mut *self.program;
        let slow = nodes.slow.as_ref().ok_or(Error::NoSlowGradient)?;
        let plan = plans.slow.as_mut().ok_or(Error::NoSlowGradient)?;
        if let Some(input) = slow.sample_weight {
            store.write_f32(input, sample_weight.unwrap_or(&vec![1.0; b]))?;
        }
        let mut hand = |value, gradient: &Buffer| {
            let mut of_value = slow.gradients.iter().enumerate().filter(|(_, own)| **own == value);
            of_value.try_for_each(|(param, _)| take(param, gradient))
        };
        plan.run_handing(store.with(self.weights.parameters()), &mut hand)?;
        let kl = slow.kl.map(|kl| plan.output(kl)?.to_f64().map_err(Error::from)).transpose()?;
        let by_row = |kl: Vec<f64>| kl.chunks(n_layers).map(|kl| kl.iter().sum()).collect();
        let nll = plan.output(slow.nll)?.to_f64()?;
        Ok(SlowLoss { nll, kl: kl.map(by_row) })
    }

    /// The gradients that the slow plan has left.
    fn computed_gradients(&self) -> Result<Vec<&Buffer>> {
        let slow = self.program.nodes.slow.as_ref().ok_or(Error::NoSlowGradient)?;
        let plan = self.program.plans.slow.as_ref().ok_or(Error::NoSlowGradient)?;
        slow.gradients.iter().map(|value| Ok(plan.output(*value)?)).collect()
    }

    /// Brings the weights of tokens and, for an encoder, of each sequence's KL into the store, unless they are there.
    fn load_token_weight(
        &mut self,
        token_weight: &[f32],
        encoder_weight: &[f32],
        kl_weight: f32,
    ) -> Result<()> {
        let (program, batch) = (&mut *self.program, self.batch);
        if let Some(slow) = &program.nodes.slow
            && program.loaded.token_weight != token_weight
        {
            program.store.write_f32(slow.token_weight, token_weight)?;
            program.loaded.token_weight = token_weight.to_vec();
        }
        let own = program.nodes.slow.as_ref().and_then(|slow| slow.encoder_token_weight);
        if let Some(input) = own
            && program.loaded.encoder_token_weight != encoder_weight
        {
            program.store.write_f32(input, encoder_weight)?;
            program.loaded.encoder_token_weight = encoder_weight.to_vec();
        }
        let of_prior = program.nodes.slow.as_ref().and_then(|slow| slow.prior_kl_weight);
        if let Some(input) = of_prior {
            let weights = kl_weights(batch, token_weight, kl_weight, program.extents.n_layers);
            if program.loaded.prior_kl_weight != weights {
                program.store.write_f32(input, &weights)?;
                program.loaded.prior_kl_weight = weights;
            }
        }
        let of_encoder = if own.is_some() { encoder_weight } else { token_weight };
        let Some(encoder) = &program.nodes.encoder else { return Ok(()) };
        let weights = kl_weights(batch, of_encoder, kl_weight, program.extents.n_layers);
        if program.loaded.encoder_kl_weight != weights {
            program.store.write_f32(encoder.kl_weight, &weights)?;
            program.loaded.encoder_kl_weight = weights;
        }
        Ok(())
    }
}

/// The weight of each layer's KL, `(B·L)`: `kl_weight` times the mean weight of the sequence's scored tokens.
fn kl_weights(batch: &Batch, token_weight: &[f32], kl_weight: f32, n_layers: usize) -> Vec<f32> {
    let [_, t] = batch.shape();
    let mut weights = Vec::new();
    for (targets, weight) in batch.targets().chunks(t).zip(token_weight.chunks(t)) {
        let counts = |(id, weight): &(&i32, &f32)| **id >= 0 && **weight != 0.0;
        let scored = || targets.iter().zip(weight).filter(counts);
        let total: f32 = scored().map(|(_, weight)| weight).sum();
        let mean = total / scored().count().max(1) as f32;
        weights.extend(std::iter::repeat_n(kl_weight * mean, n_layers));
    }
    weights
}

impl Program {
    /// The plan of weight gradients, made on first use.
    fn slow_plan(&mut self) -> Result<&mut Plan> {
        let Self { graph, device, precision, nodes, plans, .. } = self;
        Self::plan(&mut plans.slow, graph, device, *precision, || nodes.slow_outputs())
    }

    /// The numbers of the weights, in the order in which their gradients are computed: those of the last layers first.
    ///
    /// # Errors
    /// [`Error::NoSlowGradient`] for a program without weight gradients, [`Error::Autodiff`] when memory runs out.
    pub fn gradient_order(&mut self) -> Result<Vec<usize>> {
        let gradients = match &self.nodes.slow {
            Some(slow) => slow.gradients.clone(),
            None => return Err(Error::NoSlowGradient),
        };
        let mut order = Vec::with_capacity(gradients.len());
        for value in self.slow_plan()?.finish_order() {
            order.extend((0..gradients.len()).filter(|param| gradients[*param] == value));
        }
        Ok(order)
    }
}

impl WeightGradients<'_> {
    /// Adds the gradients to `sums`, one buffer per weight on the same device.
    ///
    /// # Errors
    /// [`Error::Argument`] when `sums` is not one buffer of each weight's length: nothing is added then.
    pub fn add_to(&self, sums: &mut [Buffer]) -> Result<()> {
        if sums.len() != self.params.len() {
            let expected = format!("{} buffers, one per weight", self.params.len());
            return Err(argument("sums", expected, sums.len()));
        }
        for (sum, spec) in sums.iter().zip(self.params) {
            if sum.len() != spec.len() {
                let expected = format!("{} numbers for `{}`", spec.len(), spec.name);
                return Err(argument("sums", expected, sum.len()));
            }
        }
        for (sum, gradient) in sums.iter_mut().zip(&self.gradients) {
            elementwise::add_assign(&gradient.device(), sum, gradient)?;
        }
        Ok(())
    }
}
