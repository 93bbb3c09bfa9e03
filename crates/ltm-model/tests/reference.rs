//! Logits, losses and gradients against those recorded from the published model.

mod fixture;

use fixture::Fixture;
use ltm_autodiff::{Graph, Kind, Lifetime, Plan, Store, Value, grad, ops};
use ltm_kernels::{DType, Device};
use ltm_model::model::{declare_weights, logits, output_weight, trace};
use ltm_model::{ModelConfig, param_table};
use ltm_testkit::relative_frobenius;

/// Both sides compute in f32, of precision 6e-8, through some fifty dependent sums of up to a
/// hundred terms.
const TOL: f64 = 2e-5;

fn check(name: &str, found: &[f32], expected: &[f32]) {
    let distance = relative_frobenius(found, expected);
    assert!(distance <= TOL, "{name}: relative distance {distance:e}");
}

/// Writes what every test starts from: weights and tokens.
fn write(
    store: &mut Store,
    config: &ModelConfig,
    fixture: &Fixture,
    weights: &[Value],
    [tokens, targets]: [Value; 2],
) {
    for (spec, weight) in param_table(config).iter().zip(weights) {
        store.write_f32(*weight, &fixture.f32(&format!("param.{}", spec.name))).unwrap();
    }
    store.write_i32(tokens, &fixture.i32("tokens")).unwrap();
    store.write_i32(targets, &fixture.i32("targets")).unwrap();
}

fn check_latent_gradients((config, fixture): (ModelConfig, Fixture)) {
    let [b, t] = fixture.shape("tokens").try_into().unwrap();
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &config);
    let tokens = g.input("tokens", &[b, t], Kind::Int, Lifetime::Batch);
    let targets = g.input("targets", &[b, t], Kind::Int, Lifetime::Batch);
    let latents = [b, config.n_latents, config.dim];
    let posterior = ["mu0", "log_var0", "eps"]
        .map(|name| (name, g.input(name, &latents, Kind::Float, Lifetime::Step)));
    let [(_, mu), (_, log_var), (_, noise)] = posterior;
    let z = ops::reparam(&mut g, mu, log_var, noise).unwrap();
    let hidden = trace(&mut g, &config, &weights, tokens, Some(z), b, t).unwrap();
    let logits = logits(&mut g, hidden, &weights).unwrap();
    let nll = ops::cross_entropy(&mut g, hidden, output_weight(&weights), targets).unwrap();
    let kl = ops::gaussian_kl(&mut g, mu, log_var, b).unwrap();
    let ones = ops::fill(&mut g, &[b * t], 1.0);
    let nll_sum = ops::dot(&mut g, nll, ones).unwrap();
    let ones = ops::fill(&mut g, &[b], 1.0);
    let kl_sum = ops::dot(&mut g, kl, ones).unwrap();
    let loss = ops::add(&mut g, nll_sum, kl_sum).unwrap();
    let grads = grad(&mut g, loss, &[mu, log_var]).unwrap();

    let mut store = Store::new(&g, &Device::Cpu, DType::F32).unwrap();
    write(&mut store, &config, &fixture, &weights, [tokens, targets]);
    for (name, value) in posterior {
        store.write_f32(value, &fixture.f32(name)).unwrap();
    }
    let outputs = [logits, nll, kl, grads[0], grads[1]];
    let mut plan = Plan::new(&g, &Device::Cpu, DType::F32, &outputs).unwrap();
    plan.run(&store).unwrap();
    let [logits, nll, kl, dmu, dlog_var] = outputs.map(|v| plan.output(v).unwrap().to_f32().unwrap());
    let nll: Vec<f32> = nll.chunks(t).map(|row| row.iter().sum()).collect();
    for (name, found) in [
        ("logits", logits),
        ("nll0", nll),
        ("kl0", kl),
        ("grad_mu0", dmu),
        ("grad_log_var0", dlog_var),
    ] {
        check(name, &found, &fixture.f32(name));
    }
}

fn check_weight_gradients((config, fixture): (ModelConfig, Fixture)) {
    let [b, t] = fixture.shape("tokens").try_into().unwrap();
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &config);
    let tokens = g.input("tokens", &[b, t], Kind::Int, Lifetime::Batch);
    let targets = g.input("targets", &[b, t], Kind::Int, Lifetime::Batch);
    let latents = [b, config.n_latents, config.dim];
    let z = g.input("z", &latents, Kind::Float, Lifetime::Batch);
    let hidden = trace(&mut g, &config, &weights, tokens, Some(z), b, t).unwrap();
    let nll = ops::cross_entropy(&mut g, hidden, output_weight(&weights), targets).unwrap();
    let mean = ops::fill(&mut g, &[b * t], 1.0 / (b * t) as f64);
    let loss = ops::dot(&mut g, nll, mean).unwrap();
    let grads = grad(&mut g, loss, &weights).unwrap();

    let mut store = Store::new(&g, &Device::Cpu, DType::F32).unwrap();
    write(&mut store, &config, &fixture, &weights, [tokens, targets]);
    store.write_f32(z, &fixture.f32("z_final")).unwrap();
    let outputs = [&[loss], &grads[..]].concat();
    let mut plan = Plan::new(&g, &Device::Cpu, DType::F32, &outputs).unwrap();
    plan.run(&store).unwrap();
    check("slow_loss", &plan.output(loss).unwrap().to_f32().unwrap(), &fixture.f32("slow_loss"));
    for (spec, dw) in param_table(&config).iter().zip(&grads) {
        let name = format!("slow_grad.{}", spec.name);
        check(&name, &plan.output(*dw).unwrap().to_f32().unwrap(), &fixture.f32(&name));
    }
}

#[test]
fn latent_gradients_are_the_recorded_ones() {
    check_latent_gradients(fixture::tiny());
    check_latent_gradients(fixture::gqa());
}

#[test]
fn weight_gradients_are_the_recorded_ones() {
    check_weight_gradients(fixture::tiny());
    check_weight_gradients(fixture::gqa());
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let (config, _) = fixture::tiny();
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &config);
    let mut tokens = |t| g.input("tokens", &[1, t], Kind::Int, Lifetime::Batch);
    let (tokens, too_long) = (tokens(24), tokens(25));
    let mut latents = |n| g.input("z", &[1, n, 32], Kind::Float, Lifetime::Step);
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
