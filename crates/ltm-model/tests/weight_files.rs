//! Weight files and bytes: floats of every width under any names, and damage. Whatever the bytes are,
//! `Weights::load` returns the weights or an error that names the file, and the tensor where one is at fault.

use std::error::Error as _;
use std::path::Path;

use half::{bf16, f16};
use ltm_model::{Attention, Error, ModelConfig, WeightFile, Weights, param_table};
use proptest::prelude::*;
use proptest::sample::Index;
use safetensors::tensor::{Dtype, TensorView};
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
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
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
            let text = source.to_string();
            assert!(text.contains("tensor") && text.contains('`'), "no tensor is named: {text}");
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
    assert!(renamed.contains("missing tensors: `norm.weight`"), "{renamed}");
    assert!(renamed.contains("unknown tensors: `norm`"), "{renamed}");
    let huge = edited(&|h| h["norm.weight"]["shape"] = json!([u64::MAX, u64::MAX]));
    assert!(huge.contains("complete safetensors file"), "{huge}");
    let reversed = edited(&|h| h["norm.weight"]["data_offsets"] = json!([9, 3]));
    assert!(reversed.contains("complete safetensors file"), "{reversed}");
}

/// The bytes of a file of `dtype` with the tensors of `CONFIG`, under names of the caller's.
fn stored(
    weights: &Weights,
    dtype: Dtype,
    bytes: impl Fn(f32) -> Vec<u8>,
    name: impl Fn(&str) -> String,
) -> Vec<u8> {
    let table = param_table(&CONFIG);
    let data: Vec<Vec<u8>> = weights
        .params
        .iter()
        .map(|values| values.iter().flat_map(|x| bytes(*x)).collect())
        .collect();
    let views = table.iter().zip(&data).map(|(spec, data)| {
        (name(&spec.name), TensorView::new(dtype, spec.shape.clone(), data).unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn floats_of_other_widths_are_converted() {
    let weights = Weights::init(&CONFIG, 7).unwrap();
    let rounded = |round: fn(f32) -> f32| Weights {
        params: weights.params.iter().map(|all| all.iter().map(|x| round(*x)).collect()).collect(),
    };
    let half = |x| f16::from_f32(x).to_le_bytes().to_vec();
    let brain = |x| bf16::from_f32(x).to_le_bytes().to_vec();
    let double = |x| f64::from(x).to_le_bytes().to_vec();
    let load = |dtype, bytes: &dyn Fn(f32) -> Vec<u8>| {
        Weights::from_bytes(&stored(&weights, dtype, bytes, str::to_string), "a store", &CONFIG)
    };
    assert_eq!(load(Dtype::F16, &half).unwrap(), rounded(|x| f16::from_f32(x).to_f32()));
    assert_eq!(load(Dtype::BF16, &brain).unwrap(), rounded(|x| bf16::from_f32(x).to_f32()));
    assert_eq!(load(Dtype::F64, &double).unwrap(), weights);
    assert_eq!(load(Dtype::F64, &|x| (f64::from(x) + 1e-12).to_le_bytes().to_vec()).unwrap(), {
        rounded(|x| (f64::from(x) + 1e-12) as f32)
    });

    for (dtype, number, named) in [
        (Dtype::F16, f16::NAN.to_le_bytes().to_vec(), "NaN"),
        (Dtype::BF16, bf16::NEG_INFINITY.to_le_bytes().to_vec(), "-inf"),
        (Dtype::F64, 1e300_f64.to_le_bytes().to_vec(), "1e300"),
    ] {
        let error = load(dtype, &|_| number.clone()).unwrap_err();
        assert!(error.to_string().ends_with(" a store"), "{error}");
        let cause = error.source().expect("what is wrong").to_string();
        let words = format!("`tok_embeddings.weight`: number 0 is {named}, expected finite");
        assert!(cause.contains(&words), "{cause}");
    }
    let error = load(Dtype::I16, &|_| vec![0; 2]).unwrap_err();
    let cause = error.source().expect("what is wrong").to_string();
    assert!(cause.contains("expected type F32, F16, BF16 or F64, found I16"), "{cause}");
}

#[test]
fn names_are_mapped_and_what_has_none_is_skipped() {
    let weights = Weights::init(&CONFIG, 7).unwrap();
    let bytes = |x: f32| x.to_le_bytes().to_vec();
    let foreign = |name: &str| match name.strip_prefix("layers.0.attention.w") {
        Some(rest) => format!("module.blocks.0.attn.{}_proj", rest.trim_end_matches(".weight")),
        None => format!("module.{name}"),
    };
    let file = stored(&weights, Dtype::F32, bytes, foreign);
    let file = || WeightFile::parse(&file, "a server").unwrap();
    let ours = |name: &str| {
        let name = name.strip_prefix("module.")?;
        Some(match name.strip_prefix("blocks.0.attn.").and_then(|s| s.strip_suffix("_proj")) {
            Some(letter) => format!("layers.0.attention.w{letter}.weight"),
            None => name.to_string(),
        })
    };
    assert_eq!(file().rename(ours).weights(&CONFIG).unwrap(), weights);
    // Rules apply one after the other.
    let stripped = |name: &str| name.strip_prefix("module.").map(str::to_string);
    let again = |name: &str| ours(&format!("module.{name}"));
    assert_eq!(file().rename(stripped).rename(again).weights(&CONFIG).unwrap(), weights);
    let names: Vec<String> = file().tensors().map(|(name, _)| name.to_string()).collect();
    assert!(names.contains(&"module.blocks.0.attn.q_proj".to_string()) && names.is_sorted());

    let listed = |rule: &dyn Fn(&str) -> Option<String>| match file().rename(rule).weights(&CONFIG)
    {
        Err(Error::File { name, source }) if name == "a server" => source.to_string(),
        other => panic!("{other:?}"),
    };
    let doubled = listed(&|name| ours(name).map(|name| name.replace(".wk.", ".wq.")));
    for part in [
        "missing tensors: `layers.0.attention.wk.weight`",
        "renamed to `layers.0.attention.wq.weight`: `module.blocks.0.attn.k_proj`, \
         `module.blocks.0.attn.q_proj`;",
        "renamed to `layers.0.cross_attention.wq.weight`: `module.layers.0.cross_attention.wk.weight`",
    ] {
        assert!(doubled.contains(part), "{doubled}");
    }
    let skipped = listed(&|name| ours(name).filter(|name| name != "norm.weight"));
    assert!(skipped.starts_with("missing tensors: `norm.weight`; the file"), "{skipped}");
    let unknown = listed(&|name| Some(name.replace("module.", "")));
    assert!(unknown.contains("unknown tensors: `module.blocks.0.attn.k_proj`"), "{unknown}");
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
    fn bytes_give_back_the_bits(bits in prop::collection::vec(any::<u32>(), 1..40)) {
        let mut weights = Weights::init(&CONFIG, 1).unwrap();
        let finite = bits.iter().map(|bits| f32::from_bits(*bits)).filter(|x| x.is_finite());
        weights.params.iter_mut().flatten().zip(finite).for_each(|(x, new)| *x = new);
        let bytes = weights.to_bytes(&CONFIG).unwrap();
        let found = Weights::from_bytes(&bytes, "memory", &CONFIG).unwrap();
        let bits = |weights: &Weights| -> Vec<u32> {
            weights.params.iter().flatten().map(|x| x.to_bits()).collect()
        };
        prop_assert_eq!(bits(&found), bits(&weights));
    }

    #[test]
    fn bytes_of_any_kind(bytes in prop::collection::vec(any::<u8>(), 0..200), len in 0_u64..200) {
        let header = [&len.to_le_bytes(), &bytes[..]].concat();
        for bytes in [&bytes[..], &header] {
            let error = Weights::from_bytes(bytes, "noise", &CONFIG).unwrap_err();
            prop_assert!(error.to_string().contains("noise"), "{}", error);
        }
    }

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
