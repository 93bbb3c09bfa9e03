//! The amortised encoder: its gradients, what it may read, and its place among the protocols.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{ModelConfig, Weights, param_table};
use ltm_vi::{
    Engine, Error, InferConfig, InferKey, Method, Posterior, Protocol, SlowGradient, score_batch,
};

const KEY: InferKey = InferKey { seed: 2, step: 3, first_sequence: 0 };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

fn config() -> ModelConfig {
    ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 6,
        window: 3,
        n_latents: 4,
        ffn_hidden: 16,
        encoder_layers: 2,
        ..ModelConfig::ltm_small()
    }
}

fn infer() -> InferConfig {
    InferConfig { method: Method::Amortised, weight_decay: 0.0, ..InferConfig::published() }
}

/// An engine whose weights are large enough for the latents to matter, log-variances included.
fn engine(slow: SlowGradient) -> Engine {
    let config = config();
    let mut weights = Weights::init(&config, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 10.0 });
    let find = |name: &str| param_table(&config).iter().position(|spec| spec.name == name).unwrap();
    let mu = weights.params[find("encoder.mu.weight")].clone();
    weights.params[find("encoder.log_var.weight")] = mu.iter().rev().copied().collect();
    let mut engine = Engine::new(&config, 2, 5, &Device::Cpu, Precision::F64, slow).unwrap();
    engine.set_weights(&weights).unwrap();
    engine.set_batch(&TOKENS, &TARGETS).unwrap();
    engine
}

fn encode(engine: &mut Engine) -> Posterior {
    engine.infer(&infer(), 0.0, KEY, &mut |_| panic!("there are no steps")).unwrap();
    engine.posterior().unwrap()
}

#[test]
fn gradients_are_those_of_the_whole_bound() {
    let mut engine = engine(SlowGradient::Final);
    encode(&mut engine);
    let weight = 0.25;
    let gradients = engine.slow_gradients(&[weight; 10]).unwrap();
    let gradients: Vec<Vec<f64>> = gradients.iter().map(|g| g.to_f64().unwrap()).collect();
    // The other path to the same number: the encoder's posterior put into the fitted one's place, and a
    // step of the fast loop that moves nothing.
    let bound = |engine: &mut Engine| {
        encode(engine);
        f64::from(weight) * engine.fast_step(0.0, &infer()).unwrap().bound
    };
    let step = 1e-5;
    for (i, (spec, gradient)) in param_table(&config()).iter().zip(&gradients).enumerate() {
        // The row of a word that the text has.
        let at = if spec.name.contains("tok_embeddings") { 4 * 8 + 3 } else { 7 % gradient.len() };
        let mut nudge = |by: f64| {
            engine.weight_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            bound(&mut engine)
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
    let mut engine = engine(SlowGradient::Final);
    let posterior = encode(&mut engine);
    assert!(engine.has_density());
    engine.slow_gradients(&[1.0; 10]).unwrap();
    let nll: Vec<f64> =
        engine.slow_token_nll().unwrap().chunks(5).map(|nll| nll.iter().sum()).collect();
    let fitted = score_batch(&mut engine, Protocol::ElboFittedNoise, &infer(), KEY).unwrap();
    let elbo = score_batch(&mut engine, Protocol::Elbo { samples: 400 }, &infer(), KEY).unwrap();
    for (b, kl) in posterior.kl(2).unwrap().into_iter().enumerate() {
        // The posterior was rounded to single precision on the way here.
        assert!((fitted.nats[b] - nll[b] - kl).abs() <= 1e-6 * fitted.nats[b]);
        // One sample is as far from the mean of many as one sample is: 400 have 20 times its error.
        let error = 20.0 * elbo.variance[b].sqrt();
        assert!((fitted.nats[b] - elbo.nats[b]).abs() <= 5.0 * error, "{} {error}", elbo.nats[b]);
        assert!(kl > 0.1, "{kl}");
    }
    // Another key is another sample of the same posterior.
    let other = InferKey { step: 4, ..KEY };
    engine.infer(&infer(), 0.0, other, &mut |_| Ok(())).unwrap();
    let again = engine.posterior().unwrap();
    assert_eq!((&again.mu, &again.log_var), (&posterior.mu, &posterior.log_var));
    assert_ne!(again.noise, posterior.noise);
}

#[test]
fn the_encoder_reads_what_is_scored_and_nothing_else() {
    let mut engine = engine(SlowGradient::None);
    let expected = encode(&mut engine);
    let half = expected.mu.len() / 2;
    let mut tokens = TOKENS;
    tokens[9] = 3; // the token of the target that is not scored, and a text's own
    tokens[1] = 9;
    engine.set_batch(&tokens, &TARGETS).unwrap();
    assert_eq!(encode(&mut engine).mu, expected.mu);
    let mut targets = TARGETS;
    targets[4] = 9;
    engine.set_batch(&TOKENS, &targets).unwrap();
    let found = encode(&mut engine);
    assert_ne!(found.mu[..half], expected.mu[..half]);
    assert_eq!(found.mu[half..], expected.mu[half..]);
    targets[4] = -1;
    engine.set_batch(&TOKENS, &targets).unwrap();
    assert_ne!(encode(&mut engine).mu[..half], expected.mu[..half]);
}

/// A row that only fills a batch must not train the encoder.
#[test]
fn a_text_without_words_counts_nothing() {
    let mut engine = engine(SlowGradient::Final);
    engine.set_batch(&TOKENS, &[-1; 10]).unwrap();
    encode(&mut engine);
    for gradient in engine.slow_gradients(&[1.0; 10]).unwrap() {
        assert!(gradient.to_f64().unwrap().iter().all(|x| *x == 0.0));
    }
}

/// The start is near the prior: its variance, and means of a few tenths at most.
#[test]
fn training_starts_near_the_prior() {
    let mut engine = engine(SlowGradient::None);
    engine.set_weights(&Weights::init(&config(), 5).unwrap()).unwrap();
    let posterior = encode(&mut engine);
    assert!(posterior.log_var.iter().all(|x| *x == 0.0));
    // A normed vector of width 8 times numbers of standard deviation 0.02: 0.02·sqrt(8), five times.
    assert!(posterior.mu.iter().all(|x| x.abs() <= 0.3) && posterior.mu.iter().any(|x| *x != 0.0));
}

#[test]
fn what_does_not_suit_is_refused() {
    let plain = ModelConfig { encoder_layers: 0, ..config() };
    let new =
        |config: &ModelConfig, slow| Engine::new(config, 2, 5, &Device::Cpu, Precision::F32, slow);
    let mut engine = new(&plain, SlowGradient::None).unwrap();
    let refused = engine.infer(&infer(), 0.0, KEY, &mut |_| Ok(()));
    assert!(matches!(refused, Err(Error::Argument { arg: "infer.method", .. })));
    let refused = new(&config(), SlowGradient::Trajectory);
    assert!(matches!(refused, Err(Error::Argument { arg: "slow_gradient", .. })));
}
