//! Fits, gradients and estimators on models small enough to know the answers.

mod tiny;

use std::sync::Arc;

use ltm_autodiff::Precision;
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::{DeviceWeights, ModelConfig, Weights, param_table};
use ltm_vi::{
    Batch, Error, FastStep, Gaussian, InferConfig, InferKey, Inference, Latents, Method, Noise,
    Posterior, Program, Programs, Protocol, Schedule, Scores, Sequences, SlowGradient, Start,
    StartKind, score,
};
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

/// Weights large enough for the latents to matter.
fn weights(config: &ModelConfig) -> Weights {
    let mut weights = Weights::init(config, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
    weights
}

/// A model with its weights and a batch.
struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(config: ModelConfig, precision: Precision, slow: SlowGradient) -> Case {
    let cpu = Device::Cpu;
    Case {
        program: Program::new(&config, 2, 5, &cpu, precision, slow).unwrap(),
        weights: DeviceWeights::new(&config, &weights(&config), &cpu, precision).unwrap(),
        batch: Batch::new(&config, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

impl Case {
    fn fit(&mut self, infer: &InferConfig, key: InferKey) -> (Vec<FastStep>, Latents) {
        let mut steps = Vec::new();
        let mut observer = |step: &FastStep| {
            steps.push(step.clone());
            Ok(())
        };
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let inference = Inference::at(infer, 0.0).unwrap();
        let latents = inference.infer(&mut problem, key, &mut observer).unwrap();
        (steps, latents)
    }

    fn posterior(&mut self, infer: &InferConfig, key: InferKey) -> Posterior {
        self.fit(infer, key).1.gaussian().unwrap().to_host().unwrap()
    }

    fn nll(&mut self, latents: &Latents) -> Vec<f64> {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        problem.token_nll(latents).unwrap()
    }

    fn score(&mut self, protocol: Protocol, latents: &Latents) -> Result<Scores, Error> {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let inference = Inference::finished(&InferConfig::published()).unwrap();
        score(&mut problem, protocol, latents, &inference, KEY)
    }
}

#[test]
fn a_fit_descends_and_counts_its_steps() {
    let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
    let (steps, _) = case.fit(&InferConfig::published(), KEY);
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
    let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
    case.batch = case.batch.with_targets(&[-1; 10]).unwrap();
    let infer = InferConfig {
        steps: 400,
        schedule: Schedule::Cosine,
        final_ratio: 0.0,
        weight_decay: 0.0,
        init_mu_std: 1.0,
        ..InferConfig::published()
    };
    let (_, latents) = case.fit(&infer, KEY);
    let posterior = latents.gaussian().unwrap().to_host().unwrap();
    let largest = posterior.mu.iter().chain(&posterior.log_var).fold(0f32, |m, x| m.max(x.abs()));
    assert!(largest <= 1e-3, "{largest}");
    assert!(case.nll(&latents).iter().all(|nll| *nll == 0.0));
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
    let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
    case.batch = case.batch.with_targets(&[-1; 10]).unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let mut fitted = |kl_warmup, progress| {
        let inference = Inference::at(&InferConfig { kl_warmup, ..infer }, progress).unwrap();
        let latents = inference.infer(&mut problem, KEY, &mut |_| Ok(())).unwrap();
        latents.gaussian().unwrap().to_host().unwrap()
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
        let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
        let expected = case.posterior(&infer, KEY);
        let (_, other) = case.fit(&infer, InferKey { step: 4, ..KEY });
        assert_ne!(other.gaussian().unwrap().to_host().unwrap(), expected);
        case.score(Protocol::Iwae { samples: 2 }, &other).unwrap();
        // Another batch and other weights in between.
        let reversed: Vec<i32> = TOKENS.iter().rev().copied().collect();
        let batch = Batch::new(&CONFIG, 2, &reversed, &TARGETS).unwrap();
        let mut changed = case.weights.clone();
        changed.param_mut(0).unwrap().as_mut_slice::<f32>().unwrap()[0] += 1.0;
        case.program.problem(&changed, &batch).unwrap().token_nll(&other).unwrap();
        assert_eq!(case.posterior(&infer, KEY), expected);
        let start = Posterior::initial(&CONFIG, &infer, 2, KEY).unwrap();
        assert_eq!(expected.noise == start.noise, noise == Noise::Fixed);
    }
}

#[test]
fn an_observer_can_stop_a_fit() {
    let Case { mut program, weights, batch } = case(CONFIG, Precision::F32, SlowGradient::None);
    let mut problem = program.problem(&weights, &batch).unwrap();
    let mut seen = 0;
    let inference = Inference::at(&InferConfig::published(), 0.0).unwrap();
    let result = inference.infer(&mut problem, KEY, &mut |_| {
        seen += 1;
        if seen == 3 { Err(Error::Stopped) } else { Ok(()) }
    });
    assert!(matches!(result, Err(Error::Stopped)));
    assert_eq!(seen, 3);
}

/// A fit goes on from a posterior that was kept, and from the prior.
#[test]
fn a_fit_begins_where_it_is_told() {
    let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
    let infer = InferConfig { noise: Noise::Fixed, ..InferConfig::published() };
    let (steps, latents) = case.fit(&infer, KEY);
    let Latents::Gaussian(kept) = latents else { panic!("{latents:?}") };
    let expected = kept.to_host().unwrap();
    let kept = Arc::new(kept);
    let inference = Inference::at(&infer, 0.0).unwrap();
    let from = |start: Start, case: &mut Case| {
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        let mut first = None;
        let mut observer = |step: &FastStep| {
            first.get_or_insert(step.bound);
            Ok(())
        };
        let latents = inference.from(start).infer(&mut problem, KEY, &mut observer).unwrap();
        (first.unwrap(), latents)
    };
    let (again, _) = from(Start::Given(kept.clone()), &mut case);
    assert!(again < steps[15].bound, "{again} is not where the fit ended, below its last step");
    // What is given is not changed.
    assert_eq!(kept.to_host().unwrap(), expected);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let prior = problem.start(&Start::Prior, KEY).unwrap().to_host().unwrap();
    assert!(prior.mu.iter().chain(&prior.log_var).all(|x| *x == 0.0));
    let (at_the_prior, _) = from(Start::Prior, &mut case);
    let kl: f64 = prior.kl(1).unwrap().iter().sum();
    let prior = Gaussian::new(&prior, &Device::Cpu, DType::F32).unwrap();
    let nll: f64 = case.nll(&prior.into()).iter().sum();
    assert_eq!((at_the_prior, kl), (nll, 0.0));
    let short =
        Posterior { mu: vec![0.0; 4], log_var: vec![0.0; 4], noise: vec![0.0; 4], factor: None };
    let short = Arc::new(Gaussian::new(&short, &Device::Cpu, DType::F32).unwrap());
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let refused = problem.start(&Start::Given(short), KEY);
    assert!(matches!(refused, Err(Error::Argument { arg: "mu", .. })));
}

/// The gradient that is given to optimisers, by central differences.
#[test]
fn the_gradient_is_that_of_the_objective() {
    let mut case = case(CONFIG, Precision::F64, SlowGradient::None);
    let start = Posterior::initial(&CONFIG, &InferConfig::published(), 2, KEY).unwrap();
    let q = Gaussian::new(&start, &Device::Cpu, DType::F64).unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    for kl_weight in [1.0, 0.25] {
        let at = problem.gradient(&q, kl_weight).unwrap();
        let objective = at.nll.iter().sum::<f64>() + kl_weight * at.kl.iter().sum::<f64>();
        assert_eq!((at.nll.len(), at.kl.len()), (10, 4));
        let gradients = [at.dmu.to_f64().unwrap(), at.dlog_var.to_f64().unwrap()];
        let step = 1e-6;
        for (which, gradient) in gradients.iter().enumerate() {
            for i in [0, 13, 63] {
                let mut moved = q.try_clone().unwrap();
                let numbers = if which == 0 { &mut moved.mu } else { &mut moved.log_var };
                numbers.as_mut_slice::<f64>().unwrap()[i] += step;
                let at = problem.gradient(&moved, kl_weight).unwrap();
                let there = at.nll.iter().sum::<f64>() + kl_weight * at.kl.iter().sum::<f64>();
                let slope = (there - objective) / step;
                let found = gradient[i];
                assert!(
                    (found - slope).abs() <= 1e-4 * (1.0 + slope.abs()),
                    "{i}: {found} {slope}"
                );
            }
        }
    }
}

#[test]
fn latents_are_scored_wherever_they_are() {
    let mut case = case(CONFIG, Precision::F32, SlowGradient::None);
    let (_, latents) = case.fit(&InferConfig::published(), KEY);
    let nll = case.nll(&latents);
    let before = latents.gaussian().unwrap().to_host().unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let at = problem.token_nll_at(&before.sample().unwrap()).unwrap();
    let distance = ltm_testkit::relative_frobenius(&at, &nll);
    assert!(distance <= 1e-5, "{distance:e}");
    assert_ne!(problem.token_nll_at(&vec![0.0; before.mu.len()]).unwrap(), nll);
    case.score(Protocol::Elbo { samples: 3 }, &latents).unwrap();
    assert_eq!(latents.gaussian().unwrap().to_host().unwrap(), before);
    assert_eq!(case.nll(&latents), nll);
}

#[test]
fn importance_weights_tighten_the_bound() {
    let mut case = case(CONFIG, Precision::F64, SlowGradient::None);
    let infer = InferConfig { noise: Noise::Fresh, ..InferConfig::published() };
    let (_, latents) = case.fit(&infer, KEY);
    let mut score = |protocol| case.score(protocol, &latents).unwrap();
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
    let mut case = case(CONFIG, Precision::F64, SlowGradient::None);
    case.weights = DeviceWeights::new(&CONFIG, &weights, &Device::Cpu, Precision::F64).unwrap();
    let n = 2 * CONFIG.n_latents * CONFIG.dim;
    let posterior =
        Posterior { mu: vec![0.1; n], log_var: vec![-0.2; n], noise: vec![0.0; n], factor: None };
    let latents = Gaussian::new(&posterior, &Device::Cpu, DType::F64).unwrap().into();
    let mut score = |protocol| case.score(protocol, &latents).unwrap();
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
    let mut case = case(CONFIG, Precision::F64, SlowGradient::Final);
    let (_, latents) = case.fit(&InferConfig::published(), KEY);
    let token_weight: Vec<f32> = (0..10u8).map(|i| f32::from(i) / 8.0).collect();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let slow = problem.weight_gradients(&latents, &token_weight, 1.0).unwrap();
    let gradients: Vec<Vec<f64>> = slow.gradients.iter().map(|g| g.to_f64().unwrap()).collect();
    // The KL of the log comes from the same plan.
    let kl = slow.kl.unwrap();
    let expected = latents.gaussian().unwrap().to_host().unwrap().kl(2).unwrap();
    let distance = ltm_testkit::relative_frobenius(&kl, &expected);
    assert!(distance <= 1e-6, "{distance:e}");
    let loss = |case: &mut Case| -> f64 {
        let nll = case.nll(&latents);
        nll.iter().zip(&token_weight).map(|(nll, w)| nll * f64::from(*w)).sum()
    };
    // One number of each weight, by central differences.
    let step = 1e-5;
    for (i, gradient) in gradients.iter().enumerate() {
        let at = 7 % gradient.len();
        let mut nudge = |by: f64| {
            case.weights.param_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            loss(&mut case)
        };
        let slope = (nudge(step) - nudge(-2.0 * step)) / (2.0 * step);
        nudge(step);
        let tolerance = 1e-6 * (1.0 + slope.abs());
        assert!((gradient[at] - slope).abs() <= tolerance, "{i}: {} {slope}", gradient[at]);
    }
}

#[test]
fn a_trajectory_is_the_sum_over_the_steps_of_the_last_fit() {
    let mut case = case(CONFIG, Precision::F64, SlowGradient::Trajectory);
    let infer = InferConfig { steps: 3, ..InferConfig::published() };
    let fit = |case: &mut Case, steps| {
        case.fit(&InferConfig { steps, schedule: Schedule::Constant, ..infer }, KEY);
        case.program.trajectory_gradients()[0].to_f64().unwrap()
    };
    let [none, one, two] = [0, 1, 2].map(|steps| fit(&mut case, steps));
    assert!(none.iter().all(|x| *x == 0.0) && one.iter().any(|x| *x != 0.0));
    // What the second step adds is the gradient at the posterior after the first.
    let first = InferConfig { steps: 1, schedule: Schedule::Constant, ..infer };
    let (_, latents) = case.fit(&first, KEY);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let slow = problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap();
    let last = slow.gradients[0].to_f64().unwrap();
    for ((two, one), last) in two.iter().zip(&one).zip(&last) {
        assert!((two - one - last).abs() <= 1e-9 * (1.0 + last.abs()), "{two} {one} {last}");
    }
}

#[test]
fn the_baseline_has_no_posterior() {
    let config = ModelConfig { n_latents: 0, ..CONFIG };
    let mut case = case(config, Precision::F32, SlowGradient::Trajectory);
    let (steps, latents) = case.fit(&InferConfig::published(), KEY);
    assert!(steps.is_empty() && matches!(latents, Latents::None));
    let scores = case.score(Protocol::Autoregressive, &latents).unwrap();
    let total: f64 = case.nll(&latents).iter().sum();
    assert_eq!(scores.nats.iter().sum::<f64>(), total);
    let refused = case.score(Protocol::Elbo { samples: 1 }, &latents);
    assert!(matches!(refused, Err(Error::Unsuitable { what: "protocol", .. })));
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let slow = problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap();
    assert_eq!((slow.gradients.len(), slow.kl), (param_table(&config).len(), None));
    assert!(matches!(problem.start(&Start::Prior, KEY), Err(Error::Unsuitable { .. })));
    assert!(case.program.trajectory_gradients().is_empty());
}

#[test]
fn refusals_are_errors() {
    let new = |b, t| Program::new(&CONFIG, b, t, &Device::Cpu, Precision::F32, SlowGradient::None);
    assert!(matches!(new(0, 5), Err(Error::Argument { arg: "b", .. })));
    assert!(matches!(new(1, 0), Err(Error::Argument { arg: "t", .. })));
    assert!(matches!(new(1, 7), Err(Error::Argument { arg: "t", .. })));
    let Case { mut program, weights, batch } = case(CONFIG, Precision::F32, SlowGradient::None);
    let other = Batch::new(&CONFIG, 1, &TOKENS[..5], &TARGETS[..5]).unwrap();
    assert!(matches!(
        program.problem(&weights, &other).err(),
        Some(Error::Argument { arg: "batch", .. })
    ));
    let larger = ModelConfig { vocab_size: 12, ..CONFIG };
    let larger = Batch::new(&larger, 2, &TOKENS, &TARGETS).unwrap();
    assert!(program.problem(&weights, &larger).is_err());
    let double = DeviceWeights::new(&CONFIG, &self::weights(&CONFIG), &Device::Cpu, Precision::F64);
    assert!(matches!(
        program.problem(&double.unwrap(), &batch).err(),
        Some(Error::Argument { arg: "weights", .. })
    ));
    let mut problem = program.problem(&weights, &batch).unwrap();
    assert!(problem.token_nll(&Latents::None).is_err(), "no latents");
    let z = Buffer::from_vec(vec![0f32; 64]);
    let refused = problem.weight_gradients(&Latents::Sample(z), &[1.0; 10], 1.0);
    assert!(matches!(refused, Err(Error::NoSlowGradient)));
    let refused = score(
        &mut problem,
        Protocol::Autoregressive,
        &Latents::None,
        &Inference::finished(&InferConfig::published()).unwrap(),
        KEY,
    );
    assert!(matches!(refused, Err(Error::Unsuitable { what: "protocol", .. })));
    assert!(Batch::new(&CONFIG, 2, &[11; 10], &TARGETS).is_err());
    let wrong = InferConfig { lr: f64::NAN, ..InferConfig::published() };
    assert!(matches!(Inference::at(&wrong, 0.0).err(), Some(Error::Config { field: "lr", .. })));
}

#[test]
fn a_failed_call_changes_nothing() {
    let mut case = case(CONFIG, Precision::F32, SlowGradient::Trajectory);
    let infer = InferConfig::published();
    let (_, latents) = case.fit(&infer, KEY);
    let posterior = latents.gaussian().unwrap().to_host().unwrap();
    let trajectory = |case: &Case| case.program.trajectory_gradients()[0].to_f64().unwrap();
    let expected = (case.nll(&latents), trajectory(&case));
    let n = posterior.mu.len();
    let short = vec![0.0; n - 1];
    let mut nan = vec![0.0; n];
    nan[5] = f32::NAN;
    let zeros = || vec![0.0; n];
    let posteriors = [
        (
            "`noise`",
            Posterior { mu: zeros(), log_var: zeros(), noise: short.clone(), factor: None },
        ),
        (
            "`log_var`",
            Posterior { mu: zeros(), log_var: short.clone(), noise: zeros(), factor: None },
        ),
        (
            "NaN at index 5",
            Posterior { mu: zeros(), log_var: zeros(), noise: nan.clone(), factor: None },
        ),
        (
            "NaN at index 5",
            Posterior { mu: nan.clone(), log_var: zeros(), noise: zeros(), factor: None },
        ),
    ];
    for (part, posterior) in posteriors {
        let error = Gaussian::new(&posterior, &Device::Cpu, DType::F32).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    for wrong in [&short, &nan] {
        assert!(matches!(problem.token_nll_at(wrong), Err(Error::Argument { arg: "z", .. })));
    }
    let short = Gaussian {
        mu: Buffer::from_vec(zeros()),
        log_var: Buffer::from_vec(short),
        noise: Buffer::from_vec(zeros()),
        factor: None,
    };
    let refused = problem.gradient(&short, 1.0);
    assert!(matches!(refused, Err(Error::Argument { arg: "log_var", .. })));
    let langevin = InferConfig { method: Method::Langevin, noise: Noise::Fresh, ..infer };
    let amortised = InferConfig { start: StartKind::Encoder, kl_warmup: 1.0, ..infer };
    for (wrong, key) in [(langevin, "train.slow_gradient"), (amortised, "infer.start")] {
        let inference = Inference::at(&wrong, 0.0).unwrap();
        match inference.infer(&mut problem, KEY, &mut |_| Ok(())) {
            Err(Error::Unsuitable { what, .. }) => assert_eq!(what, key),
            other => panic!("{other:?}"),
        }
    }
    let table = param_table(&CONFIG);
    let zeros = |len| Buffer::zeros(&Device::Cpu, DType::F32, len).unwrap();
    let mut sums: Vec<_> = table.iter().map(|spec| zeros(spec.len())).collect();
    let last = table.len() - 1;
    sums[last] = zeros(1);
    let slow = problem.weight_gradients(&latents, &[0.1; 10], 1.0).unwrap();
    let error = slow.add_to(&mut sums).unwrap_err().to_string();
    assert!(error.contains("`norm.weight`"), "{error}");
    assert!(sums.iter().all(|sum| sum.to_f32().unwrap().iter().all(|x| *x == 0.0)));
    assert!(problem.weight_gradients(&latents, &[0.1; 9], 1.0).is_err());
    assert_eq!((case.nll(&latents), trajectory(&case)), expected);
}

#[test]
fn programs_are_kept_by_shape() {
    let mut programs =
        Programs::new(&CONFIG, &Device::Cpu, Precision::F32, SlowGradient::None).unwrap();
    let weights = DeviceWeights::new(&CONFIG, &weights(&CONFIG), &Device::Cpu, Precision::F32);
    let weights = weights.unwrap();
    let mut bytes = |t: usize, run: bool| {
        let program = programs.get(1, t).unwrap();
        if run {
            let batch = Batch::new(&CONFIG, 1, &TOKENS[..t], &TARGETS[..t]).unwrap();
            let z = vec![0.0; CONFIG.n_latents * CONFIG.dim];
            program.problem(&weights, &batch).unwrap().token_nll_at(&z).unwrap();
        }
        program.plan_bytes()
    };
    for t in 1..=4 {
        assert!(bytes(t, true) > 0);
    }
    assert!(bytes(1, false) > 0, "still there");
    assert!(bytes(5, true) > 0);
    // The second was used least recently.
    assert_eq!(bytes(2, false), 0);
    assert!(bytes(1, false) > 0 && programs.get(1, 7).is_err());
}
