//! The fast loop against numbers recorded from the published code, step by step.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Weights, param_table};
use ltm_testkit::relative_frobenius;
use ltm_vi::fit::AdamW;
use ltm_vi::{
    Batch, Gaussian, InferConfig, InferKey, Inference, Latents, Posterior, Program, Protocol,
    Sequences, SlowGradient, Start, score,
};
use safetensors::SafeTensors;
use serde_json::Value;

/// Both sides work in single precision, over sixteen steps, with sums in different orders. The
/// worst case observed is a tenth of this.
const TOLERANCE: f64 = 2e-5;

struct Fixture {
    bytes: Vec<u8>,
    meta: Value,
}

impl Fixture {
    fn open(name: &str) -> Self {
        let bytes = std::fs::read(path(name)).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let text = &metadata.metadata().as_ref().unwrap()["config"];
        let meta = serde_json::from_str(text).unwrap();
        Self { bytes, meta }
    }

    fn f32(&self, name: &str) -> Vec<f32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let (numbers, _) = file.tensor(name).expect(name).data().as_chunks::<4>();
        numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn i32(&self, name: &str) -> Vec<i32> {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let (numbers, _) = file.tensor(name).expect(name).data().as_chunks::<4>();
        numbers.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect()
    }

    fn number(&self, name: &str) -> f64 {
        self.meta[name].as_f64().expect(name)
    }

    fn numbers(&self, name: &str) -> Vec<f64> {
        let list = self.meta[name].as_array().expect(name);
        list.iter().map(|x| x.as_f64().expect(name)).collect()
    }

    fn model(&self) -> ModelConfig {
        let extent = |name| self.number(name) as usize;
        ModelConfig {
            dim: extent("dim"),
            n_layers: extent("n_layers"),
            n_heads: extent("n_heads"),
            n_kv_heads: extent("n_kv_heads"),
            vocab_size: extent("vocab_size"),
            max_seq_len: extent("max_seq_len"),
            window: extent("window_size"),
            n_latents: extent("n_latents"),
            ffn_hidden: extent("ffn_hidden"),
            norm_eps: self.number("norm_eps"),
            rope_theta: self.number("rope_theta"),
            attention: ltm_model::Attention::Causal,
            encoder_width: 0,
            init_std: 0.02,
            prior_layers: 0,
            map_layers: 0,
        }
    }

    fn infer(&self) -> InferConfig {
        InferConfig {
            steps: self.number("fast_steps") as usize,
            lr: self.number("fast_lr"),
            lr_end: None,
            beta1: self.numbers("fast_betas")[0],
            beta2: self.numbers("fast_betas")[1],
            eps: self.number("fast_eps"),
            weight_decay: self.number("fast_weight_decay"),
            ..InferConfig::published()
        }
    }
}

/// The recorded files are the decoder crate's; they lie in one place.
fn path(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-model/tests/fixtures");
    folder.join(name).with_extension("safetensors")
}

#[track_caller]
fn close(what: &str, actual: &[f32], expected: &[f32]) {
    let distance = relative_frobenius(actual, expected);
    assert!(distance <= TOLERANCE, "{what} differs by {distance:e}");
}

fn check(name: &str) {
    let fixture = Fixture::open(name);
    let (config, infer) = (fixture.model(), fixture.infer());
    let table = param_table(&config);
    let (b, t) = (fixture.number("batch") as usize, config.max_seq_len);
    let (cpu, f32) = (Device::Cpu, Precision::F32);
    let mut program = Program::new(&config, b, t, &cpu, f32, SlowGradient::Trajectory).unwrap();
    let params = table.iter().map(|spec| fixture.f32(&format!("param.{}", spec.name))).collect();
    let weights = DeviceWeights::new(&config, &Weights { params }, &cpu, f32).unwrap();
    let targets = fixture.i32("targets");
    let batch = Batch::new(&config, b, &fixture.i32("tokens"), &targets).unwrap();
    let [mu, log_var, noise] = ["mu0", "log_var0", "eps"].map(|name| fixture.f32(name));
    let start =
        Gaussian::new(&Posterior { mu, log_var, noise, factor: None }, &cpu, f32.float).unwrap();
    let start = Start::Given(Arc::new(start));
    let mut problem = program.problem(&weights, &batch).unwrap();

    let (lrs, bounds) = (fixture.numbers("fast_lrs"), fixture.numbers("nelbo_trajectory"));
    let fit = AdamW::new(&infer, 0.0);
    for (step, (found, expected)) in fit.rates.iter().zip(&lrs).enumerate() {
        assert!((found - expected).abs() <= 1e-12, "rate of step {step}: {found}");
    }
    let key = InferKey { seed: 0, step: 0, sequences: Sequences::From(0) };
    let mut latents = Latents::None;
    // With one noise for all steps, the first steps of a fit are a shorter fit.
    for steps in [1, 4, 16] {
        let fit = AdamW { rates: fit.rates[..steps].to_vec(), ..fit.clone() };
        let mut taken = 0;
        latents = Inference::new(fit, start.clone())
            .infer(&mut problem, key, &mut |step| {
                let error = (step.bound / bounds[taken] - 1.0).abs();
                assert!(
                    error <= TOLERANCE,
                    "bound of step {taken}: {} is off by {error:e}",
                    step.bound
                );
                taken += 1;
                Ok(())
            })
            .unwrap();
        assert_eq!(taken, steps);
        let posterior = latents.gaussian().unwrap().to_host().unwrap();
        for (what, actual) in [("mu", &posterior.mu), ("log_var", &posterior.log_var)] {
            let what = format!("{what}_step{steps}");
            close(&what, actual, &fixture.f32(&what));
        }
    }
    assert_eq!(infer.steps, 16);

    let posterior = latents.gaussian().unwrap().to_host().unwrap();
    close("z_final", &posterior.sample().unwrap(), &fixture.f32("z_final"));
    let inference = Inference::at(&infer, 0.0).unwrap();
    let scores = score(&mut problem, Protocol::ElboFittedNoise, &latents, &inference, key).unwrap();
    close("final_nelbo", &[scores.nats.iter().sum::<f64>() as f32], &fixture.f32("final_nelbo"));
    let perplexities = scores.nats.iter().map(|nats| (nats / t as f64).exp());
    let mean = perplexities.sum::<f64>() / b as f64;
    close("final_ppl_mean", &[mean as f32], &fixture.f32("final_ppl_mean"));

    let n = targets.iter().filter(|target| **target >= 0).count();
    let slow = problem.weight_gradients(&latents, &vec![1.0 / n as f32; b * t], 1.0).unwrap();
    let mut squares = 0.0;
    for (spec, found) in table.iter().zip(&slow.gradients) {
        let what = format!("slow_grad.{}", spec.name);
        close(&what, found.as_slice().unwrap(), &fixture.f32(&what));
        squares += found.to_f64().unwrap().iter().map(|x| x * x).sum::<f64>();
    }
    close("slow_grad_norm", &[squares.sqrt() as f32], &fixture.f32("slow_grad_norm"));
    let loss = slow.nll.iter().sum::<f64>() / n as f64;
    close("slow_loss", &[loss as f32], &fixture.f32("slow_loss"));
    for (spec, found) in table.iter().zip(program.trajectory_gradients()) {
        let what = format!("fast_leak_grad.{}", spec.name);
        close(&what, found.as_slice().unwrap(), &fixture.f32(&what));
    }
}

#[test]
fn tiny() {
    check("tiny");
}

#[test]
fn grouped_queries() {
    check("gqa");
}
