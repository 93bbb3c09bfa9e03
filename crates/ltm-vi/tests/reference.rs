//! The fast loop against numbers recorded from the published code, step by step.

use std::path::{Path, PathBuf};

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{ModelConfig, Weights, param_table};
use ltm_testkit::relative_frobenius;
use ltm_vi::{
    Engine, InferConfig, InferKey, Posterior, Protocol, Scores, SlowGradient, score_batch,
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
            encoder_layers: 0,
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
    let mut engine =
        Engine::new(&config, b, t, &Device::Cpu, Precision::F32, SlowGradient::Trajectory).unwrap();
    let params = table.iter().map(|spec| fixture.f32(&format!("param.{}", spec.name))).collect();
    engine.set_weights(&Weights { params }).unwrap();
    let targets = fixture.i32("targets");
    engine.set_batch(&fixture.i32("tokens"), &targets).unwrap();
    let [mu, log_var, noise] = ["mu0", "log_var0", "eps"].map(|name| fixture.f32(name));
    engine.set_posterior(&Posterior { mu, log_var, noise }).unwrap();

    let (lrs, bounds) = (fixture.numbers("fast_lrs"), fixture.numbers("nelbo_trajectory"));
    for step in 0..infer.steps {
        let lr = infer.lr_at(step, 0.0);
        assert!((lr - lrs[step]).abs() <= 1e-12, "rate of step {step}: {lr}");
        let found = engine.fast_step(lr, &infer).unwrap();
        let error = (found.bound / bounds[step] - 1.0).abs();
        assert!(error <= TOLERANCE, "bound of step {step}: {} is off by {error:e}", found.bound);
        if [1, 4, 16].contains(&(step + 1)) {
            let posterior = engine.posterior().unwrap();
            for (what, actual) in [("mu", &posterior.mu), ("log_var", &posterior.log_var)] {
                let what = format!("{what}_step{}", step + 1);
                close(&what, actual, &fixture.f32(&what));
            }
        }
    }

    close("z_final", &engine.posterior().unwrap().sample().unwrap(), &fixture.f32("z_final"));
    let key = InferKey { seed: 0, step: 0, first_sequence: 0 };
    let scores: Scores = score_batch(&mut engine, Protocol::ElboFittedNoise, &infer, key).unwrap();
    close("final_nelbo", &[scores.nats.iter().sum::<f64>() as f32], &fixture.f32("final_nelbo"));
    let perplexities = scores.nats.iter().map(|nats| (nats / t as f64).exp());
    let mean = perplexities.sum::<f64>() / b as f64;
    close("final_ppl_mean", &[mean as f32], &fixture.f32("final_ppl_mean"));

    for (spec, found) in table.iter().zip(engine.trajectory_gradients()) {
        let what = format!("fast_leak_grad.{}", spec.name);
        close(&what, found.as_slice().unwrap(), &fixture.f32(&what));
    }
    let n = targets.iter().filter(|target| **target >= 0).count();
    let gradients = engine.slow_gradients(&vec![1.0 / n as f32; b * t]).unwrap();
    let mut squares = 0.0;
    for (spec, found) in table.iter().zip(gradients) {
        let what = format!("slow_grad.{}", spec.name);
        close(&what, found.as_slice().unwrap(), &fixture.f32(&what));
        squares += found.to_f64().unwrap().iter().map(|x| x * x).sum::<f64>();
    }
    close("slow_grad_norm", &[squares.sqrt() as f32], &fixture.f32("slow_grad_norm"));
    let loss = engine.slow_token_nll().unwrap().iter().sum::<f64>() / n as f64;
    close("slow_loss", &[loss as f32], &fixture.f32("slow_loss"));
}

#[test]
fn tiny() {
    check("tiny");
}

#[test]
fn grouped_queries() {
    check("gqa");
}
