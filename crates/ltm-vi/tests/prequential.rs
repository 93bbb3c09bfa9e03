//! Next-block prediction: it is a code, it sees no future, and without latents it is the exact
//! likelihood.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{Attention, DeviceWeights, ModelConfig, Weights, param_table};
use ltm_vi::{
    Batch, Error, InferConfig, InferKey, Inference, Latents, Noise, Posterior, Program, Protocol,
    Scores, Sequences, SlowGradient, StartKind, score,
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
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};
const KEY: InferKey = InferKey { seed: 4, step: 0, sequences: Sequences::From(0) };

/// A model for one batch after another.
struct Model {
    config: ModelConfig,
    program: Program,
    weights: DeviceWeights,
}

fn model(config: &ModelConfig, b: usize, t: usize) -> Model {
    let (cpu, f64, slow) = (Device::Cpu, Precision::F64, SlowGradient::None);
    let mut weights = Weights::init(config, 3).unwrap();
    // Large enough for the latents to matter; the norms' gains stay 1.
    let decoder = param_table(&ModelConfig { encoder_width: 0, ..*config }).len();
    let numbers = weights.params[..decoder].iter_mut().flatten();
    numbers.for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 40.0 });
    Model {
        config: *config,
        program: Program::new(config, b, t, &cpu, f64, slow).unwrap(),
        weights: DeviceWeights::new(config, &weights, &cpu, f64).unwrap(),
    }
}

impl Model {
    fn batch(&self, tokens: &[i32], targets: &[i32]) -> Batch {
        let [b, _] = self.program.shape();
        Batch::new(&self.config, b, tokens, targets).unwrap()
    }

    fn score(
        &mut self,
        batch: &Batch,
        protocol: Protocol,
        infer: &InferConfig,
    ) -> Result<Scores, Error> {
        let inference = Inference::finished(infer).unwrap();
        let mut problem = self.program.problem(&self.weights, batch).unwrap();
        let latents = match protocol.needs_fit() {
            true => inference.infer(&mut problem, KEY, &mut |_| Ok(())).unwrap(),
            false => Latents::None,
        };
        score(&mut problem, protocol, &latents, &inference, KEY)
    }

    fn nats(&mut self, batch: &Batch, protocol: Protocol) -> f64 {
        self.score(batch, protocol, &infer()).unwrap().nats[0]
    }
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

/// A code must cost enough for all sequences to have their own word: the probabilities that it stands
/// for add up to 1. A glimpse of the block, by targets, tokens or noise, would push the sum above it.
#[test]
fn probabilities_of_all_sequences_add_up_to_one() {
    let t = 4;
    let mut model = model(&CONFIG, 1, t);
    let mut total = |protocol| -> f64 {
        let of = |index| {
            let (tokens, targets) = sequence(index, t);
            let batch = model.batch(&tokens, &targets);
            (-model.nats(&batch, protocol)).exp()
        };
        (0..V.pow(t as u32)).map(of).sum()
    };
    for (stride, samples) in [(1, 2), (2, 3), (3, 1), (4, 2)] {
        let found = total(Protocol::Prequential { stride, samples });
        // Weights and latents are single precision, sums double: far fewer than 1e4 roundings.
        assert!((found - 1.0).abs() <= 1e-9, "stride {stride}, {samples} samples: {found}");
    }
    // An encoder reads the prefix alone, also where that is empty.
    let mut encoder = self::model(&ModelConfig { encoder_width: 5, ..CONFIG }, 1, t);
    for steps in [0, 2] {
        let infer = InferConfig { start: StartKind::Encoder, steps, ..infer() };
        let protocol = Protocol::Prequential { stride: 2, samples: 2 };
        let of = |index| {
            let (tokens, targets) = sequence(index, t);
            let batch = encoder.batch(&tokens, &targets);
            (-encoder.score(&batch, protocol, &infer).unwrap().nats[0]).exp()
        };
        let found: f64 = (0..V.pow(t as u32)).map(of).sum();
        assert!((found - 1.0).abs() <= 1e-9, "an encoder and {steps} steps: {found}");
    }
    // What the published protocol says of the same model is no code.
    let found = total(Protocol::ElboFittedNoise);
    assert!(found >= 1.1, "{found}");
}

/// Latents of another text are a code too: they know nothing of the block.
#[test]
fn latents_of_another_text_are_those_of_another_row() {
    let t = 4;
    let mut model = model(&ModelConfig { encoder_width: 5, ..CONFIG }, 3, t);
    let from_encoder = InferConfig { start: StartKind::Encoder, steps: 0, ..infer() };
    let from_prior = InferConfig { start: StartKind::Prior, steps: 0, ..infer() };
    let shuffled = Protocol::PrequentialShuffled { stride: 2, samples: 2 };
    let own = Protocol::Prequential { stride: 2, samples: 2 };
    let mut nats = |rows: [Option<usize>; 3], protocol, infer: &InferConfig| {
        let row =
            |row: Option<usize>| row.map_or((vec![0; t], vec![-1; t]), |row| sequence(row, t));
        let (tokens, targets): (Vec<_>, Vec<_>) = rows.into_iter().map(row).unzip();
        let batch = model.batch(&tokens.concat(), &targets.concat());
        model.score(&batch, protocol, infer).unwrap().nats
    };
    let mut total = 0.0;
    for index in 0..V.pow(t as u32) {
        total += (-nats([Some(33), Some(index), None], shuffled, &infer())[1]).exp();
    }
    assert!((total - 1.0).abs() <= 1e-9, "{total}");
    // The encoder's latents are a function of the donor's text: of the same text they are a row's own.
    let same = [Some(5), Some(5), None];
    assert_eq!(nats(same, shuffled, &from_encoder), nats(same, own, &from_encoder));
    let other = [Some(5), Some(33), None];
    assert_ne!(nats(other, shuffled, &from_encoder)[0], nats(other, own, &from_encoder)[0]);
    // Alone, a row has latents of the prior.
    let alone = [Some(5), None, None];
    let (found, expected) =
        (nats(alone, shuffled, &from_encoder)[0], nats(alone, own, &from_prior)[0]);
    // The prior's sample is given as noise of the posterior, in single precision.
    assert!((found - expected).abs() <= 1e-6, "{found} {expected}");
}

#[test]
fn nothing_behind_a_block_moves_its_score() {
    let (t, protocol) = (6, Protocol::Prequential { stride: 2, samples: 3 });
    let mut model = model(&CONFIG, 2, t);
    let (tokens, targets) = ([0, 1, 2, 0, 1, 1, 0, 2, 1, 1, 0, 2], [1, 2, 0, 1, 1, 2]);
    let mut score = |tokens: [i32; 12], seen: usize, last: i32| {
        let mut row = targets;
        row[seen..].fill(last);
        let batch = model.batch(&tokens, &[row, row].concat());
        model.score(&batch, protocol, &infer()).unwrap()
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
    let mut model = model(&config, 1, 5);
    let (tokens, targets) = sequence(200, 5);
    let batch = model.batch(&tokens, &targets);
    let exact = model.nats(&batch, Protocol::Autoregressive);
    for stride in [1, 2, 5] {
        let protocol = Protocol::Prequential { stride, samples: 1 };
        let scores = model.score(&batch, protocol, &infer()).unwrap();
        assert_eq!((scores.nats[0], scores.variance[0]), (exact, 0.0));
    }
}

/// A score does not depend on what the program did before.
#[test]
fn a_score_has_no_history() {
    let mut model = model(&CONFIG, 1, 5);
    let (tokens, targets) = sequence(77, 5);
    let batch = model.batch(&tokens, &targets);
    let protocol = Protocol::Prequential { stride: 2, samples: 2 };
    let first = model.nats(&batch, protocol);
    let (tokens, targets) = sequence(30, 5);
    let other = model.batch(&tokens, &targets);
    assert_ne!(model.nats(&other, Protocol::ElboFittedNoise), first);
    assert_eq!(model.nats(&batch, protocol), first);
}

/// A row whose first targets are known costs what its last block does in the whole row.
#[test]
fn known_targets_are_fitted_to_and_not_scored() {
    let (t, stride, samples) = (6, 2, 3);
    for n_latents in [0, 2] {
        let config = ModelConfig { n_latents, ..CONFIG };
        let mut model = model(&config, 2, t);
        let (tokens, targets) = sequence(611, t);
        let protocol = match n_latents {
            0 => Protocol::AutoregressiveOverlap { stride },
            _ => Protocol::PrequentialOverlap { stride, samples },
        };
        let batch = || model_batch(&config, &tokens, &targets);
        let scores =
            model.score(&batch().with_context(&[0, 4]).unwrap(), protocol, &infer()).unwrap();
        assert_eq!(scores.tokens, [6, 2]);
        let whole = Protocol::Prequential { stride, samples };
        assert_eq!(model.score(&batch(), whole, &infer()).unwrap().nats[0], scores.nats[0]);
        if n_latents == 0 {
            let batch = batch();
            let mut problem = model.program.problem(&model.weights, &batch).unwrap();
            let nll = problem.token_nll(&Latents::None).unwrap();
            assert_eq!(scores.nats[1], nll[10..].iter().sum::<f64>());
            continue;
        }
        let known = batch().with_context(&[0, 4]).unwrap();
        let error = model.score(&known, whole, &infer()).unwrap_err().to_string();
        assert!(error.contains("prequential:2:3 scores whole rows"), "{error}");
    }
}

/// One row twice.
fn model_batch(config: &ModelConfig, tokens: &[i32], targets: &[i32]) -> Batch {
    Batch::new(config, 2, &[tokens, tokens].concat(), &[targets, targets].concat()).unwrap()
}

/// A row without known targets is scored under the prior, whatever the rows next to it know and fit.
#[test]
fn a_row_without_a_prefix_keeps_no_fit() {
    let (t, stride, samples) = (6, 2, 3);
    let mut model = model(&CONFIG, 2, t);
    let (tokens, targets) = sequence(611, t);
    let protocol = Protocol::PrequentialOverlap { stride, samples };
    // From the prior, a fit to no targets would stay at the prior.
    let infer = InferConfig { init_mu_std: 1.0, init_log_var_mean: -1.0, ..infer() };
    let mut score = |context: &[usize]| {
        let batch = model_batch(&CONFIG, &tokens, &targets).with_context(context).unwrap();
        model.score(&batch, protocol, &infer).unwrap().nats[1]
    };
    assert_eq!(score(&[2, 0]), score(&[0, 0]));
}

/// In a batch each row has its own prefixes, samples and sums: it costs what it does alone, with or without known
/// targets, of which the last row has none.
#[test]
fn rows_cost_what_they_do_alone() {
    let t = 6;
    let (stride, samples) = (2, 3);
    let protocol = Protocol::PrequentialOverlap { stride, samples };
    let infer = InferConfig { init_mu_std: 1.0, init_log_var_mean: -1.0, ..infer() };
    let inference = Inference::finished(&infer).unwrap();
    let (rows, context) = ([611, 130, 287].map(|index| sequence(index, t)), [3, 2, 0]);
    let nats = |rows: &[(Vec<i32>, Vec<i32>)], context: &[usize], sequences| {
        let mut model = model(&CONFIG, rows.len(), t);
        let tokens: Vec<i32> = rows.iter().flat_map(|(tokens, _)| tokens.clone()).collect();
        let targets: Vec<i32> = rows.iter().flat_map(|(_, targets)| targets.clone()).collect();
        let batch = model.batch(&tokens, &targets).with_context(context).unwrap();
        let mut problem = model.program.problem(&model.weights, &batch).unwrap();
        let key = InferKey { sequences, ..KEY };
        score(&mut problem, protocol, &Latents::None, &inference, key).unwrap().nats
    };
    let numbers = [7, 2, 40];
    let together = nats(&rows, &context, Sequences::These(&numbers));
    for (row, found) in together.into_iter().enumerate() {
        let number = Sequences::From(numbers[row]);
        let alone = nats(&rows[row..=row], &context[row..=row], number)[0];
        assert!((found - alone).abs() <= 1e-9 * alone, "row {row}: {found}, alone {alone}");
    }
    let consecutive = nats(&rows, &context, Sequences::From(4));
    assert_eq!(nats(&rows, &context, Sequences::These(&[4, 5, 6])), consecutive);
}

#[test]
fn samples_have_limits() {
    let mut model = model(&CONFIG, 1, 4);
    let (tokens, targets) = sequence(7, 4);
    let batch = model.batch(&tokens, &targets);
    for samples in [0, Protocol::MOST_SAMPLES + 1] {
        for protocol in [
            Protocol::Elbo { samples },
            Protocol::Iwae { samples },
            Protocol::Prequential { stride: 2, samples },
            Protocol::PrequentialOverlap { stride: 2, samples },
        ] {
            let refused = model.score(&batch, protocol, &infer());
            assert!(matches!(refused, Err(Error::Argument { arg: "samples", .. })), "{refused:?}");
        }
    }
}

/// Each block has samples of its own: sample number `block · samples` and those after it, of a posterior
/// that a fit without steps leaves at the prior.
#[test]
fn blocks_do_not_share_samples() {
    let (t, stride, samples) = (6, 2, 3);
    let mut model = model(&CONFIG, 1, t);
    let (tokens, targets) = sequence(611, t);
    let batch = model.batch(&tokens, &targets);
    let infer = InferConfig { steps: 0, ..infer() };
    let mut problem = model.program.problem(&model.weights, &batch).unwrap();
    let n = CONFIG.n_latents * CONFIG.dim;
    let prior =
        Posterior { mu: vec![0.0; n], log_var: vec![0.0; n], noise: vec![0.0; n], factor: None };
    let mut expected = 0.0;
    for block in 0..t / stride {
        let mut likelihood = 0.0;
        for sample in 0..samples {
            let z = prior.fresh_sample(&CONFIG, KEY, block * samples + sample).unwrap();
            let nll = problem.token_nll_at(&z).unwrap();
            let nats: f64 = nll[block * stride..(block + 1) * stride].iter().sum();
            likelihood += (-nats).exp() / samples as f64;
        }
        expected -= likelihood.ln();
    }
    let protocol = Protocol::Prequential { stride, samples };
    let found = model.score(&batch, protocol, &infer).unwrap().nats[0];
    // Latents rounded to single precision on one of two ways.
    assert!((found - expected).abs() <= 1e-4 * expected, "{found} is not {expected}");
}
