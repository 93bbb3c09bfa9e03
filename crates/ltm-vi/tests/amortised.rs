//! The amortised encoder: its gradients, what it may read, and its place among the protocols.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Weights, param_table};
use ltm_vi::{
    Batch, Error, InferConfig, InferKey, Inference, Latents, Method, Posterior, Program, Protocol,
    SlowGradient, Start, score,
};
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, first_sequence: 0 };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

fn config() -> ModelConfig {
    ModelConfig { encoder_layers: 2, ..CONFIG }
}

fn infer() -> InferConfig {
    InferConfig { method: Method::Amortised, weight_decay: 0.0, ..InferConfig::published() }
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

/// A model whose weights are large enough for the latents to matter, log-variances included.
fn case(slow: SlowGradient) -> Case {
    let config = config();
    let mut weights = Weights::init(&config, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 10.0 });
    let find = |name: &str| param_table(&config).iter().position(|spec| spec.name == name).unwrap();
    let mu = weights.params[find("encoder.mu.weight")].clone();
    weights.params[find("encoder.log_var.weight")] = mu.iter().rev().copied().collect();
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    Case {
        program: Program::new(&config, 2, 5, &cpu, f64, slow).unwrap(),
        weights: DeviceWeights::new(&config, &weights, &cpu, f64).unwrap(),
        batch: Batch::new(&config, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

impl Case {
    fn encode(&mut self, key: InferKey) -> Latents {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let inference = Inference::at(&infer(), 0.0).unwrap();
        inference.infer(&mut problem, key, &mut |_| panic!("there are no steps")).unwrap()
    }

    fn posterior(&mut self) -> Posterior {
        self.encode(KEY).gaussian().expect("it has a density").to_host().unwrap()
    }
}

#[test]
fn gradients_are_those_of_the_whole_bound() {
    let mut case = case(SlowGradient::Final);
    let latents = case.encode(KEY);
    let weight = 0.25;
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let slow = problem.weight_gradients(&latents, &[weight; 10], 1.0).unwrap();
    let gradients: Vec<Vec<f64>> = slow.gradients.iter().map(|g| g.to_f64().unwrap()).collect();
    // The other path to the same number: the objective of a fit at the encoder's posterior.
    let bound = |case: &mut Case| {
        let latents = case.encode(KEY);
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        f64::from(weight) * problem.gradient(latents.gaussian().unwrap(), 1.0).unwrap().nelbo()
    };
    let step = 1e-5;
    for (i, (spec, gradient)) in param_table(&config()).iter().zip(&gradients).enumerate() {
        // The row of a word that the text has.
        let at = if spec.name.contains("tok_embeddings") { 4 * 8 + 3 } else { 7 % gradient.len() };
        let mut nudge = |by: f64| {
            case.weights.param_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            bound(&mut case)
        };
        let slope = (nudge(step) - nudge(-2.0 * step)) / (2.0 * step);
        nudge(step);
        let tolerance = 1e-6 * (1.0 + slope.abs());
        let found = gradient[at];
        assert!((found - slope).abs() <= tolerance, "{}: {found} {slope}", spec.name);
        assert!(found != 0.0, "{} is not moved", spec.name);
    }
}

#[test]
fn the_slow_step_and_the_protocols_see_the_same_posterior() {
    let mut case = case(SlowGradient::Final);
    let latents = case.encode(KEY);
    let posterior = latents.gaussian().unwrap().to_host().unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let slow = problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap();
    let nll: Vec<f64> = slow.nll.chunks(5).map(|nll| nll.iter().sum()).collect();
    let inference = Inference::finished(&infer()).unwrap();
    let mut score = |protocol| score(&mut problem, protocol, &latents, &inference, KEY).unwrap();
    let fitted = score(Protocol::ElboFittedNoise);
    let elbo = score(Protocol::Elbo { samples: 400 });
    for (b, kl) in posterior.kl(2).unwrap().into_iter().enumerate() {
        // The posterior was rounded to single precision on the way here.
        assert!((fitted.nats[b] - nll[b] - kl).abs() <= 1e-6 * fitted.nats[b]);
        // One sample is as far from the mean of many as one sample is: 400 have 20 times its error.
        let error = 20.0 * elbo.variance[b].sqrt();
        assert!((fitted.nats[b] - elbo.nats[b]).abs() <= 5.0 * error, "{} {error}", elbo.nats[b]);
        assert!(kl > 0.1, "{kl}");
    }
    // Another key is another sample of the same posterior.
    let again = case.encode(InferKey { step: 4, ..KEY }).gaussian().unwrap().to_host().unwrap();
    assert_eq!((&again.mu, &again.log_var), (&posterior.mu, &posterior.log_var));
    assert_ne!(again.noise, posterior.noise);
}

/// A learned start: the encoder's posterior, and fast steps from there.
#[test]
fn a_fit_begins_at_the_encoders_posterior() {
    let mut case = case(SlowGradient::None);
    let encoded = case.posterior();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let start = problem.start(&Start::Encoder, KEY).unwrap().to_host().unwrap();
    assert_eq!(start, encoded);
    let variational = InferConfig { method: Method::Variational, ..infer() };
    let mut bounds = Vec::new();
    let inference = Inference::at(&variational, 0.0).unwrap().from(Start::Encoder);
    let mut observer = |step: &ltm_vi::FastStep| {
        bounds.push(step.bound);
        Ok(())
    };
    let latents = inference.infer(&mut problem, KEY, &mut observer).unwrap();
    let first = problem.start(&Start::Encoder, KEY).unwrap();
    let found = problem.gradient(&first, 1.0).unwrap().nelbo();
    assert!((found - bounds[0]).abs() <= 1e-12 * found, "sums in another order: {found}");
    let last = problem.gradient(latents.gaussian().unwrap(), 1.0).unwrap().nelbo();
    assert!(last < bounds[0], "{last} is not below {}", bounds[0]);
}

#[test]
fn the_encoder_reads_what_is_scored_and_nothing_else() {
    let mut case = case(SlowGradient::None);
    let expected = case.posterior();
    let half = expected.mu.len() / 2;
    let mut encode = |tokens: &[i32], targets: &[i32]| {
        case.batch = Batch::new(&config(), 2, tokens, targets).unwrap();
        case.posterior()
    };
    let mut tokens = TOKENS;
    tokens[9] = 3; // the token of the target that is not scored, and a text's own
    tokens[1] = 9;
    assert_eq!(encode(&tokens, &TARGETS).mu, expected.mu);
    let mut targets = TARGETS;
    targets[4] = 9;
    let found = encode(&TOKENS, &targets);
    assert_ne!(found.mu[..half], expected.mu[..half]);
    assert_eq!(found.mu[half..], expected.mu[half..]);
    targets[4] = -1;
    assert_ne!(encode(&TOKENS, &targets).mu[..half], expected.mu[..half]);
}

/// A row that only fills a batch must not train the encoder.
#[test]
fn a_text_without_words_counts_nothing() {
    let mut case = case(SlowGradient::Final);
    case.batch = case.batch.with_targets(&[-1; 10]).unwrap();
    let latents = case.encode(KEY);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    for gradient in problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap().gradients {
        assert!(gradient.to_f64().unwrap().iter().all(|x| *x == 0.0));
    }
}

/// The start is near the prior: its variance, and means of a few tenths at most.
#[test]
fn training_starts_near_the_prior() {
    let mut case = case(SlowGradient::None);
    let weights = Weights::init(&config(), 5).unwrap();
    case.weights = DeviceWeights::new(&config(), &weights, &Device::Cpu, Precision::F64).unwrap();
    let posterior = case.posterior();
    assert!(posterior.log_var.iter().all(|x| *x == 0.0));
    // A normed vector of width 8 times numbers of standard deviation 0.02: 0.02·sqrt(8), five times.
    assert!(posterior.mu.iter().all(|x| x.abs() <= 0.3) && posterior.mu.iter().any(|x| *x != 0.0));
}

#[test]
fn what_does_not_suit_is_refused() {
    let plain = ModelConfig { encoder_layers: 0, ..config() };
    let (cpu, f32) = (Device::Cpu, Precision::F32);
    let new = |config: &ModelConfig, slow| Program::new(config, 2, 5, &cpu, f32, slow);
    let mut program = new(&plain, SlowGradient::None).unwrap();
    let weights = Weights::init(&plain, 5).unwrap();
    let weights = DeviceWeights::new(&plain, &weights, &cpu, f32).unwrap();
    let batch = Batch::new(&plain, 2, &TOKENS, &TARGETS).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let inference = Inference::at(&infer(), 0.0).unwrap();
    let refused = inference.infer(&mut problem, KEY, &mut |_| Ok(()));
    assert!(matches!(refused, Err(Error::Unsuitable { what: "infer.method", .. })));
    let refused = new(&config(), SlowGradient::Trajectory);
    assert!(matches!(refused.err(), Some(Error::Unsuitable { what: "train.slow_gradient", .. })));
}
