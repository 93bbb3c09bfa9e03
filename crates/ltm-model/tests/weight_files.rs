//! Damaged weight files: whatever the bytes are, `Weights::load` returns the weights or an error that names
//! the file, and the tensor where one is at fault.

use std::error::Error as _;
use std::path::Path;

use ltm_model::{Attention, Error, ModelConfig, Weights, param_table};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

const CONFIG: ModelConfig = ModelConfig {
    dim: 4,
    n_layers: 1,
    n_heads: 1,
    n_kv_heads: 1,
    vocab_size: 5,
    max_seq_len: 4,
    window: 4,
    n_latents: 1,
    ffn_hidden: 4,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: Attention::Causal,
    encoder_layers: 0,
};

/// The header of a whole file, and the numbers after it.
fn whole(folder: &Path) -> (Value, Vec<u8>) {
    let path = folder.join("whole.safetensors");
    Weights::init(&CONFIG, 1).unwrap().save(&path, &CONFIG).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let (length, rest) = bytes.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).unwrap(), data.to_vec())
}

fn join(header: &Value, data: &[u8]) -> Vec<u8> {
    let header = header.to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Loads `bytes`; the error, if there is one, with all its causes.
fn load(folder: &Path, bytes: &[u8]) -> Result<Weights, String> {
    let path = folder.join("model.safetensors");
    std::fs::write(&path, bytes).unwrap();
    Weights::load(&path, &CONFIG).map_err(|error| {
        let mut text = error.to_string();
        assert!(text.contains(path.to_str().unwrap()), "the file is not named: {text}");
        if let Error::File { source, .. } = &error {
            assert!(source.to_string().contains("tensor `"), "no tensor is named: {source}");
        }
        let mut next = error.source();
        while let Some(source) = next {
            text = format!("{text}: {source}");
            next = source.source();
        }
        text
    })
}

#[test]
fn each_kind_of_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (header, data) = whole(folder.path());
    assert!(load(folder.path(), &join(&header, &data)).is_ok());
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut header = header.clone();
        edit(&mut header);
        load(folder.path(), &join(&header, &data)).expect_err("damaged")
    };
    let swapped = edited(&|h| h["tok_embeddings.weight"]["shape"] = json!([4, 5]));
    for part in ["`tok_embeddings.weight`", "[5, 4]", "[4, 5]"] {
        assert!(swapped.contains(part), "{swapped}");
    }
    let integers = edited(&|h| h["norm.weight"]["dtype"] = json!("I32"));
    assert!(integers.contains("`norm.weight`") && integers.contains("I32"), "{integers}");
    let renamed = edited(&|h| {
        let entry = h["norm.weight"].take();
        h["norm"] = entry;
        h.as_object_mut().unwrap().remove("norm.weight");
    });
    assert!(renamed.contains("`norm.weight` is missing"), "{renamed}");
    let huge = edited(&|h| h["norm.weight"]["shape"] = json!([u64::MAX, u64::MAX]));
    assert!(huge.contains("complete safetensors file"), "{huge}");
    let reversed = edited(&|h| h["norm.weight"]["data_offsets"] = json!([9, 3]));
    assert!(reversed.contains("complete safetensors file"), "{reversed}");
}

/// A value for a field of the header, of the right kind or of another.
fn field() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::collection::vec(any::<u64>(), 0..4).prop_map(|numbers| json!(numbers)),
        prop::collection::vec(0_u64..40, 0..4).prop_map(|numbers| json!(numbers)),
        prop_oneof!["F16", "F64", "BF16", "I64", "BOOL", "F8_E5M2", "x"]
            .prop_map(|name| json!(name)),
        any::<i64>().prop_map(|number| json!(number)),
        Just(Value::Null),
    ]
}

proptest! {
    #[test]
    fn a_file_cut_or_overwritten_anywhere(
        cut in any::<Index>(),
        bytes in prop::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        near_start in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (header, data) = whole(folder.path());
        let mut file = join(&header, &data);
        let header_len = file.len() - data.len();
        for (index, byte) in &bytes {
            let len = if near_start { header_len } else { file.len() };
            file[index.index(len)] = *byte;
        }
        if bytes.is_empty() {
            file.truncate(cut.index(file.len()));
            prop_assert!(load(folder.path(), &file).is_err());
        } else if let Ok(weights) = load(folder.path(), &file) {
            prop_assert!(weights.check(&CONFIG).is_ok());
        }
    }

    #[test]
    fn a_header_with_a_field_changed(
        tensor in any::<Index>(),
        key in prop_oneof![Just("shape"), Just("dtype"), Just("data_offsets")],
        value in field(),
        drop in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let (mut header, data) = whole(folder.path());
        let table = param_table(&CONFIG);
        let name = &table[tensor.index(table.len())].name;
        let entry = &mut header[name];
        if drop {
            entry.as_object_mut().unwrap().remove(key);
        } else {
            entry[key] = value.clone();
        }
        let result = load(folder.path(), &join(&header, &data));
        prop_assert!(result.is_err() || !drop, "{name}: {key} is gone");
        if let Ok(weights) = result {
            prop_assert!(weights.check(&CONFIG).is_ok());
        }
    }
}
