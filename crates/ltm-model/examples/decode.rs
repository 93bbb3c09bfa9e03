//! Loads weights from a file, puts them on a device once, and decodes prompts of different lengths together:
//! `cargo run -p ltm-model --example decode [MODEL.safetensors]`, of a model of the extents below.

use std::path::{Path, PathBuf};

use ltm_model::ltm_autodiff::Precision;
use ltm_model::{Decoder, Device, DeviceWeights, ModelConfig, SampleConfig, Weights, sample};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).map(PathBuf::from);
    println!("{:?}", decode(path.as_deref())?);
    Ok(())
}

/// Continues two prompts greedily with the model in a file.
pub fn decode(path: Option<&Path>) -> Result<[Vec<i32>; 2], Box<dyn std::error::Error>> {
    let config = ModelConfig {
        dim: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 64,
        max_seq_len: 32,
        window: 16,
        n_latents: 4,
        ffn_hidden: 64,
        ..ModelConfig::ltm_small()
    };
    let folder = tempfile::tempdir()?;
    let path = match path {
        Some(path) => path.to_path_buf(),
        None => {
            // Without a model, one of random weights.
            let path = folder.path().join("model.safetensors");
            Weights::init(&config, 42)?.save(&path, &config)?;
            path
        }
    };
    let weights = Weights::load(&path, &config)?;
    let weights = DeviceWeights::new(&config, &weights, &Device::Cpu, Precision::F32)?;

    // Two sequences, each with latents and a position of its own. Another decoder would share the weights.
    let mut decoder = Decoder::with_weights(config, weights, 2)?;
    let z: Vec<f32> = (0..2 * config.n_latents * config.dim).map(|i| (i as f32).sin()).collect();
    decoder.set_latents(&z)?;
    let mut texts = [vec![1, 2, 3], vec![1, 40, 41, 42, 43]];
    for (row, text) in texts.iter().enumerate() {
        decoder.prefill_rows(row..row + 1, text)?;
    }
    for _ in 0..8 {
        let logits = decoder.logits().expect("the prompts were read");
        let next = logits
            .chunks(config.vocab_size)
            .map(|logits| Ok(sample(logits, &SampleConfig::GREEDY, 0.0)? as i32))
            .collect::<ltm_model::Result<Vec<i32>>>()?;
        texts.iter_mut().zip(&next).for_each(|(text, token)| text.push(*token));
        decoder.step(&next)?;
    }
    Ok(texts)
}
