//! The bound of masked diffusion against its exact value, on texts short enough to try every mask.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{Attention, Decoder, DeviceWeights, ModelConfig, Weights};
use ltm_vi::{
    Batch, Error, InferConfig, InferKey, Inference, Latents, Masked, Program, Protocol, Scores,
    Sequences, SlowGradient, mask_batch, score,
};

const B: usize = 2;
const T: usize = 4;
const MASK: i32 = 5;

const KEY: InferKey = InferKey { seed: 4, step: 1, sequences: Sequences::From(0) };
/// Words 0 to 4; the second text ends early, and 0 is its padding.
const TOKENS: [i32; B * T] = [0, 1, 2, 3, 0, 4, 0, 0];
const TARGETS: [i32; B * T] = [1, 2, 3, 4, 4, 0, -1, -1];
const TEXT: [i32; B * T] = [1, 2, 3, 4, 4, 0, 0, 0];

fn config() -> ModelConfig {
    ModelConfig {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 6,
        max_seq_len: T,
        window: T,
        n_latents: 0,
        ffn_hidden: 16,
        attention: Attention::Bidirectional,
        ..ModelConfig::ltm_small()
    }
}

struct Case {
    program: Program,
    weights: DeviceWeights,
}

/// A model whose weights are `scale` times as large as at the start of training.
fn case(scale: f32) -> Case {
    let mut weights = Weights::init(&config(), 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { scale });
    let (cpu, f64, none) = (Device::Cpu, Precision::F64, SlowGradient::None);
    Case {
        program: Program::new(&config(), B, T, &cpu, f64, none).unwrap(),
        weights: DeviceWeights::new(&config(), &weights, &cpu, f64).unwrap(),
    }
}

impl Case {
    fn nll(&mut self, tokens: &[i32], targets: &[i32]) -> Vec<f64> {
        let batch = Batch::new(&config(), B, tokens, targets).unwrap();
        let mut problem = self.program.problem(&self.weights, &batch).unwrap();
        problem.token_nll(&Latents::None).unwrap()
    }

    fn score(&mut self, protocol: Protocol) -> Result<Scores, Error> {
        let batch = Batch::new(&config(), B, &TOKENS, &TARGETS).unwrap();
        let mut problem = self.program.problem(&self.weights, &batch).unwrap();
        // Nothing is fitted here.
        let inference = Inference::finished(&InferConfig::published()).unwrap();
        score(&mut problem, protocol, &Latents::None, &inference, KEY)
    }
}

/// Nats of the hidden words of each text, where bit `i` of `mask` hides position `i`.
fn hidden_nats(case: &mut Case, mask: usize) -> Vec<f64> {
    let hidden = |at: usize| mask >> (at % T) & 1 == 1;
    let tokens: Vec<i32> = (0..B * T).map(|at| if hidden(at) { MASK } else { TEXT[at] }).collect();
    let targets: Vec<i32> = (0..B * T).map(|at| if hidden(at) { TEXT[at] } else { -1 }).collect();
    case.nll(&tokens, &targets).chunks(T).map(|nll| nll.iter().sum()).collect()
}

/// `∫ 1/t · t^k · (1-t)^(T-k) dt` over (0,1) by Simpson's rule, exact to far below 1e-9 with this many
/// points of a polynomial of this degree.
fn weight(k: usize) -> f64 {
    let n = 2000;
    let f = |t: f64| t.powi(k as i32 - 1) * (1.0 - t).powi((T - k) as i32);
    let point = |i: i32| f(f64::from(i) / f64::from(n)) * if i % 2 == 1 { 4.0 } else { 2.0 };
    let inner: f64 = (1..n).map(point).sum();
    (f(0.0) + inner + f(1.0)) / (3.0 * f64::from(n))
}

/// `E_t[ 1/t · sum over hidden of -log p ]`: every mask by its probability, integrated over `t`.
fn exact(case: &mut Case) -> Vec<f64> {
    let mut bound = vec![0.0; B];
    for mask in 1..1_usize << T {
        let weight = weight(mask.count_ones() as usize);
        let nats = hidden_nats(case, mask);
        bound.iter_mut().zip(nats).for_each(|(sum, nats)| *sum += weight * nats);
    }
    bound
}

#[test]
fn the_protocol_is_unbiased() {
    let mut case = case(15.0);
    let exact = exact(&mut case);
    let scores = case.score(Protocol::MaskedDiffusion { samples: 600 }).unwrap();
    for (b, exact) in exact.into_iter().enumerate() {
        let (found, error) = (scores.nats[b], scores.variance[b].sqrt());
        assert!((found - exact).abs() <= 4.0 * error, "{found} ± {error}, exactly {exact}");
        assert!(error <= 0.05 * exact, "{error} of {exact} proves nothing");
    }
    assert_eq!(scores.tokens, [4, 2], "padding costs nats and counts no token");
    // The batch stays, so that asking again gives the same.
    let again = case.score(Protocol::MaskedDiffusion { samples: 600 }).unwrap();
    assert_eq!(again, scores);
    let single = case.score(Protocol::MaskedDiffusion { samples: 1 }).unwrap();
    assert!(single.variance[0].is_nan());
}

#[test]
fn what_training_sees_is_unbiased() {
    let mut case = case(15.0);
    let exact = exact(&mut case);
    let n = 600;
    let mut draws = vec![Vec::new(); B];
    for step in 0..n {
        let key = InferKey { step, ..KEY };
        let masked = mask_batch(&config(), key, &TOKENS, &TARGETS, T).unwrap();
        let nll = case.nll(&masked.tokens, &masked.targets);
        for (b, draws) in draws.iter_mut().enumerate() {
            let row = b * T..(b + 1) * T;
            let nats = nll[row.clone()].iter().zip(&masked.weight[row]);
            draws.push(nats.map(|(nll, w)| nll * f64::from(*w)).sum::<f64>());
        }
    }
    for (draws, exact) in draws.iter().zip(exact) {
        let n = n as f64;
        let mean = draws.iter().sum::<f64>() / n;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
        let error = (variance / n).sqrt();
        assert!((mean - exact).abs() <= 4.0 * error, "{mean} ± {error}, exactly {exact}");
        assert!(error <= 0.05 * exact, "{error} of {exact} proves nothing");
    }
}

/// Logits that are all 0 give every word the chance 1/V whatever is hidden: the bound is exact, and so is
/// every draw of it.
#[test]
fn equal_chances_cost_their_entropy() {
    let mut case = case(0.0);
    let scores = case.score(Protocol::MaskedDiffusion { samples: 5 }).unwrap();
    let expected = T as f64 * 6f64.ln();
    for b in 0..B {
        // Weights T/k are single precision.
        assert!((scores.nats[b] - expected).abs() <= 1e-6 * expected, "{}", scores.nats[b]);
        assert!(scores.variance[b] <= 1e-12);
    }
}

#[test]
fn what_is_hidden_is_said_from_both_sides() {
    let mut case = case(15.0);
    let mut nats =
        |last: i32| case.nll(&[MASK, 2, 3, last, MASK, 0, 0, 0], &[1, -1, -1, -1, 4, -1, -1, -1]);
    let (one, other) = (nats(4), nats(1));
    assert_ne!(one[0], other[0], "the first word depends on the last");
    assert_eq!(one[4], other[4], "but not on another text");
}

#[test]
fn masks_hide_words_padding_included() {
    let mut counts = [0; T + 1];
    for first_sequence in 0..40 {
        let key = InferKey { sequences: Sequences::From(first_sequence), ..KEY };
        let Masked { tokens, targets, weight } =
            mask_batch(&config(), key, &TOKENS, &TARGETS, T).unwrap();
        for row in [0..T, T..2 * T] {
            let hidden = row.clone().filter(|at| targets[*at] >= 0).count();
            for at in row {
                let is_hidden = targets[at] >= 0;
                assert_eq!(tokens[at], if is_hidden { MASK } else { TEXT[at] });
                assert_eq!(targets[at], if is_hidden { TEXT[at] } else { -1 });
                assert_eq!(weight[at], if is_hidden { T as f32 / hidden as f32 } else { 0.0 });
            }
            counts[hidden] += 1;
        }
    }
    // Multiples of the golden ratio fill four quarters evenly: 80 texts, 20 each but for the ends.
    assert!(counts[0] == 0 && counts[1..].iter().all(|n| (17..=23).contains(n)), "{counts:?}");
    // A sequence has its masks in whichever batch it comes.
    let both = mask_batch(&config(), KEY, &TOKENS, &TARGETS, T).unwrap();
    let second = InferKey { sequences: Sequences::From(1), ..KEY };
    let second = mask_batch(&config(), second, &TOKENS[T..], &TARGETS[T..], T).unwrap();
    assert_eq!(both.tokens[T..], second.tokens);
    let other = mask_batch(&config(), InferKey { step: 2, ..KEY }, &TOKENS, &TARGETS, T).unwrap();
    assert_ne!(both, other);
    // A row that only fills a batch stays empty.
    let filled = mask_batch(&config(), KEY, &TOKENS, &[1, 2, 3, 4, -1, -1, -1, -1], T).unwrap();
    assert!(filled.weight[T..].iter().all(|w| *w == 0.0));
    assert_eq!(filled.targets[T..], [-1; T]);
}

#[test]
fn what_does_not_suit_is_refused() {
    let mut masked = case(1.0);
    for protocol in [Protocol::Autoregressive, Protocol::Elbo { samples: 2 }] {
        let error = masked.score(protocol).unwrap_err().to_string();
        assert!(error.contains("masked-diffusion"), "{error}");
    }
    assert!(masked.score(Protocol::MaskedDiffusion { samples: 0 }).is_err());
    let causal = ModelConfig { attention: Attention::Causal, ..config() };
    let refused = mask_batch(&causal, KEY, &TOKENS, &TARGETS, T);
    assert!(matches!(refused, Err(Error::Argument { arg: "model.attention", .. })));
    let task = ltm_vi::Task::Score(Protocol::MaskedDiffusion { samples: 2 });
    let error = ltm_vi::suits(&causal, &ltm_vi::InferConfig::published(), task).unwrap_err();
    assert!(error.to_string().contains("bidirectional"), "{error}");
    let weights = Weights::init(&config(), 1).unwrap();
    let error = Decoder::new(config(), &weights, Device::Cpu, 1).unwrap_err().to_string();
    assert!(error.contains("causal"), "{error}");
}
