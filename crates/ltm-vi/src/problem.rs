//! Inference for one batch: what is computed from weights, batch and latents. Knows no method and no estimator.

use ltm_kernels::ops::elementwise;
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::DeviceWeights;

use crate::error::{argument, check_finite};
use crate::key::Draw;
use crate::low_rank::TracedFactor;
use crate::{Batch, Extents, Factor, Gaussian, Latents, Program, Result};

/// A batch whose latents are to be inferred under given weights.
///
/// Everything that it computes is a function of the arguments: a call changes nothing that another call sees.
pub struct Problem<'a> {
    pub(crate) program: &'a mut Program,
    pub(crate) weights: &'a DeviceWeights,
    pub(crate) batch: &'a Batch,
}

/// The objective of a fit at a sample of a posterior, `sum(nll) + kl_weight·sum(kl)`, and its gradient.
#[derive(Debug)]
pub struct Gradient<'a> {
    /// Negative log-likelihood of each target, `(B·T)`, in nats.
    pub nll: Vec<f64>,
    /// KL from the prior of each layer of a sequence, `(B·L)`, in nats.
    pub kl: Vec<f64>,
    /// Gradient by the means, `(B,L·Z,C)`, on the device.
    pub dmu: &'a Buffer,
    /// Gradient by the log-variances, `(B,L·Z,C)`, on the device.
    pub dlog_var: &'a Buffer,
    /// Gradient by the columns of a factor, `(B,L,R,Z·C)`, on the device; `None` for a posterior without.
    pub dcolumns: Option<&'a Buffer>,
}

impl Gradient<'_> {
    /// All nats: the negative bound by one sample, with the KL in full.
    pub fn nelbo(&self) -> f64 {
        self.nll.iter().chain(&self.kl).sum()
    }
}

impl Program {
    /// Puts weights and a batch together with the program.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for another model's weights,
    /// [`Error::Argument`](crate::Error::Argument) for weights of another device or type, and
    /// for a batch of another shape or vocabulary.
    pub fn problem<'a>(
        &'a mut self,
        weights: &'a DeviceWeights,
        batch: &'a Batch,
    ) -> Result<Problem<'a>> {
        weights.check(&self.params)?;
        let (device, dtype) = (self.device, self.precision.float);
        if (weights.device(), weights.dtype()) != (device, dtype) {
            let found = format!("{} on {}", weights.dtype(), weights.device());
            return Err(argument("weights", format!("{dtype} on {device}"), found));
        }
        self.check_batch(batch)?;
        Ok(Problem { program: self, weights, batch })
    }
}

impl Problem<'_> {
    /// The batch.
    pub fn batch(&self) -> &Batch {
        self.batch
    }

    /// The model's extents.
    pub fn extents(&self) -> Extents {
        self.program.extents
    }

    /// Where it is computed.
    pub fn device(&self) -> Device {
        self.program.device
    }

    /// The type of latents.
    pub fn dtype(&self) -> DType {
        self.program.precision.float
    }

    /// The same program and weights with another batch of the same shape.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a batch of another shape or vocabulary.
    pub fn with_batch<'b>(&'b mut self, batch: &'b Batch) -> Result<Problem<'b>> {
        self.program.check_batch(batch)?;
        Ok(Problem { program: self.program, weights: self.weights, batch })
    }

    /// The objective at the sample of `q`, with this weight of the KL, and its gradient: what an optimiser of one's own
    /// follows.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for a posterior of another shape,
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) for a model without latents,
    /// [`Error::Autodiff`](crate::Error::Autodiff) when a kernel fails.
    pub fn gradient(&mut self, q: &Gaussian, kl_weight: f64) -> Result<Gradient<'_>> {
        self.load_gaussian(q)?;
        self.run_fast(kl_weight as f32)
    }

    /// Negative log-likelihood `(B·T)` of each target at the sample, in nats; 0 where nothing is scored.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for latents of another shape,
    /// [`Error::Autodiff`](crate::Error::Autodiff) when a kernel fails.
    pub fn token_nll(&mut self, latents: &Latents) -> Result<Vec<f64>> {
        self.load(latents)?;
        self.stored_nll()
    }

    /// As [`token_nll`](Self::token_nll) at given latents `z (B,L·Z,C)`.
    ///
    /// # Errors
    /// Those of [`token_nll`](Self::token_nll), and [`Error::Argument`](crate::Error::Argument) when `z` has another
    /// length or a number that is not finite.
    pub fn token_nll_at(&mut self, z: &[f32]) -> Result<Vec<f64>> {
        self.load_z(z)?;
        self.stored_nll()
    }

    /// As [`token_nll`](Self::token_nll) at the sample of `q`.
    pub(crate) fn gaussian_nll(&mut self, q: &Gaussian) -> Result<Vec<f64>> {
        self.load_gaussian(q)?;
        self.stored_nll()
    }

    /// Sums of [`token_nll`](Self::token_nll) over each row, without its known targets.
    pub(crate) fn row_nll(&mut self, latents: &Latents) -> Result<Vec<f64>> {
        let nll = self.token_nll(latents)?;
        Ok(self.sum_rows(&nll))
    }

    /// Sums over each row of numbers `(B·T)`, without its known targets.
    pub(crate) fn sum_rows(&self, nll: &[f64]) -> Vec<f64> {
        let rows = nll.chunks(self.batch.shape()[1]).zip(self.batch.context());
        rows.map(|(row, known)| row.iter().skip(*known).sum()).collect()
    }

    /// Runs a fast step's plan on what the store holds.
    pub(crate) fn run_fast(&mut self, kl_weight: f32) -> Result<Gradient<'_>> {
        self.load_batch()?;
        self.load_kl_weight(kl_weight)?;
        let Program { graph, device, precision, nodes, plans, store, .. } = &mut *self.program;
        let Some(latents) = &nodes.latents else { return Err(crate::suits::no_latents()) };
        let outputs = || nodes.fast_outputs();
        let plan = Program::plan(&mut plans.fast, graph, device, *precision, outputs)?;
        plan.run(store.with(self.weights.parameters()))?;
        Ok(Gradient {
            nll: plan.output(nodes.nll)?.to_f64()?,
            kl: plan.output(latents.kl)?.to_f64()?,
            dmu: plan.output(latents.dmu)?,
            dlog_var: plan.output(latents.dlog_var)?,
            dcolumns: latents.dcolumns.map(|dcolumns| plan.output(dcolumns)).transpose()?,
        })
    }

    /// As [`token_nll`](Self::token_nll) at the latents in the store.
    pub(crate) fn stored_nll(&mut self) -> Result<Vec<f64>> {
        self.load_batch()?;
        let Program { graph, device, precision, nodes, plans, store, .. } = &mut *self.program;
        let plan = Program::plan(&mut plans.score, graph, device, *precision, || vec![nodes.nll])?;
        plan.run(store.with(self.weights.parameters()))?;
        Ok(plan.output(nodes.nll)?.to_f64()?)
    }

    /// Brings the batch into the store, unless it is there.
    pub(crate) fn load_batch(&mut self) -> Result<()> {
        let (program, batch) = (&mut *self.program, self.batch);
        if program.loaded.batch == batch.id() {
            return Ok(());
        }
        program.loaded.batch = 0;
        program.store.write_i32(program.nodes.tokens, batch.tokens())?;
        program.store.write_i32(program.nodes.targets, batch.targets())?;
        if let Some(encoder) = &program.nodes.encoder {
            // The scored targets, and nothing else.
            let nothing = program.extents.vocab_size as i32;
            let readable = batch.readable();
            let id = |id: &i32| if *id == Batch::IGNORED { nothing } else { *id };
            let text: Vec<i32> = readable.iter().map(id).collect();
            program.store.write_i32(encoder.inputs.text, &text)?;
            let present = |id: &i32| if *id == Batch::IGNORED { 0.0 } else { 1.0 };
            let present: Vec<f32> = readable.iter().map(present).collect();
            program.store.write_f32(encoder.inputs.present, &present)?;
        }
        program.loaded.batch = batch.id();
        Ok(())
    }

    /// Gives every KL this weight in the objective.
    pub(crate) fn load_kl_weight(&mut self, weight: f32) -> Result<()> {
        let program = &mut *self.program;
        let Some(latents) = &program.nodes.latents else { return Ok(()) };
        if program.loaded.kl_weight != Some(weight) {
            let rows = program.shape()[0] * program.extents.n_layers;
            program.store.write_f32(latents.kl_weight, &vec![weight; rows])?;
            program.loaded.kl_weight = Some(weight);
        }
        Ok(())
    }

    /// Brings latents into the store.
    pub(crate) fn load(&mut self, latents: &Latents) -> Result<()> {
        match (latents, self.program.extents.n_latents) {
            (Latents::None, 0) => Ok(()),
            (Latents::None, n) => Err(argument("latents", format!("{n} latent vectors"), "none")),
            (Latents::Gaussian(q), _) => self.load_gaussian(q),
            (Latents::Sample(z), _) => {
                self.check_len("z", z)?;
                let [mu, log_var, noise] = self.latent_inputs()?;
                let store = &mut self.program.store;
                store.get_mut(mu)?.copy_from(z)?;
                let zeros = vec![0.0; z.len()];
                store.write_f32(log_var, &zeros)?;
                store.write_f32(noise, &zeros)?;
                self.load_factor(None)
            }
        }
    }

    pub(crate) fn load_gaussian(&mut self, q: &Gaussian) -> Result<()> {
        self.check_gaussian(q)?;
        if q.factor.is_some() {
            self.program.serve_rank(q.rank())?;
        }
        let inputs = self.latent_inputs()?;
        for (input, numbers) in inputs.into_iter().zip([&q.mu, &q.log_var, &q.noise]) {
            self.program.store.get_mut(input)?.copy_from(numbers)?;
        }
        self.load_factor(q.factor.as_ref())
    }

    /// Brings a factor of the program's rank into the store, or one that correlates nothing.
    fn load_factor(&mut self, factor: Option<&Factor<Buffer>>) -> Result<()> {
        let Program { device, nodes, store, .. } = &mut *self.program;
        let inputs = nodes.latents.as_ref().and_then(|latents| latents.factor);
        let Some(TracedFactor { columns, noise }) = inputs else { return Ok(()) };
        let numbers = factor.map(|factor| [&factor.columns, &factor.noise]);
        for (at, input) in [columns, noise].into_iter().enumerate() {
            let stored = store.get_mut(input)?;
            match numbers {
                Some(numbers) => stored.copy_from(numbers[at])?,
                None => elementwise::fill(device, stored, 0.0)?,
            }
        }
        Ok(())
    }

    /// Makes `z` the sample: the mean, without noise.
    pub(crate) fn load_z(&mut self, z: &[f32]) -> Result<()> {
        let len = self.latent_len();
        if z.len() != len {
            return Err(argument("z", format!("{len} numbers, B·L·Z·C"), z.len()));
        }
        check_finite("z", z)?;
        if len == 0 {
            return Ok(());
        }
        let [mu, log_var, noise] = self.latent_inputs()?;
        let zeros = vec![0.0; len];
        for (input, numbers) in [(mu, z), (log_var, &zeros), (noise, &zeros)] {
            self.program.store.write_f32(input, numbers)?;
        }
        self.load_factor(None)
    }

    /// Replaces the sample's noise in the store.
    pub(crate) fn load_noise(&mut self, draw: &Draw) -> Result<()> {
        let Program { nodes, store, .. } = &mut *self.program;
        let latents = nodes.latents.as_ref().ok_or_else(crate::suits::no_latents)?;
        store.write_f32(latents.noise, &draw.numbers)?;
        if let Some(factor) = latents.factor
            && !draw.columns.is_empty()
        {
            store.write_f32(factor.noise, &draw.columns)?;
        }
        Ok(())
    }

    /// A copy of the posterior in the store.
    pub(crate) fn stored(&self) -> Result<Gaussian> {
        let [mu, log_var, noise] = self.latent_inputs()?;
        let factor = self.program.nodes.latents.as_ref().and_then(|latents| latents.factor);
        let copy = |input| Ok::<_, crate::Error>(self.program.store.get(input)?.try_clone()?);
        let factor = match factor {
            Some(TracedFactor { columns, noise }) => {
                Some(Factor { columns: copy(columns)?, noise: copy(noise)? })
            }
            None => None,
        };
        Ok(Gaussian { mu: copy(mu)?, log_var: copy(log_var)?, noise: copy(noise)?, factor })
    }

    /// What a fit moves of the posterior in the store: means, log-variances and columns.
    pub(crate) fn stored_parameters(&self) -> Result<Vec<&Buffer>> {
        let latents = self.program.nodes.latents.as_ref().ok_or_else(crate::suits::no_latents)?;
        let inputs = latents.parameters().into_iter();
        inputs.map(|input| Ok(self.program.store.get(input)?)).collect()
    }

    /// Where mean, log-variance and noise are in the store.
    fn latent_inputs(&self) -> Result<[ltm_autodiff::Value; 3]> {
        let latents = self.program.nodes.latents.as_ref().ok_or_else(crate::suits::no_latents)?;
        Ok([latents.mu, latents.log_var, latents.noise])
    }

    /// Refuses a posterior of another number of latents, device or type.
    pub(crate) fn check_gaussian(&self, q: &Gaussian) -> Result<()> {
        for (arg, numbers) in [("mu", &q.mu), ("log_var", &q.log_var), ("noise", &q.noise)] {
            self.check_len(arg, numbers)?;
        }
        let Some(Factor { columns, noise }) = &q.factor else { return Ok(()) };
        let rank = q.rank().max(1);
        let layers = self.program.shape()[0] * self.program.extents.n_layers;
        let columns = ("factor.columns", columns, rank * self.latent_len(), "B·L·R·Z·C");
        for (arg, numbers, len, extents) in
            [columns, ("factor.noise", noise, rank * layers, "B·L·R")]
        {
            self.check_numbers(arg, numbers, len, extents)?;
        }
        Ok(())
    }

    fn check_len(&self, arg: &'static str, numbers: &Buffer) -> Result<()> {
        self.check_numbers(arg, numbers, self.latent_len(), "B·L·Z·C")
    }

    fn check_numbers(
        &self,
        arg: &'static str,
        numbers: &Buffer,
        len: usize,
        extents: &str,
    ) -> Result<()> {
        let (dtype, device) = (self.dtype(), self.device());
        if numbers.len() != len {
            return Err(argument(arg, format!("{len} numbers, {extents}"), numbers.len()));
        }
        if (numbers.dtype(), numbers.device()) != (dtype, device) {
            let found = format!("{} on {}", numbers.dtype(), numbers.device());
            return Err(argument(arg, format!("{dtype} on {device}"), found));
        }
        Ok(())
    }

    fn latent_len(&self) -> usize {
        self.program.shape()[0] * self.program.extents.latent_len()
    }
}

/// One fast step, measured before its update.
#[derive(Clone, Debug, PartialEq)]
pub struct FastStep {
    /// Index of the step, from 0.
    pub step: usize,
    /// Its learning rate.
    pub lr: f64,
    /// Negative log-likelihood of the batch's targets at the current sample, in nats.
    pub nll: f64,
    /// KL from the prior of each layer's latents, summed over the batch, in nats.
    pub kl_per_layer: Vec<f64>,
    /// `nll` plus all KL, at full weight whatever `kl_warmup` is: the negative ELBO by one sample.
    pub bound: f64,
}

impl FastStep {
    /// What was measured at a step, before its update.
    pub fn new(step: usize, lr: f64, nll: f64, kl: &[f64], n_layers: usize) -> Self {
        let kl_per_layer: Vec<f64> =
            (0..n_layers).map(|layer| kl.iter().skip(layer).step_by(n_layers).sum()).collect();
        let bound = nll + kl_per_layer.iter().sum::<f64>();
        Self { step, lr, nll, kl_per_layer, bound }
    }
}
