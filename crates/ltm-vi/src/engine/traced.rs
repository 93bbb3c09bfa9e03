//! The graph of a model at one batch shape, before any memory is allocated for it, and what it would take.

use ltm_autodiff::{
    Graph, Kind, Precision, UpdateRate, Value, count, grad, ops, plan_bytes, store_bytes,
};
use ltm_kernels::Device;
use ltm_model::{ModelConfig, model};

use super::amortised::Encoder;
use super::{Latents, SlowGradient, TrainingCounts, argument};
use crate::Result;

/// A traced model; the fields are those of [`Engine`](super::Engine).
pub(super) struct Traced {
    pub(super) graph: Graph,
    pub(super) weights: Vec<Value>,
    pub(super) tokens: Value,
    pub(super) targets: Value,
    pub(super) token_weight: Value,
    pub(super) nll: Value,
    pub(super) latents: Option<Latents>,
    pub(super) encoder: Option<Encoder>,
    pub(super) slow: Vec<Value>,
    pub(super) slow_nll: Value,
}

impl Traced {
    /// Traces the model for `b` sequences of `t` tokens.
    pub(super) fn new(
        config: &ModelConfig,
        b: usize,
        t: usize,
        slow_gradient: SlowGradient,
    ) -> Result<Self> {
        config.validate()?;
        if config.encoder_layers > 0 && slow_gradient == SlowGradient::Trajectory {
            let expected = "`final` for a model with an encoder, which fits in one pass";
            return Err(argument("slow_gradient", expected, "trajectory"));
        }
        if b == 0 {
            return Err(argument("b", "at least 1", b));
        }
        if !(1..=config.max_seq_len).contains(&t) {
            return Err(argument("t", format!("in 1..={}", config.max_seq_len), t));
        }
        let mut graph = Graph::new();
        let g = &mut graph;
        let weights = model::declare_weights(g, config);
        let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
        let targets = g.input("targets", &[b * t], Kind::Int, UpdateRate::Batch);
        let token_weight = g.input("token_weight", &[b * t], Kind::Float, UpdateRate::Batch);
        let latent_shape = [b, config.n_latents, config.dim];
        let posterior = (config.n_latents > 0).then(|| {
            ["mu", "log_var", "noise"]
                .map(|name| g.input(name, &latent_shape, Kind::Float, UpdateRate::Step))
        });
        let z = match posterior {
            Some([mu, log_var, noise]) => Some(ops::reparam(g, mu, log_var, noise)?),
            None => None,
        };
        let hidden = model::trace(g, config, &weights, tokens, z, b, t)?;
        let output_weight = model::output_weight(g, &weights)?;
        let nll = ops::cross_entropy(g, hidden, output_weight, targets)?;

        let latents = match posterior {
            None => None,
            Some([mu, log_var, noise]) => {
                let rows = b * config.n_layers;
                let kl = ops::gaussian_kl(g, mu, log_var, rows)?;
                let kl_weight = g.input("kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
                let ones = ops::fill(g, &[b * t], 1.0);
                let sum_nll = ops::dot(g, nll, ones)?;
                let sum_kl = ops::dot(g, kl, kl_weight)?;
                let bound = ops::add(g, sum_nll, sum_kl)?;
                let mut wrt = vec![mu, log_var];
                if slow_gradient == SlowGradient::Trajectory {
                    wrt.extend(&weights);
                }
                let mut gradients = grad(g, bound, &wrt)?;
                let dweights = gradients.split_off(2);
                let (dmu, dlog_var) = (gradients[0], gradients[1]);
                Some(Latents { mu, log_var, noise, kl, kl_weight, dmu, dlog_var, dweights })
            }
        };
        let encoder = match config.encoder_layers {
            0 => None,
            _ => Some(Encoder::trace(g, config, &weights, b, t)?),
        };
        let (mut slow, mut slow_nll) = (Vec::new(), nll);
        if slow_gradient != SlowGradient::None {
            let loss = match (&encoder, &latents) {
                (Some(encoder), Some(latents)) => {
                    let z = encoder.sample(g, latents.noise)?;
                    let hidden = model::trace(g, config, &weights, tokens, Some(z), b, t)?;
                    slow_nll = ops::cross_entropy(g, hidden, output_weight, targets)?;
                    encoder.bound(g, slow_nll, token_weight)?
                }
                _ => ops::dot(g, nll, token_weight)?,
            };
            slow = grad(g, loss, &weights)?;
        }
        Ok(Self {
            graph,
            weights,
            tokens,
            targets,
            token_weight,
            nll,
            latents,
            encoder,
            slow,
            slow_nll,
        })
    }
}

/// What a fast step computes.
pub(super) fn fast_outputs(nll: Value, latents: Option<&Latents>) -> Vec<Value> {
    let mut outputs = vec![nll];
    if let Some(latents) = latents {
        outputs.extend([latents.kl, latents.dmu, latents.dlog_var]);
        outputs.extend(&latents.dweights);
    }
    outputs
}

/// What a slow gradient computes.
pub(super) fn slow_outputs(slow: &[Value], slow_nll: Value) -> Vec<Value> {
    [slow, &[slow_nll]].concat()
}

/// Counts what training on a batch of `b` sequences of `t` tokens computes and how much memory that takes, from
/// the graph alone: nothing is allocated by the model's extents. The updates of the optimisers are not nodes and
/// not counted, and neither is the state of the optimiser of the weights.
///
/// # Errors
/// Those of [`Engine::new`](super::Engine::new), except for memory.
pub fn training_counts(
    config: &ModelConfig,
    b: usize,
    t: usize,
    device: &Device,
    precision: Precision,
    slow_gradient: SlowGradient,
) -> Result<TrainingCounts> {
    let traced = Traced::new(config, b, t, slow_gradient)?;
    let graph = &traced.graph;
    let fast = match &traced.latents {
        Some(latents) => fast_outputs(traced.nll, Some(latents)),
        None => Vec::new(),
    };
    let slow = match slow_gradient {
        SlowGradient::None => Vec::new(),
        SlowGradient::Final | SlowGradient::Trajectory => {
            slow_outputs(&traced.slow, traced.slow_nll)
        }
    };
    let encoder = traced.encoder.as_ref().map(|encoder| encoder.outputs().to_vec());
    let encoder = encoder.unwrap_or_default();
    let plan = |outputs: &[Value]| match outputs {
        [] => Ok(0),
        outputs => plan_bytes(graph, device, precision, outputs),
    };
    let float = precision.float.size_bytes();
    let weights = float * config.param_count();
    // Two moments each for mean and log-variance.
    let moments = 4 * float * b * config.n_latents * config.dim;
    let trajectory = match &traced.latents {
        Some(latents) if !latents.dweights.is_empty() => weights,
        _ => 0,
    };
    let count = |outputs: &[Value], since| count(graph, precision, outputs, since);
    Ok(TrainingCounts {
        encoder: count(&encoder, UpdateRate::Weights)?,
        first_step: count(&fast, UpdateRate::Weights)?,
        later_step: count(&fast, UpdateRate::Step)?,
        slow: count(&slow, UpdateRate::Weights)?,
        weight_bytes: weights,
        batch_bytes: store_bytes(graph, precision).saturating_sub(weights) + moments + trajectory,
        plan_bytes: [plan(&fast)?, plan(&[traced.nll])?, plan(&slow)?, plan(&encoder)?],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Engine, InferConfig, InferKey, Noise};
    use ltm_model::Weights;

    /// Two layers of width 8 over 5 tokens.
    fn tiny() -> ModelConfig {
        ModelConfig {
            dim: 8,
            n_layers: 2,
            n_heads: 2,
            n_kv_heads: 1,
            vocab_size: 11,
            max_seq_len: 5,
            window: 3,
            n_latents: 4,
            ffn_hidden: 12,
            ..ModelConfig::ltm_small()
        }
    }

    #[test]
    fn bytes_known_from_the_graph_are_those_of_the_plans() {
        let config = tiny();
        for slow in [SlowGradient::Final, SlowGradient::Trajectory] {
            let (device, precision) = (Device::Cpu, Precision::F32);
            let counts = training_counts(&config, 3, 5, &device, precision, slow).unwrap();
            let mut engine = Engine::new(&config, 3, 5, &device, precision, slow).unwrap();
            engine.set_weights(&Weights::init(&config, 1).unwrap()).unwrap();
            engine.set_batch(&[1; 15], &[2; 15]).unwrap();
            let infer = InferConfig { steps: 1, noise: Noise::Fresh, ..InferConfig::published() };
            let key = InferKey { seed: 1, step: 0, first_sequence: 0 };
            engine.infer(&infer, 0.0, key, &mut |_| Ok(())).unwrap();
            let [fast, score, slow, encoder] = counts.plan_bytes;
            assert_eq!(engine.plan_bytes(), fast);
            engine.slow_gradients(&[1.0; 15]).unwrap();
            assert_eq!(engine.plan_bytes(), fast + slow);
            engine.token_nll().unwrap();
            assert_eq!((engine.plan_bytes(), encoder), (fast + slow + score, 0));
            assert_eq!(counts.weight_bytes, 4 * config.param_count());
        }
    }

    #[test]
    fn counting_allocates_nothing_by_the_extents() {
        let (dim, vocab_size) = (1 << 14, 1 << 20);
        let config = ModelConfig { dim, vocab_size, max_seq_len: 1 << 20, ..tiny() };
        let (device, precision) = (Device::Cpu, Precision::F32);
        let slow = SlowGradient::Final;
        let counts = training_counts(&config, 64, 1 << 20, &device, precision, slow).unwrap();
        // 2^26 positions of 2^14 numbers: one activation alone would be 4 TiB.
        assert!(counts.plan_bytes[0] > 1 << 42, "{:?}", counts.plan_bytes);
    }
}
