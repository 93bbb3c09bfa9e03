//! Langevin dynamics against stationary distributions that are known, and what it refuses.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Weights};
use ltm_vi::{
    Batch, Error, FastStep, InferConfig, InferKey, Inference, Latents, Method, Noise, Program,
    Protocol, Schedule, Sequences, SlowGradient, score,
};

const B: usize = 32;
const RATE: f64 = 0.2;

fn config() -> ModelConfig {
    ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 2,
        window: 2,
        n_latents: 4,
        ffn_hidden: 16,
        ..ModelConfig::ltm_small()
    }
}

fn infer(steps: usize) -> InferConfig {
    InferConfig {
        method: Method::Langevin,
        steps,
        lr: RATE,
        lr_end: None,
        schedule: Schedule::Constant,
        noise: Noise::Fresh,
        ..InferConfig::published()
    }
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(slow: SlowGradient, targets: &[i32]) -> Case {
    let mut weights = Weights::init(&config(), 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    Case {
        program: Program::new(&config(), B, 2, &cpu, f64, slow).unwrap(),
        weights: DeviceWeights::new(&config(), &weights, &cpu, f64).unwrap(),
        batch: Batch::new(&config(), B, &[3; 2 * B], targets).unwrap(),
    }
}

fn key(step: u64) -> InferKey<'static> {
    InferKey { seed: 9, step, sequences: Sequences::From(0) }
}

fn fit(case: &mut Case, infer: &InferConfig, step: u64) -> Result<Latents, Error> {
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    Inference::at(infer, 0.0).unwrap().infer(&mut problem, key(step), &mut |_| Ok(()))
}

fn sample(case: &mut Case, infer: &InferConfig, step: u64) -> Vec<f32> {
    let latents = fit(case, infer, step).unwrap();
    assert!(matches!(latents, Latents::Sample(_)));
    latents.center().unwrap()
}

/// With nothing to explain the posterior is the prior. A step is then `z = (1-h)·z + sqrt(2h)·N(0,1)`,
/// whose stationary variance is `2h / (1 - (1-h)²) = 1 / (1 - h/2)`: the prior's but for the step.
#[test]
fn the_chain_samples_the_prior_where_nothing_is_known() {
    let mut case = case(SlowGradient::None, &[-1; 2 * B]);
    // 0.8^60 of the start is left.
    let samples: Vec<f64> =
        (0..10).flat_map(|step| sample(&mut case, &infer(60), step)).map(f64::from).collect();
    let n = samples.len() as f64;
    let mean = samples.iter().sum::<f64>() / n;
    let variance = samples.iter().map(|z| (z - mean).powi(2)).sum::<f64>() / n;
    let expected = 1.0 / (1.0 - RATE / 2.0);
    let (mean_error, variance_error) = ((expected / n).sqrt(), expected * (2.0 / n).sqrt());
    assert!(mean.abs() <= 4.0 * mean_error, "{mean} ± {mean_error}");
    assert!((variance - expected).abs() <= 4.0 * variance_error, "{variance} ± {variance_error}");
    assert!(expected - 1.0 > 4.0 * variance_error, "the step's part can be told from the prior's");
}

/// Two chains of the same noise differ after one step by the rate times the likelihood's gradient.
#[test]
fn a_step_follows_the_likelihood() {
    let one = infer(1);
    let after = sample(&mut case(SlowGradient::None, &[7; 2 * B]), &one, 0);
    let alone = sample(&mut case(SlowGradient::None, &[-1; 2 * B]), &one, 0);
    let mut case = case(SlowGradient::None, &[7; 2 * B]);
    let start = sample(&mut case, &infer(0), 0);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let mut nll = |z: &[f32]| problem.token_nll_at(z).unwrap().iter().sum::<f64>();
    for i in [0, 37, 500] {
        // Rounding of `z` to single precision moves the quotient by 1e-7 / 2e-3 of the slope, and
        // that of the two chains by 1e-7 / 0.2 of a chain's size of about 1.
        let nudge = |by: f32| {
            let mut z = start.clone();
            z[i] += by;
            (f64::from(z[i]), z)
        };
        let ((high, z_high), (low, z_low)) = (nudge(1e-3), nudge(-1e-3));
        let slope = (nll(&z_high) - nll(&z_low)) / (high - low);
        let found = f64::from(alone[i] - after[i]) / RATE;
        assert!((found - slope).abs() <= 1e-4 * (1.0 + slope.abs()), "{i}: {found} {slope}");
        assert!(slope.abs() > 1e-2, "{slope} says nothing");
    }
}

#[test]
fn a_chain_depends_on_its_key_and_is_told() {
    let mut case = case(SlowGradient::Final, &[7; 2 * B]);
    let first = sample(&mut case, &infer(3), 1);
    assert_ne!(sample(&mut case, &infer(3), 2), first);
    let mut steps: Vec<FastStep> = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let inference = Inference::at(&infer(3), 0.0).unwrap();
    let latents = inference.infer(&mut problem, key(1), &mut observer).unwrap();
    assert_eq!(latents.center().unwrap(), first);
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [0, 1, 2]);
    let slow = problem.weight_gradients(&latents, &[1.0; 2 * B], 1.0).unwrap();
    assert!(slow.gradients[0].to_f64().unwrap()[0].is_finite());
    assert_eq!(slow.kl, None);
}

#[test]
fn what_needs_a_density_is_refused() {
    let mut case = case(SlowGradient::None, &[7; 2 * B]);
    let inference = Inference::finished(&infer(1)).unwrap();
    let latents = fit(&mut case, &infer(1), 0).unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    for protocol in [
        Protocol::ElboFittedNoise,
        Protocol::Elbo { samples: 2 },
        Protocol::Iwae { samples: 2 },
        Protocol::Prequential { stride: 1, samples: 2 },
    ] {
        let refused = score(&mut problem, protocol, &latents, &inference, key(0)).unwrap_err();
        assert!(matches!(refused, Error::Unsuitable { what: "protocol", .. }), "{refused}");
        assert!(refused.to_string().contains("infer.method = \"variational\""), "{refused}");
    }
    score(&mut problem, Protocol::Reconstruction, &latents, &inference, key(0)).unwrap();
    // A Gaussian fitted to the same weights has one.
    let gaussian = InferConfig { method: Method::Variational, ..infer(1) };
    let inference = Inference::finished(&gaussian).unwrap();
    let latents = inference.infer(&mut problem, key(0), &mut |_| Ok(())).unwrap();
    score(&mut problem, Protocol::Elbo { samples: 2 }, &latents, &inference, key(0)).unwrap();
}

#[test]
fn summed_gradients_of_a_bound_are_refused() {
    let mut case = case(SlowGradient::Trajectory, &[7; 2 * B]);
    let refused = fit(&mut case, &infer(1), 0);
    assert!(matches!(refused, Err(Error::Unsuitable { what: "train.slow_gradient", .. })));
}
