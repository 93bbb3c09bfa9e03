//! Weights of another format: 16-bit floats in memory under the names of Hugging Face's Llama, whose rotary pairs are
//! the halves of a head. `cargo run -p ltm-model --example own_weights`.

use ltm_model::{ModelConfig, ParamSpec, Result, WeightFile, Weights, param_table};
use safetensors::tensor::{Dtype, TensorView};

fn main() -> Result<()> {
    let (config, weights) = import()?;
    println!("{} tensors, {} parameters", weights.params.len(), config.param_count());
    Ok(())
}

/// Reads a file that came from a network or an archive, say.
pub fn import() -> Result<(ModelConfig, Weights)> {
    let config = ModelConfig {
        dim: 32,
        n_layers: 2,
        n_heads: 4,
        n_kv_heads: 2,
        vocab_size: 64,
        max_seq_len: 32,
        window: 32,
        n_latents: 0,
        ffn_hidden: 64,
        ..ModelConfig::ltm_small()
    };
    let bytes = foreign_file(&config);
    Ok((config, read(&bytes, &config)?))
}

/// The weights of a model without latents.
fn read(bytes: &[u8], config: &ModelConfig) -> Result<Weights> {
    let mut weights = WeightFile::parse(bytes, "the archive")?.rename(ours).weights(config)?;
    for (spec, values) in param_table(config).iter().zip(&mut weights.params) {
        if spec.name.ends_with(".wq.weight") || spec.name.ends_with(".wk.weight") {
            *values = interleaved(values, config);
        }
    }
    Ok(weights)
}

/// The name here of a tensor there; `None` for what is no weight.
fn ours(name: &str) -> Option<String> {
    let name = name.strip_prefix("model.")?;
    let name = match name {
        "embed_tokens.weight" => "tok_embeddings.weight".into(),
        name => name
            .replace("self_attn.q_proj", "attention.wq")
            .replace("self_attn.k_proj", "attention.wk")
            .replace("self_attn.v_proj", "attention.wv")
            .replace("self_attn.o_proj", "attention.wo")
            .replace("mlp.gate_proj", "feed_forward.w1")
            .replace("mlp.down_proj", "feed_forward.w2")
            .replace("mlp.up_proj", "feed_forward.w3")
            .replace("input_layernorm", "attention_norm")
            .replace("post_attention_layernorm", "ffn_norm"),
    };
    (!name.ends_with("inv_freq")).then_some(name)
}

/// Rows `i` and `i + D/2` of each head next to each other.
fn interleaved(matrix: &[f32], config: &ModelConfig) -> Vec<f32> {
    let (d, c) = (config.head_dim(), config.dim);
    let row = |head: usize, i: usize| &matrix[(head * d + i) * c..][..c];
    let heads = 0..matrix.len() / (d * c);
    let pairs = heads.flat_map(|head| (0..d / 2).map(move |i| (head, i)));
    pairs.flat_map(|(head, i)| [row(head, i), row(head, i + d / 2)].concat()).collect()
}

/// What another program might have written: each number is that of its row.
fn foreign_file(config: &ModelConfig) -> Vec<u8> {
    let theirs = |name: &str| {
        let name = name
            .replace("tok_embeddings", "embed_tokens")
            .replace("attention_norm", "input_layernorm")
            .replace("ffn_norm", "post_attention_layernorm")
            .replace("feed_forward.w1", "mlp.gate_proj")
            .replace("feed_forward.w2", "mlp.down_proj")
            .replace("feed_forward.w3", "mlp.up_proj");
        let name = ["q", "k", "v", "o"].iter().fold(name, |name, letter| {
            name.replace(&format!("attention.w{letter}"), &format!("self_attn.{letter}_proj"))
        });
        format!("model.{name}")
    };
    let table = param_table(config);
    let numbers = |spec: &ParamSpec| -> Vec<u8> {
        let row = |i: usize| (i * spec.shape[0] / spec.len()) as f32;
        // The upper half of a float's bits is its `bf16`.
        (0..spec.len()).flat_map(|i| row(i).to_le_bytes()[2..].to_vec()).collect()
    };
    let data: Vec<Vec<u8>> = table.iter().map(numbers).collect();
    let views = table.iter().zip(&data).map(|(spec, data)| {
        let view = TensorView::new(Dtype::BF16, spec.shape.clone(), data);
        (theirs(&spec.name), view.expect("two bytes per number"))
    });
    safetensors::serialize(views, None).expect("sound tensors")
}
