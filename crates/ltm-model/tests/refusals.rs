//! What tracing refuses, by name and before anything is computed.

use ltm_autodiff::{Error, Graph, Kind, UpdateRate, Value};
use ltm_model::encoder::EncoderInputs;
use ltm_model::model::{self, declare_weights};
use ltm_model::{Attention, ModelConfig, encoder};

const CONFIG: ModelConfig = ModelConfig {
    dim: 8,
    n_layers: 1,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 11,
    max_seq_len: 8,
    window: 3,
    n_latents: 2,
    ffn_hidden: 16,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: Attention::Causal,
    encoder_width: 12,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

#[track_caller]
fn refused<T>(result: ltm_autodiff::Result<T>, words: &[&str]) {
    let message = match result {
        Err(error @ (Error::Shape { .. } | Error::OtherGraph { .. })) => error.to_string(),
        Err(error) => panic!("refused as {error}"),
        Ok(_) => panic!("taken, though {words:?}"),
    };
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
}

fn ints(g: &mut Graph, shape: &[usize]) -> Value {
    g.input("ids", shape, Kind::Int, UpdateRate::Batch)
}

#[test]
fn a_decoder_that_does_not_fit() {
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &CONFIG);
    let tokens = ints(&mut g, &[1, 4]);
    let z = g.input("z", &[1, 2, 8], Kind::Float, UpdateRate::Step);
    let bad = ModelConfig { n_heads: 3, ..CONFIG };
    refused(model::trace(&mut g, &bad, &weights, tokens, Some(z), 1, 4), &["n_heads", "3"]);
    let few = &weights[1..];
    let counts = [&*few.len().to_string(), &*weights.len().to_string()];
    refused(model::trace(&mut g, &CONFIG, few, tokens, Some(z), 1, 4), &counts);
    refused(model::trace(&mut g, &CONFIG, &weights, tokens, Some(z), 1, 5), &["tokens", "[1, 5]"]);
    let long = ints(&mut g, &[1, 9]);
    refused(model::trace(&mut g, &CONFIG, &weights, long, Some(z), 1, 9), &["at most 8"]);
    refused(model::trace(&mut g, &CONFIG, &weights, tokens, None, 1, 4), &["z must be"]);
    let mut other = Graph::new();
    let strange = other.input("z", &[1, 2, 8], Kind::Float, UpdateRate::Step);
    refused(model::trace(&mut g, &CONFIG, &weights, tokens, Some(strange), 1, 4), &["z"]);
    assert!(model::trace(&mut g, &CONFIG, &weights, tokens, Some(z), 1, 4).is_ok());
}

#[test]
fn an_encoder_that_does_not_fit() {
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &CONFIG);
    let inputs = |g: &mut Graph, text: &[usize], present: &[usize]| EncoderInputs {
        text: ints(g, text),
        present: g.input("present", present, Kind::Float, UpdateRate::Batch),
    };
    let good = inputs(&mut g, &[1, 4], &[1, 4]);
    let long = inputs(&mut g, &[1, 9], &[1, 9]);
    let flat = inputs(&mut g, &[4], &[4]);
    let other = inputs(&mut g, &[1, 4], &[1, 5]);
    refused(encoder::trace(&mut g, &CONFIG, &weights, long), &["(B,T)", "[1, 9]"]);
    refused(encoder::trace(&mut g, &CONFIG, &weights, flat), &["(B,T)", "[4]"]);
    refused(encoder::trace(&mut g, &CONFIG, &weights, other), &["present", "[1, 5]"]);
    refused(encoder::trace(&mut g, &CONFIG, &weights[1..], good), &["weights"]);
    let bare = ModelConfig { encoder_width: 0, ..CONFIG };
    let few = declare_weights(&mut g, &bare);
    refused(encoder::trace(&mut g, &bare, &few, good), &["no encoder"]);
    assert!(encoder::trace(&mut g, &CONFIG, &weights, good).is_ok());
}
