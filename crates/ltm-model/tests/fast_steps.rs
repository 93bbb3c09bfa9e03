//! What an inner loop over the latents repeats, and what it does not. The one test of its binary:
//! it counts allocations of the process.

mod fixture;

use ltm_autodiff::{AdamWState, Graph, Kind, Plan, Precision, Store, UpdateRate, grad, ops};
use ltm_kernels::ops::adamw::AdamW;
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::model::{declare_weights, output_weight, trace};
use ltm_model::param_table;

const BATCHES: u64 = 2;
const STEPS: u64 = 16;

#[test]
fn fast_steps_repeat_only_what_the_latents_change() {
    let (config, fixture) = fixture::tiny();
    let [b, t] = fixture.shape("tokens").try_into().unwrap();
    let device = Device::Cpu;
    let mut g = Graph::new();
    let weights = declare_weights(&mut g, &config);
    let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
    let targets = g.input("targets", &[b, t], Kind::Int, UpdateRate::Batch);
    let latents = [b, config.n_latents, config.dim];
    let noise = g.input("eps", &latents, Kind::Float, UpdateRate::Batch);
    let mu = g.input("mu0", &latents, Kind::Float, UpdateRate::Step);
    let log_var = g.input("log_var0", &latents, Kind::Float, UpdateRate::Step);
    let z = ops::reparam(&mut g, mu, log_var, noise).unwrap();
    let hidden = trace(&mut g, &config, &weights, tokens, Some(z), b, t).unwrap().hidden;
    let output = output_weight(&mut g, &weights).unwrap();
    let nll = ops::cross_entropy(&mut g, hidden, output, targets).unwrap();
    let ones = ops::fill(&mut g, &[b * t], 1.0);
    let loss = ops::dot(&mut g, nll, ones).unwrap();
    let grads = grad(&mut g, loss, &[mu, log_var]).unwrap();

    let mut store = Store::new(&g, &device, Precision::F32).unwrap();
    for (spec, weight) in param_table(&config).iter().zip(&weights) {
        store.write_f32(*weight, &fixture.f32(&format!("param.{}", spec.name))).unwrap();
    }
    let mut plan = Plan::new(&g, &device, Precision::F32, &[loss, grads[0], grads[1]]).unwrap();
    let n = latents.iter().product();
    let mut optimisers = [mu, log_var].map(|_| AdamWState::new(&device, DType::F32, n).unwrap());
    let adamw = AdamW { lr: 0.1, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let (data, start) = ((fixture.i32("tokens"), fixture.i32("targets")), fixture.f32("mu0"));
    let (start_log_var, eps) = (fixture.f32("log_var0"), fixture.f32("eps"));

    let mut allocations = None;
    let mut losses = Vec::new();
    for _batch in 0..BATCHES {
        store.write_i32(tokens, &data.0).unwrap();
        store.write_i32(targets, &data.1).unwrap();
        store.write_f32(noise, &eps).unwrap();
        store.write_f32(mu, &start).unwrap();
        store.write_f32(log_var, &start_log_var).unwrap();
        for optimiser in &mut optimisers {
            optimiser.reset(&device).unwrap();
        }
        for _step in 0..STEPS {
            plan.run(&store).unwrap();
            losses.push(plan.output(loss).unwrap().to_f64().unwrap()[0]);
            for ((latent, dlatent), optimiser) in
                [mu, log_var].iter().zip(&grads).zip(&mut optimisers)
            {
                let param = store.get_mut(*latent).unwrap();
                optimiser
                    .update(&device, param, plan.output(*dlatent).unwrap(), 1.0, adamw)
                    .unwrap();
            }
            let now = Buffer::allocations();
            assert_eq!(now, *allocations.get_or_insert(now), "a step allocated");
        }
    }
    let (first, second) = losses.split_at(STEPS as usize);
    assert!(first[15] < first[0], "the latents learn nothing: {first:?}");
    assert_eq!(first, second, "a batch depends on the one before");

    let counts = plan.counts();
    let found = |name: &str| {
        let count = counts.iter().find(|count| count.name == name).expect(name);
        (count.nodes, count.runs)
    };
    let weight_nodes: Vec<_> = counts.iter().filter(|c| c.name.ends_with("_bwd_weight")).collect();
    assert!(weight_nodes.is_empty(), "{weight_nodes:?}");
    // Of `all` nodes, `hoisted` run once a batch and the others every step.
    let expected = |all: u64, hoisted: u64| (all, BATCHES * (hoisted + STEPS * (all - hoisted)));
    let layers = config.n_layers as u64;
    assert_eq!(found("embedding"), expected(1, 1));
    // To the tokens and to the latents; layer 0's to the tokens is below every latent.
    assert_eq!(found("attention"), expected(2 * layers, 1));
    // Layer 0's four of self-attention, and the first cross-attention's query.
    assert_eq!(found("matmul"), expected(11 * layers, 5));
    // Layer 0's query and key of self-attention, and the first cross-attention's query.
    assert_eq!(found("rope"), expected(4 * layers, 3));
    // Before self-attention; all others are norms of a sum, the first of them before cross-attention.
    assert_eq!(found("rms_norm"), expected(1, 1));
    assert_eq!(found("rms_norm_add"), expected(3 * layers, 1));
    // Nothing below the first cross-attention has a gradient, nor has its query.
    assert_eq!(found("attention_bwd"), expected(2 * layers - 1, 0));
    assert_eq!(found("rope_bwd"), expected(4 * (layers - 1) + 1, 0));
    // Layer 0 has no gradient below its cross-attention's key and value.
    assert_eq!(found("matmul_bwd"), expected(11 * (layers - 1) + 6, 0));
    // Sums are taken within norms and products, but for the layers' parts of the latents' gradient.
    assert_eq!(found("add"), expected(layers - 1, 0));
    // Tables of angles, for tokens and for latents, are made once and for all.
    assert_eq!(found("rope_table"), (2, 2));
}
