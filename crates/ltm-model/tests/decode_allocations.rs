//! A decoding step allocates no buffer once the window is full. Alone in its process, because the
//! count of allocations is the process's.

use ltm_kernels::{Buffer, Device};
use ltm_model::{Decoder, ModelConfig, Weights};

#[test]
fn steps_past_the_window_allocate_nothing() {
    let config = ModelConfig {
        dim: 16,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 19,
        max_seq_len: 32,
        window: 4,
        n_latents: 4,
        ffn_hidden: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: ltm_model::Attention::Causal,
        encoder_width: 0,
        init_std: 0.02,
        prior_layers: 0,
        map_layers: 0,
    };
    let weights = Weights::init(&config, 1).expect("the configuration is valid");
    let mut decoder = Decoder::new(config, &weights, Device::Cpu, 2).expect("a decoder");
    decoder.set_latents(&vec![0.5; 2 * 4 * 16]).expect("latents");
    decoder.prefill(&[1, 2, 3, 4, 5, 6, 7, 8]).expect("prompts");
    let before = Buffer::allocations();
    for token in 0..19 {
        decoder.step(&[token, 18 - token]).expect("a step");
    }
    assert_eq!(Buffer::allocations(), before);
}
