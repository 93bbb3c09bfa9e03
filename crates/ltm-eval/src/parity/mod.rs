//! This build compared with recorded values of another implementation: one fast loop, one slow step, greedy decoding.
//! Trains nothing and prints nothing.

mod fixture;
mod limits;

use std::sync::Arc;

use ltm_model::{Decoder, DeviceWeights, Forward, SampleConfig, Tap, param_table, sample};
use ltm_train::ltm_autodiff::AdamWState;
use ltm_train::ltm_autodiff::ltm_kernels::ops::adamw::AdamW;
use ltm_train::step::{clip_scale, global_norm};
use ltm_vi::fit::AdamW as FastAdamW;
use ltm_vi::{
    Buffer, Device, Gaussian, InferKey, Inference, Latents, Noise, Precision, Program, Sequences,
    SlowGradient, Start, Units,
};

use self::limits::Limits;
use crate::Result;

pub use self::fixture::Fixture;

/// One compared quantity.
#[derive(Clone, Debug, PartialEq)]
pub struct Quantity {
    /// The recorded tensor's name.
    pub name: String,
    /// The relative Frobenius error, or for decoding the number of wrong tokens.
    pub error: f64,
    /// The largest error that passes.
    pub limit: f64,
}

impl Quantity {
    /// Whether the error exceeds its limit, or is NaN.
    pub fn exceeds(&self) -> bool {
        !(self.error <= self.limit)
    }
}

/// Compares what this build computes on `device` with the values of a fixture, with limits that follow from `precision`.
/// A recorded tensor that this build does not know exceeds its limit, so that nothing passes unseen.
///
/// # Errors
/// [`Error::File`](crate::Error::File) when a tensor is missing that the limits of `precision` need, [`Error::Infer`](crate::Error::Infer) and [`Error::Train`](crate::Error::Train)
/// when the fixture is not computable on the device.
pub fn compare(fixture: &Fixture, device: &Device, precision: Precision) -> Result<Vec<Quantity>> {
    let limits = Limits::new(fixture, precision)?;
    let mut found = Found { fixture, limits, quantities: Vec::new() };
    let mut weights = DeviceWeights::new(&fixture.model, &fixture.weights, device, precision)?;
    logits(&mut found, &weights, precision)?;
    let [b, t] = fixture.batch.shape();
    let slow = SlowGradient::Trajectory;
    let mut program = Program::new(&fixture.model, b, t, device, precision, slow)?;
    let latents = fast_loop(&mut found, &mut program, &weights, precision)?;
    let z = bound(&mut found, &mut program, &weights, &latents)?;
    let gradients = slow_gradients(&mut found, &mut program, &weights, &latents)?;
    slow_step(&mut found, &mut weights, &gradients, precision)?;
    greedy(&mut found, &weights, &z)?;
    let unknown = found.unknown();
    let mut quantities = found.quantities;
    quantities.extend(unknown);
    Ok(quantities)
}

/// Collects quantities; what was not recorded is omitted.
struct Found<'a> {
    fixture: &'a Fixture,
    limits: Limits,
    quantities: Vec<Quantity>,
}

impl Found<'_> {
    fn add(&mut self, name: &str, found: &[f64]) {
        if let Some(expected) = self.fixture.floats.get(name) {
            let limit = self.limits.of(name, expected);
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
            let error = frobenius(found, &expected);
            self.quantities.push(Quantity { name: name.into(), error, limit });
        }
    }

    fn add_f32(&mut self, name: &str, found: &[f32]) {
        let found: Vec<f64> = found.iter().map(|x| f64::from(*x)).collect();
        self.add(name, &found);
    }

    /// Recorded tensors that were neither read nor compared.
    fn unknown(&self) -> Vec<Quantity> {
        let known = |name: &str| {
            ["mu0", "log_var0", "eps"].contains(&name)
                || name.starts_with("param.")
                || self.quantities.iter().any(|quantity| quantity.name == name)
        };
        let mut names: Vec<&String> =
            self.fixture.floats.keys().filter(|name| !known(name)).collect();
        names.sort();
        let quantity = |name: &String| Quantity {
            name: format!("{name} (unknown)"),
            error: f64::NAN,
            limit: 0.0,
        };
        names.into_iter().map(quantity).collect()
    }
}

/// Logits of all positions at the sample of the start.
fn logits(found: &mut Found<'_>, weights: &DeviceWeights, precision: Precision) -> Result<()> {
    let Fixture { model: config, batch, start, .. } = found.fixture;
    let taps = [Tap::Logits(config.n_layers)];
    let mut forward = Forward::new(*config, weights.clone(), precision, &taps)?;
    let [b, _] = batch.shape();
    let logits = forward.run(b, batch.tokens(), &start.sample()?)?.remove(0);
    let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
    found.add("logits", &logits);
    Ok(())
}

/// The gradient at the start, and the fits; returns the longest one, or the start if no step was recorded.
fn fast_loop(
    found: &mut Found<'_>,
    program: &mut Program,
    weights: &DeviceWeights,
    precision: Precision,
) -> Result<Latents> {
    let Fixture { hyperparameters: c, batch, start, .. } = found.fixture;
    let [b, _] = batch.shape();
    let device = weights.device();
    let mut problem = program.problem(weights, batch)?;
    let q = Arc::new(Gaussian::new(start, &device, precision.float)?);
    let at = problem.gradient(&q, 1.0)?;
    found.add("grad_mu0", &at.dmu.to_f64()?);
    found.add("grad_log_var0", &at.dlog_var.to_f64()?);
    found.add("nll0", &per_sequence(&at.nll, b));
    found.add("kl0", &start.kl(b)?);

    // With one noise for all steps, the first steps of a fit are a shorter fit.
    let all = c.fast_lrs.len();
    let recorded = |steps: &usize| {
        let names = ["mu", "log_var"].map(|name| format!("{name}_step{steps}"));
        *steps == all || names.iter().any(|name| found.fixture.floats.contains_key(name))
    };
    let lengths: Vec<usize> = (1..=all).filter(recorded).collect();
    let key = InferKey { seed: 0, step: 0, sequences: Sequences::From(0) };
    let mut latents = Latents::from(Gaussian::new(start, &device, precision.float)?);
    let mut bounds = Vec::new();
    for steps in lengths {
        let fit = FastAdamW {
            rates: c.fast_lrs[..steps].to_vec(),
            beta1: c.fast_betas[0],
            beta2: c.fast_betas[1],
            eps: c.fast_eps,
            weight_decay: c.fast_weight_decay,
            units: Units::Latent,
            noise: Noise::Fixed,
            rank: 0,
            stop_window: 0,
            kl_weight: 1.0,
        };
        bounds.clear();
        let inference = Inference::new(fit, Start::Given(q.clone()));
        latents = inference.infer(&mut problem, key, &mut |step| {
            bounds.push(step.bound);
            Ok(())
        })?;
        let posterior = fitted(&latents).to_host()?;
        found.add_f32(&format!("mu_step{steps}"), &posterior.mu);
        found.add_f32(&format!("log_var_step{steps}"), &posterior.log_var);
    }
    if !c.nelbo_trajectory.is_empty() {
        let name = "nelbo_trajectory";
        let error = frobenius(&bounds, &c.nelbo_trajectory);
        let limit = found.limits.of(name, &[]);
        found.quantities.push(Quantity { name: name.into(), error, limit });
    }
    Ok(latents)
}

/// The bound of the fitted posterior; returns its sample.
fn bound(
    found: &mut Found<'_>,
    program: &mut Program,
    weights: &DeviceWeights,
    latents: &Latents,
) -> Result<Vec<f32>> {
    let batch = &found.fixture.batch;
    let [b, t] = batch.shape();
    let posterior = fitted(latents).to_host()?;
    let z = posterior.sample()?;
    found.add_f32("z_final", &z);
    let nll = program.problem(weights, batch)?.token_nll(latents)?;
    let kl = posterior.kl(b)?;
    let nelbo: Vec<f64> = per_sequence(&nll, b).iter().zip(kl).map(|(nll, kl)| nll + kl).collect();
    found.add("final_nelbo", &[nelbo.iter().sum()]);
    let perplexity = nelbo.iter().map(|nelbo| (nelbo / t as f64).exp()).sum::<f64>() / b as f64;
    found.add("final_ppl_mean", &[perplexity]);
    Ok(z)
}

/// The gradients of the weights at the fitted posterior, which are returned, and those along the way to it.
fn slow_gradients(
    found: &mut Found<'_>,
    program: &mut Program,
    weights: &DeviceWeights,
    latents: &Latents,
) -> Result<Vec<Buffer>> {
    let Fixture { model, batch, .. } = found.fixture;
    let specs = param_table(model);
    let scored: usize = batch.scored_tokens().iter().sum();
    let share = 1.0 / scored.max(1) as f64;
    let shares = vec![share as f32; batch.tokens().len()];
    let mut problem = program.problem(weights, batch)?;
    let slow = problem.weight_gradients(latents, &shares, 1.0)?;
    found.add("slow_loss", &[slow.nll.iter().sum::<f64>() * share]);
    let gradients: Vec<Buffer> =
        slow.gradients.into_iter().map(Buffer::try_clone).collect::<std::result::Result<_, _>>()?;
    for (spec, sum) in specs.iter().zip(program.trajectory_gradients()) {
        found.add(&format!("fast_leak_grad.{}", spec.name), &sum.to_f64()?);
    }
    for (spec, gradient) in specs.iter().zip(&gradients) {
        found.add(&format!("slow_grad.{}", spec.name), &gradient.to_f64()?);
    }
    Ok(gradients)
}

/// One update of the weights.
fn slow_step(
    found: &mut Found<'_>,
    weights: &mut DeviceWeights,
    gradients: &[Buffer],
    precision: Precision,
) -> Result<()> {
    let Fixture { hyperparameters: c, model, .. } = found.fixture;
    let device = weights.device();
    let norm = global_norm(gradients)?;
    found.add("slow_grad_norm", &[norm]);
    for (i, (spec, gradient)) in param_table(model).iter().zip(gradients).enumerate() {
        let options = AdamW {
            lr: c.slow_lr,
            beta1: c.slow_betas[0],
            beta2: c.slow_betas[1],
            eps: 1e-8,
            weight_decay: if spec.decay { c.slow_weight_decay } else { 0.0 },
        };
        let mut state = AdamWState::new(&device, precision.float, spec.len())?;
        let scale = clip_scale(norm, c.grad_clip);
        let weight = weights.param_mut(i)?;
        state.update(&device, weight, gradient, scale, options)?;
        found.add(&format!("param_after.{}", spec.name), &weight.to_f64()?);
    }
    Ok(())
}

/// Greedy decoding from the first quarter of the tokens, which must be the same to the last token.
fn greedy(found: &mut Found<'_>, weights: &DeviceWeights, z: &[f32]) -> Result<()> {
    let Fixture { model: config, batch, greedy: Some(expected), .. } = found.fixture else {
        return Ok(());
    };
    let [b, t] = batch.shape();
    let len = expected.len() / b;
    let prompt_len = (t / 4).max(1);
    let mut texts: Vec<Vec<i32>> =
        batch.tokens().chunks(t).map(|row| row[..prompt_len.min(len)].to_vec()).collect();
    let mut decoder = Decoder::with_weights(*config, weights.clone(), b)?;
    decoder.set_latents(z)?;
    let mut logits = decoder.prefill(&texts.concat())?;
    while texts[0].len() < len {
        let next = logits
            .chunks(config.vocab_size)
            .map(|logits| Ok(sample(logits, &SampleConfig::GREEDY, 0.0)? as i32))
            .collect::<Result<Vec<_>>>()?;
        for (text, token) in texts.iter_mut().zip(&next) {
            text.push(*token);
        }
        if texts[0].len() == len {
            break;
        }
        logits = decoder.step(&next)?;
    }
    let wrong = texts.concat().iter().zip(expected).filter(|(a, b)| a != b).count();
    let name = "greedy_after (tokens wrong)".into();
    found.quantities.push(Quantity { name, error: wrong as f64, limit: 0.0 });
    Ok(())
}

/// Sums over the tokens of each of `b` sequences.
fn per_sequence(nll: &[f64], b: usize) -> Vec<f64> {
    nll.chunks(nll.len() / b).map(|nll| nll.iter().sum()).collect()
}

/// The posterior of a model with latents, fitted by AdamW.
fn fitted(latents: &Latents) -> &Gaussian {
    latents.gaussian().expect("AdamW fits a posterior, and a fixture's model has latents")
}

/// The relative Frobenius error `|found - expected| / |expected|`; infinite for other lengths.
fn frobenius(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let diff: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = expected.iter().map(|b| square(*b)).sum();
    if norm > 0.0 { (diff / norm).sqrt() } else { diff.sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn an_error_of_another_length_or_of_nan_exceeds_any_limit() {
        let quantity = |error| Quantity { name: "logits".into(), error, limit: 1.0 };
        assert!((frobenius(&[3.0, 0.0], &[0.0, 4.0]) - 5.0 / 4.0).abs() <= 1e-15);
        assert!(quantity(frobenius(&[1.0], &[1.0, 1.0])).exceeds());
        assert!(quantity(f64::NAN).exceeds() && !quantity(1.0).exceeds());
    }

    #[test]
    fn another_noise_is_found_and_a_tensor_that_nobody_knows_is_named() {
        let path =
            concat!(env!("CARGO_MANIFEST_DIR"), "/../ltm-model/tests/fixtures/tiny.safetensors");
        let mut fixture = Fixture::read(Path::new(path)).expect("a fixture");
        fixture.start.noise[0] += 0.1;
        fixture.floats.insert("novel".into(), vec![1.0]);
        let found = compare(&fixture, &Device::Cpu, Precision::F32).expect("computable");
        let exceeded: Vec<&str> =
            found.iter().filter(|q| q.exceeds()).map(|q| q.name.as_str()).collect();
        for name in ["logits", "grad_mu0", "z_final", "slow_grad_norm", "novel (unknown)"] {
            assert!(exceeded.contains(&name), "{name} is not in {exceeded:?}");
        }
        assert!(!exceeded.contains(&"kl0"), "the start's KL does not depend on the noise");
    }
}
