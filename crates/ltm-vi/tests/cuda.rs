//! The fast loop as one recorded CUDA graph against the same fit on the CPU. Without
//! `LTM_DEVICE=cuda` it is skipped.

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{ModelConfig, Weights};
use ltm_testkit::{cuda_device, relative_frobenius};
use ltm_vi::{Engine, FastStep, InferConfig, InferKey, Noise, SlowGradient};

const CONFIG: ModelConfig = ModelConfig {
    dim: 8,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 11,
    max_seq_len: 6,
    window: 3,
    n_latents: 4,
    ffn_hidden: 16,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_layers: 0,
};
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

/// Both sides compute in f32; eight steps of Adam, which divides by the gradient's size, carry a
/// rounding of 1e-7 from step to step.
const TOL: f64 = 1e-4;

fn device() -> Option<Device> {
    let name = cuda_device()?;
    Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
}

fn engine(device: &Device, slow: SlowGradient) -> Engine {
    let mut engine = Engine::new(&CONFIG, 2, 5, device, Precision::F32, slow).unwrap();
    let mut weights = Weights::init(&CONFIG, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
    engine.set_weights(&weights).unwrap();
    engine.set_batch(&TOKENS, &TARGETS).unwrap();
    engine
}

fn fit(engine: &mut Engine, infer: &InferConfig, step: u64) -> Vec<FastStep> {
    let key = InferKey { seed: 2, step, first_sequence: 0 };
    let mut steps = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    engine.infer(infer, 0.5, key, &mut observer).unwrap();
    steps
}

fn check(what: &str, found: &[f64], expected: &[f64]) {
    let distance = relative_frobenius(found, expected);
    assert!(distance <= TOL, "{what}: relative distance {distance:e}");
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn a_recorded_fit_is_the_fit_on_the_cpu() {
    let Some(device) = device() else { return };
    for (noise, slow) in [
        (Noise::Fixed, SlowGradient::Final),
        (Noise::Fresh, SlowGradient::Final),
        (Noise::Fresh, SlowGradient::Trajectory),
    ] {
        let infer = InferConfig { noise, steps: 8, ..InferConfig::published() };
        let mut engines = [Device::Cpu, device].map(|device| engine(&device, slow));
        // The second fit is replayed from its first step on.
        for fit_idx in 0..2 {
            let [expected, found] = engines.each_mut().map(|engine| fit(engine, &infer, fit_idx));
            assert_eq!(found.len(), 8);
            let bounds = |steps: &[FastStep]| steps.iter().map(|s| s.bound).collect::<Vec<_>>();
            check("bounds", &bounds(&found), &bounds(&expected));
            assert_eq!(found[7].lr, expected[7].lr);
            let [expected, found] = engines.each_ref().map(|engine| engine.posterior().unwrap());
            check("mu", &widened(&found.mu), &widened(&expected.mu));
            check("log_var", &widened(&found.log_var), &widened(&expected.log_var));
            check("noise", &widened(&found.noise), &widened(&expected.noise));
            let [expected, found] = engines.each_mut().map(|engine| engine.token_nll().unwrap());
            check("nll", &found, &expected);
            let [expected, found] = engines.each_mut().map(|engine| {
                let gradients = engine.slow_gradients(&[0.1; 10]).unwrap();
                gradients.iter().flat_map(|g| g.to_f64().unwrap()).collect::<Vec<_>>()
            });
            check("slow gradients", &found, &expected);
            let [expected, found] = engines.each_ref().map(|engine| {
                let sums = engine.trajectory_gradients().iter();
                sums.flat_map(|g| g.to_f64().unwrap()).collect::<Vec<_>>()
            });
            if slow == SlowGradient::Trajectory {
                check("trajectory", &found, &expected);
            }
        }
    }
}

#[test]
fn same_bits_twice() {
    let Some(device) = device() else { return };
    let infer = InferConfig { noise: Noise::Fresh, steps: 3, ..InferConfig::published() };
    let run = || {
        let mut engine = engine(&device, SlowGradient::None);
        fit(&mut engine, &infer, 0);
        let first = engine.posterior().unwrap();
        // Recorded or replayed, a fit under one key is one fit.
        fit(&mut engine, &infer, 0);
        assert_eq!(engine.posterior().unwrap(), first);
        first
    };
    assert_eq!(run(), run());
}

#[test]
fn a_token_outside_the_vocabulary_is_refused_before_the_device_sees_it() {
    let Some(device) = device() else { return };
    let mut engine = engine(&device, SlowGradient::None);
    let mut tokens = TOKENS;
    tokens[3] = 11;
    assert!(engine.set_batch(&tokens, &TARGETS).is_err());
    let mut targets = TARGETS;
    targets[9] = -2;
    assert!(engine.set_batch(&TOKENS, &targets).is_err());
}
