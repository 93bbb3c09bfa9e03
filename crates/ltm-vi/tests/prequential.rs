//! Next-block prediction: it is a code, it sees no future, and without latents it is the exact
//! likelihood.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{Attention, ModelConfig, Weights};
use ltm_vi::{
    Engine, Error, InferConfig, InferKey, Noise, Posterior, Protocol, SlowGradient, score_batch,
    score_batch_after,
};

const V: usize = 3;
const CONFIG: ModelConfig = ModelConfig {
    dim: 4,
    n_layers: 1,
    n_heads: 1,
    n_kv_heads: 1,
    vocab_size: V,
    max_seq_len: 6,
    window: 2,
    n_latents: 2,
    ffn_hidden: 8,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: Attention::Causal,
    encoder_layers: 0,
};
const KEY: InferKey = InferKey { seed: 4, step: 0, first_sequence: 0 };

fn engine(config: &ModelConfig, b: usize, t: usize) -> Engine {
    engine_in(Precision::F64, config, b, t)
}

fn engine_in(precision: Precision, config: &ModelConfig, b: usize, t: usize) -> Engine {
    let slow = SlowGradient::None;
    let mut engine = Engine::new(config, b, t, &Device::Cpu, precision, slow).unwrap();
    let mut weights = Weights::init(config, 3).unwrap();
    // Large enough for the latents to matter; the norms' gains stay 1.
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 40.0 });
    engine.set_weights(&weights).unwrap();
    engine
}

/// From the prior, with a fixed noise that the fit may abuse, and steps enough to do so.
fn infer() -> InferConfig {
    InferConfig {
        steps: 30,
        lr: 0.1,
        lr_end: None,
        weight_decay: 0.0,
        noise: Noise::Fixed,
        init_mu_std: 0.0,
        init_log_var_mean: 0.0,
        init_log_var_std: 0.0,
        ..InferConfig::published()
    }
}

/// Sequence number `index` of the `V^t` there are, and what the model reads before each token.
fn sequence(index: usize, t: usize) -> (Vec<i32>, Vec<i32>) {
    let targets: Vec<i32> = (0..t).map(|i| (index / V.pow(i as u32) % V) as i32).collect();
    let tokens = [&[0], &targets[..t - 1]].concat();
    (tokens, targets)
}

fn nats(engine: &mut Engine, protocol: Protocol) -> f64 {
    score_batch(engine, protocol, &infer(), KEY).unwrap().nats[0]
}

/// A code must cost enough for all sequences to have their own word: the probabilities that it stands
/// for add up to 1. A glimpse of the block, by targets, tokens or noise, would push the sum above it.
#[test]
fn probabilities_of_all_sequences_add_up_to_one() {
    let t = 4;
    let mut engine = engine(&CONFIG, 1, t);
    let mut total = |protocol| -> f64 {
        let of = |index| {
            let (tokens, targets) = sequence(index, t);
            engine.set_batch(&tokens, &targets).unwrap();
            engine.infer(&infer(), 1.0, KEY, &mut |_| Ok(())).unwrap();
            (-nats(&mut engine, protocol)).exp()
        };
        (0..V.pow(t as u32)).map(of).sum()
    };
    for (stride, samples) in [(1, 2), (2, 3), (3, 1), (4, 2)] {
        let found = total(Protocol::Prequential { stride, samples });
        // Weights and latents are single precision, sums double: far fewer than 1e4 roundings.
        assert!((found - 1.0).abs() <= 1e-9, "stride {stride}, {samples} samples: {found}");
    }
    // What the published protocol says of the same model is no code.
    let found = total(Protocol::ElboFittedNoise);
    assert!(found >= 1.1, "{found}");
}

#[test]
fn nothing_behind_a_block_moves_its_score() {
    let (t, protocol) = (6, Protocol::Prequential { stride: 2, samples: 3 });
    let mut engine = engine(&CONFIG, 2, t);
    let (tokens, targets) = ([0, 1, 2, 0, 1, 1, 0, 2, 1, 1, 0, 2], [1, 2, 0, 1, 1, 2]);
    let mut score = |tokens: [i32; 12], seen: usize, last: i32| {
        let mut row = targets;
        row[seen..].fill(last);
        engine.set_batch(&tokens, &[row, row].concat()).unwrap();
        score_batch(&mut engine, protocol, &infer(), KEY).unwrap()
    };
    let short = score(tokens, 4, -1);
    assert_eq!(short.tokens, [4, 4]);
    let mut other = tokens;
    other[4..6].fill(2); // tokens behind the last scored target of the first row
    assert_eq!(score(other, 4, -1), short);
    // A longer row costs more, by its last block alone, whatever that is.
    let ends: Vec<f64> =
        (0..2).map(|last| score(tokens, 4, last).nats[0] - short.nats[0]).collect();
    assert!(ends.iter().all(|nats| *nats > 0.0) && ends[0] != ends[1], "{ends:?}");
}

#[test]
fn without_latents_it_is_the_exact_likelihood() {
    let config = ModelConfig { n_latents: 0, ..CONFIG };
    let mut engine = engine(&config, 1, 5);
    let (tokens, targets) = sequence(200, 5);
    engine.set_batch(&tokens, &targets).unwrap();
    let exact = nats(&mut engine, Protocol::Autoregressive);
    for stride in [1, 2, 5] {
        let scores =
            score_batch(&mut engine, Protocol::Prequential { stride, samples: 1 }, &infer(), KEY)
                .unwrap();
        assert_eq!((scores.nats[0], scores.variance[0]), (exact, 0.0));
    }
}

#[test]
fn batch_and_posterior_come_back() {
    // In single precision, which is what a posterior is read in.
    let mut engine = engine_in(Precision::F32, &CONFIG, 1, 5);
    let (tokens, targets) = sequence(77, 5);
    engine.set_batch(&tokens, &targets).unwrap();
    let protocol = Protocol::Prequential { stride: 2, samples: 2 };
    let unfitted = nats(&mut engine, protocol);
    engine.infer(&infer(), 1.0, KEY, &mut |_| Ok(())).unwrap();
    let (posterior, nll) = (engine.posterior().unwrap(), engine.token_nll().unwrap());
    assert_eq!(nats(&mut engine, protocol), unfitted);
    assert_eq!(engine.posterior().unwrap(), posterior);
    assert_eq!(engine.token_nll().unwrap(), nll);
    assert_eq!(engine.targets(), targets);
}

/// A row whose first targets are known costs what its last block does in the whole row.
#[test]
fn known_targets_are_fitted_to_and_not_scored() {
    let (t, stride, samples) = (6, 2, 3);
    for n_latents in [0, 2] {
        let config = ModelConfig { n_latents, ..CONFIG };
        let mut engine = engine(&config, 2, t);
        let (tokens, targets) = sequence(611, t);
        engine.set_batch(&[&*tokens, &tokens].concat(), &[&*targets, &targets].concat()).unwrap();
        let protocol = match n_latents {
            0 => Protocol::AutoregressiveOverlap { stride },
            _ => Protocol::PrequentialOverlap { stride, samples },
        };
        let mut score =
            |protocol, context| score_batch_after(&mut engine, protocol, &infer(), context, KEY);
        let scores = score(protocol, &[0, 4]).unwrap();
        assert_eq!(scores.tokens, [6, 2]);
        let whole = Protocol::Prequential { stride, samples };
        assert_eq!(score(whole, &[0, 0]).unwrap().nats[0], scores.nats[0]);
        if n_latents == 0 {
            let nll = engine.token_nll().unwrap();
            assert_eq!(scores.nats[1], nll[10..].iter().sum::<f64>());
            continue;
        }
        let error = score(whole, &[0, 4]).unwrap_err().to_string();
        assert!(error.contains("prequential:2:3 scores whole rows"), "{error}");
        assert!(matches!(score(protocol, &[0]), Err(Error::Argument { arg: "context", .. })));
    }
}

/// A row without known targets is scored under the prior, whatever the rows next to it know and fit.
#[test]
fn a_row_without_a_prefix_keeps_no_fit() {
    let (t, stride, samples) = (6, 2, 3);
    let mut engine = engine(&CONFIG, 2, t);
    let (tokens, targets) = sequence(611, t);
    engine.set_batch(&[&*tokens, &tokens].concat(), &[&*targets, &targets].concat()).unwrap();
    let protocol = Protocol::PrequentialOverlap { stride, samples };
    // From the prior, a fit to no targets would stay at the prior.
    let infer = InferConfig { init_mu_std: 1.0, init_log_var_mean: -1.0, ..infer() };
    let mut score =
        |context| score_batch_after(&mut engine, protocol, &infer, context, KEY).unwrap().nats[1];
    assert_eq!(score(&[2, 0]), score(&[0, 0]));
}

/// Each block has samples of its own: sample number `block · samples` and those after it, of a posterior
/// that a fit without steps leaves at the prior.
#[test]
fn blocks_do_not_share_samples() {
    let (t, stride, samples) = (6, 2, 3);
    let mut engine = engine(&CONFIG, 1, t);
    let (tokens, targets) = sequence(611, t);
    engine.set_batch(&tokens, &targets).unwrap();
    let infer = InferConfig { steps: 0, ..infer() };
    let n = CONFIG.n_latents * CONFIG.dim;
    let prior = Posterior { mu: vec![0.0; n], log_var: vec![0.0; n], noise: vec![0.0; n] };
    let mut expected = 0.0;
    for block in 0..t / stride {
        let mut likelihood = 0.0;
        for sample in 0..samples {
            let z = prior.fresh_sample(&CONFIG, KEY, block * samples + sample).unwrap();
            let nll = engine.token_nll_at(&z).unwrap();
            let nats: f64 = nll[block * stride..(block + 1) * stride].iter().sum();
            likelihood += (-nats).exp() / samples as f64;
        }
        expected -= likelihood.ln();
    }
    let protocol = Protocol::Prequential { stride, samples };
    let found = score_batch(&mut engine, protocol, &infer, KEY).unwrap().nats[0];
    // Latents rounded to single precision on one of two ways.
    assert!((found - expected).abs() <= 1e-4 * expected, "{found} is not {expected}");
}

#[test]
fn context_beyond_a_row_is_refused() {
    let mut engine = engine(&CONFIG, 1, 6);
    let (tokens, targets) = sequence(611, 6);
    engine.set_batch(&tokens, &targets).unwrap();
    let protocol = Protocol::PrequentialOverlap { stride: 2, samples: 1 };
    for known in [7, usize::MAX] {
        let refused = score_batch_after(&mut engine, protocol, &infer(), &[known], KEY);
        assert!(matches!(refused, Err(Error::Argument { arg: "context", .. })), "{refused:?}");
    }
}
