//! On stories whose likelihood is known, no valid bound of a model is below the truth; one that has
//! seen the answers is.

use std::path::Path;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{Attention, ModelConfig, Weights};
use ltm_train::data::{Batch, storyworld};
use ltm_train::{Config, SlowLearner};
use ltm_vi::{InferKey, Inference, Program, Protocol, Sequences, SlowGradient, score};

const SEED: u64 = 3;
const T: usize = storyworld::MAX_TOKENS;
/// Stories of a batch.
const B: usize = 8;
/// Batches that are scored; training begins behind them.
const SCORED: u64 = 2;

/// The stories of batch `index`, a row each, and the length and the exact cost in nats of each.
///
/// All tokens of a story are scored, with the separator at its end, and no others: the cost is that of
/// the same tokens.
fn stories(index: u64) -> (Batch, Vec<(usize, f64)>) {
    let (mut tokens, mut targets, mut exact) = (Vec::new(), Vec::new(), Vec::new());
    for story in index * B as u64..(index + 1) * B as u64 {
        let story = storyworld::sample(SEED, story);
        let said: Vec<i32> = story.tokens.iter().map(|token| *token as i32).collect();
        let (separator, rest) = (said[said.len() - 1], T - said.len());
        tokens.push(separator);
        tokens.extend(&said[..said.len() - 1]);
        tokens.extend(vec![separator; rest]);
        targets.extend(&said);
        targets.extend(vec![-1; rest]);
        exact.push((said.len(), -story.log_prob));
    }
    let scored = targets.iter().filter(|target| **target >= 0).count();
    let (numbers, documents) = ((0..B as u64).collect(), vec![None; B]);
    let context = vec![0; B];
    (Batch { tokens, targets, context, numbers, documents, rows: B, scored }, exact)
}

/// The same stories, where the model reads each token that it is to say next.
fn leaking(index: u64) -> (Batch, Vec<(usize, f64)>) {
    let (batch, exact) = stories(index);
    let tokens = batch.tokens.iter().zip(&batch.targets);
    let tokens = tokens.map(|(read, said)| if *said < 0 { *read } else { *said }).collect();
    (Batch { tokens, ..batch }, exact)
}

/// The latents of a model: how many, couplings of their prior, layers of their map, and the rank of their posterior.
#[derive(Clone, Copy, Default)]
struct Parts {
    n_latents: usize,
    prior_layers: usize,
    map_layers: usize,
    rank: usize,
}

/// Trains a small model with these latents on other stories and gives, for each protocol, the nats by which its score of
/// each story is above the exact cost.
fn excess(
    batch: impl Fn(u64) -> (Batch, Vec<(usize, f64)>),
    parts: Parts,
    steps: u64,
    protocols: &[Protocol],
) -> Vec<Vec<f64>> {
    let set = [
        "train.batch=8",
        "train.micro_batches=1",
        "train.steps=1000",
        "train.lr=0.01",
        "train.warmup=5",
        "infer.steps=3",
    ];
    let text = include_str!("tiny.toml");
    let mut config =
        Config::parse(text, Path::new("tiny.toml"), &set.map(String::from)).expect("it is good");
    config.model = ModelConfig {
        dim: 32,
        n_layers: 1,
        n_heads: 2,
        n_kv_heads: 2,
        vocab_size: storyworld::vocabulary().len() + 1,
        max_seq_len: T,
        window: T,
        n_latents: parts.n_latents,
        ffn_hidden: 64,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: Attention::Causal,
        encoder_width: 0,
        init_std: 0.02,
        prior_layers: parts.prior_layers,
        map_layers: parts.map_layers,
    };
    config.infer.rank = parts.rank;
    let weights = Weights::init(&config.model, SEED).expect("the model is good");
    let mut learner = SlowLearner::new(&config, &weights).expect("the device is there");
    for step in 0..steps {
        learner.step(&config, &[batch(SCORED + step).0], step).expect("it learns");
    }
    let (precision, slow) = (Precision::F32, SlowGradient::None);
    let mut program = Program::new(&config.model, B, T, &Device::Cpu, precision, slow).unwrap();
    let inference = Inference::finished(&config.infer).unwrap();
    let mut excess = vec![Vec::new(); protocols.len()];
    for index in 0..SCORED {
        let (batch, exact) = batch(index);
        let key = InferKey { seed: SEED, step: 0, sequences: Sequences::From(index * B as u64) };
        let rows = ltm_vi::Batch::new(&config.model, B, &batch.tokens, &batch.targets).unwrap();
        let mut problem = program.problem(learner.device_weights(), &rows).unwrap();
        let latents = inference.infer(&mut problem, key, &mut |_| Ok(())).unwrap();
        for (excess, protocol) in excess.iter_mut().zip(protocols) {
            let scores = score(&mut problem, *protocol, &latents, &inference, key).unwrap();
            let lengths: Vec<usize> = exact.iter().map(|(length, _)| *length).collect();
            assert_eq!(scores.tokens, lengths, "{protocol}");
            excess.extend(scores.nats.iter().zip(&exact).map(|(nats, (_, exact))| nats - exact));
        }
    }
    excess
}

/// The mean, and its standard error.
fn mean(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

/// The truth costs 38 nats per story, and a model that knows nothing 440. A trained one must be well under
/// that for the comparison to mean something.
fn check_honest(parts: Parts, steps: u64, protocols: &[Protocol]) {
    for (excess, protocol) in excess(stories, parts, steps, protocols).iter().zip(protocols) {
        let (nats, error) = mean(excess);
        assert!(nats >= -4.0 * error, "{protocol}: {nats} +- {error} nats above the truth");
        assert!(nats <= 200.0, "{protocol}: {nats}, nothing was learnt");
    }
}

#[test]
fn no_bound_beats_the_truth() {
    let protocols = [
        Protocol::Elbo { samples: 4 },
        Protocol::Iwae { samples: 4 },
        Protocol::Prequential { stride: 32, samples: 2 },
    ];
    let plain = Parts { n_latents: 4, ..Parts::default() };
    check_honest(plain, 40, &protocols);
    check_honest(Parts { prior_layers: 2, ..plain }, 40, &protocols);
    check_honest(Parts { map_layers: 1, ..plain }, 40, &protocols);
    check_honest(Parts { rank: 2, ..plain }, 40, &protocols);
}

#[test]
fn no_exact_score_beats_the_truth() {
    check_honest(Parts::default(), 60, &[Protocol::Autoregressive]);
}

/// The same comparison finds out a model that reads the answers.
#[test]
fn a_leak_beats_the_truth() {
    let (nats, error) =
        mean(&excess(leaking, Parts::default(), 40, &[Protocol::Autoregressive])[0]);
    assert!(nats < -4.0 * error, "{nats} +- {error}");
}
