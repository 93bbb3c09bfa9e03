//! A likelihood and a prior from outside the crate, whose `-log p(x)` is an integral over one number: fits, bounds and
//! codes work for them as for the decoder of Latent Thought Models.

use std::f64::consts::TAU;
use std::sync::Arc;

use ltm_autodiff::{Graph, Kind, Precision, Result, Value, ops};
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, Init, ParamSpec, Part, Weights};
use ltm_vi::{
    Batch, Density, Extents, InferConfig, InferKey, Inference, Latents, Likelihood, Noise, Prior,
    Program, Protocol, Sequences, SlowGradient, StandardNormal, TracedGaussian, score,
};

const V: usize = 3;
const T: usize = 2;
/// Scores of the tokens, each times the latent.
const WEIGHT: [f32; V] = [1.5, -0.5, -2.0];

/// Each token has a latent number of its own: `p(x_t = v | z_t)` is the softmax of `WEIGHT[v]·z_t`.
struct Softmax;

impl Likelihood for Softmax {
    fn extents(&self) -> Extents {
        Extents {
            n_latents: T,
            dim: 1,
            n_layers: 1,
            vocab_size: V,
            max_seq_len: T,
            mask_id: None,
            has_encoder: false,
        }
    }

    fn params(&self) -> Vec<ParamSpec> {
        let (name, init) = ("scores".into(), Init::Normal { std: 1.0 });
        vec![ParamSpec { name, shape: vec![V, 1], init, decay: false, part: Part::Decoder }]
    }

    fn nll(
        &self,
        g: &mut Graph,
        weights: &[Value],
        _tokens: Value,
        targets: Value,
        z: Option<Value>,
    ) -> Result<Value> {
        let z = ops::cast(g, z.expect("there are latents"), Kind::Activation)?;
        let scores = ops::cast(g, weights[0], Kind::MatmulWeight)?;
        ops::cross_entropy(g, z, scores, targets)
    }
}

/// `N(mean, 1)` for each number, without a closed form of the divergence where `by_samples`.
#[derive(Clone, Copy)]
struct Shifted {
    mean: f64,
    by_samples: bool,
}

impl Prior for Shifted {
    fn kl(
        &self,
        g: &mut Graph,
        _weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> Result<Value> {
        let shape = g.shape(q.mu).to_vec();
        let minus = ops::fill(g, &shape, -self.mean);
        let mu = ops::add(g, q.mu, minus)?;
        ops::gaussian_kl(g, mu, q.log_var, rows)
    }

    fn density(&self, _weights: &DeviceWeights) -> ltm_vi::Result<Arc<dyn Density>> {
        Ok(Arc::new(*self))
    }
}

impl Density for Shifted {
    fn log_density(&self, z: &[f64]) -> f64 {
        -0.5 * z.iter().map(|z| (z - self.mean).powi(2) + TAU.ln()).sum::<f64>()
    }

    fn sample(&self, noise: &[f64]) -> Vec<f64> {
        noise.iter().map(|noise| self.mean + noise).collect()
    }

    fn moments(&self, len: usize) -> [Vec<f32>; 2] {
        [vec![self.mean as f32; len], vec![0.0; len]]
    }

    fn exact_kl(&self, mu: &[f32], log_var: &[f32]) -> Option<f64> {
        let shifted: Vec<f32> = mu.iter().map(|mu| mu - self.mean as f32).collect();
        (!self.by_samples).then(|| StandardNormal.exact_kl(&shifted, log_var)).flatten()
    }
}

/// `-log ∫ N(z; mean, 1)·p(x|z) dz` by trapezoids out to 10 standard deviations.
fn exact(mean: f64, target: usize) -> f64 {
    let step = 1e-3;
    let density = |i: i32| {
        let z = mean + f64::from(i) * step;
        let scores = WEIGHT.map(|w| (f64::from(w) * z).exp());
        let p = scores[target] / scores.iter().sum::<f64>();
        (-0.5 * (z - mean).powi(2)).exp() / TAU.sqrt() * p
    };
    -((-10_000..=10_000).map(density).sum::<f64>() * step).ln()
}

#[test]
fn bounds_and_codes_of_ones_own_model_are_true() {
    let (cpu, f64, none) = (Device::Cpu, Precision::F64, SlowGradient::None);
    let weights = Weights { params: vec![WEIGHT.to_vec()] };
    let weights = DeviceWeights::of(&Softmax.params(), &weights, &cpu, f64).unwrap();
    let targets = [0, 2, 1, 0];
    let batch = Batch::new(Softmax.extents(), 2, &[0; 4], &targets).unwrap();
    let infer = InferConfig {
        steps: 60,
        lr: 0.1,
        noise: Noise::Fresh,
        weight_decay: 0.0,
        init_log_var_mean: 0.0,
        ..InferConfig::published()
    };
    let inference = Inference::finished(&infer).unwrap();
    let key = InferKey { seed: 5, step: 0, sequences: Sequences::From(0) };
    let shifted = |by_samples| -> Arc<dyn Prior> { Arc::new(Shifted { mean: 1.0, by_samples }) };
    let priors: [(f64, Arc<dyn Prior>); 3] =
        [(0.0, Arc::new(StandardNormal)), (1.0, shifted(false)), (1.0, shifted(true))];
    let mut bounds = Vec::new();
    for (mean, prior) in priors {
        let softmax: Arc<dyn Likelihood> = Arc::new(Softmax);
        let mut program = Program::of(softmax, prior, [2, T], &cpu, f64, none).unwrap();
        let mut problem = program.problem(&weights, &batch).unwrap();
        let latents = inference.infer(&mut problem, key, &mut |_| Ok(())).unwrap();
        let mut nats = |protocol, latents: &Latents| {
            score(&mut problem, protocol, latents, &inference, key).unwrap()
        };
        let iwae = nats(Protocol::Iwae { samples: 2000 }, &latents);
        let elbo = nats(Protocol::Elbo { samples: 2000 }, &latents);
        for row in 0..2 {
            let expected: f64 =
                targets[row * T..(row + 1) * T].iter().map(|x| exact(mean, *x as usize)).sum();
            let (found, error) = (iwae.nats[row], iwae.variance[row].sqrt());
            // The posterior is nearly Gaussian: the weights hardly vary.
            assert!(error <= 0.05, "{error} proves nothing");
            assert!(
                (found - expected).abs() <= 5.0 * error,
                "{found} ± {error}, exactly {expected}"
            );
            let error = elbo.variance[row].sqrt();
            let gap = elbo.nats[row] - expected;
            assert!(gap >= -4.0 * error && gap <= 0.2, "{gap} ± {error} above the likelihood");
        }
        bounds.push(elbo);
    }
    // With and without a closed form of the KL, by the same samples.
    let [_, closed, sampled] = &bounds[..] else { unreachable!("three priors") };
    for row in 0..2 {
        let error = (closed.variance[row] + sampled.variance[row]).sqrt();
        let difference = closed.nats[row] - sampled.nats[row];
        assert!(difference.abs() <= 5.0 * error && difference != 0.0, "{difference} ± {error}");
    }
}
