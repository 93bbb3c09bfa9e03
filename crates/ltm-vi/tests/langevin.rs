//! Langevin dynamics against stationary distributions that are known, and what it refuses.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{ModelConfig, Weights};
use ltm_vi::{
    Engine, Error, FastStep, InferConfig, InferKey, Method, Noise, Protocol, Schedule,
    SlowGradient, score_batch,
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

fn engine(slow: SlowGradient, targets: &[i32]) -> Engine {
    let mut weights = Weights::init(&config(), 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    let mut engine = Engine::new(&config(), B, 2, &Device::Cpu, Precision::F64, slow).unwrap();
    engine.set_weights(&weights).unwrap();
    engine.set_batch(&[3; 2 * B], targets).unwrap();
    engine
}

fn key(step: u64) -> InferKey {
    InferKey { seed: 9, step, first_sequence: 0 }
}

fn sample(engine: &mut Engine, infer: &InferConfig, step: u64) -> Vec<f32> {
    engine.infer(infer, 0.0, key(step), &mut |_| Ok(())).unwrap();
    engine.posterior().unwrap().mu
}

/// With nothing to explain the posterior is the prior. A step is then `z = (1-h)·z + sqrt(2h)·N(0,1)`,
/// whose stationary variance is `2h / (1 - (1-h)²) = 1 / (1 - h/2)`: the prior's but for the step.
#[test]
fn the_chain_samples_the_prior_where_nothing_is_known() {
    let mut engine = engine(SlowGradient::None, &[-1; 2 * B]);
    // 0.8^60 of the start is left.
    let samples: Vec<f64> =
        (0..10).flat_map(|step| sample(&mut engine, &infer(60), step)).map(f64::from).collect();
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
    let after = sample(&mut engine(SlowGradient::None, &[7; 2 * B]), &one, 0);
    let alone = sample(&mut engine(SlowGradient::None, &[-1; 2 * B]), &one, 0);
    let mut engine = engine(SlowGradient::None, &[7; 2 * B]);
    let start = sample(&mut engine, &infer(0), 0);
    let mut nll = |z: &[f32]| engine.token_nll_at(z).unwrap().iter().sum::<f64>();
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
    let mut engine = engine(SlowGradient::Final, &[7; 2 * B]);
    let first = sample(&mut engine, &infer(3), 1);
    assert_ne!(sample(&mut engine, &infer(3), 2), first);
    let mut steps: Vec<FastStep> = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    engine.infer(&infer(3), 0.0, key(1), &mut observer).unwrap();
    assert_eq!(engine.posterior().unwrap().mu, first);
    assert_eq!(steps.iter().map(|step| step.step).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(engine.slow_gradients(&[1.0; 2 * B]).unwrap()[0].to_f64().unwrap()[0].is_finite());
}

#[test]
fn what_needs_a_density_is_refused() {
    let mut engine = engine(SlowGradient::None, &[7; 2 * B]);
    sample(&mut engine, &infer(1), 0);
    for protocol in [
        Protocol::ElboFittedNoise,
        Protocol::Elbo { samples: 2 },
        Protocol::Iwae { samples: 2 },
        Protocol::Prequential { stride: 1, samples: 2 },
    ] {
        let refused = score_batch(&mut engine, protocol, &infer(1), key(0)).unwrap_err();
        assert!(matches!(refused, Error::NoDensity { .. }), "{refused}");
        assert!(refused.to_string().contains("infer.method = \"variational\""), "{refused}");
    }
    score_batch(&mut engine, Protocol::Reconstruction, &infer(1), key(0)).unwrap();
    // A fitted Gaussian of the same engine has one.
    let gaussian = InferConfig { method: Method::Variational, ..infer(1) };
    sample(&mut engine, &gaussian, 0);
    score_batch(&mut engine, Protocol::Elbo { samples: 2 }, &gaussian, key(0)).unwrap();
}

#[test]
fn summed_gradients_of_a_bound_are_refused() {
    let mut engine = engine(SlowGradient::Trajectory, &[7; 2 * B]);
    let refused = engine.infer(&infer(1), 0.0, key(0), &mut |_| Ok(()));
    assert!(matches!(refused, Err(Error::Argument { arg: "slow_gradient", .. })));
}
