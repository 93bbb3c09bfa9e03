//! A posterior optimiser of one's own, the natural gradient of a Gaussian, compared with the AdamW of the paper:
//! `cargo run -p ltm-vi --example natural_gradient`.

use ltm_vi::fit::Observer;
use ltm_vi::{
    Batch, Device, DeviceWeights, FastStep, Fit, InferConfig, InferKey, Inference, Latents,
    ModelConfig, Precision, Problem, Program, Result, Sequences, SlowGradient, Start, Weights,
};

/// The inverse Fisher information of `N(mu, exp(log_var))` is `exp(log_var)` for the mean and 2 for the log-variance.
struct NaturalGradient {
    rate: f32,
    steps: usize,
}

impl Fit for NaturalGradient {
    fn fit(
        &self,
        problem: &mut Problem<'_>,
        start: &Start,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Latents> {
        let mut q = problem.start(start, key)?;
        let (mut mu, mut log_var) = (q.mu.to_f32()?, q.log_var.to_f32()?);
        let n_layers = problem.extents().n_layers;
        for step in 0..self.steps {
            let at = problem.gradient(&q, 1.0)?;
            let (dmu, dlog_var) = (at.dmu.to_f32()?, at.dlog_var.to_f32()?);
            let nll = at.nll.iter().sum();
            observer(&FastStep::new(step, self.rate.into(), nll, &at.kl, n_layers))?;
            for i in 0..mu.len() {
                mu[i] -= self.rate * log_var[i].exp() * dmu[i];
                log_var[i] -= (self.rate * 2.0 * dlog_var[i]).clamp(-0.5, 0.5);
            }
            q.mu.write_f32(&mu)?;
            q.log_var.write_f32(&log_var)?;
        }
        Ok(q.into())
    }
}

/// Fits one text with both methods and prints what they reach.
pub fn main() -> Result<()> {
    let config = ModelConfig {
        dim: 32,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 2,
        vocab_size: 50,
        max_seq_len: 16,
        window: 8,
        n_latents: 4,
        ffn_hidden: 64,
        ..ModelConfig::ltm_small()
    };
    let (cpu, precision) = (Device::Cpu, Precision::F32);
    let mut weights = Weights::init(&config, 42)?;
    // As after some training: large enough for the latents to matter.
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
    let weights = DeviceWeights::new(&config, &weights, &cpu, precision)?;
    let text: Vec<i32> = (0..17).map(|i| (7 * i + i * i) % 50).collect();
    let batch = Batch::new(&config, 1, &text[..16], &text[1..])?;
    let mut program = Program::new(&config, 1, 16, &cpu, precision, SlowGradient::None)?;
    let mut problem = program.problem(&weights, &batch)?;
    let key = InferKey { seed: 1, step: 0, sequences: Sequences::From(0) };

    let infer = InferConfig { weight_decay: 0.0, ..InferConfig::published() };
    let own = NaturalGradient { rate: 0.2, steps: infer.steps };
    let inferences =
        [("adamw", Inference::finished(&infer)?), ("natural", Inference::new(own, Start::Prior))];
    for (name, inference) in inferences {
        let mut bounds = Vec::new();
        inference.infer(&mut problem, key, &mut |step| {
            bounds.push(step.bound);
            Ok(())
        })?;
        let (first, last) = (bounds[0], bounds[bounds.len() - 1]);
        println!("{name:<8} from {first:>8.2} to {last:>8.2} nats in {} steps", bounds.len());
        assert!(last < first, "{name} descends");
    }
    Ok(())
}
