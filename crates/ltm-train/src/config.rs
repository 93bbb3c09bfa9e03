//! The TOML file that describes a run: its sections, their defaults and what is refused by name. Trains nothing.

mod keys;
mod load;
mod read;
mod schedule;
mod show;

use std::path::PathBuf;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Weights};
use ltm_vi::{InferConfig, Method, SlowGradient, Task, Training, suits};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data::tokenizer::named;
use crate::data::{Meta, Rows, SharedTokenizer, storyworld};
use crate::{Error, Result};

pub use keys::{Key, KeyDefault, Kind, keys, schema};
pub use load::read_text;
pub use show::reference;

/// A run: every section of a configuration file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where results go, the seed, and what computes.
    pub run: RunConfig,
    /// The training data.
    pub data: DataConfig,
    /// The decoder's size.
    pub model: ModelConfig,
    /// The fast loop, which infers the latents of a sequence.
    pub infer: InferConfig,
    /// The slow loop, which trains the weights.
    pub train: TrainConfig,
}

/// Section `[run]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// The run's folder: configuration, metrics, checkpoints and plots.
    pub dir: PathBuf,
    /// Seed of the initial weights, the order of the data, the noise and a generated corpus; at most 2^63 - 1.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Device to compute on: `cpu`, `cuda` (the first GPU) or `cuda:N`.
    #[serde(default = "cpu")]
    pub device: String,
    /// Arithmetic of activations and matrix products. Weights, latents and sums are `f32` in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<PrecisionKind>,
    /// Arithmetic of evaluations and of everything else that a trained model is used for. Weights, latents and sums are
    /// `f32` in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eval_precision: Option<PrecisionKind>,
}

impl RunConfig {
    /// Opens the device; returns it with the precision to train in.
    ///
    /// # Errors
    /// [`Error::Device`] when there is no such device.
    pub fn compute(&self) -> Result<(Device, Precision)> {
        let device: Device = self.device.parse().map_err(Error::Device)?;
        Ok((device, self.precision_on_paper()))
    }

    /// Opens the device; returns it with the precision of everything but training: `f32` on every device, unless the
    /// configuration asks for another.
    ///
    /// # Errors
    /// Those of [`compute`](Self::compute).
    pub fn compute_evaluation(&self) -> Result<(Device, Precision)> {
        let (device, _) = self.compute()?;
        Ok((device, self.of_kind(self.eval_precision.unwrap_or(PrecisionKind::F32))))
    }

    /// The precision to train in, known without opening the device.
    pub(crate) fn precision_on_paper(&self) -> Precision {
        let own = if self.device == "cpu" { PrecisionKind::F32 } else { PrecisionKind::Mixed };
        self.of_kind(self.precision.unwrap_or(own))
    }

    fn of_kind(&self, kind: PrecisionKind) -> Precision {
        match (kind, self.device == "cpu") {
            (PrecisionKind::F32, _) => Precision::F32,
            (PrecisionKind::Mixed, true) => Precision::MIXED_PRODUCTS,
            (PrecisionKind::Mixed, false) => Precision::MIXED,
        }
    }

    /// Whether `device` is a name of the right form; whether there is such a device shows when it is opened.
    fn names_a_device(&self) -> bool {
        let ordinal = self.device.strip_prefix("cuda:");
        let is_number = |text: &str| text.parse::<usize>().is_ok();
        self.device == "cpu" || self.device == "cuda" || ordinal.is_some_and(is_number)
    }
}

/// Arithmetic of activations and matrix products, as written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionKind {
    /// Single precision.
    F32,
    /// 16 bits (bfloat16): activations and matrix products on CUDA, matrix products alone on the CPU.
    Mixed,
}

/// Section `[data]`: a corpus folder, or a generated corpus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataConfig {
    /// A folder of token shards, as `ltm data prepare` writes it; takes precedence over `corpus`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Tokenizer of a folder without a meta.json: `bytes`, `gpt2`, `words`, or the path of a Hugging Face tokenizer.json. A
    /// folder with a meta.json must be of this tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
    /// A corpus that is generated into the run's folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub corpus: Option<GeneratedCorpus>,
    /// Training documents of a generated corpus.
    #[serde(default = "default_documents")]
    pub documents: u64,
    /// Validation documents of a generated corpus.
    #[serde(default = "default_val_documents")]
    pub val_documents: u64,
    /// Contents of one row of a batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowKind>,
}

/// A corpus that is generated rather than read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GeneratedCorpus {
    /// Short stories whose exact likelihood is known.
    Storyworld,
}

/// What one row of a batch holds, as written in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowKind {
    /// `train.seq_len` consecutive tokens, across documents.
    Windows,
    /// One document, padded, or a part of a long one.
    Documents,
}

/// Section `[train]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Slow steps of the whole run: updates of the weights.
    pub steps: u64,
    /// Sequences per micro-batch.
    #[serde(default = "default_batch")]
    pub batch: usize,
    /// Micro-batches whose gradients are averaged for one slow step.
    #[serde(default = "one")]
    pub micro_batches: usize,
    /// Tokens per sequence; at most `model.max_seq_len`.
    pub seq_len: usize,
    /// Peak learning rate of the weights, reached after `warmup` steps.
    #[serde(default = "default_lr")]
    pub lr: f64,
    /// Learning rate of the last step, approached along a cosine; at most `lr`.
    pub lr_min: f64,
    /// Slow steps over which the learning rate rises linearly from 0; fewer than `steps`. An override that only
    /// lowers `steps` does not change it.
    pub warmup: u64,
    /// Slow steps that the learning-rate schedules span. Set it to the steps of the first part when a run is resumed
    /// with more steps, so that the rates continue without a jump; after the schedule's end they keep their last values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_steps: Option<u64>,
    /// Decoupled weight decay of AdamW, applied to matrices only.
    #[serde(default = "default_weight_decay")]
    pub weight_decay: f64,
    /// Decay rates of AdamW's two running means.
    #[serde(default = "default_betas")]
    pub betas: [f64; 2],
    /// Largest global norm of the gradient; a larger gradient is scaled down to it. `inf` never clips.
    #[serde(default = "default_clip")]
    pub clip: f64,
    /// Fast steps of a fit in training; scores, texts and probes take `infer.steps`. With 0 and `infer.start = "encoder"`
    /// training is that of a variational autoencoder, which fits nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fast_steps: Option<usize>,
    /// Gradient of the weights that a slow step uses.
    #[serde(default)]
    pub slow_gradient: SlowGradientKind,
    /// Samples of the posterior by whose importance-weighted bound (Burda et al. 2016) a slow step follows; 1 is the ELBO.
    /// Each costs as much as the first.
    #[serde(default = "one")]
    pub importance_samples: usize,
    /// Fraction of training that precedes the importance-weighted steps; before it a slow step takes one sample.
    #[serde(default)]
    pub importance_from: f64,
    /// Weight of a second loss: a bound on a random prefix of each text with the tokens after it, whose posterior has read
    /// the prefix alone, so that a model also learns to infer its latents from what was read so far and to write on. 0 is
    /// none.
    #[serde(default)]
    pub prefix_weight: f64,
    /// Fraction of training that precedes this loss. From the beginning it teaches a model to do without latents.
    #[serde(default)]
    pub prefix_from: f64,
    /// Tokens after a prefix that this loss predicts, as far as the text goes.
    #[serde(default = "default_prefix_block")]
    pub prefix_block: usize,
    /// Slow steps between checkpoints; the last step always saves one.
    #[serde(default = "default_every")]
    pub checkpoint_every: u64,
    /// Checkpoints to keep; older ones are deleted.
    #[serde(default = "default_keep_last")]
    pub keep_last: usize,
    /// Slow steps between evaluations; 0 evaluates at the end only.
    #[serde(default = "default_every")]
    pub eval_every: u64,
    /// Sequences to score in an evaluation, drawn from the validation split by a fixed permutation; 0 scores all of it.
    #[serde(default = "default_eval_sequences")]
    pub eval_sequences: u64,
    /// Noise samples per sequence of the `elbo` protocol in an evaluation; at least 2, for a standard error.
    #[serde(default = "default_eval_samples")]
    pub eval_samples: usize,
}

/// Gradient of the weights that a slow step uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SlowGradientKind {
    /// The gradient of the cross-entropy at the final sample: Algorithm 1 of the paper.
    #[default]
    Final,
    /// As `final`, plus the objective's gradients of all fast steps, which the published code never clears.
    /// The sum is by far the larger part.
    Trajectory,
}

/// What does not go together, by its key.
pub(crate) fn unsuitable(error: ltm_vi::Error) -> Error {
    match error {
        ltm_vi::Error::Unsuitable { what, expected, found } => Error::field(what, expected, found),
        other => other.into(),
    }
}

fn default_documents() -> u64 {
    20_000
}

fn default_val_documents() -> u64 {
    500
}

fn default_seed() -> u64 {
    1
}

fn one() -> usize {
    1
}

fn cpu() -> String {
    "cpu".into()
}

fn default_batch() -> usize {
    16
}

fn default_lr() -> f64 {
    1e-3
}

fn default_weight_decay() -> f64 {
    0.1
}

fn default_betas() -> [f64; 2] {
    [0.9, 0.95]
}

fn default_clip() -> f64 {
    1.0
}

fn default_prefix_block() -> usize {
    24
}

fn default_every() -> u64 {
    1000
}

fn default_keep_last() -> usize {
    2
}

fn default_eval_sequences() -> u64 {
    256
}

fn default_eval_samples() -> usize {
    8
}

/// The most fast steps, as of `infer.steps`.
const MAX_FAST_STEPS: u64 = 1_000_000;

/// Whole numbers up to here are exact as JSON and as `f64`.
const EXACT: u64 = 1 << 53;

impl Config {
    /// The configuration as a file's text.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("a configuration is made of plain values")
    }

    /// Checks every field and how they fit together, without opening a device or allocating by any extent.
    ///
    /// # Errors
    /// [`Error::Field`] for the first field that cannot work.
    pub fn validate(&self) -> Result<()> {
        self.model.validate().map_err(|error| match error {
            ltm_model::Error::Config { field, expected, found } => {
                Error::field(&format!("model.{field}"), expected, found)
            }
            other => other.into(),
        })?;
        self.infer.validate().map_err(|error| match error {
            ltm_vi::Error::Config { field, expected, found } => {
                Error::field(&format!("infer.{field}"), expected, found)
            }
            ltm_vi::Error::Argument { arg, expected, found } => Error::field(arg, expected, found),
            other => other.into(),
        })?;
        suits(&self.model, &self.infer, Task::Infer).map_err(unsuitable)?;
        check(
            self.run.names_a_device(),
            "run.device",
            "`cpu`, `cuda` or `cuda:N` with the number of a GPU",
            &format!("{:?}", self.run.device),
        )?;
        let exact = i64::MAX as u64;
        check(self.run.seed <= exact, "run.seed", &format!("at most {exact}"), &self.run.seed)?;
        check(!self.run.dir.as_os_str().is_empty(), "run.dir", "a folder", &"nothing")?;
        self.check_train()
    }

    /// The fast loop of training: that of `infer`, of `train.fast_steps` steps.
    pub fn fast_loop(&self) -> InferConfig {
        InferConfig { steps: self.train.fast_steps.unwrap_or(self.infer.steps), ..self.infer }
    }

    /// The loss of a slow step; its gradient is that of `train.slow_gradient`, or the joint one of a variational
    /// autoencoder.
    pub fn training(&self) -> Training {
        let gradient = match self.train.slow_gradient {
            SlowGradientKind::Trajectory => SlowGradient::Trajectory,
            SlowGradientKind::Final if self.fast_loop().is_amortised() => SlowGradient::Joint,
            SlowGradientKind::Final => SlowGradient::Final,
        };
        let importance = self.train.importance_samples > 1;
        let rank = self.fast_loop().fitted_rank();
        Training { gradient, free_bits: self.infer.free_bits, importance, rank }
    }

    /// Weights on the device that the configuration specifies.
    ///
    /// # Errors
    /// Those of [`RunConfig::compute`]; [`Error::NonFinite`] for weights that are not finite, [`Error::Infer`] for those
    /// of another model, or when memory runs out.
    pub fn on_device(&self, weights: &Weights) -> Result<DeviceWeights> {
        let (device, precision) = self.run.compute()?;
        let weights = DeviceWeights::new(&self.model, weights, &device, precision);
        weights.map_err(Error::of_weights)
    }

    fn check_train(&self) -> Result<()> {
        let t = &self.train;
        let between = |field: &str, found: u64, least: u64, most: u64| {
            check((least..=most).contains(&found), field, &format!("{least} to {most}"), &found)
        };
        between("data.documents", self.data.documents, 1, 1 << 32)?;
        between("data.val_documents", self.data.val_documents, 0, 1 << 32)?;
        between("train.steps", t.steps, 1, EXACT)?;
        between("train.schedule_steps", t.schedule_steps(), 1, EXACT)?;
        between("train.batch", t.batch as u64, 1, 1 << 24)?;
        between("train.micro_batches", t.micro_batches as u64, 1, 1 << 20)?;
        between("train.checkpoint_every", t.checkpoint_every, 1, EXACT)?;
        between("train.keep_last", t.keep_last as u64, 1, EXACT)?;
        between("train.eval_every", t.eval_every, 0, EXACT)?;
        between("train.eval_sequences", t.eval_sequences, 0, EXACT)?;
        between("train.eval_samples", t.eval_samples as u64, 2, 1 << 20)?;
        between("train.seq_len", t.seq_len as u64, 1, self.model.max_seq_len as u64)?;
        let batches = t.steps.checked_mul(t.micro_batches as u64);
        check(
            batches.is_some_and(|batches| batches <= EXACT),
            "train.steps",
            &format!("at most {EXACT} micro-batches in all"),
            &t.steps,
        )?;
        // Operations of one slow step must be countable, so that no product of extents overflows.
        let tokens = t.batch as f64 * t.seq_len as f64;
        let model = &self.model;
        let width = model.dim as f64;
        let attended = model.n_layers as f64 * width * model.max_seq_len as f64;
        let latents = t.batch as f64 * model.n_latents as f64 * width;
        let operations = 64.0 * tokens * (model.param_count() as f64 + attended)
            + 64.0 * latents * (t.seq_len as f64 + width);
        check(
            tokens <= f64::from(i32::MAX) && operations < i64::MAX as f64,
            "train.batch",
            "small enough, with the model's extents, for one micro-batch to be counted",
            &t.batch,
        )?;
        let least_0 = |field: &str, found: f64| {
            check(found >= 0.0 && found.is_finite(), field, "0 or more", &found)
        };
        least_0("train.lr", t.lr)?;
        least_0("train.lr_min", t.lr_min)?;
        least_0("train.weight_decay", t.weight_decay)?;
        let steps = t.fast_steps.unwrap_or(0);
        between("train.fast_steps", steps as u64, 0, MAX_FAST_STEPS)?;
        between("train.importance_samples", t.importance_samples as u64, 1, 1 << 12)?;
        let from = t.importance_from;
        check((0.0..=1.0).contains(&from), "train.importance_from", "in 0..=1", &from)?;
        let (many, infer) = (t.importance_samples > 1, &self.infer);
        let alone = !many || (infer.free_bits == 0.0 && infer.method == Method::Variational);
        check(
            alone && !(many && t.slow_gradient == SlowGradientKind::Trajectory),
            "train.importance_samples",
            "1 with `infer.free_bits`, with `infer.method = \"langevin\"` and with \
             `train.slow_gradient = \"trajectory\"`",
            &t.importance_samples,
        )?;
        let rests = infer.stop_window > 0;
        check(
            !(rests && t.slow_gradient == SlowGradientKind::Trajectory),
            "infer.stop_window",
            "0 for `train.slow_gradient = \"trajectory\"`, which sums over all steps",
            &infer.stop_window,
        )?;
        least_0("train.prefix_weight", t.prefix_weight)?;
        let from = t.prefix_from;
        check((0.0..=1.0).contains(&from), "train.prefix_from", "in 0..=1", &from)?;
        between("train.prefix_block", t.prefix_block as u64, 1, 1 << 24)?;
        let reads_on = t.prefix_weight == 0.0 || model.n_latents > 0;
        check(reads_on, "train.prefix_weight", "0 for a model without latents", &t.prefix_weight)?;
        // A step is taken in 32 bits.
        let most = f64::from(f32::MAX);
        for (field, rate) in
            [("train.lr", t.lr), ("train.lr_min", t.lr_min), ("train.weight_decay", t.weight_decay)]
        {
            check(rate <= most, field, &format!("at most {most:.1e}"), &format!("{rate:e}"))?;
        }
        check(t.clip > 0.0, "train.clip", "more than 0 (inf never clips)", &t.clip)?;
        for beta in t.betas {
            check((0.0..1.0).contains(&beta), "train.betas", "at least 0 and less than 1", &beta)?;
        }
        Ok(())
    }

    /// Refuses learning rates that cannot be meant. What a checkpoint was trained with is not asked: it happened.
    fn check_schedule(&self, overrides: &[String]) -> Result<()> {
        let t = &self.train;
        let most = format!("at most train.lr, {}", t.lr);
        check(t.lr_min <= t.lr, "train.lr_min", &most, &t.lr_min)?;
        let sets = |key: &str| {
            overrides.iter().any(|set| set.split('=').next().is_some_and(|k| k.trim() == key))
        };
        if sets("train.steps") && !sets("train.warmup") {
            return Ok(());
        }
        let fewer = format!("fewer steps than train.steps, {}", t.steps);
        check(t.warmup < t.steps, "train.warmup", &fewer, &t.warmup)
    }
}

fn check(holds: bool, field: &str, expected: &str, found: &dyn std::fmt::Display) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::field(field, expected, found)) }
}

impl DataConfig {
    /// Refuses a section that names no data.
    pub(crate) fn check_source(&self) -> Result<()> {
        let named =
            self.path.as_ref().map_or(self.corpus.is_some(), |path| !path.as_os_str().is_empty());
        let expected =
            "a folder that `ltm data prepare` has written, or data.corpus = \"storyworld\"";
        check(named, "data.path", expected, &"neither")
    }

    /// What the data's ids mean, as far as this is known before it is opened: `None` for a folder that does not exist, or
    /// has no meta.json while no tokenizer is named.
    ///
    /// # Errors
    /// [`Error::File`] for a meta.json or a tokenizer.json that is not one, or a folder of another tokenizer than the
    /// named one; [`Error::Field`] for an unknown name.
    pub fn tokenizer(&self) -> Result<Option<SharedTokenizer>> {
        let named = self.named_tokenizer()?;
        match (&self.path, self.corpus) {
            (Some(path), _) => match Meta::read(path)? {
                Some(meta) => Ok(Some(meta.tokenizer(path, named.as_ref())?)),
                None => Ok(named),
            },
            (None, Some(GeneratedCorpus::Storyworld)) => Ok(Some(storyworld::tokenizer())),
            (None, None) => Ok(None),
        }
    }

    /// The tokenizer that `data.tokenizer` names.
    pub(crate) fn named_tokenizer(&self) -> Result<Option<SharedTokenizer>> {
        Ok(self.tokenizer.as_deref().map(named).transpose()?)
    }

    /// Contents of one row of a batch.
    pub fn row_kind(&self) -> Rows {
        match (self.rows, &self.path) {
            (Some(RowKind::Documents), _) | (None, None) => Rows::Documents,
            (Some(RowKind::Windows), _) | (None, Some(_)) => Rows::Windows,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEXT: &str = include_str!("../tests/tiny.toml");

    fn parse(overrides: &[&str]) -> Result<Config> {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        Config::parse(TEXT, Path::new("tiny.toml"), &overrides)
    }

    /// A refusal's text, which has to name these parts.
    fn refused(text: &str, overrides: &[&str], parts: &[&str]) {
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let error = Config::parse(text, Path::new("some.toml"), &overrides).expect_err(text);
        let message = error.to_string();
        for part in [&["some.toml"], parts].concat() {
            assert!(message.contains(part), "{overrides:?}: `{part}` is not in: {message}");
        }
        assert!(!message.contains('\n'), "{message}");
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
    fn a_minimal_file_has_the_documented_defaults() {
        let text = "[data]\ncorpus = 'storyworld'\n[model]\ndim = 64\nn_layers = 2\nn_heads = 4\n\
                    max_seq_len = 96\nwindow = 16\nn_latents = 4\n[train]\nsteps = 500\n";
        let config = Config::parse(text, Path::new("dir/small.toml"), &[]).expect("good");
        assert_eq!(config.run.dir, Path::new("runs/small"));
        assert_eq!((config.run.seed, config.run.device.as_str()), (1, "cpu"));
        assert_eq!((config.model.n_kv_heads, config.model.ffn_hidden), (4, 192));
        assert_eq!((config.train.seq_len, config.train.warmup), (96, 10));
        assert_eq!((config.train.lr, config.train.lr_min), (1e-3, 1e-4));
        assert_eq!((config.infer.steps, config.infer.lr), (16, 0.3));
        assert_eq!(
            (config.infer.noise, config.infer.method),
            (ltm_vi::Noise::Fresh, ltm_vi::Method::Variational)
        );
        // Windows' line ends and byte order mark change nothing.
        let windows = format!("\u{feff}{}", text.replace('\n', "\r\n"));
        assert_eq!(Config::parse(&windows, Path::new("small.toml"), &[]).expect("good"), config);
        for key in keys().iter().filter(|key| key.default == KeyDefault::Required) {
            let line = format!("\n{} =", key.name);
            let without: Vec<&str> = text
                .split_inclusive('\n')
                .filter(|l| !format!("\n{l}").starts_with(&line))
                .collect();
            let name = key.full_name();
            refused(
                &without.concat(),
                &[],
                &[&format!("`{name}` is missing"), "expected a whole number"],
            );
        }
        refused("", &[], &["data.path", "storyworld"]);
        refused(text, &["infer.method=langevin"], &["`infer.lr` is missing", "langevin"]);
    }

    #[test]
    fn overrides_replace_values_of_any_type() {
        let config =
            parse(&["train.steps=7", "run.dir=a/b c", "train.lr = 1e-2", "data.rows=windows"])
                .expect("good");
        assert_eq!((config.train.steps, config.train.lr), (7, 1e-2));
        assert_eq!(config.run.dir, Path::new("a/b c"));
        assert_eq!(config.data.row_kind(), Rows::Windows);
        for dir in ["2024", "true", "1e3", "'a'b", "C:\\runs", "a # b"] {
            assert_eq!(parse(&[&format!("run.dir={dir}")]).expect(dir).run.dir, Path::new(dir));
        }
        assert_eq!(parse(&["run.dir=\"a b\""]).expect("quoted").run.dir, Path::new("a b"));
    }

    #[test]
    fn refusals_name_file_and_key_with_what_was_expected_and_found() {
        for (set, parts) in [
            ("train.stepz=7", &["`train.stepz`", "`steps`"][..]),
            ("trian.steps=7", &["`trian`", "`train`"]),
            ("train=7", &["section.key=value"]),
            (
                "train.steps=many",
                &["`train.steps`", "expected a whole number, 0 or more", "found \"many\""],
            ),
            ("train.steps=-1", &["`train.steps`", "found -1"]),
            ("train.steps=1.5", &["`train.steps`", "found 1.5"]),
            ("train.steps=", &["`train.steps`", "found \"\""]),
            ("train.steps=0", &["train.steps", "expected 1 to"]),
            ("train.lr=fast", &["`train.lr`", "expected a number", "found \"fast\""]),
            ("train.betas=0.9", &["`train.betas`", "expected two numbers", "found 0.9"]),
            ("train.seq_len=1000", &["train.seq_len", "1 to 96", "found 1000"]),
            ("model.window=0", &["`model.window`", "found 0"]),
            ("model.n_heads=5", &["`model.dim`", "multiple of n_heads"]),
            ("model.n_latents=3", &["`model.n_latents`", "n_layers"]),
            (
                "infer.noise=none",
                &["`infer.noise`", "expected `fixed` or `fresh`", "found \"none\""],
            ),
            ("infer.beta1=2", &["`infer.beta1`", "found 2"]),
            ("infer.start=encoder", &["infer.start", "encoder_width"]),
            (
                "model.attention=both",
                &["`model.attention`", "`causal` or `bidirectional`", "found \"both\""],
            ),
            ("model.attention=bidirectional", &["n_latents", "bidirectional"]),
            ("train.clip=nan", &["train.clip"]),
            ("train.lr=1e308", &["`train.lr`", "at most 3.4e38", "found 1e308"]),
            // What cannot be meant.
            ("train.lr_min=1", &["`train.lr_min`", "at most train.lr, 0.002", "found 1"]),
            ("train.lr=1e-5", &["`train.lr_min`", "at most train.lr, 0.00001", "found 0.0002"]),
            ("train.warmup=6", &["`train.warmup`", "fewer steps than train.steps, 6", "found 6"]),
            ("train.warmup=1000", &["`train.warmup`", "found 1000"]),
            ("run.device=gpu", &["`run.device`", "`cuda:N`", "found \"gpu\""]),
            ("run.device=cuda:x", &["`run.device`", "found \"cuda:x\""]),
            ("run.dir=", &["`run.dir`", "a folder"]),
            // Numbers past what a file can hold, and extents past what can be computed.
            (
                "run.seed=9223372036854775808",
                &["`run.seed`", "at most 9223372036854775807", "found 9223372036854775808"],
            ),
            ("run.seed=99999999999999999999999", &["`run.seed`", "at most"]),
            ("train.batch=9223372036854775807", &["`train.batch`"]),
            ("train.batch=17000000", &["`train.batch`"]),
            ("train.steps=9223372036854775807", &["`train.steps`"]),
            ("train.micro_batches=9223372036854775807", &["`train.micro_batches`"]),
            ("train.eval_samples=9223372036854775807", &["`train.eval_samples`"]),
            ("infer.steps=9223372036854775807", &["`infer.steps`"]),
            ("data.documents=9223372036854775807", &["`data.documents`"]),
        ] {
            refused(TEXT, &[set], parts);
        }
        refused(
            TEXT,
            &["model.n_latents=0", "infer.method=langevin"],
            &["infer.method", "without latents"],
        );
        refused("[train]\nsteps = \n", &[], &["line 2, column"]);
        refused("[train]\nsteps = 1\nsteps = 2\n", &[], &["line 3", "duplicate"]);
        refused(&TEXT.replace("seed = 1", "seed = 9223372036854775808"), &[], &["line 4"]);
    }

    #[test]
    fn a_shortened_run_and_a_finished_one_keep_their_schedule() {
        let config = parse(&["train.steps=2"]).expect("a smoke test");
        assert_eq!((config.train.steps, config.train.warmup), (2, 2));
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("config.toml");
        std::fs::write(&path, config.to_toml()).expect("written");
        assert_eq!(Config::load_resolved(&path, &[]).expect("as it was trained"), config);
        std::fs::write(&path, b"[run]\nseed = 1 # \xff").expect("written");
        let error = Config::load(&path, &[]).expect_err("not text").to_string();
        assert!(error.contains("config.toml: line 2: expected UTF-8"), "{error}");
        std::fs::write(&path, vec![b'\n'; (1 << 20) + 1]).expect("written");
        let error = Config::load(&path, &[]).expect_err("too long").to_string();
        assert!(error.contains("config.toml: expected a configuration of at most"), "{error}");
    }
}
