//! Logits, losses and gradients against those recorded from the published model.

mod fixture;

use fixture::parity::{check_forward, check_latent_gradients, check_weight_gradients};
use ltm_autodiff::{Graph, Kind, UpdateRate, Value};
use ltm_kernels::Device;
use ltm_model::model::{declare_weights, trace};

/// Both sides compute in f32, of precision 6e-8, through some fifty dependent sums of up to a
/// hundred terms.
const TOL: f64 = 2e-5;

#[test]
fn latent_gradients_are_the_recorded_ones() {
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_latent_gradients(fixture, &Device::Cpu, TOL);
    }
}

#[test]
fn weight_gradients_are_the_recorded_ones() {
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_weight_gradients(fixture, &Device::Cpu, TOL);
    }
}

#[test]
fn a_pass_over_whole_texts_gives_the_recorded_logits() {
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_forward(fixture, &Device::Cpu, TOL);
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let (config, _) = fixture::tiny();
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &config);
    let mut tokens = |t| g.input("tokens", &[1, t], Kind::Int, UpdateRate::Batch);
    let (tokens, too_long) = (tokens(24), tokens(25));
    let mut latents = |n| g.input("z", &[1, n, 32], Kind::Float, UpdateRate::Step);
    let (z, too_many) = (latents(6), latents(7));
    let mut ok =
        |weights: &[Value], tokens, z, t| trace(&mut g, &config, weights, tokens, z, 1, t).is_ok();
    assert!(ok(&weights, tokens, Some(z), 24));
    assert!(!ok(&weights[1..], tokens, Some(z), 24));
    assert!(!ok(&weights, tokens, Some(z), 23));
    assert!(!ok(&weights, too_long, Some(z), 25));
    assert!(!ok(&weights, tokens, Some(too_many), 24));
    assert!(!ok(&weights, tokens, None, 24));
}
