//! The TOML file that describes a run: sections, overrides, refusals by name. Trains nothing.

use std::path::{Path, PathBuf};

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::ModelConfig;
use ltm_vi::{InferConfig, Method};
use serde::{Deserialize, Serialize};

use crate::data::{Meta, Rows, Tokenizer, storyworld};
use crate::{Error, Result};

/// A whole run: every key of a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where results go, and the seed of everything random.
    pub run: RunConfig,
    /// What is learned from.
    pub data: DataConfig,
    /// The decoder.
    pub model: ModelConfig,
    /// The fast learner: how thoughts are fitted to a text.
    pub infer: InferConfig,
    /// The slow learner: how weights are.
    pub train: TrainConfig,
}

/// Section `[run]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's folder.
    pub dir: PathBuf,
    /// Seed of the weights, the order of the data, the noise and a generated corpus.
    pub seed: u64,
    /// Where it is computed: `cpu`, `cuda` (the first GPU) or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// What it is computed in; absent, `f32` on the CPU and `mixed` on CUDA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionKind>,
}

impl RunConfig {
    /// Opens the device, and says what it computes in.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such device.
    pub fn compute(&self) -> Result<(Device, Precision)> {
        let device: Device = self.device.parse().map_err(Error::Device)?;
        let precision = match (device, self.precision) {
            (_, Some(PrecisionKind::F32)) | (Device::Cpu, None) => Precision::F32,
            (_, Some(PrecisionKind::Mixed) | None) => Precision::mixed(&device),
        };
        Ok((device, precision))
    }
}

/// The precision, as written in a file. Weights, latents and sums are `f32` in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionKind {
    /// Single precision.
    F32,
    /// 16 bits, `bf16`: activations and products on CUDA, products alone on the CPU.
    Mixed,
}

/// Section `[data]`: a corpus folder, or a corpus that is generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of shards, as `ltm data prepare` writes it; goes before `corpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `storyworld`, the corpus that is generated into the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<GeneratedCorpus>,
    /// Documents of a generated corpus to learn from.
    #[serde(default = "default_documents")]
    pub documents: u64,
    /// Documents of a generated corpus to measure on.
    #[serde(default = "default_val_documents")]
    pub val_documents: u64,
    /// What a row of a batch is; absent, documents of a generated corpus and windows of any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowKind>,
}

/// A corpus that is generated rather than read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GeneratedCorpus {
    /// Little stories of known likelihood.
    Storyworld,
}

/// What a row of a batch is, as written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// `seq_len` tokens that follow each other.
    Windows,
    /// One document, padded.
    Documents,
}

/// Section `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Slow steps in all.
    pub steps: u64,
    /// Sequences of one micro-batch.
    pub batch: usize,
    /// Micro-batches whose gradients make one step.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Highest learning rate, reached after `warmup` steps.
    pub lr: f64,
    /// Learning rate of the last step, reached along a cosine.
    pub lr_min: f64,
    /// Steps over which the rate rises from 0, linearly.
    pub warmup: u64,
    /// Steps that the learning-rate schedules span [default: `steps`]. Set it when a run is resumed with more steps, so
    /// that the rates keep their course; after the schedule's end they stay at their last values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_steps: Option<u64>,
    /// Decoupled weight decay, on matrices only.
    pub weight_decay: f64,
    /// Decays of AdamW's running means.
    pub betas: [f64; 2],
    /// Largest global norm of a gradient; a longer one is scaled down to it.
    pub clip: f64,
    /// Which gradient of the weights the slow step takes.
    #[serde(default)]
    pub slow_gradient: SlowGradientKind,
    /// Steps between checkpoints; the last step always has one.
    pub checkpoint_every: u64,
    /// Checkpoints kept.
    pub keep_last: usize,
    /// Steps between evaluations; 0 for none but the one at the end.
    pub eval_every: u64,
    /// Sequences of an evaluation; 0 for the whole validation split.
    pub eval_sequences: u64,
    /// Noise draws `S` of the fresh-noise bound.
    pub eval_samples: usize,
}

/// Which gradient of the weights the slow step takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SlowGradientKind {
    /// Of the cross-entropy at the final sample: Algorithm 1 of the paper.
    #[default]
    Final,
    /// That, and the sum over all fast steps of the objective's gradients, which the published code
    /// leaves in place; the sum is by far the larger part.
    Trajectory,
}

fn default_documents() -> u64 {
    20_000
}

fn default_val_documents() -> u64 {
    500
}

fn one() -> usize {
    1
}

fn cpu() -> String {
    "cpu".into()
}

/// The keys of each section, to name the nearest one to a typo.
const SECTIONS: [(&str, &[&str]); 5] = [
    ("run", &["dir", "seed", "device", "precision"]),
    ("data", &["path", "corpus", "documents", "val_documents", "rows"]),
    (
        "model",
        &[
            "dim",
            "n_layers",
            "n_heads",
            "n_kv_heads",
            "vocab_size",
            "max_seq_len",
            "window",
            "n_latents",
            "ffn_hidden",
            "norm_eps",
            "rope_theta",
            "attention",
            "encoder_layers",
        ],
    ),
    (
        "infer",
        &[
            "method",
            "steps",
            "lr",
            "lr_end",
            "schedule",
            "final_ratio",
            "beta1",
            "beta2",
            "eps",
            "weight_decay",
            "noise",
            "init_mu_std",
            "init_log_var_mean",
            "init_log_var_std",
            "kl_warmup",
        ],
    ),
    (
        "train",
        &[
            "steps",
            "batch",
            "micro_batches",
            "seq_len",
            "lr",
            "lr_min",
            "warmup",
            "schedule_steps",
            "weight_decay",
            "betas",
            "clip",
            "slow_gradient",
            "checkpoint_every",
            "keep_last",
            "eval_every",
            "eval_sequences",
            "eval_samples",
        ],
    ),
];

impl Config {
    /// Reads a file, applies `section.key=value` overrides, and checks the result. The vocabulary
    /// size follows the data wherever the data says it.
    ///
    /// # Errors
    /// [`Error::Io`] for a file that cannot be read, [`Error::Config`] naming file and key for
    /// anything in it that cannot work.
    pub fn load(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        Self::parse(&text, path, overrides)
    }

    /// As [`Config::load`] for the resolved file of a run or a checkpoint: its vocabulary stands,
    /// wherever the data has gone since.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load_resolved(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path, "read"))?;
        Self::from_table(read_table(&text, path, overrides)?, path)
    }

    /// As [`Config::load`], with the file's text given; `path` is what errors name.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub fn parse(text: &str, path: &Path, overrides: &[String]) -> Result<Self> {
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        let mut table = read_table(text, path, overrides)?;
        let data: DataConfig = section(&table, "data").map_err(fail)?;
        let tokenizer = data.tokenizer()?;
        if let Some(model) = table.get_mut("model").and_then(toml::Value::as_table_mut) {
            // A misspelt kind of attention is refused below.
            let attention = model.get("attention").and_then(toml::Value::as_str);
            let masks = usize::from(attention == Some("bidirectional"));
            match (tokenizer, &data.path) {
                (Some(tokenizer), _) => {
                    let words = tokenizer.vocab_size() + masks;
                    model.insert("vocab_size".into(), (words as i64).into());
                }
                (None, Some(dir)) if !model.contains_key("vocab_size") => {
                    return Err(fail(format!(
                        "data.path: {} has no meta.json; make it with `ltm data prepare`",
                        dir.display()
                    )));
                }
                (None, _) => {}
            }
        }
        Self::from_table(table, path)
    }

    fn from_table(table: toml::Table, path: &Path) -> Result<Self> {
        let fail = |reason: String| Error::Config { path: path.into(), reason };
        let mut config = Self {
            run: section(&table, "run").map_err(fail)?,
            data: section(&table, "data").map_err(fail)?,
            model: section(&table, "model").map_err(fail)?,
            infer: section(&table, "infer").map_err(fail)?,
            train: section(&table, "train").map_err(fail)?,
        };
        config.model = config.model.resolved();
        config.validate().map_err(|error| match error {
            Error::Config { reason, .. } => fail(reason),
            other => fail(crate::error::chain(&other)),
        })?;
        Ok(config)
    }

    /// The configuration as a file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is made of plain values")
    }

    /// Checks every field and how they fit together.
    ///
    /// # Errors
    /// [`Error::Model`], [`Error::Infer`] or [`Error::Field`] for the first that cannot work.
    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        self.infer.validate()?;
        if self.infer.method == Method::Amortised && self.model.encoder_layers == 0 {
            let expected = "another method for a model without encoder, or model.encoder_layers at \
                            least 1";
            return Err(Error::field("infer.method", expected, "amortised"));
        }
        let t = &self.train;
        let check = |holds: bool, field: &str, expected: &str, found: String| {
            if holds { Ok(()) } else { Err(Error::field(field, expected, found)) }
        };
        if self.data.path.is_none() && self.data.corpus.is_none() {
            let expected = "a folder made by `ltm data prepare`, or `corpus = \"storyworld\"`";
            return Err(Error::field("data.path", expected, "neither"));
        }
        check(self.data.documents >= 1, "data.documents", "at least 1", "0".into())?;
        let at_least_1 = [
            ("train.steps", t.steps),
            ("train.batch", t.batch as u64),
            ("train.micro_batches", t.micro_batches as u64),
            ("train.seq_len", t.seq_len as u64),
            ("train.checkpoint_every", t.checkpoint_every),
            ("train.keep_last", t.keep_last as u64),
            ("train.schedule_steps", t.schedule_steps()),
        ];
        for (field, found) in at_least_1 {
            check(found >= 1, field, "at least 1", found.to_string())?;
        }
        check(
            t.eval_samples >= 2,
            "train.eval_samples",
            "at least 2, for a standard error",
            t.eval_samples.to_string(),
        )?;
        check(
            t.seq_len <= self.model.max_seq_len,
            "train.seq_len",
            &format!("at most model.max_seq_len, {}", self.model.max_seq_len),
            t.seq_len.to_string(),
        )?;
        let at_least_0 = [
            ("train.lr", t.lr),
            ("train.lr_min", t.lr_min),
            ("train.weight_decay", t.weight_decay),
        ];
        for (field, found) in at_least_0 {
            check(found >= 0.0 && found.is_finite(), field, "0 or more", found.to_string())?;
        }
        check(t.clip > 0.0, "train.clip", "more than 0 (inf for no clipping)", t.clip.to_string())?;
        for beta in t.betas {
            check((0.0..1.0).contains(&beta), "train.betas", "in 0..1", beta.to_string())?;
        }
        Ok(())
    }
}

impl DataConfig {
    /// What the data's ids mean, as far as can be told before it is opened: `None` for a folder
    /// without a sidecar, or one that is not there.
    ///
    /// # Errors
    /// [`Error::Data`] for a sidecar that is not one.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>> {
        match (&self.path, self.corpus) {
            (Some(path), _) => Ok(Meta::read(path)?.map(|meta| meta.tokenizer)),
            (None, Some(GeneratedCorpus::Storyworld)) => Ok(Some(storyworld::tokenizer())),
            (None, None) => Ok(None),
        }
    }

    /// What a row of a batch is.
    pub fn row_kind(&self) -> Rows {
        match (self.rows, &self.path) {
            (Some(RowKind::Documents), _) | (None, None) => Rows::Documents,
            (Some(RowKind::Windows), _) | (None, Some(_)) => Rows::Windows,
        }
    }
}

/// The file's text as a table of known sections and keys, with the overrides applied.
fn read_table(text: &str, path: &Path, overrides: &[String]) -> Result<toml::Table> {
    let fail = |reason: String| Error::Config { path: path.into(), reason };
    let mut table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| fail(error.to_string()))?;
    for text in overrides {
        apply_override(&mut table, text).map_err(fail)?;
    }
    refuse_unknown_keys(&table).map_err(fail)?;
    Ok(table)
}

fn section<T: for<'a> Deserialize<'a>>(
    table: &toml::Table,
    name: &str,
) -> std::result::Result<T, String> {
    let value = table.get(name).ok_or_else(|| format!("section [{name}] is missing"))?;
    value.clone().try_into().map_err(|error: toml::de::Error| {
        let message = error.to_string();
        let message = message.trim().replace('\n', " ");
        format!("section [{name}]: {message}")
    })
}

/// Puts `section.key=value` into the table. A value that is no TOML is taken as a string.
fn apply_override(table: &mut toml::Table, text: &str) -> std::result::Result<(), String> {
    let form = || format!("--set {text}: expected section.key=value, such as train.steps=100");
    let (key, value) = text.split_once('=').ok_or_else(form)?;
    let (section, key) = key.trim().split_once('.').ok_or_else(form)?;
    if section.is_empty() || key.is_empty() || key.contains('.') {
        return Err(form());
    }
    let value = value.trim();
    let parsed = format!("value = {value}").parse::<toml::Table>().ok();
    let value = parsed
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| toml::Value::String(value.into()));
    let entry = table.entry(section).or_insert_with(|| toml::Table::new().into());
    let entry = entry.as_table_mut().ok_or_else(|| format!("`{section}` is not a section"))?;
    entry.insert(key.into(), value);
    Ok(())
}

fn refuse_unknown_keys(table: &toml::Table) -> std::result::Result<(), String> {
    let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
    for (name, value) in table {
        let Some((_, known)) = SECTIONS.iter().find(|(section, _)| section == name) else {
            return Err(format!("unknown section `{name}`{}", nearest(name, &names)));
        };
        let Some(section) = value.as_table() else {
            return Err(format!("`{name}` must be a section, [{name}]"));
        };
        if let Some(key) = section.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("unknown key `{name}.{key}`{}", nearest(key, known)));
        }
    }
    Ok(())
}

/// A hint at the name most like a typo, or at all of them when none is like it.
fn nearest(typo: &str, known: &[&str]) -> String {
    let like = |name: &&str| strsim::jaro_winkler(typo, name);
    match known.iter().copied().max_by(|a, b| like(a).total_cmp(&like(b))) {
        Some(name) if like(&name) >= 0.7 => format!("; did you mean `{name}`?"),
        _ => format!("; known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../tests/tiny.toml");

    fn parse(overrides: &[&str]) -> Result<Config> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Config::parse(TEXT, Path::new("tiny.toml"), &overrides)
    }

    #[test]
    fn the_vocabulary_follows_the_data_and_the_text_reads_back() {
        let config = parse(&[]).expect("good");
        assert_eq!(config.model.vocab_size, storyworld::tokenizer().vocab_size());
        let again = Config::parse(&config.to_toml(), Path::new("a"), &[]).expect("good");
        assert_eq!(again, config);
        let masked = ["model.attention=bidirectional", "model.n_latents=0", "model.window=96"];
        let masked = parse(&masked).expect("good");
        assert_eq!(masked.model.n_words(), config.model.vocab_size);
        assert_eq!(masked.model.mask_id(), Some(config.model.vocab_size));
    }

    #[test]
    fn the_lists_of_keys_are_those_of_the_structs() {
        let mut config = parse(&[]).expect("good");
        config.run.precision = Some(PrecisionKind::F32);
        config.data.path = Some("x".into());
        config.data.rows = Some(RowKind::Windows);
        config.infer.lr_end = Some(0.1);
        config.train.schedule_steps = Some(4);
        let table = toml::Table::try_from(&config).expect("plain values");
        for (name, known) in SECTIONS {
            let mut found: Vec<_> = table[name].as_table().expect("a section").keys().collect();
            let mut known = known.to_vec();
            found.sort_unstable();
            known.sort_unstable();
            assert_eq!(found, known);
        }
    }

    #[test]
    fn overrides_replace_values_of_any_type() {
        let config =
            parse(&["train.steps=7", "run.dir=a/b c", "train.lr = 1e-3", "data.rows=windows"])
                .expect("good");
        assert_eq!((config.train.steps, config.train.lr), (7, 1e-3));
        assert_eq!(config.run.dir, Path::new("a/b c"));
        assert_eq!(config.data.row_kind(), Rows::Windows);
    }

    #[test]
    fn refusals_name_file_and_key() {
        for (text, parts) in [
            ("train.stepz=7", &["tiny.toml", "`train.stepz`", "`steps`"][..]),
            ("trian.steps=7", &["`trian`", "`train`"]),
            ("train=7", &["section.key=value"]),
            ("train.steps=many", &["[train]", "steps"]),
            ("train.steps=0", &["train.steps", "at least 1"]),
            ("train.seq_len=1000", &["train.seq_len", "max_seq_len"]),
            ("model.window=0", &["window"]),
            ("model.n_heads=5", &["dim", "multiple of n_heads"]),
            ("model.n_latents=3", &["n_latents", "n_layers"]),
            ("infer.noise=none", &["[infer]", "none"]),
            ("infer.method=amortised", &["infer.method", "encoder_layers"]),
            ("model.attention=both", &["[model]", "both"]),
            ("model.attention=bidirectional", &["n_latents", "bidirectional"]),
            ("train.clip=nan", &["train.clip"]),
        ] {
            let message = parse(&[text]).expect_err(text).to_string();
            for part in parts {
                assert!(message.contains(part), "{text}: {message}");
            }
        }
    }
}
