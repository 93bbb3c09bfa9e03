//! The amortised encoder: its gradients, what it may read, and its place among the protocols.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Part, Weights, param_table};
use ltm_vi::{
    Batch, Error, InferConfig, InferKey, Inference, Latents, Posterior, Program, Protocol,
    Sequences, SlowGradient, Start, StartKind, score,
};
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

fn config() -> ModelConfig {
    ModelConfig { encoder_width: 12, ..CONFIG }
}

fn infer() -> InferConfig {
    InferConfig { start: StartKind::Encoder, steps: 0, ..InferConfig::published() }
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
    for (values, spec) in weights.params.iter_mut().zip(param_table(&config)) {
        let factor = match (spec.part, spec.decay) {
            (Part::Decoder, true) => 10.0,
            (Part::Encoder, true) if spec.name.contains("log_var") => 10.0,
            _ => 1.0,
        };
        values.iter_mut().for_each(|x| *x *= factor);
    }
    // Nothing is exactly at its start, so that a gain that is left out shows.
    for (i, values) in weights.params.iter_mut().enumerate().skip(param_table(&CONFIG).len()) {
        values.iter_mut().enumerate().for_each(|(j, x)| *x += 0.1 * ((i + 3 * j) as f32).sin());
    }
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
    let mut case = case(SlowGradient::Joint);
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
        // Words that the text has not, and features that are 0, have none.
        let largest = gradient.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
        let (at, _) = largest.unwrap();
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

/// A text's posterior is the same where its row ends with it and where the row goes on without text.
#[test]
fn a_text_ends_alike_in_any_row() {
    let of = |t: usize| {
        let mut case = case(SlowGradient::None);
        let (mut tokens, mut targets) = (vec![0; t], vec![-1; t]);
        tokens[..4].copy_from_slice(&TOKENS[..4]);
        targets[..4].copy_from_slice(&TARGETS[..4]);
        case.program =
            Program::new(&config(), 1, t, &Device::Cpu, Precision::F64, SlowGradient::None)
                .unwrap();
        case.batch = Batch::new(&config(), 1, &tokens, &targets).unwrap();
        case.posterior()
    };
    let (whole, longer) = (of(4), of(5));
    for (a, b) in whole.mu.iter().zip(&longer.mu).chain(whole.log_var.iter().zip(&longer.log_var)) {
        assert!((a - b).abs() <= 1e-6 * (1.0 + a.abs()), "{a} is not {b}");
    }
}

/// With fast steps the decoder learns at the fitted sample, and the encoder by its own bound, for which the decoder is
/// a constant.
#[test]
fn an_encoder_beside_a_fit_has_a_bound_of_its_own() {
    let weight = [0.25; 10];
    let gradients = |slow, latents: &dyn Fn(&mut Case) -> Latents| {
        let mut case = case(slow);
        let latents = latents(&mut case);
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        let slow = problem.weight_gradients(&latents, &weight, 0.5).unwrap();
        let gradients: Vec<_> = slow.gradients.iter().map(|g| g.to_f64().unwrap()).collect();
        (gradients, slow.nll, slow.kl.unwrap())
    };
    let moved = |case: &mut Case| {
        let Posterior { mu, log_var, noise, factor } = case.posterior();
        let mu = mu.iter().map(|mu| mu + 0.7).collect();
        let at = Posterior { mu, log_var, noise, factor };
        let dtype = ltm_kernels::DType::F64;
        ltm_vi::Gaussian::new(&at, &Device::Cpu, dtype).unwrap().into()
    };
    let (joint, ..) = gradients(SlowGradient::Joint, &|case| case.encode(KEY));
    let (beside, nll, kl) = gradients(SlowGradient::Final, &moved);
    // A model without an encoder, at the same latents.
    let plain = ModelConfig { encoder_width: 0, ..config() };
    let mut case = case(SlowGradient::None);
    let latents = moved(&mut case);
    let mut decoder = case.weights.to_host().unwrap();
    decoder.params.truncate(param_table(&plain).len());
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    let mut program = Program::new(&plain, 2, 5, &cpu, f64, SlowGradient::Final).unwrap();
    let weights = DeviceWeights::new(&plain, &decoder, &cpu, f64).unwrap();
    let batch = Batch::new(&plain, 2, &TOKENS, &TARGETS).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let alone = problem.weight_gradients(&latents, &weight, 0.5).unwrap();
    assert_eq!((&alone.nll, alone.kl.as_ref().unwrap()), (&nll, &kl));
    for (i, spec) in param_table(&config()).iter().enumerate() {
        let expected = match spec.part {
            Part::Decoder => alone.gradients[i].to_f64().unwrap(),
            _ => joint[i].clone(),
        };
        for (found, expected) in beside[i].iter().zip(&expected) {
            let close = (found - expected).abs() <= 1e-9 * (1.0 + expected.abs());
            assert!(close, "{}: {found} is not {expected}", spec.name);
        }
    }
}

#[test]
fn the_slow_step_and_the_protocols_see_the_same_posterior() {
    let mut case = case(SlowGradient::Joint);
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
    let variational = InferConfig { steps: 16, weight_decay: 0.0, ..infer() };
    let mut bounds = Vec::new();
    let inference = Inference::at(&variational, 0.0).unwrap();
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
    let mut case = case(SlowGradient::Joint);
    case.batch = case.batch.with_targets(&[-1; 10]).unwrap();
    let latents = case.encode(KEY);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    for gradient in problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap().gradients {
        assert!(gradient.to_f64().unwrap().iter().all(|x| *x == 0.0));
    }
}

/// Before training the means have mean 0 and variance 1 over texts, and every text a log-variance near -3.
#[test]
fn calibrated_means_differ_between_texts() {
    let (config, cpu, f32) = (config(), Device::Cpu, Precision::F32);
    let initial = Weights::init(&config, 5).unwrap();
    let texts: Vec<Vec<i32>> =
        (0..24).map(|i| (0..10).map(|j| (i * 7 + j * j * (1 + i % 5)) % 10).collect()).collect();
    let mut batches: Vec<_> =
        texts.iter().map(|text| Batch::new(&config, 2, text, text).unwrap()).collect();
    // A row that only fills the batch counts nothing.
    let mut last = texts[0].clone();
    last[5..].fill(-1);
    batches.push(Batch::new(&config, 2, &texts[0], &last).unwrap());
    let mut program = Program::new(&config, 2, 5, &cpu, f32, SlowGradient::None).unwrap();
    let calibrated = program.calibrated(&initial, &batches).unwrap();
    let mut rows = Vec::new();
    let on_device = DeviceWeights::new(&config, &calibrated, &cpu, f32).unwrap();
    for batch in &batches {
        let mut problem = program.problem(&on_device, batch).unwrap();
        let q = problem.start(&Start::Encoder, KEY).unwrap().to_host().unwrap();
        assert!(q.log_var.iter().all(|x| (x + 3.0).abs() < 0.5), "{:?}", q.log_var);
        rows.extend(q.mu.chunks(q.mu.len() / 2).map(<[f32]>::to_vec));
    }
    rows.pop();
    let n = rows.len() as f64;
    for at in 0..rows[0].len() {
        let of = |power| rows.iter().map(|row| f64::from(row[at]).powi(power)).sum::<f64>() / n;
        let (mean, variance) = (of(1), of(2) - of(1) * of(1));
        assert!(mean.abs() <= 1e-4 && (variance - 1.0).abs() <= 2e-3, "{mean} {variance}");
    }
    // The decoder is as it was, and without an encoder everything is.
    let decoder = param_table(&CONFIG).len();
    assert_eq!(calibrated.params[..decoder], initial.params[..decoder]);
    let plain = Weights::init(&CONFIG, 5).unwrap();
    let mut program = Program::new(&CONFIG, 2, 5, &cpu, f32, SlowGradient::None).unwrap();
    assert_eq!(program.calibrated(&plain, &batches).unwrap(), plain);
}

#[test]
fn what_does_not_suit_is_refused() {
    let plain = ModelConfig { encoder_width: 0, ..config() };
    let (cpu, f32) = (Device::Cpu, Precision::F32);
    let new = |config: &ModelConfig, slow| Program::new(config, 2, 5, &cpu, f32, slow);
    let mut program = new(&plain, SlowGradient::None).unwrap();
    let weights = Weights::init(&plain, 5).unwrap();
    let weights = DeviceWeights::new(&plain, &weights, &cpu, f32).unwrap();
    let batch = Batch::new(&plain, 2, &TOKENS, &TARGETS).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let inference = Inference::at(&infer(), 0.0).unwrap();
    let refused = inference.infer(&mut problem, KEY, &mut |_| Ok(()));
    assert!(matches!(refused, Err(Error::Unsuitable { what: "infer.start", .. })));
    let refused = new(&config(), SlowGradient::Trajectory);
    assert!(matches!(refused.err(), Some(Error::Unsuitable { what: "train.slow_gradient", .. })));
}
