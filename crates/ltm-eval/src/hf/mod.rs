//! Models for Python: the folder of a model that Hugging Face's `transformers` loads, written and read back. Computes
//! nothing; the PyTorch code that does is `*.py` in this module's folder, and goes with every model.

mod export;
mod import;

use ltm_train::data::TokenizerSpec;
use ltm_vi::Protocol;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use export::{default_protocol, export};
pub use import::{import, import_weights};

/// The file that says what a folder's model is.
const CONFIG_JSON: &str = "config.json";
/// The file of weights.
const WEIGHTS: &str = "model.safetensors";
/// The name of the model's kind in [`CONFIG_JSON`].
const MODEL_TYPE: &str = "ltm";
/// The version of [`Ltm`] that this build writes and reads.
const FORMAT: u32 = 1;

/// The PyTorch code of a folder, by file.
pub const PYTHON: [(&str, &str); 5] = [
    ("configuration_ltm.py", include_str!("configuration_ltm.py")),
    ("decoder_ltm.py", include_str!("decoder_ltm.py")),
    ("modeling_ltm.py", include_str!("modeling_ltm.py")),
    ("posterior_ltm.py", include_str!("posterior_ltm.py")),
    ("tokenization_ltm.py", include_str!("tokenization_ltm.py")),
];

/// What [`CONFIG_JSON`] says of the model itself, under the key `ltm`; the other keys are those of `transformers`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ltm {
    /// The version of this record.
    format: u32,
    /// The protocol of the log-probabilities that the model returns.
    #[serde(with = "as_text")]
    protocol: Protocol,
    /// Slow steps taken.
    step: u64,
    /// What token ids mean.
    tokenizer: TokenizerSpec,
    /// The sections of the run's configuration. Infinity is `null`.
    config: Value,
}

/// A protocol by its name and numbers.
mod as_text {
    use ltm_vi::Protocol;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(protocol: &Protocol, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(protocol)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Protocol, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use ltm_train::ltm_model::{Attention, ModelConfig, Weights};
    use ltm_train::{Config, Trained};
    use ltm_vi::{Method, StartKind};

    use super::*;
    use crate::Result;

    const PROTOCOL: Protocol = Protocol::Prequential { stride: 4, samples: 2 };

    /// A small model with every part over the words of the stories.
    fn trained(change: impl FnOnce(&mut Config)) -> Trained {
        let mut config = crate::tiny::config(4);
        let tokenizer = ltm_train::data::storyworld::tokenizer();
        config.model = ModelConfig {
            vocab_size: tokenizer.vocab_size(),
            encoder_width: 6,
            prior_layers: 2,
            map_layers: 1,
            ..config.model
        };
        config.infer.start = StartKind::Encoder;
        config.train.clip = f64::INFINITY;
        change(&mut config);
        let mut weights = Weights::init(&config.model, 5).expect("a good model");
        weights.params[0][3] = f32::MIN_POSITIVE / 2.0;
        Trained::new(config, weights, tokenizer, 7).expect("it fits together")
    }

    fn refused<T>(result: Result<T>, parts: &[&str]) {
        let error = result.err().expect("refused");
        let error = ltm_train::chain(&error);
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in {error}");
        }
    }

    #[test]
    fn what_is_exported_comes_back_bit_for_bit() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("out");
        let model = trained(|_| ());
        export(&model, PROTOCOL, &dir).expect("written");
        let mut names: Vec<String> = fs::read_dir(&dir)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into())
            .collect();
        names.sort();
        let files = [CONFIG_JSON, "configuration_ltm.py", "decoder_ltm.py"];
        let files = [&files[..], &["generation_config.json", WEIGHTS, "modeling_ltm.py"]].concat();
        let files = [&files[..], &["posterior_ltm.py", "tokenization_ltm.py"]].concat();
        let files = [&files[..], &["tokenizer.json", "tokenizer_config.json"]].concat();
        assert_eq!(names, files);
        let config = fs::read_to_string(dir.join(CONFIG_JSON)).expect("text");
        for part in ["modeling_ltm.LtmForCausalLM", "prequential:4:2", "\"vocab_size\""] {
            assert!(config.contains(part), "{config}");
        }
        assert!(!config.contains(&temp.path().display().to_string()), "no place: {config}");
        let bytes = fs::read(dir.join(WEIGHTS)).expect("weights");
        assert!(String::from_utf8_lossy(&bytes[..200]).contains(r#"{"format":"pt"}"#));

        let found = import(&dir).expect("read");
        assert_eq!(found.config, model.config);
        assert!(found.weights == model.weights);
        assert_eq!((found.step, found.tokenizer.spec()), (7, model.tokenizer.spec()));
        refused(export(&model, PROTOCOL, &dir), &["out", "a new or empty folder"]);
    }

    #[test]
    fn what_python_cannot_do_is_refused_by_name() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("out");
        let write = |model: Trained, protocol| export(&model, protocol, &dir);
        let bidirectional = trained(|config| {
            let model =
                ModelConfig { n_latents: 0, encoder_width: 0, prior_layers: 0, ..config.model };
            config.model =
                ModelConfig { map_layers: 0, attention: Attention::Bidirectional, ..model };
            config.model.window = config.model.max_seq_len;
            config.model.vocab_size += 1;
            config.infer.start = StartKind::Drawn;
        });
        refused(write(bidirectional, PROTOCOL), &["model.attention", "bidirectional"]);
        let langevin = trained(|config| {
            config.infer.method = Method::Langevin;
            config.infer.noise = ltm_vi::Noise::Fresh;
            config.infer.start = StartKind::Prior;
        });
        refused(write(langevin, PROTOCOL), &["infer.method", "langevin"]);
        for other in [Protocol::Elbo { samples: 2 }, Protocol::Autoregressive] {
            refused(write(trained(|_| ()), other), &["protocol"]);
        }
        let long = Protocol::Prequential { stride: 4000, samples: 2 };
        refused(write(trained(|_| ()), long), &["stride", "4000"]);
        assert!(!dir.exists(), "nothing is written");
    }

    #[test]
    fn damaged_folders_are_refused_by_name() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("out");
        export(&trained(|_| ()), PROTOCOL, &dir).expect("written");
        let path = dir.join(CONFIG_JSON);
        let text = fs::read_to_string(&path).expect("text");
        let with = |from: &str, to: &str| {
            assert!(text.contains(from), "{text}");
            fs::write(&path, text.replace(from, to)).expect("writable");
            import(&dir)
        };
        refused(
            with("\"model_type\": \"ltm\"", "\"model_type\": \"llama\""),
            &["model_type", "llama"],
        );
        refused(with("\"format\": 1", "\"format\": 9"), &[CONFIG_JSON, "format", "9"]);
        refused(with("\"protocol\"", "\"protocoll\""), &[CONFIG_JSON, "protocoll"]);
        refused(with("\"n_layers\": 2", "\"n_layers\": 3"), &[CONFIG_JSON, "n_latents"]);
        refused(with("\"clip\": null", "\"clip\": \"much\""), &[CONFIG_JSON, "train.clip"]);
        refused(with("\"ffn_hidden\": ", "\"ffn_hidden\": 1"), &[WEIGHTS, "feed_forward"]);
        fs::write(&path, &text[..text.len() / 2]).expect("writable");
        refused(import(&dir), &[CONFIG_JSON]);
        fs::write(&path, &text).expect("writable");
        let weights = fs::read(dir.join(WEIGHTS)).expect("weights");
        fs::write(dir.join(WEIGHTS), &weights[..weights.len() - 1]).expect("writable");
        refused(import(&dir), &[WEIGHTS]);
        fs::remove_file(dir.join(WEIGHTS)).expect("removable");
        refused(import(&dir), &[WEIGHTS]);
        refused(import(Path::new("/no/such/folder")), &["/no/such/folder"]);
    }

    #[test]
    fn a_tokenizer_s_file_goes_along_and_must_be_the_same() {
        use ltm_train::data::{TokenizerJson, tokenizer::portable};
        let temp = tempfile::tempdir().expect("a temporary folder");
        let file = portable(&ltm_train::data::Bytes).expect("portable");
        let path = Path::new("tokenizer.json");
        let tokenizer = TokenizerJson::from_bytes(file.clone(), path, None).expect("a tokenizer");
        let mut config = trained(|_| ()).config;
        config.model.vocab_size = 257;
        let weights = Weights::init(&config.model, 5).expect("a good model");
        let model = Trained::new(config, weights, std::sync::Arc::new(tokenizer), 7).expect("fits");
        let dir = temp.path().join("out");
        export(&model, PROTOCOL, &dir).expect("written");
        let found = import(&dir).expect("read");
        assert_eq!(found.tokenizer.file(), Some(&file[..]));
        let run = temp.path().join("run");
        found.write_run(&run).expect("written");
        let read = ltm_train::Checkpoint::load(&run).expect("a run");
        assert_eq!(read.tokenizer.file(), Some(&file[..]));
        fs::write(
            dir.join("tokenizer.json"),
            portable(&*trained(|_| ()).tokenizer).expect("other"),
        )
        .expect("writable");
        refused(import(&dir), &["tokenizer.json", "the file was changed"]);
    }

    /// Weights as the published code saves them, of a compiled module with buffers.
    #[test]
    fn published_weights_are_read_under_their_names() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let path = temp.path().join("ckpt.safetensors");
        let text = format!(
            "[run]\ndir = '/no/place'\n[data]\npath = '/no/corpus'\n{}",
            "[model]\ndim = 8\nn_layers = 2\nn_heads = 2\nmax_seq_len = 8\nwindow = 4\nn_latents = 4\n\
             [train]\nsteps = 5\n"
        );
        let tokenizer: ltm_train::data::SharedTokenizer =
            std::sync::Arc::new(ltm_train::data::Bytes);
        let config = Config::parse_for(&*tokenizer, &text, Path::new("a.toml"), &[]).expect("good");
        let weights = Weights::init(&config.model, 5).expect("a good model");
        let bytes = weights.to_bytes(&config.model).expect("sound");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("sound");
        let buffer = [0u8; 8];
        let buffer =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &buffer);
        let buffer = buffer.expect("sound");
        let named = |prefix: &str, more: &str| {
            let tensors = file.tensors().into_iter();
            let tensors = tensors.map(|(name, view)| (format!("{prefix}{name}"), view));
            let tensors = tensors.chain([(more.to_string(), buffer.clone())]);
            fs::write(&path, safetensors::serialize(tensors, None).expect("sound"))
                .expect("written");
            import_weights(&path, config.clone(), tokenizer.clone())
        };
        for prefix in ["", "_orig_mod.", "module._orig_mod."] {
            let found = named(prefix, "freqs_cos").expect("read");
            assert!(found.weights == weights);
            assert!(!found.has_corpus() && found.config.data.path.is_none());
        }
        refused(named("", "other.weight"), &["ckpt.safetensors", "other.weight"]);
        let found = named("x.", "freqs_sin");
        refused(found, &["ckpt.safetensors", "x.layers.0.attention.wk.weight"]);
        fs::write(&path, b"PK\x03\x04 a zip archive, as torch.save writes it").expect("written");
        let found = import_weights(&path, config.clone(), tokenizer.clone());
        refused(found, &["ckpt.safetensors", "docs/export.md"]);
    }
}
