//! The engine, its fits and its estimators on models small enough to know the answers.

use ltm_autodiff::Precision;
use ltm_kernels::{DType, Device};
use ltm_model::{ModelConfig, Weights, param_table};
use ltm_vi::{
    Engine, Error, FastStep, InferConfig, InferKey, Method, Noise, Posterior, Protocol, Schedule,
    SlowGradient, score_batch,
};

const CONFIG: ModelConfig = ModelConfig {
    dim: 8,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 11,
    max_seq_len: 6,
    window: 3,
    n_latents: 4,
    ffn_hidden: 16,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_layers: 0,
};
const KEY: InferKey = InferKey { seed: 2, step: 3, first_sequence: 0 };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

/// Weights large enough for the latents to matter.
fn weights(config: &ModelConfig) -> Weights {
    let mut weights = Weights::init(config, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    weights
}

fn engine(config: ModelConfig, precision: Precision, slow: SlowGradient) -> Engine {
    let mut engine = Engine::new(&config, 2, 5, &Device::Cpu, precision, slow).unwrap();
    engine.set_weights(&weights(&config)).unwrap();
    engine.set_batch(&TOKENS, &TARGETS).unwrap();
    engine
}

fn fit(engine: &mut Engine, infer: &InferConfig, key: InferKey) -> Vec<FastStep> {
    let mut steps = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    engine.infer(infer, 0.0, key, &mut observer).unwrap();
    steps
}

#[test]
fn a_fit_descends_and_counts_its_steps() {
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    let steps = fit(&mut engine, &InferConfig::published(), KEY);
    assert_eq!(steps.len(), 16);
    assert!(steps.iter().enumerate().all(|(i, step)| step.step == i));
    assert!(steps[15].bound < steps[0].bound);
    for step in &steps {
        assert_eq!(step.kl_per_layer.len(), 2);
        assert_eq!(step.bound, step.nll + step.kl_per_layer.iter().sum::<f64>());
    }
}

/// With nothing to explain the objective is the KL, whose optimum is the prior.
#[test]
fn a_fit_to_nothing_reaches_the_prior() {
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    engine.set_batch(&TOKENS, &[-1; 10]).unwrap();
    let infer = InferConfig {
        steps: 400,
        schedule: Schedule::Cosine,
        final_ratio: 0.0,
        weight_decay: 0.0,
        init_mu_std: 1.0,
        ..InferConfig::published()
    };
    fit(&mut engine, &infer, KEY);
    let posterior = engine.posterior().unwrap();
    let largest = posterior.mu.iter().chain(&posterior.log_var).fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest <= 1e-3, "{largest}");
    assert!(engine.token_nll().unwrap().iter().all(|nll| *nll == 0.0));
}

/// At the beginning of a training with a warm-up the KL pulls at nothing: a fit to nothing stays where
/// it started, halfway it is pulled, and after the warm-up it goes as without one.
#[test]
fn the_kl_warms_up_with_training() {
    let infer = InferConfig {
        steps: 3,
        weight_decay: 0.0,
        init_mu_std: 1.0,
        lr_end: None,
        eps: 1.0, // a step depends on the gradient's size, not its sign alone
        ..InferConfig::published()
    };
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    engine.set_batch(&TOKENS, &[-1; 10]).unwrap();
    let mut fitted = |kl_warmup, progress| {
        let infer = InferConfig { kl_warmup, ..infer };
        engine.infer(&infer, progress, KEY, &mut |_| Ok(())).unwrap();
        engine.posterior().unwrap()
    };
    let length = |posterior: &Posterior| posterior.mu.iter().map(|x| x * x).sum::<f32>();
    let start = Posterior::initial(&CONFIG, &infer, 2, KEY).unwrap();
    let full = fitted(0.0, 0.0);
    assert_eq!(fitted(0.5, 0.0), start);
    assert_eq!(fitted(0.5, 0.5), full);
    let half = fitted(0.5, 0.25);
    assert!(length(&start) > length(&half) && length(&half) > length(&full));
}

#[test]
fn a_fit_depends_on_its_key_and_not_on_history() {
    for noise in [Noise::Fixed, Noise::Fresh] {
        let infer = InferConfig { noise, ..InferConfig::published() };
        let mut fresh = engine(CONFIG, Precision::F32, SlowGradient::None);
        fit(&mut fresh, &infer, KEY);
        let expected = fresh.posterior().unwrap();
        let other = InferKey { step: 4, ..KEY };
        fit(&mut fresh, &infer, other);
        assert_ne!(fresh.posterior().unwrap(), expected);
        score_batch(&mut fresh, Protocol::Iwae { samples: 2 }, &InferConfig::published(), KEY)
            .unwrap();
        fit(&mut fresh, &infer, KEY);
        assert_eq!(fresh.posterior().unwrap(), expected);
        let start = Posterior::initial(&CONFIG, &infer, 2, KEY).unwrap();
        assert_eq!(expected.noise == start.noise, noise == Noise::Fixed);
    }
}

#[test]
fn an_observer_can_stop_a_fit() {
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    let mut seen = 0;
    let result = engine.infer(&InferConfig::published(), 0.0, KEY, &mut |_| {
        seen += 1;
        if seen == 3 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!(seen, 3);
}

#[test]
fn scoring_leaves_the_posterior_alone() {
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    fit(&mut engine, &InferConfig::published(), KEY);
    let (before, nll) = (engine.posterior().unwrap(), engine.token_nll().unwrap());
    let at = engine.token_nll_at(&before.sample().unwrap()).unwrap();
    let distance = ltm_testkit::relative_frobenius(&at, &nll);
    assert!(distance <= 1e-5, "{distance:e}");
    assert_ne!(engine.token_nll_at(&vec![0.0; before.mu.len()]).unwrap(), nll);
    score_batch(&mut engine, Protocol::Elbo { samples: 3 }, &InferConfig::published(), KEY)
        .unwrap();
    assert_eq!(engine.posterior().unwrap(), before);
    assert_eq!(engine.token_nll().unwrap(), nll);
}

#[test]
fn importance_weights_tighten_the_bound() {
    let mut engine = engine(CONFIG, Precision::F64, SlowGradient::None);
    let infer = InferConfig { noise: Noise::Fresh, ..InferConfig::published() };
    fit(&mut engine, &infer, KEY);
    let mut score =
        |protocol| score_batch(&mut engine, protocol, &InferConfig::published(), KEY).unwrap();
    let elbo = score(Protocol::Elbo { samples: 64 });
    let iwae = score(Protocol::Iwae { samples: 64 });
    let single = score(Protocol::Iwae { samples: 1 });
    assert!(single.variance[0].is_nan());
    for b in 0..2 {
        let error = (elbo.variance[b] + iwae.variance[b]).sqrt();
        assert!(iwae.nats[b] <= elbo.nats[b] + 3.0 * error, "{} {}", iwae.nats[b], elbo.nats[b]);
    }
    assert_eq!(iwae.tokens, [5, 4]);
}

/// A model that ignores its latents has a known likelihood: that of any latents.
#[test]
fn bounds_on_a_known_likelihood() {
    let mut weights = weights(&CONFIG);
    for (spec, values) in param_table(&CONFIG).iter().zip(&mut weights.params) {
        if spec.name.contains("cross_attention.wo") {
            values.fill(0.0);
        }
    }
    let mut engine = engine(CONFIG, Precision::F64, SlowGradient::None);
    engine.set_weights(&weights).unwrap();
    let n = 2 * CONFIG.n_latents * CONFIG.dim;
    let posterior = Posterior { mu: vec![0.1; n], log_var: vec![-0.2; n], noise: vec![0.0; n] };
    engine.set_posterior(&posterior).unwrap();
    let mut score =
        |protocol| score_batch(&mut engine, protocol, &InferConfig::published(), KEY).unwrap();
    let exact = score(Protocol::Reconstruction).nats;
    let elbo = score(Protocol::Elbo { samples: 4 });
    let iwae = score(Protocol::Iwae { samples: 400 });
    for (b, kl) in posterior.kl(2).unwrap().into_iter().enumerate() {
        assert!((elbo.nats[b] - exact[b] - kl).abs() <= 1e-9);
        let (found, error) = (iwae.nats[b], iwae.variance[b].sqrt());
        assert!((found - exact[b]).abs() <= 5.0 * error, "{found} {} {error}", exact[b]);
        assert!(error <= 0.3 * kl, "{error} does not tell the bounds apart");
    }
}

#[test]
fn slow_gradients_are_those_of_the_weighted_likelihood() {
    let mut engine = engine(CONFIG, Precision::F64, SlowGradient::Final);
    fit(&mut engine, &InferConfig::published(), KEY);
    let token_weight: Vec<f32> = (0..10u8).map(|i| f32::from(i) / 8.0).collect();
    let gradients: Vec<Vec<f64>> =
        engine.slow_gradients(&token_weight).unwrap().iter().map(|g| g.to_f64().unwrap()).collect();
    let loss = |engine: &mut Engine| -> f64 {
        let nll = engine.token_nll().unwrap();
        nll.iter().zip(&token_weight).map(|(nll, w)| nll * f64::from(*w)).sum()
    };
    // One number of each weight, by central differences.
    let step = 1e-5;
    for (i, gradient) in gradients.iter().enumerate() {
        let at = 7 % gradient.len();
        let mut nudge = |by: f64| {
            engine.weight_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            loss(&mut engine)
        };
        let slope = (nudge(step) - nudge(-2.0 * step)) / (2.0 * step);
        nudge(step);
        let tolerance = 1e-6 * (1.0 + slope.abs());
        assert!((gradient[at] - slope).abs() <= tolerance, "{i}: {} {slope}", gradient[at]);
    }
}

#[test]
fn a_trajectory_adds_to_the_final_gradient() {
    let device = Device::Cpu;
    let mut engine = engine(CONFIG, Precision::F64, SlowGradient::Trajectory);
    fit(&mut engine, &InferConfig { steps: 3, ..InferConfig::published() }, KEY);
    let table = param_table(&CONFIG);
    let zeros = |len| ltm_kernels::Buffer::zeros(&device, DType::F64, len).unwrap();
    let mut sums: Vec<_> = table.iter().map(|spec| zeros(spec.len())).collect();
    engine.add_slow_gradients(&[0.1; 10], &mut sums).unwrap();
    let trajectory = engine.trajectory_gradients()[0].to_f64().unwrap();
    let last = engine.slow_gradients(&[0.1; 10]).unwrap()[0].to_f64().unwrap();
    for (sum, (a, b)) in sums[0].to_f64().unwrap().iter().zip(trajectory.iter().zip(&last)) {
        assert!((sum - a - b).abs() <= 1e-12 * (a.abs() + b.abs()));
    }
    assert!(trajectory.iter().any(|x| *x != 0.0));
    let again = Posterior::initial(&CONFIG, &InferConfig::published(), 2, KEY).unwrap();
    engine.set_posterior(&again).unwrap();
    assert!(engine.trajectory_gradients()[0].to_f64().unwrap().iter().all(|x| *x == 0.0));
}

#[test]
fn the_baseline_has_no_posterior() {
    let config = ModelConfig { n_latents: 0, ..CONFIG };
    let mut engine = engine(config, Precision::F32, SlowGradient::Trajectory);
    assert!(fit(&mut engine, &InferConfig::published(), KEY).is_empty());
    assert!(engine.posterior().unwrap().mu.is_empty());
    let scores =
        score_batch(&mut engine, Protocol::Autoregressive, &InferConfig::published(), KEY).unwrap();
    let total: f64 = engine.token_nll().unwrap().iter().sum();
    assert_eq!(scores.nats.iter().sum::<f64>(), total);
    assert_eq!(engine.slow_gradients(&[1.0; 10]).unwrap().len(), param_table(&config).len());
    assert!(engine.trajectory_gradients().is_empty());
    let refused =
        score_batch(&mut engine, Protocol::Elbo { samples: 1 }, &InferConfig::published(), KEY);
    assert!(matches!(refused, Err(Error::Protocol { .. })));
}

#[test]
fn refusals_are_errors() {
    let new = |b, t| Engine::new(&CONFIG, b, t, &Device::Cpu, Precision::F32, SlowGradient::None);
    assert!(matches!(new(0, 5), Err(Error::Argument { arg: "b", .. })));
    assert!(matches!(new(1, 0), Err(Error::Argument { arg: "t", .. })));
    assert!(matches!(new(1, 7), Err(Error::Argument { arg: "t", .. })));
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::None);
    assert!(engine.token_nll().is_err(), "no posterior yet");
    assert!(matches!(engine.slow_gradients(&[1.0; 10]), Err(Error::NoSlowGradient)));
    assert!(matches!(engine.set_batch(&[0; 9], &[0; 10]), Err(Error::Argument { .. })));
    assert!(engine.weight_mut(999).is_err());
    let refused =
        score_batch(&mut engine, Protocol::Autoregressive, &InferConfig::published(), KEY);
    assert!(matches!(refused, Err(Error::Protocol { .. })));
    engine.set_batch(&[11; 10], &TARGETS).unwrap();
    let infer = InferConfig::published();
    assert!(engine.infer(&infer, 0.0, KEY, &mut |_| Ok(())).is_err());
    let wrong = InferConfig { lr: f64::NAN, ..infer };
    assert!(matches!(
        engine.infer(&wrong, 0.0, KEY, &mut |_| Ok(())),
        Err(Error::Config { field: "lr", .. })
    ));
}

#[test]
fn a_failed_call_changes_nothing() {
    let mut engine = engine(CONFIG, Precision::F32, SlowGradient::Trajectory);
    let infer = InferConfig::published();
    fit(&mut engine, &infer, KEY);
    let before = engine.posterior().unwrap();
    let state = |engine: &mut Engine| {
        let trajectory = engine.trajectory_gradients()[0].to_f64().unwrap();
        (engine.posterior().unwrap(), engine.token_nll().unwrap(), trajectory)
    };
    let expected = state(&mut engine);
    let n = before.mu.len();
    let short = vec![0.0; n - 1];
    let mut nan = vec![0.0; n];
    nan[5] = f32::NAN;
    let zeros = || vec![0.0; n];
    let posteriors = [
        ("`noise`", Posterior { mu: zeros(), log_var: zeros(), noise: short.clone() }),
        ("`log_var`", Posterior { mu: zeros(), log_var: short.clone(), noise: zeros() }),
        ("`mu`", Posterior { mu: short.clone(), log_var: zeros(), noise: zeros() }),
        ("NaN at index 5", Posterior { mu: zeros(), log_var: zeros(), noise: nan.clone() }),
        ("NaN at index 5", Posterior { mu: nan.clone(), log_var: zeros(), noise: zeros() }),
    ];
    for (part, posterior) in posteriors {
        let error = engine.set_posterior(&posterior).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert_eq!(state(&mut engine), expected, "{error}");
    }
    for wrong in [&short, &nan] {
        assert!(matches!(engine.set_noise(wrong), Err(Error::Argument { arg: "noise", .. })));
        assert!(matches!(engine.token_nll_at(wrong), Err(Error::Argument { arg: "z", .. })));
    }
    let langevin = InferConfig { method: Method::Langevin, noise: Noise::Fresh, ..infer };
    let amortised = InferConfig { method: Method::Amortised, kl_warmup: 1.0, ..infer };
    for (wrong, expected_arg) in [(langevin, "slow_gradient"), (amortised, "infer.method")] {
        match engine.infer(&wrong, 0.0, KEY, &mut |_| Ok(())) {
            Err(Error::Argument { arg, .. }) => assert_eq!(arg, expected_arg),
            other => panic!("{other:?}"),
        }
    }
    let table = param_table(&CONFIG);
    let zeros = |len| ltm_kernels::Buffer::zeros(&Device::Cpu, DType::F32, len).unwrap();
    let mut sums: Vec<_> = table.iter().map(|spec| zeros(spec.len())).collect();
    let last = table.len() - 1;
    sums[last] = zeros(1);
    let error = engine.add_slow_gradients(&[0.1; 10], &mut sums).unwrap_err().to_string();
    assert!(error.contains("`norm.weight`"), "{error}");
    assert!(sums.iter().all(|sum| sum.to_f32().unwrap().iter().all(|x| *x == 0.0)));
    assert_eq!(state(&mut engine), expected);
}
