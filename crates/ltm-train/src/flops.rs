//! Floating-point operations of training: counted from the graphs, and by the paper's formula. Runs nothing.
//!
//! A multiply-add counts as two. "Per token" is per position of a row, including padding, which is computed
//! too.

use ltm_autodiff::{NodeCount, Precision};
use ltm_kernels::Device;
use ltm_model::ModelConfig;
use ltm_vi::{StartKind, training_counts};

use crate::Result;
use crate::config::Config;

/// Floating-point operations of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flops {
    /// Of one slow step with its fast steps, over all micro-batches, counted from the graphs, without the
    /// optimisers' updates (about a dozen operations per parameter).
    pub per_slow_step: f64,
    /// The same per position of a row.
    pub per_token: f64,
    /// By the paper's formula, see [`formula`].
    pub formula_per_token: f64,
}

/// Counts the operations of training by `config`.
///
/// The fast loop's graph has no weight gradients (except with `train.slow_gradient = "trajectory"`), and
/// everything below the first cross-attention runs once per batch, so counted numbers are lower than the
/// formula's.
///
/// # Errors
/// [`Error::Infer`](crate::Error::Infer) for a configuration that cannot be traced.
pub fn count(config: &Config) -> Result<Flops> {
    let training = config.training();
    let train = &config.train;
    let (b, t) = (train.batch, train.seq_len);
    // Any device and precision have the same nodes except for casts, which compute nothing.
    let (device, precision) = (Device::Cpu, Precision::F32);
    let counts = training_counts(&config.model, b, t, &device, precision, training)?;
    let sum =
        |counts: &[NodeCount]| counts.iter().map(|count| count.cost.flops as f64).sum::<f64>();
    let infer = config.fast_loop();
    let fast = match infer.steps {
        0 => 0.0,
        steps => sum(&counts.first_step) + (steps - 1) as f64 * sum(&counts.later_step),
    };
    let start = match infer.start {
        StartKind::Encoder => sum(&counts.encoder),
        // An encoder runs at the first visits alone.
        StartKind::Drawn | StartKind::Prior | StartKind::Given => 0.0,
    };
    // A prefix is read and continued as a whole text is; of several samples each is scored once more.
    let whole = start + fast + sum(&counts.slow);
    let read_on = if train.prefix_weight > 0.0 { (1.0 - train.prefix_from) * whole } else { 0.0 };
    let many = train.importance_samples as f64 * (1.0 - train.importance_from);
    let slow = match train.importance_samples {
        1 => sum(&counts.slow),
        _ => {
            train.importance_from * sum(&counts.slow)
                + many * (sum(&counts.slow) + sum(&counts.score))
        }
    };
    let micro_batch = start + fast + slow + read_on;
    Ok(Flops {
        per_slow_step: micro_batch * train.micro_batches as f64,
        per_token: micro_batch / (b * t) as f64,
        formula_per_token: formula(&config.model, infer.steps, t),
    })
}

/// The paper's operations per token, `(S+1)·(6P + 6·L·C·T)` for `S` fast steps, `P` parameters with the
/// embedding once, and contexts of `T` tokens; `S` is 0 without latents.
///
/// `6P` is two operations per weight forward and four backward. Attention is counted over half the context,
/// as if there were no window: `2·L·C·T` forward and twice that backward. Every fast step counts as a full
/// forward and backward pass, including weight gradients.
pub fn formula(model: &ModelConfig, fast_steps: usize, context: usize) -> f64 {
    let passes = if model.n_latents == 0 { 1 } else { fast_steps + 1 };
    let attention = 6.0 * model.n_layers as f64 * model.dim as f64 * context as f64;
    passes as f64 * (6.0 * model.param_count() as f64 + attention)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm_vi::SlowGradient;
    use std::path::Path;

    fn tiny(overrides: &[&str]) -> Config {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let text = include_str!("../tests/tiny.toml");
        Config::parse(text, Path::new("tiny.toml"), &overrides).expect("good")
    }

    #[test]
    fn the_formula_gives_the_papers_numbers() {
        for (model, steps, expected) in [
            (ModelConfig::ltm_small(), 16, "4.07"),
            (ModelConfig::ltm_medium(), 16, "5.52"),
            (ModelConfig::ltm_large(), 64, "32.2"),
        ] {
            let giga = 1e-9 * formula(&model, steps, 1024);
            let digits = if giga < 10.0 { 2 } else { 1 };
            assert_eq!(format!("{giga:.digits$}"), expected);
        }
    }

    /// Operations of the products alone: matrix products, attention and the output layer.
    fn products(counts: &[NodeCount]) -> u64 {
        let is_product = |name: &str| name.starts_with("matmul") || name.starts_with("attention");
        counts.iter().filter(|count| is_product(count.name)).map(|count| count.cost.flops).sum()
    }

    /// The same in closed form, term by term. A product of `m` rows with a matrix of `n` weights takes
    /// `2·m·n`; so does each of its two gradients.
    struct Terms {
        /// `B·T` times the weights that tokens meet in one layer, without and with cross-attention's.
        self_attention: u64,
        cross_query_and_out: u64,
        feed_forward: u64,
        /// `B·Z` times the weights that latents meet in one layer.
        cross_keys_and_values: u64,
        /// `B·H·D` times the pairs of one layer, forward (two products of 2 operations).
        pairs: u64,
        cross_pairs: u64,
        /// `B·T·C` and `B·Z·C`.
        token_sum: u64,
        latent_sum: u64,
    }

    fn terms(config: &Config) -> Terms {
        let m = &config.model;
        let (b, t, c) = (config.train.batch, config.train.seq_len, m.dim);
        let (kv, f, z, w) = (m.kv_dim(), m.ffn_hidden, m.latents_per_layer(), m.window.min(t));
        let pairs: usize = (0..t).map(|t| (t + 1).min(w)).sum();
        let of = |x: usize| x as u64;
        Terms {
            self_attention: of(2 * b * t * (2 * c * c + 2 * c * kv)),
            cross_query_and_out: of(2 * b * t * 2 * c * c),
            feed_forward: of(2 * b * t * 3 * c * f),
            cross_keys_and_values: of(2 * b * z * 2 * c * kv),
            pairs: of(4 * b * c * pairs),
            cross_pairs: of(4 * b * c * t * z),
            token_sum: of(b * t * c),
            latent_sum: of(b * z * c),
        }
    }

    fn counts(config: &Config) -> ltm_vi::TrainingCounts {
        let (b, t) = (config.train.batch, config.train.seq_len);
        let (device, slow) = (Device::Cpu, SlowGradient::Final);
        training_counts(&config.model, b, t, &device, Precision::F32, slow).expect("traced")
    }

    #[test]
    fn counted_is_the_closed_form_term_by_term() {
        for overrides in [
            &[][..],
            &["model.n_layers=3", "model.n_latents=6", "model.window=7", "train.batch=3"],
            &["model.n_kv_heads=2", "model.n_latents=8", "train.seq_len=33"],
        ] {
            let config = tiny(overrides);
            let layers = config.model.n_layers as u64;
            let x = terms(&config);
            let counts = counts(&config);
            let forward = layers
                * (x.self_attention
                    + x.cross_query_and_out
                    + x.feed_forward
                    + x.cross_keys_and_values
                    + x.pairs
                    + x.cross_pairs);
            // The first self-attention and the queries of the first cross-attention see no thought: they run
            // once a batch.
            let once = x.self_attention + x.pairs + x.cross_query_and_out / 2;
            // Backward through activations alone: a product has one gradient instead of two, attention five
            // products for two, and what runs once a batch has none. Keys and values of the first layer have
            // a gradient, its queries none.
            let per_layer = x.self_attention + x.pairs / 4 * 10;
            let backward = (layers - 1) * per_layer
                + layers * (x.feed_forward + x.cross_keys_and_values + x.cross_pairs / 4 * 10)
                + layers * x.cross_query_and_out
                - x.cross_query_and_out / 2
                // Where gradients meet, a product adds to the sum: an addition a number, at queries, keys and
                // values of a token, at gate and up, at keys and values of a thought.
                + (layers - 1) * 2 * x.token_sum
                + layers * (x.token_sum + x.latent_sum);
            assert_eq!(products(&counts.later_step), forward - once + backward, "{overrides:?}");
            assert_eq!(products(&counts.first_step), forward + backward, "{overrides:?}");
            // The slow step has every gradient but those of the latents: two for each product of weights.
            let slow = layers
                * (3 * (x.self_attention + x.cross_query_and_out + x.feed_forward)
                    + 2 * x.cross_keys_and_values
                    + (x.pairs + x.cross_pairs) / 4 * 14
                    + 3 * x.token_sum);
            assert_eq!(products(&counts.slow), slow, "{overrides:?}");
            // All else is small beside the products and the output layer, which are most of the whole.
            let flops = count(&config).expect("counted");
            let steps = config.infer.steps as u64;
            let counted = products(&counts.first_step)
                + (steps - 1) * products(&counts.later_step)
                + products(&counts.slow);
            let rows = (config.train.batch * config.train.seq_len) as f64;
            let share = counted as f64 / rows / flops.per_token;
            assert!((0.5..1.0).contains(&share), "{share}");
            assert_eq!(flops.per_slow_step, flops.per_token * rows * 2.0);
        }
    }

    #[test]
    fn without_latents_there_is_no_fast_loop() {
        let config = tiny(&["model.n_latents=0"]);
        let counts = counts(&config);
        assert!(counts.first_step.is_empty() && counts.later_step.is_empty());
        let flops = count(&config).expect("counted");
        let same = count(&tiny(&["model.n_latents=0", "infer.steps=64"])).expect("counted");
        assert_eq!(flops, same);
        // An encoder's pass comes before the steps; with steps its bound is a second pass of the decoder.
        let amortised = ["model.encoder_width=12", "infer.start=encoder", "infer.steps=0"];
        let few = count(&tiny(&amortised)).expect("counted");
        let steps = |start: &str| {
            let start = format!("infer.start={start}");
            count(&tiny(&["model.encoder_width=12", &start, "infer.steps=3"])).expect("counted")
        };
        let [drawn, encoded] = ["drawn", "encoder"].map(steps);
        assert!(few.per_token < drawn.per_token && drawn.per_token < encoded.per_token);
        let (p, attention) = (config.model.param_count() as f64, 6.0 * 2.0 * 16.0 * 96.0);
        assert_eq!(flops.formula_per_token, 6.0 * p + attention);
        let encoder = tiny(&amortised).model.param_count() as f64;
        assert_eq!(few.formula_per_token, 6.0 * encoder + attention, "one pass");
        // Langevin dynamics takes steps as a fit by AdamW does.
        let fitted = count(&tiny(&[])).expect("counted");
        let langevin = ["infer.method=\"langevin\"", "infer.lr=0.05"];
        assert_eq!(count(&tiny(&langevin)).expect("counted"), fitted);
        let p = tiny(&[]).model.param_count() as f64;
        assert_eq!(fitted.formula_per_token, 4.0 * (6.0 * p + attention), "three steps and one");
    }
}
