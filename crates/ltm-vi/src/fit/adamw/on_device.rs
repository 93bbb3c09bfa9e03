//! The fit by AdamW without the host: a step reads the tables on the device, is recorded once and replayed, and the
//! measurements of all steps are read after the last one. Knows no start.

use ltm_autodiff::AdamWState;
use ltm_kernels::Buffer;
use ltm_kernels::cuda::{Context, Recording};
use ltm_kernels::ops::adamw::{self, Factors};
use ltm_kernels::ops::elementwise;

use super::early_stop::{EarlyStop, bounds};
use super::{AdamW, Observer};
use crate::tables::Tables;
use crate::{FastStep, Gaussian, InferKey, Problem, Program, Result, Units};

/// Fits the posterior in the store.
pub(super) fn fit(
    problem: &mut Problem<'_>,
    context: &'static Context,
    adamw: &AdamW,
    key: InferKey,
    observer: &mut Observer<'_>,
) -> Result<Gaussian> {
    problem.load_batch()?;
    problem.load_kl_weight(adamw.kl_weight as f32)?;
    let (extents, column_rate) = (problem.extents(), problem.column_rate());
    let [b, t] = problem.batch().shape();
    let steps = adamw.rates.len();
    let weights = problem.weights;
    let program = &mut *problem.program;
    let mut tables = match program.tables.take() {
        Some(tables) if tables.serve(steps, adamw.noise, adamw.units) => tables,
        _ => {
            let widths = [b * t, b * extents.n_layers];
            let kind = (adamw.noise, adamw.units);
            let drawn = [extents.latent_len(), adamw.rank * extents.n_layers];
            Tables::new(&program.device, steps, kind, b, drawn, widths)?
        }
    };
    // A recording is of the memory of one set of weights.
    let id = weights.parameters().id();
    if tables.recorded_of != id {
        (tables.recording, tables.recorded_of) = (None, id);
    }
    let factors = |options: &dyn Fn(f64) -> adamw::AdamW| -> Vec<f32> {
        let row = |(step, lr): (usize, &f64)| {
            Factors::<f32>::new(options(*lr), 1.0, step as u64 + 1).to_row()
        };
        adamw.rates.iter().enumerate().flat_map(row).collect()
    };
    let of_columns = factors(&|lr| adamw.options(lr * column_rate));
    tables.begin([&factors(&|lr| adamw.options(lr)), &of_columns], key)?;
    let Program { graph, device, precision, nodes, plans, store, .. } = program;
    let outputs = || nodes.fast_outputs();
    let plan = Program::plan(&mut plans.fast, graph, device, *precision, outputs)?;
    plan.prepare(store.with(weights.parameters()))?;
    let mut stop = EarlyStop::new(adamw.stop_window, b, &problem.stored_parameters()?)?;
    let mut taken = 0;
    while taken < steps {
        if let Some(Ok(recording)) = &tables.recording {
            recording.replay()?;
        } else {
            // The first step runs without recording, so that all kernels are compiled by then.
            enqueue_step(problem, adamw.units, &mut tables)?;
            if tables.recording.is_none() {
                let step = || enqueue_step(problem, adamw.units, &mut tables);
                tables.recording = Some(Recording::capture(context, step));
            }
        }
        taken += 1;
        if let Some(stop) = &mut stop
            && taken.is_multiple_of(adamw.stop_window)
        {
            // Waits for the device, once per window.
            let measured = tables.measured()?;
            let window = &measured[taken - adamw.stop_window..taken];
            let posterior = problem.stored_parameters()?;
            let mut all = false;
            for (nll, kl) in window {
                all = stop.after(&bounds(b, nll, kl), &posterior)?;
            }
            if all {
                break;
            }
        }
    }
    let measured = tables.measured()?;
    problem.program.tables = Some(tables);
    let mut fitted = problem.stored()?;
    if let Some(stop) = stop {
        stop.restore(fitted.parameters_mut())?;
    }
    measured[..taken].iter().zip(&adamw.rates).enumerate().try_for_each(
        |(step, ((nll, kl), lr))| {
            let nll = nll.iter().sum();
            observer(&FastStep::new(step, *lr, nll, kl, extents.n_layers))
        },
    )?;
    Ok(fitted)
}

/// Enqueues one whole fast step, which reads only the tables on the device.
fn enqueue_step(problem: &mut Problem<'_>, units: Units, tables: &mut Tables) -> Result<()> {
    let inputs = problem.weights.parameters();
    let Program { device, nodes, plans, store, moments, own_units, trajectory, .. } =
        &mut *problem.program;
    let (Some(latents), Some(plan)) = (&nodes.latents, &mut plans.fast) else {
        return Err(crate::suits::no_latents());
    };
    plan.run_step(store.with(inputs))?;
    tables.record(device, plan.output(nodes.nll)?, plan.output(latents.kl)?)?;
    for (sum, gradient) in trajectory.iter_mut().zip(&latents.dweights) {
        elementwise::add_assign(device, sum, plan.output(*gradient)?)?;
    }
    let [factors, of_columns] = &tables.factors;
    let update = |state: &mut AdamWState, param: &mut Buffer, gradient: &Buffer, factors| {
        let (m, v) = (&mut state.m, &mut state.v);
        adamw::scheduled(device, param, m, v, gradient, factors, &tables.step)
    };
    let (of_mu, of_spread) = moments.split_first_mut().ok_or_else(crate::suits::no_latents)?;
    let dmu = plan.output(latents.dmu)?;
    match own_units.as_mut().filter(|_| units == Units::Posterior) {
        None => update(of_mu, store.get_mut(latents.mu)?, dmu, factors)?,
        Some(own) => {
            own.begin(device, store.get(latents.log_var)?, dmu)?;
            update(of_mu, &mut own.step, &own.gradient, factors)?;
            own.apply(device, store.get_mut(latents.mu)?)?;
        }
    }
    let spread = of_spread.iter_mut().zip(latents.spread()).zip([factors, of_columns]);
    for ((moments, [input, gradient]), factors) in spread {
        update(moments, store.get_mut(input)?, plan.output(gradient)?, factors)?;
    }
    tables.draw(device, store.get_mut(latents.noise)?, 0)?;
    if let Some(factor) = latents.factor {
        tables.draw(device, store.get_mut(factor.noise)?, 1)?;
    }
    tables.advance(device)
}
