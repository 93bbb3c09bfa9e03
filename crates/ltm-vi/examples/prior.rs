//! A prior of one's own in fits and bounds: latents around another mean than 0.
//! `cargo run -p ltm-vi --example prior`.

use std::sync::Arc;

use ltm_vi::ltm_autodiff::{self, Graph, Value, ops};
use ltm_vi::{
    Batch, Density, Device, DeviceWeights, InferConfig, InferKey, Inference, ModelConfig,
    Precision, Prior, Program, Protocol, Result, Sequences, SlowGradient, StandardNormal,
    TracedGaussian, Weights, score,
};

/// `N(mean, 1)` for each number of a sequence's latents.
#[derive(Clone, Copy)]
struct Shifted {
    mean: f64,
}

impl Prior for Shifted {
    /// The divergence of a shifted posterior from the standard normal.
    fn kl(
        &self,
        g: &mut Graph,
        _weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> ltm_autodiff::Result<Value> {
        let shape = g.shape(q.mu).to_vec();
        let minus = ops::fill(g, &shape, -self.mean);
        let mu = ops::add(g, q.mu, minus)?;
        ops::gaussian_kl(g, mu, q.log_var, rows)
    }

    fn density(&self, _weights: &DeviceWeights) -> Result<Arc<dyn Density>> {
        Ok(Arc::new(*self))
    }
}

impl Density for Shifted {
    fn log_density(&self, z: &[f64]) -> f64 {
        let square = |z: &f64| (z - self.mean).powi(2) + std::f64::consts::TAU.ln();
        -0.5 * z.iter().map(square).sum::<f64>()
    }

    fn sample(&self, noise: &[f64]) -> Vec<f64> {
        noise.iter().map(|noise| self.mean + noise).collect()
    }

    fn moments(&self, len: usize) -> [Vec<f32>; 2] {
        [vec![self.mean as f32; len], vec![0.0; len]]
    }
}

/// Scores one text under two priors.
pub fn main() -> Result<()> {
    let config = ModelConfig {
        dim: 16,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 2,
        vocab_size: 30,
        max_seq_len: 8,
        window: 8,
        n_latents: 4,
        ffn_hidden: 32,
        ..ModelConfig::ltm_small()
    };
    let (cpu, precision, none) = (Device::Cpu, Precision::F32, SlowGradient::None);
    let weights = DeviceWeights::new(&config, &Weights::init(&config, 42)?, &cpu, precision)?;
    let batch = Batch::new(&config, 1, &[0, 4, 7, 1, 9, 3], &[4, 7, 1, 9, 3, 0])?;
    let inference = Inference::finished(&InferConfig::published())?;
    let key = InferKey { seed: 42, step: 0, sequences: Sequences::From(0) };
    let priors: [(&str, Arc<dyn Prior>); 2] =
        [("N(0, 1)", Arc::new(StandardNormal)), ("N(3, 1)", Arc::new(Shifted { mean: 3.0 }))];
    for (name, prior) in priors {
        let mut program = Program::of(Arc::new(config), prior, [1, 6], &cpu, precision, none)?;
        let mut problem = program.problem(&weights, &batch)?;
        let latents = inference.infer(&mut problem, key, &mut |_| Ok(()))?;
        let mu = latents.center()?;
        let mean = mu.iter().sum::<f32>() / mu.len() as f32;
        let samples = 64;
        let mut nats = |protocol| -> Result<f64> {
            Ok(score(&mut problem, protocol, &latents, &inference, key)?.nats[0])
        };
        let (elbo, iwae) = (nats(Protocol::Elbo { samples })?, nats(Protocol::Iwae { samples })?);
        println!(
            "prior {name}: posterior mean {mean:.2}, -ELBO {elbo:.1}, IWAE bound {iwae:.1} nats"
        );
        assert!(iwae <= elbo);
    }
    Ok(())
}
