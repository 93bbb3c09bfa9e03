//! What the latents are worth, on models whose answer is known: one that ignores its latents, and one that
//! uses them.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, Weights, param_table};
use ltm_vi::{
    Batch, InferConfig, InferKey, Inference, LatentUse, Noise, Program, Sequences, SlowGradient,
};
use tiny::CONFIG;

/// The latents of `n` sequences fitted by `infer`.
fn measure(uses_latents: bool, infer: &InferConfig, n: usize) -> LatentUse {
    let mut weights = Weights::init(&CONFIG, 5).unwrap();
    for (spec, values) in param_table(&CONFIG).iter().zip(&mut weights.params) {
        // Large enough for the latents to matter; the norms' gains stay 1.
        values.iter_mut().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
        if !uses_latents && spec.name.contains("cross_attention.wo") {
            values.fill(0.0);
        }
    }
    let (b, t) = (8, 5);
    let (cpu, f32) = (Device::Cpu, Precision::F32);
    let mut program = Program::new(&CONFIG, b, t, &cpu, f32, SlowGradient::None).unwrap();
    let weights = DeviceWeights::new(&CONFIG, &weights, &cpu, f32).unwrap();
    let inference = Inference::finished(infer).unwrap();
    let mut used = LatentUse::new(&CONFIG);
    for index in 0..n / b {
        // Different texts.
        let text = |i: usize| ((i * i * 7 + i * (index + 3)) % 11) as i32;
        let targets: Vec<i32> = (1..=b * t).map(text).collect();
        let tokens: Vec<i32> = (0..b * t).map(text).collect();
        let batch = Batch::new(&CONFIG, b, &tokens, &targets).unwrap();
        let mut problem = program.problem(&weights, &batch).unwrap();
        let first_sequence = (index * b) as u64;
        let key = InferKey { seed: 4, step: u64::MAX, sequences: Sequences::From(first_sequence) };
        let kept = used.fit(&mut problem, &inference, key, &[None; 8]).unwrap().to_host().unwrap();
        // The fit that is returned is the one under this key.
        let again = inference.infer(&mut problem, key, &mut |_| Ok(())).unwrap();
        assert_eq!(again.gaussian().unwrap().to_host().unwrap(), kept);
    }
    assert_eq!((used.sequences(), used.refitted()), (n, n.min(LatentUse::REFITTED)));
    used
}

#[test]
fn latents_that_are_ignored_are_worth_nothing_however_many_sequences() {
    // A start far from the prior and too few steps to leave it: the means are noise of the fit.
    let infer =
        InferConfig { steps: 2, noise: Noise::Fresh, init_mu_std: 1.0, ..InferConfig::published() };
    for n in [8, 64, 256] {
        let used = measure(false, &infer, n);
        assert_eq!(used.worth(), (0.0, 0.0), "{n} sequences");
        let (found, share) = (used.mean_variance(), used.mean_variance().share());
        assert!(found.noise > 1.0, "the fit leaves noise in the means: {found:?}");
        // A covariance of independent numbers: about 1/sqrt(n·L·Z·C) of the variance, five times that here.
        let error = 1.0 / ((used.refitted() * CONFIG.n_latents * CONFIG.dim) as f64).sqrt();
        assert!(share.abs() <= 5.0 * error, "{n} sequences: {found:?}");
        assert!(used.kl_per_layer().iter().all(|kl| *kl > 0.0));
        // Fitting such latents adds their KL and saves nothing.
        let kl: f64 = used.kl_per_layer().iter().sum();
        let (above, _) = used.above_prior();
        assert!((above - kl / 5.0).abs() <= 1e-6 * kl && used.is_worse_than_prior(), "{above}");
    }
}

#[test]
fn latents_that_are_used_are_worth_something() {
    let infer = InferConfig { noise: Noise::Fresh, ..InferConfig::published() };
    let used = measure(true, &infer, 64);
    let (worth, error) = used.worth();
    assert!(worth > 0.1 + 3.0 * error && error > 0.0, "{worth} ± {error}");
    let share = used.mean_variance().share();
    assert!((0.2..=1.0).contains(&share), "{:?}", used.mean_variance());
}
