//! A Gaussian posterior fitted by AdamW on its mean, log-variance and columns: the fast loop of the paper, driven from the
//! host. Knows no tables of a device.

mod early_stop;
mod on_device;

use ltm_kernels::Device;
use ltm_kernels::ops::adamw;
use ltm_kernels::ops::elementwise;

use self::early_stop::EarlyStop;
use super::{Fit, Observer};
use crate::key::SampleOf;
use crate::own_units::OwnUnits;
use crate::{
    Error, FastStep, InferConfig, InferKey, Latents, Noise, Problem, Program, Result, Start, Units,
};

impl Problem<'_> {
    /// The rate of columns, in units of that of other numbers: see [`AdamW::rank`].
    fn column_rate(&self) -> f64 {
        let extents = self.extents();
        (extents.n_layers as f64 / extents.latent_len().max(1) as f64).sqrt()
    }
}

/// The variational fit (Kong et al. 2025): each step is one of AdamW at the sample of the current noise.
///
/// On CUDA the steps run without the host, see the crate's documentation, and are reported after the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct AdamW {
    /// The learning rate of each step; a fit takes as many steps.
    pub rates: Vec<f64>,
    /// Decay rate of the gradient's running mean.
    pub beta1: f64,
    /// Decay rate of the squared gradient's running mean.
    pub beta2: f64,
    /// Constant that is added to the root of the squared gradient's running mean.
    pub eps: f64,
    /// Decoupled weight decay, on mean, log-variance and columns alike.
    pub weight_decay: f64,
    /// The unit of a mean's gradient and step.
    pub units: Units,
    /// Whether the noise is drawn again after each step.
    pub noise: Noise,
    /// Columns of each layer of the posterior's [`Factor`](crate::Factor); 0 for a posterior of independent numbers. The rate of
    /// a column of `n` numbers is `1/√n` of the others', so that a step moves its length by about the rate.
    pub rank: usize,
    /// Steps of a window: a sequence stops early, and its posterior is final, when the mean bound of a window is no lower than
    /// that of the window before. 0 takes all steps.
    pub stop_window: usize,
    /// The weight of the KL in the objective.
    pub kl_weight: f64,
}

impl AdamW {
    /// The fit that a configuration describes at `progress` of training.
    pub fn new(infer: &InferConfig, progress: f64) -> Self {
        let InferConfig {
            beta1, beta2, eps, weight_decay, units, noise, rank, stop_window, ..
        } = *infer;
        Self {
            rates: (0..infer.steps).map(|step| infer.lr_at(step, progress)).collect(),
            beta1,
            beta2,
            eps,
            weight_decay,
            units,
            noise,
            rank,
            stop_window,
            kl_weight: infer.kl_weight_at(progress),
        }
    }

    /// The options of the kernel at a rate.
    pub(super) fn options(&self, lr: f64) -> adamw::AdamW {
        let Self { beta1, beta2, eps, weight_decay, .. } = *self;
        adamw::AdamW { lr, beta1, beta2, eps, weight_decay }
    }
}

impl Fit for AdamW {
    fn fit(
        &self,
        problem: &mut Problem<'_>,
        start: &Start,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Latents> {
        let start = problem.start(start, key)?;
        if !self.rates.is_empty() {
            problem.program.serve_rank(self.rank)?;
        }
        let device = problem.device();
        let [b, _] = problem.batch().shape();
        for sum in &mut problem.program.trajectory {
            elementwise::fill(&device, sum, 0.0)?;
        }
        if self.rates.is_empty() {
            return Ok(start.into());
        }
        problem.load_gaussian(&problem.with_columns(start, self.rank, key)?)?;
        if self.units == Units::Posterior && problem.program.own_units.is_none() {
            let len = b * problem.extents().latent_len();
            problem.program.own_units = Some(OwnUnits::new(&device, problem.dtype(), len)?);
        }
        for moments in &mut problem.program.moments {
            moments.reset(&device)?;
        }
        if let Device::Cuda(context) = device {
            return Ok(on_device::fit(problem, context, self, key, observer)?.into());
        }
        let extents = problem.extents();
        let shape = [b, extents.latent_len(), self.rank * extents.n_layers];
        let mut stop = EarlyStop::new(self.stop_window, b, &problem.stored_parameters()?)?;
        for (step, lr) in self.rates.iter().enumerate() {
            let (measured, bounds) = self.step(problem, step, *lr)?;
            observer(&measured)?;
            if let Some(stop) = &mut stop
                && stop.after(&bounds, &problem.stored_parameters()?)?
            {
                break;
            }
            if self.noise == Noise::Fresh {
                // Draw 0 is the start's.
                problem.load_noise(&key.draw(shape, SampleOf::Fit, step + 1)?)?;
            }
        }
        let mut fitted = problem.stored()?;
        if let Some(stop) = stop {
            stop.restore(fitted.parameters_mut())?;
        }
        Ok(fitted.into())
    }
}

impl AdamW {
    /// One step on the posterior in the store; what was measured before its update, and each sequence's bound.
    fn step(
        &self,
        problem: &mut Problem<'_>,
        step: usize,
        lr: f64,
    ) -> Result<(FastStep, Vec<f64>)> {
        let [b, _] = problem.batch().shape();
        let n_layers = problem.extents().n_layers;
        let at = problem.run_fast(self.kl_weight as f32)?;
        let nll = at.nll.iter().sum();
        let measured = FastStep::new(step, lr, nll, &at.kl, n_layers);
        let bounds = early_stop::bounds(b, &at.nll, &at.kl);
        let options = self.options(lr);
        let each = [options, self.options(lr * problem.column_rate())];
        let Program { device, nodes, plans, store, moments, own_units, trajectory, .. } =
            &mut *problem.program;
        let (Some(latents), Some(plan)) = (&nodes.latents, &plans.fast) else {
            return Err(crate::suits::no_latents());
        };
        for (sum, gradient) in trajectory.iter_mut().zip(&latents.dweights) {
            elementwise::add_assign(device, sum, plan.output(*gradient)?)?;
        }
        let (of_mu, of_spread) = moments.split_first_mut().ok_or_else(crate::suits::no_latents)?;
        let dmu = plan.output(latents.dmu)?;
        match own_units.as_mut().filter(|_| self.units == Units::Posterior) {
            None => of_mu.update(device, store.get_mut(latents.mu)?, dmu, 1.0, options)?,
            Some(own) => {
                own.begin(device, store.get(latents.log_var)?, dmu)?;
                of_mu.update(device, &mut own.step, &own.gradient, 1.0, options)?;
                own.apply(device, store.get_mut(latents.mu)?)?;
            }
        }
        let spread = of_spread.iter_mut().zip(latents.spread()).zip(each);
        for ((moments, [input, gradient]), options) in spread {
            let gradient = plan.output(gradient)?;
            moments.update(device, store.get_mut(input)?, gradient, 1.0, options)?;
        }
        Ok::<_, Error>((measured, bounds))
    }
}
