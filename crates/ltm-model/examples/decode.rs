//! Decodes greedily from random weights and random latents: `cargo run -p ltm-model --example decode`.

use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::{Decoder, ModelConfig, SampleConfig, Weights, sample};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = ModelConfig {
        dim: 64,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 256,
        max_seq_len: 64,
        window: 16,
        n_latents: 6,
        ffn_hidden: 0,
        ..ModelConfig::ltm_small()
    }
    .resolved();
    let weights = Weights::init(&config, 42)?;
    println!("{} parameters", config.param_count());

    // One sequence, its latents drawn from the prior.
    let mut z = Buffer::zeros(&Device::Cpu, DType::F32, config.n_latents * config.dim)?;
    philox::normal(&Device::Cpu, &mut z, PhiloxKey { seed: 42, stream: 0, step: 0 }, 0.0, 1.0)?;
    let mut decoder = Decoder::new(config, &weights, Device::Cpu, 1)?;
    decoder.set_latents(&z.to_f32()?)?;

    let mut tokens = vec![1, 2, 3];
    decoder.prefill(&tokens)?;
    while let Some(logits) = decoder.logits().filter(|_| decoder.position() < config.max_seq_len) {
        let token = sample(logits, &SampleConfig::GREEDY, 0.0)? as i32;
        tokens.push(token);
        decoder.step(&[token])?;
    }
    println!("{tokens:?}");
    Ok(())
}
