//! The small model of the tests.

use ltm_model::{Attention, ModelConfig};

/// Two layers of two latents each, grouped heads and a window shorter than the context.
pub const CONFIG: ModelConfig = ModelConfig {
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
    attention: Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};
