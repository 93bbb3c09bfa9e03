//! A model for tests: small, over bytes, with weights large enough for latents and context to matter.

use std::path::Path;

use ltm_model::{DeviceWeights, ModelConfig, Weights};
use ltm_train::Config;

/// The model.
pub(crate) const MODEL: ModelConfig = ModelConfig {
    dim: 16,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 257,
    max_seq_len: 24,
    window: 8,
    n_latents: 4,
    ffn_hidden: 48,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

/// A run of it, with that many latents.
pub(crate) fn config(n_latents: usize) -> Config {
    let text = include_str!("../../ltm-train/tests/tiny.toml");
    let mut config = Config::parse(text, Path::new("tiny.toml"), &[]).expect("it is good");
    config.model = ModelConfig { n_latents, ..MODEL };
    config.train.seq_len = MODEL.max_seq_len;
    config
}

/// Its weights.
pub(crate) fn weights(config: &Config) -> DeviceWeights {
    let mut weights = Weights::init(&config.model, 3).expect("the model is good");
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 10.0 });
    config.on_device(&weights).expect("they fit")
}
