//! The logit lens: the byte that each layer would predict after every byte of a text.
//! `cargo run -p ltm-model --example logit_lens [CHECKPOINT [TEXT]]`, of a checkpoint over bytes, or of random weights.

use std::error::Error;
use std::path::Path;

use ltm_model::ltm_autodiff::Precision;
use ltm_model::{Device, DeviceWeights, Forward, ModelConfig, Tap, Weights};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (config, weights) = match args.next() {
        Some(folder) => load(Path::new(&folder))?,
        None => random()?,
    };
    let text = args.next().unwrap_or_else(|| "it was a dark and stormy night".into());
    println!("{:>14}  {text}", "text");
    for (layers, bytes) in lens(config, &weights, &text)?.iter().enumerate() {
        let printable = |b: &u8| if b.is_ascii_graphic() { char::from(*b) } else { '·' };
        let line: String = bytes.iter().map(printable).collect();
        println!("after {layers} layers:  {line}");
    }
    Ok(())
}

/// The most likely next byte at each position of `text`, after 0 to all layers.
pub fn lens(config: ModelConfig, weights: &Weights, text: &str) -> ltm_model::Result<Vec<Vec<u8>>> {
    let weights = DeviceWeights::new(&config, weights, &Device::Cpu, Precision::F32)?;
    let taps: Vec<Tap> = (0..=config.n_layers).map(Tap::Logits).collect();
    let mut forward = Forward::new(config, weights, Precision::F32, &taps)?;
    let tokens: Vec<i32> = text.bytes().map(i32::from).collect();
    // The prior's mean; `ltm-vi` fits latents to the text.
    let z = vec![0.0; config.n_latents * config.dim];
    let most_likely = |logits: &[f32]| {
        (0..=u8::MAX).max_by(|a, b| logits[*a as usize].total_cmp(&logits[*b as usize]))
    };
    let lens =
        |logits: &Vec<f32>| logits.chunks(config.vocab_size).filter_map(most_likely).collect();
    Ok(forward.run(1, &tokens, &z)?.iter().map(lens).collect())
}

/// Bytes and a separator, as in `ltm data prepare --tokenizer bytes`.
pub fn random() -> ltm_model::Result<(ModelConfig, Weights)> {
    let config = ModelConfig {
        dim: 64,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 4,
        vocab_size: 257,
        max_seq_len: 128,
        window: 32,
        n_latents: 4,
        ffn_hidden: 128,
        ..ModelConfig::ltm_small()
    };
    Ok((config, Weights::init(&config, 42)?))
}

fn load(checkpoint: &Path) -> Result<(ModelConfig, Weights), Box<dyn Error>> {
    let mut run: toml::Table = std::fs::read_to_string(checkpoint.join("config.toml"))?.parse()?;
    let model = run.remove("model").ok_or("config.toml has no [model]")?;
    let config = model.try_into::<ModelConfig>()?.resolved();
    Ok((config, Weights::load(&checkpoint.join("model.safetensors"), &config)?))
}
