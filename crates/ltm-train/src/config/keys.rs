//! The keys of a configuration file as data: names, meanings, kinds and defaults, all taken from the structs and
//! their doc comments. Reads no file.

use std::sync::LazyLock;

use ltm_model::ModelConfig;
use ltm_vi::InferConfig;
use schemars::generate::SchemaSettings;
use serde::de::value::Error as Stop;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde_json::Value;

use super::{Config, DataConfig, RunConfig, TrainConfig};

/// One key of a configuration file.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// The section that it belongs to.
    pub section: &'static str,
    /// Its name in that section.
    pub name: &'static str,
    /// What it means, from the doc comment of its field.
    pub meaning: String,
    /// What values it takes.
    pub kind: Kind,
    /// What it is when a file does not set it.
    pub default: KeyDefault,
}

/// What values a key takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number, 0 or more.
    Integer,
    /// A number.
    Number,
    /// Two numbers.
    Pair,
    /// A string.
    Text,
    /// One of these strings, each with its meaning.
    Choice(Vec<(String, String)>),
}

/// What a key is when a file does not set it.
#[derive(Clone, Debug, PartialEq)]
pub enum KeyDefault {
    /// Every file has to set it.
    Required,
    /// This value.
    Value(Value),
    /// A value that follows from other keys, in words.
    Derived(&'static str),
}

/// Defaults that follow from other keys; `read::fill_derived` and the fields' users apply them.
const DERIVED: [(&str, &str); 17] = [
    ("run.dir", "`runs/` and the file's name without its extension"),
    ("run.precision", "`f32` on the CPU, `mixed` on CUDA"),
    ("run.eval_precision", "`f32`"),
    ("data.path", "none: one of `data.path` and `data.corpus` is required"),
    ("data.tokenizer", "that of the folder's meta.json"),
    ("data.corpus", "none: one of `data.path` and `data.corpus` is required"),
    ("data.rows", "`documents` for a generated corpus, `windows` for any other"),
    ("model.n_kv_heads", "`model.n_heads`"),
    ("model.vocab_size", "that of the data"),
    ("model.ffn_hidden", "two thirds of 4 · `model.dim`, rounded up to a multiple of 32"),
    ("infer.lr_end", "`infer.lr`"),
    ("infer.kl_target", "none: the KL counts in full"),
    ("train.seq_len", "`model.max_seq_len`"),
    ("train.lr_min", "a tenth of `train.lr`"),
    ("train.warmup", "a fiftieth of `train.steps`, rounded down"),
    ("train.schedule_steps", "`train.steps`"),
    ("train.fast_steps", "`infer.steps`"),
];

/// Every key, in the order of the structs.
pub fn keys() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(find_keys);
    &KEYS
}

/// The names of the sections, in the order of [`Config`].
pub(super) fn sections() -> Vec<&'static str> {
    fields::<Config>()
}

/// The keys of one section.
pub(super) fn of_section(section: &str) -> impl Iterator<Item = &'static Key> + '_ {
    keys().iter().filter(move |key| key.section == section)
}

/// The JSON Schema of a configuration file, which editors complete and check by.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
    for key in find_keys_in(&schema) {
        let section = &mut schema["properties"][key.section];
        if key.default != KeyDefault::Required
            && let Some(required) = section["required"].as_array_mut()
        {
            required.retain(|name| name != key.name);
        }
        if let KeyDefault::Derived(text) = key.default {
            let property = &mut section["properties"][key.name];
            if let Some(property) = property.as_object_mut() {
                property.remove("default");
            }
            property["description"] = format!("{}\n\nDefault: {text}.", key.meaning).into();
        }
    }
    let sections = ["data", "model", "train"];
    schema["required"] = sections.to_vec().into();
    schema
}

fn find_keys() -> Vec<Key> {
    let settings = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true);
    find_keys_in(&settings.into_generator().into_root_schema_for::<Config>().to_value())
}

fn find_keys_in(schema: &Value) -> Vec<Key> {
    let sections = [
        ("run", fields::<RunConfig>()),
        ("data", fields::<DataConfig>()),
        ("model", fields::<ModelConfig>()),
        ("infer", fields::<InferConfig>()),
        ("train", fields::<TrainConfig>()),
    ];
    let mut keys = Vec::new();
    for (section, names) in sections {
        let described = &schema["properties"][section];
        for name in names {
            let property = &described["properties"][name];
            let full = format!("{section}.{name}");
            let derived = DERIVED.iter().find(|(key, _)| *key == full).map(|(_, text)| *text);
            let default = match (derived, property.get("default")) {
                (Some(text), _) => KeyDefault::Derived(text),
                (None, Some(value)) => KeyDefault::Value(value.clone()),
                (None, None) => KeyDefault::Required,
            };
            let meaning = words(property["description"].as_str().unwrap_or_default());
            keys.push(Key { section, name, meaning, kind: kind(property), default });
        }
    }
    keys
}

/// A doc comment's paragraphs, each on one line.
fn words(doc: &str) -> String {
    let paragraphs = doc.split("\n\n").map(|text| text.split_whitespace().collect::<Vec<_>>());
    paragraphs.map(|words| words.join(" ")).collect::<Vec<_>>().join("\n\n")
}

fn kind(property: &Value) -> Kind {
    // An optional field is `anyOf` its kind and null, or has both as its types.
    let any = property["anyOf"].as_array();
    let property =
        any.and_then(|any| any.iter().find(|one| one["type"] != "null")).unwrap_or(property);
    let mut choices: Vec<(String, String)> = Vec::new();
    for one in property["oneOf"].as_array().into_iter().flatten() {
        let meaning = words(one["description"].as_str().unwrap_or_default());
        choices.extend(one["const"].as_str().map(|name| (name.to_string(), meaning)));
    }
    for name in property["enum"].as_array().into_iter().flatten() {
        choices.extend(name.as_str().map(|name| (name.to_string(), String::new())));
    }
    if !choices.is_empty() {
        return Kind::Choice(choices);
    }
    let is = |name: &str| {
        let found = &property["type"];
        found == name || found.as_array().is_some_and(|types| types.iter().any(|t| t == name))
    };
    match () {
        () if is("integer") => Kind::Integer,
        () if is("number") => Kind::Number,
        () if is("array") => Kind::Pair,
        () => Kind::Text,
    }
}

/// The names of a struct's fields in their order: what its `Deserialize` asks a deserializer for.
fn fields<T: Deserialize<'static>>() -> Vec<&'static str> {
    let mut names = Vec::new();
    // Always an error: it stops once it was asked.
    let _ = T::deserialize(FieldNames(&mut names));
    names
}

struct FieldNames<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Stop;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Stop> {
        Err(Stop::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        _visitor: V,
    ) -> Result<V::Value, Stop> {
        self.0.extend(fields);
        Err(Stop::custom("its fields are known"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

impl Key {
    /// `section.name`.
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Its default in words.
    pub fn default_text(&self) -> String {
        match &self.default {
            KeyDefault::Required => "required".into(),
            KeyDefault::Value(value) => format!("`{}`", toml_text(value)),
            KeyDefault::Derived(text) => (*text).into(),
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer => f.write_str("a whole number, 0 or more"),
            Self::Number => f.write_str("a number"),
            Self::Pair => f.write_str("two numbers in brackets"),
            Self::Text => f.write_str("a string"),
            Self::Choice(choices) => {
                let names: Vec<String> =
                    choices.iter().map(|(name, _)| format!("`{name}`")).collect();
                match names.split_last() {
                    Some((last, [])) => f.write_str(last),
                    Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
                    None => f.write_str("a string"),
                }
            }
        }
    }
}

/// A JSON value as TOML writes it: numbers, strings and lists look alike.
fn toml_text(value: &Value) -> String {
    match value {
        Value::Array(list) => {
            format!("[{}]", list.iter().map(toml_text).collect::<Vec<_>>().join(", "))
        }
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_meaning_and_a_kind_that_fits_its_default() {
        assert_eq!(sections(), ["run", "data", "model", "infer", "train"]);
        for key in keys() {
            let name = key.full_name();
            assert!(
                key.meaning.len() > 10 && key.meaning.ends_with('.'),
                "{name}: {}",
                key.meaning
            );
            assert!(!key.meaning.contains("](") && !key.meaning.contains("[`"), "{name}: a link");
            if let KeyDefault::Value(value) = &key.default {
                let fits = match &key.kind {
                    Kind::Integer => value.is_u64(),
                    Kind::Number => value.is_f64(),
                    Kind::Pair => value.as_array().is_some_and(|pair| pair.len() == 2),
                    Kind::Text => value.is_string(),
                    Kind::Choice(names) => names.iter().any(|(name, _)| value == name),
                };
                assert!(fits, "{name}: {:?} by default {value}", key.kind);
            }
        }
        for (name, _) in DERIVED {
            assert!(keys().iter().any(|key| key.full_name() == name), "{name} is not a key");
        }
    }

    #[test]
    fn only_size_data_and_length_are_required() {
        let required = keys().iter().filter(|key| key.default == KeyDefault::Required);
        let required: Vec<_> = required.map(Key::full_name).collect();
        let size = ["dim", "n_layers", "n_heads", "max_seq_len", "window", "n_latents"];
        let size = size.iter().map(|name| format!("model.{name}"));
        assert_eq!(required, size.chain(["train.steps".to_string()]).collect::<Vec<_>>());
        let schema = schema();
        assert_eq!(schema["properties"]["train"]["required"], serde_json::json!(["steps"]));
        assert_eq!(schema["properties"]["infer"]["properties"]["lr"]["default"], 0.3);
        assert_eq!(schema["additionalProperties"], false);
    }
}
