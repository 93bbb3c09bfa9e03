//! Slow steps in other precisions and on CUDA beside the same ones in single precision on the CPU. On CUDA
//! that is on a GPU, or on the simulator where its library stands in for the driver; without
//! `LTM_DEVICE=cuda` it is skipped.

use std::path::Path;

use ltm_model::{ModelConfig, Weights};
use ltm_testkit::{Tol, assert_close, cuda_device, seeded};
use ltm_train::config::PrecisionKind;
use ltm_train::data::Batch;
use ltm_train::{Config, SlowLearner, StepReport};

const STEPS: u64 = 20;

const MODEL: ModelConfig = ModelConfig {
    dim: 16,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 11,
    max_seq_len: 12,
    window: 5,
    n_latents: 4,
    ffn_hidden: 48,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

/// Two micro-batches of two sequences that count up from different tokens, each behind its first
/// token; the last sequence is padded.
fn batches() -> Vec<Batch> {
    let (b, t) = (2, MODEL.max_seq_len);
    let start = |i: usize| (seeded(1, 4)[i].abs() * 100.0) as usize;
    let token = |i: usize, position: usize| ((start(i) + position) % MODEL.vocab_size) as i32;
    (0..2)
        .map(|batch| {
            let row = |i: usize, shift: usize| (0..t).map(move |p| token(b * batch + i, p + shift));
            let tokens = (0..b).flat_map(|i| row(i, 0)).collect();
            let mut targets: Vec<i32> = (0..b).flat_map(|i| row(i, 1)).collect();
            let scored = b * t - 3 * batch;
            targets[scored..].fill(-1);
            let (numbers, documents) = ((0..b as u64).collect(), vec![None; b]);
            Batch { tokens, targets, context: vec![0; b], numbers, documents, rows: b, scored }
        })
        .collect()
}

fn train(device: &str, precision: PrecisionKind) -> Vec<StepReport> {
    let text = include_str!("tiny.toml");
    let set = ["train.seq_len=12", "train.steps=20", "train.lr=0.01", "infer.steps=2"];
    let set = set.map(String::from);
    let mut config = Config::parse(text, Path::new("tiny.toml"), &set).expect("it is good");
    config.model = MODEL;
    config.run.device = device.into();
    config.run.precision = Some(precision);
    let weights = Weights::init(&MODEL, config.run.seed).expect("the model is good");
    let mut learner = SlowLearner::new(&config, &weights).expect("the device is there");
    let batches = batches();
    (0..STEPS).map(|step| learner.step(&config, &batches, step).expect("it learns")).collect()
}

/// Holds a run against the CPU's: losses within `nats` a token, norms within `rel`.
fn check(found: &[StepReport], expected: &[StepReport], nats: f64, rel: f64) {
    let of = |reports: &[StepReport], read: fn(&StepReport) -> f64| -> Vec<f64> {
        reports.iter().map(read).collect()
    };
    for read in [|r: &StepReport| r.loss, |r: &StepReport| r.kl.expect("it has a density")] {
        assert_close(&of(found, read), &of(expected, read), Tol { abs: nats, rel: 0.0 });
    }
    let norm = |r: &StepReport| r.grad_norm;
    assert_close(&of(found, norm), &of(expected, norm), Tol { abs: 0.0, rel });
}

/// A run in single precision on the CPU, and by how much its loss fell.
fn expected() -> (Vec<StepReport>, f64) {
    let reports = train("cpu", PrecisionKind::F32);
    let fall = reports[0].loss - reports[STEPS as usize - 1].loss;
    assert!(fall > 0.5, "a comparison means something when the run learns, it fell by {fall}");
    (reports, fall)
}

/// Holds a run in 16 bits against the CPU's in single precision.
fn check_mixed(device: &str) {
    let (expected, fall) = expected();
    // 51 independent roundings to bf16 on the way to a logit, twice as many to a gradient.
    let logits = 51f64.sqrt() / 256.0;
    let gradient = 2f64.sqrt() * logits;
    // A loss is a difference of logits, which are below 1 in the root mean square until the model has
    // learned; the fall is off by the gradient's share of it.
    let nats = 2f64.sqrt() * logits + gradient * fall;
    check(&train(device, PrecisionKind::Mixed), &expected, nats, gradient);
}

#[test]
fn products_in_16_bits_follow_f32() {
    check_mixed("cpu");
}

#[test]
fn on_cuda_twenty_steps_follow_the_cpu() {
    let Some(device) = cuda_device() else { return };
    // A step's roundings are those of the recorded numbers, 2e-5; a gradient off by so much changes
    // the fall so far by as much of it, and the loss is of the fall's size.
    let (expected, _) = expected();
    check(&train(&device, PrecisionKind::F32), &expected, 4e-5 * expected[0].loss, 1e-4);
    check_mixed(&device);
}
