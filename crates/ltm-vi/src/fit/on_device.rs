//! The fit by AdamW without the host: rates and generators are in tables on the device, a step is recorded once
//! and replayed, and the measurements of all steps are read after the last one. Knows no start.

use ltm_kernels::cuda::{Context, Recording};
use ltm_kernels::ops::adamw::{self, Factors};
use ltm_kernels::ops::elementwise::{self, RecordDims};
use ltm_kernels::ops::philox::{self, NormalRowsDims};
use ltm_kernels::{Buffer, DType, Device};

use super::{AdamW, Observer};
use crate::key::Purpose;
use crate::{Error, FastStep, InferKey, Noise, Problem, Program, Result};

/// Fits the posterior in the store.
pub(super) fn fit(
    problem: &mut Problem<'_>,
    context: &'static Context,
    adamw: &AdamW,
    key: InferKey,
    observer: &mut Observer<'_>,
) -> Result<()> {
    problem.load_batch()?;
    problem.load_kl_weight(adamw.kl_weight as f32)?;
    let extents = problem.extents();
    let [b, t] = problem.batch().shape();
    let weights = problem.weights;
    let program = &mut *problem.program;
    let mut tables = match program.tables.take() {
        Some(tables) if tables.serves(adamw) => tables,
        _ => {
            let widths = [b * t, b * extents.n_layers];
            Tables::new(&program.device, adamw, b, extents.latent_len(), widths)?
        }
    };
    // A recording is of the memory of one set of weights.
    let id = weights.parameters().id();
    if tables.recorded_of != id {
        (tables.recording, tables.recorded_of) = (None, id);
    }
    tables.begin(adamw, key)?;
    let Program { graph, device, precision, nodes, plans, store, .. } = program;
    let outputs = || nodes.fast_outputs();
    let plan = Program::plan(&mut plans.fast, graph, device, *precision, outputs)?;
    plan.prepare(store.with(weights.parameters()))?;
    for _ in 0..adamw.rates.len() {
        if let Some(Ok(recording)) = &tables.recording {
            recording.replay()?;
            continue;
        }
        // The first step runs without recording, so that all kernels are compiled by then.
        enqueue_step(problem, &mut tables)?;
        if tables.recording.is_none() {
            let recorded = Recording::capture(context, || enqueue_step(problem, &mut tables));
            tables.recording = Some(recorded);
        }
    }
    let steps = tables.steps(adamw, extents.n_layers)?;
    problem.program.tables = Some(tables);
    steps.iter().try_for_each(observer)
}

/// Enqueues one whole fast step, which reads only the tables on the device.
fn enqueue_step(problem: &mut Problem<'_>, tables: &mut Tables) -> Result<()> {
    let inputs = problem.weights.parameters();
    let Program { device, nodes, plans, store, moments, trajectory, .. } = &mut *problem.program;
    let (Some(latents), Some(plan)) = (&nodes.latents, &mut plans.fast) else {
        return Err(crate::suits::no_latents());
    };
    plan.run_step(store.with(inputs))?;
    tables.record(device, plan.output(nodes.nll)?, plan.output(latents.kl)?)?;
    for (sum, gradient) in trajectory.iter_mut().zip(&latents.dweights) {
        elementwise::add_assign(device, sum, plan.output(*gradient)?)?;
    }
    let values = [(latents.mu, latents.dmu), (latents.log_var, latents.dlog_var)];
    for (state, (param, gradient)) in moments.iter_mut().zip(values) {
        let (param, gradient) = (store.get_mut(param)?, plan.output(gradient)?);
        let (m, v) = (&mut state.m, &mut state.v);
        adamw::scheduled(device, param, m, v, gradient, &tables.factors, &tables.step)?;
    }
    tables.advance(device, store.get_mut(latents.noise)?)
}

/// The device's side of a fit of `S` steps.
pub(crate) struct Tables {
    steps: usize,
    noise: Noise,
    /// Numbers of one step's NLL and KL.
    widths: [usize; 2],
    /// AdamW's factors, `(S,8)`.
    factors: Buffer,
    /// Generators of each step's next noise, `(S,B,4)`.
    keys: Buffer,
    keys_dims: NormalRowsDims,
    /// The step, `(1)`.
    step: Buffer,
    /// The measurements of each step, `(S, B·T + B·L)`.
    history: Buffer,
    /// One step, once it has been recorded; or why it cannot be, so that every step is run as it is.
    recording: Option<Result<Recording>>,
    /// The weights whose memory it reads.
    recorded_of: u64,
}

impl Tables {
    /// Tables for `adamw` and `b` sequences of `n` latent numbers; a step measures `widths` numbers.
    fn new(device: &Device, adamw: &AdamW, b: usize, n: usize, widths: [usize; 2]) -> Result<Self> {
        let steps = adamw.rates.len();
        let floats = |len| Buffer::zeros(device, DType::F32, len);
        let integers = |len| Buffer::zeros(device, DType::I32, len);
        Ok(Self {
            steps,
            noise: adamw.noise,
            widths,
            factors: floats(steps * 8)?,
            keys: integers(steps * b * 4)?,
            keys_dims: NormalRowsDims { steps, rows: b, n },
            step: integers(1)?,
            history: floats(steps * (widths[0] + widths[1]))?,
            recording: None,
            recorded_of: 0,
        })
    }

    /// Whether the tables, and with them a recording, fit this configuration.
    fn serves(&self, adamw: &AdamW) -> bool {
        self.steps == adamw.rates.len() && self.noise == adamw.noise
    }

    /// Why a step could not be recorded, if it could not.
    pub(crate) fn recording_failure(&self) -> Option<&Error> {
        self.recording.as_ref()?.as_ref().err()
    }

    /// Fills the tables for a fit and sets the step to 0.
    fn begin(&mut self, adamw: &AdamW, key: InferKey) -> Result<()> {
        let (mut factors, mut keys) = (Vec::new(), Vec::new());
        for (step, lr) in adamw.rates.iter().enumerate() {
            let options = adamw.options(*lr);
            factors.extend(Factors::<f32>::new(options, 1.0, step as u64 + 1).to_row());
            for sequence in 0..self.keys_dims.rows {
                let generator = key.generator(sequence, Purpose::FitNoise, step + 1);
                keys.extend(generator.words().map(u32::cast_signed));
            }
        }
        self.factors.write_f32(&factors)?;
        self.keys.write_i32(&keys)?;
        Ok(self.step.write_i32(&[0])?)
    }

    /// Records the measurements of the current step.
    fn record(&mut self, device: &Device, nll: &Buffer, kl: &Buffer) -> Result<()> {
        let [n, m] = self.widths;
        let dims = RecordDims { rows: self.steps, width: n + m, offset: 0, n };
        elementwise::record(device, &mut self.history, nll, &self.step, dims)?;
        let dims = RecordDims { offset: n, n: m, ..dims };
        Ok(elementwise::record(device, &mut self.history, kl, &self.step, dims)?)
    }

    /// Draws the next noise, if it is fresh, and increments the step.
    fn advance(&mut self, device: &Device, noise: &mut Buffer) -> Result<()> {
        if self.noise == Noise::Fresh {
            philox::normal_rows(device, noise, &self.keys, &self.step, self.keys_dims)?;
        }
        Ok(elementwise::increment(device, &mut self.step)?)
    }

    /// The measurements of all steps of a fit; waits for the device.
    fn steps(&self, adamw: &AdamW, n_layers: usize) -> Result<Vec<FastStep>> {
        let history = self.history.to_f64()?;
        let rows = history.chunks(self.widths[0] + self.widths[1]).zip(&adamw.rates).enumerate();
        let read = |(step, (row, lr)): (usize, (&[f64], &f64))| {
            let (nll, kl) = row.split_at(self.widths[0]);
            FastStep::new(step, *lr, nll.iter().sum(), kl, n_layers)
        };
        Ok(rows.map(read).collect())
    }
}
