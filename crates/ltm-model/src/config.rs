//! The shape of a model and its presets. Knows no weights and no training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The largest `dim`, `encoder_width`, `n_latents` and numbers of heads: nothing published comes near, and products of two
/// extents stay within 64 bits.
const MAX_WIDTH: usize = 1 << 16;
/// The largest `ffn_hidden`.
const MAX_HIDDEN: usize = 1 << 20;
/// The largest `n_layers`.
const MAX_LAYERS: usize = 1 << 10;
/// The largest `vocab_size` and `max_seq_len`.
const MAX_TOKENS: usize = 1 << 24;
/// The largest `window`, which may be longer than the context; kernels count in 32-bit integers.
const MAX_WINDOW: usize = i32::MAX as usize;
/// Tokens that a feature of the encoder sees: the one at its position, and its neighbours.
pub(crate) const ENCODER_SPAN: usize = 3;
/// The largest `map_layers`.
const MAX_MAP_LAYERS: usize = 64;
/// The largest `prior_layers`.
const MAX_PRIOR_LAYERS: usize = 64;
/// The most parameters: 256 GiB in single precision.
const MAX_PARAMS: usize = if usize::BITS > 36 { 1 << 36 } else { 1 << 30 };

/// Tokens that the self-attention of a token sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Attention {
    /// The token itself and earlier ones within the window: an autoregressive model.
    #[default]
    Causal,
    /// Every token: a masked diffusion model, which predicts the masked tokens. The last id of the vocabulary is
    /// the mask.
    Bidirectional,
}

/// The extents and constants that define a decoder; nothing here changes during training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Model width `C`.
    pub dim: usize,
    /// Layers `L`.
    pub n_layers: usize,
    /// Attention heads `H`, a divisor of `dim`.
    pub n_heads: usize,
    /// Key/value heads `G`, a divisor of `n_heads`; fewer than `n_heads` is grouped-query attention. 0 stands for
    /// `n_heads`.
    #[serde(default)]
    pub n_kv_heads: usize,
    /// Vocabulary size `V`.
    pub vocab_size: usize,
    /// Context length: the maximum number of tokens in one sequence.
    pub max_seq_len: usize,
    /// Self-attention window `W`, in tokens: a token sees itself and the `W - 1` tokens before it.
    pub window: usize,
    /// Latent vectors of all layers together, `L·Z`, a multiple of `n_layers`; 0 is the autoregressive baseline,
    /// without cross-attention.
    pub n_latents: usize,
    /// Feed-forward width `F`. 0 stands for the default.
    #[serde(default)]
    pub ffn_hidden: usize,
    /// Constant that RMSNorm adds to the mean square.
    #[serde(default = "default_norm_eps")]
    pub norm_eps: f64,
    /// Base of the rotary frequencies.
    #[serde(default = "default_rope_theta")]
    pub rope_theta: f64,
    /// Tokens that the self-attention of a token sees.
    #[serde(default)]
    pub attention: Attention,
    /// Features of the encoder, which predicts the posterior of a text in one pass and is where a fit begins with
    /// `infer.start = "encoder"`; 0 is no encoder.
    #[serde(default)]
    pub encoder_width: usize,
    /// Standard deviation of the decoder's initial matrices. The published 0.02 suits a width of 512 or more; a narrow
    /// model learns to read its latents in fewer steps from about `1/sqrt(dim)`.
    #[serde(default = "default_init_std")]
    pub init_std: f64,
    /// Affine couplings that map standard normal noise to the latents of a layer: a prior that is learned with the
    /// decoder, of each layer's latents by itself. At least 2 reach every number; 0 is the standard normal prior.
    #[serde(default)]
    pub prior_layers: usize,
    /// Layers of attention among a text's latents, and feed-forward, that map the latents to what the decoder attends to:
    /// posterior and prior are then of noise, and what the noise means is learned (Kong et al. 2026). They start as the
    /// identity; 0 is none.
    #[serde(default)]
    pub map_layers: usize,
}

fn default_norm_eps() -> f64 {
    1e-5
}

fn default_init_std() -> f64 {
    0.02
}

fn default_rope_theta() -> f64 {
    10_000.0
}

impl ModelConfig {
    /// The published small model: 3 layers, 24 latents, 38,369,280 parameters.
    pub fn ltm_small() -> Self {
        Self::published(3, 24)
    }

    /// The published medium model: 6 layers, 24 latents, 51,005,952 parameters.
    pub fn ltm_medium() -> Self {
        Self::published(6, 24)
    }

    /// The published large model: 12 layers, 96 latents, 76,279,296 parameters.
    pub fn ltm_large() -> Self {
        Self::published(12, 96)
    }

    /// What the published sizes share. The vocabulary is GPT-2's plus one token.
    fn published(n_layers: usize, n_latents: usize) -> Self {
        Self {
            dim: 512,
            n_layers,
            n_heads: 8,
            n_kv_heads: 8,
            vocab_size: 50_258,
            max_seq_len: 1024,
            window: 256,
            n_latents,
            ffn_hidden: Self::default_ffn_hidden(512),
            norm_eps: 1e-5,
            rope_theta: 10_000.0,
            attention: Attention::Causal,
            encoder_width: 0,
            init_std: 0.02,
            prior_layers: 0,
            map_layers: 0,
        }
    }

    /// Two thirds of `4 dim`, rounded up to a multiple of 32: 1376 for a width of 512.
    pub fn default_ffn_hidden(dim: usize) -> usize {
        // Saturating: `validate` reports an absurd width, this must only survive it.
        (dim.saturating_mul(8) / 3).div_ceil(32).saturating_mul(32)
    }

    /// The same configuration with zeros that stand for defaults replaced: the feed-forward width, and as many
    /// key/value heads as heads.
    pub fn resolved(self) -> Self {
        let or = |value, default| if value == 0 { default } else { value };
        Self {
            ffn_hidden: or(self.ffn_hidden, Self::default_ffn_hidden(self.dim)),
            n_kv_heads: or(self.n_kv_heads, self.n_heads),
            ..self
        }
    }

    /// Checks every field of a [`resolved`](Self::resolved) configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for the first field that breaks its rule.
    pub fn validate(&self) -> Result<()> {
        for (field, found, range) in [
            ("dim", self.dim, 1..=MAX_WIDTH),
            ("n_layers", self.n_layers, 1..=MAX_LAYERS),
            ("n_heads", self.n_heads, 1..=MAX_WIDTH),
            ("n_kv_heads", self.n_kv_heads, 1..=MAX_WIDTH),
            ("vocab_size", self.vocab_size, 2..=MAX_TOKENS),
            ("max_seq_len", self.max_seq_len, 1..=MAX_TOKENS),
            ("window", self.window, 1..=MAX_WINDOW),
            ("n_latents", self.n_latents, 0..=MAX_WIDTH),
            ("ffn_hidden", self.ffn_hidden, 1..=MAX_HIDDEN),
            ("encoder_width", self.encoder_width, 0..=MAX_WIDTH),
            ("prior_layers", self.prior_layers, 0..=MAX_PRIOR_LAYERS),
            ("map_layers", self.map_layers, 0..=MAX_MAP_LAYERS),
        ] {
            let (least, most) = (range.start(), range.end());
            check(field, range.contains(&found), || format!("in {least}..={most}"), found)?;
        }

        let (heads, layers) = (self.n_heads, self.n_layers);
        check(
            "dim",
            self.dim.is_multiple_of(heads),
            || format!("a multiple of n_heads, {heads}"),
            self.dim,
        )?;
        check(
            "dim",
            self.head_dim().is_multiple_of(2),
            || format!("such that a head's width, dim / n_heads = {}, is even", self.head_dim()),
            self.dim,
        )?;
        check(
            "n_kv_heads",
            heads.is_multiple_of(self.n_kv_heads),
            || format!("a divisor of n_heads, {heads}"),
            self.n_kv_heads,
        )?;
        check(
            "n_latents",
            self.n_latents.is_multiple_of(layers),
            || format!("a multiple of n_layers, {layers}"),
            self.n_latents,
        )?;
        let positive = |field, found: f64| {
            let holds = found.is_finite() && found > 0.0;
            check(field, holds, || "positive and finite".into(), found)
        };
        positive("norm_eps", self.norm_eps)?;
        positive("rope_theta", self.rope_theta)?;
        let std = self.init_std;
        check("init_std", std > 0.0 && std <= 10.0, || "above 0 and at most 10".into(), std)?;
        if self.attention == Attention::Bidirectional {
            let without =
                || "0 for bidirectional attention, which is for models without latents".into();
            check("n_latents", self.n_latents == 0, without, self.n_latents)?;
            let context = self.max_seq_len;
            let whole = || {
                format!(
                    "at least max_seq_len, {context}, for bidirectional attention, which has no window"
                )
            };
            check("window", self.window >= context, whole, self.window)?;
        }
        let encodes = self.encoder_width == 0 || self.n_latents > 0;
        check("encoder_width", encodes, || "0 without latents".into(), self.encoder_width)?;
        let has_prior = self.prior_layers == 0 || self.n_latents > 0;
        check("prior_layers", has_prior, || "0 without latents".into(), self.prior_layers)?;
        let has_map = self.map_layers == 0 || self.n_latents > 0;
        check("map_layers", has_map, || "0 without latents".into(), self.map_layers)?;

        let count = self.checked_param_count().filter(|count| *count <= MAX_PARAMS);
        check(
            "dim",
            count.is_some(),
            || format!("small enough, with the other extents, for at most {MAX_PARAMS} parameters"),
            self.dim,
        )
    }

    /// The mask token: the last id of a model with bidirectional attention, whose vocabulary is the
    /// data's plus this one. `None` for a causal model.
    pub fn mask_id(&self) -> Option<usize> {
        (self.attention == Attention::Bidirectional).then(|| self.vocab_size.saturating_sub(1))
    }

    /// Tokens that occur in texts: all but the [mask](Self::mask_id).
    pub fn n_words(&self) -> usize {
        self.mask_id().unwrap_or(self.vocab_size)
    }

    /// Width `D` of one head; 0 without heads, which [`validate`](Self::validate) refuses.
    pub fn head_dim(&self) -> usize {
        self.dim.checked_div(self.n_heads).unwrap_or(0)
    }

    /// Width `G·D` of all keys, or all values, of one token.
    pub fn kv_dim(&self) -> usize {
        self.n_kv_heads.saturating_mul(self.head_dim())
    }

    /// Latent vectors `Z` of one layer; 0 without layers, which [`validate`](Self::validate) refuses.
    pub fn latents_per_layer(&self) -> usize {
        self.n_latents.checked_div(self.n_layers).unwrap_or(0)
    }

    /// Distance between the rotary positions of neighbouring latents of a layer: latent `j` has
    /// position `j * floor(max_seq_len / (L·Z))`. The divisor counts the latents of all layers, as in
    /// the published code, so the latents of one layer span one `L`th of the context.
    /// 0 without latents, or with more latents than tokens.
    pub fn latent_stride(&self) -> usize {
        self.max_seq_len.checked_div(self.n_latents).unwrap_or(0)
    }

    /// Number of trained parameters; the embedding, tied to the output, counts once.
    /// `usize::MAX` on overflow, which [`validate`](Self::validate) refuses.
    pub fn param_count(&self) -> usize {
        self.checked_param_count().unwrap_or(usize::MAX)
    }

    fn checked_param_count(&self) -> Option<usize> {
        let width = self.dim;
        // wq and wo are (C,C), wk and wv (G·D,C); each attention brings its norm.
        let attention =
            width.checked_add(self.kv_dim())?.checked_mul(2)?.checked_add(1)?.checked_mul(width)?;
        let attentions = if self.n_latents == 0 { 1 } else { 2 };
        let feed_forward = self.ffn_hidden.checked_mul(3)?.checked_add(1)?.checked_mul(width)?;
        let encoder = if self.encoder_width == 0 {
            0
        } else {
            // An embedding of one more token; features of neighbours with bias, gain and shift; a residual layer
            // with the same; two maps to the latents with a bias, a gain and a shift.
            let (features, latents) = (self.encoder_width, self.n_latents.checked_mul(width)?);
            let of_latents = features.checked_mul(2)?.checked_add(3)?.checked_mul(latents)?;
            let of_features =
                width.checked_mul(ENCODER_SPAN)?.checked_add(features)?.checked_add(6)?;
            let embedding = self.vocab_size.checked_add(1)?.checked_mul(width)?;
            of_features.checked_mul(features)?.checked_add(of_latents)?.checked_add(embedding)?
        };
        // Of each coupling a hidden layer of the model's width, which reads half of a layer's latents, and a map to all
        // of them, with biases.
        let latents = self.latents_per_layer().checked_mul(width)?;
        let coupling = (latents / 2)
            .checked_add(latents)?
            .checked_add(1)?
            .checked_mul(width)?
            .checked_add(latents)?;
        let prior = coupling.checked_mul(self.prior_layers)?.checked_mul(self.n_layers)?;
        let map = attention.checked_add(feed_forward)?.checked_mul(self.map_layers)?;
        attention
            .checked_mul(attentions)?
            .checked_add(feed_forward)?
            .checked_mul(self.n_layers)?
            .checked_add(self.vocab_size.checked_add(1)?.checked_mul(width)?)?
            .checked_add(encoder)?
            .checked_add(prior)?
            .checked_add(map)
    }
}

fn check(
    field: &'static str,
    holds: bool,
    expected: impl FnOnce() -> String,
    found: impl ToString,
) -> Result<()> {
    if holds {
        Ok(())
    } else {
        Err(Error::Config { field, expected: expected(), found: found.to_string() })
    }
}

#[cfg(test)]
impl ModelConfig {
    /// Small enough for a test, with latents and grouped heads.
    pub(crate) const TINY: Self = Self {
        dim: 8,
        n_layers: 2,
        n_heads: 2,
        n_kv_heads: 1,
        vocab_size: 11,
        max_seq_len: 8,
        window: 4,
        n_latents: 4,
        ffn_hidden: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: Attention::Causal,
        encoder_width: 0,
        init_std: 0.02,
        prior_layers: 0,
        map_layers: 0,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param_table;

    #[test]
    fn presets_have_the_published_sizes() {
        for (config, expected) in [
            (ModelConfig::ltm_small(), 38_369_280),
            (ModelConfig::ltm_medium(), 51_005_952),
            (ModelConfig::ltm_large(), 76_279_296),
        ] {
            config.validate().unwrap();
            assert_eq!(config.param_count(), expected);
        }
        assert_eq!(ModelConfig::ltm_small().ffn_hidden, 1376);
        assert_eq!(ModelConfig::ltm_large().latents_per_layer(), 8);
        assert_eq!(ModelConfig::ltm_small().latent_stride(), 42);
        assert_eq!(ModelConfig::ltm_large().latent_stride(), 10);
    }

    #[test]
    fn param_count_is_the_sum_over_the_table() {
        let small = ModelConfig { n_kv_heads: 2, ..ModelConfig::ltm_small() };
        for config in [
            ModelConfig { n_latents: 0, ..small },
            small,
            ModelConfig { encoder_width: 40, ..small },
            ModelConfig { prior_layers: 3, ..small },
            ModelConfig { map_layers: 2, ..small },
        ] {
            let sum: usize = param_table(&config).iter().map(|spec| spec.len()).sum();
            assert_eq!(config.param_count(), sum);
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let good = ModelConfig::ltm_small();
        let cases = [
            ("dim", ModelConfig { dim: 0, ..good }),
            ("dim", ModelConfig { dim: 510, ..good }),
            ("dim", ModelConfig { dim: 8, ..good }),
            ("dim", ModelConfig { dim: usize::MAX - 7, n_heads: 1, n_kv_heads: 1, ..good }),
            ("dim", ModelConfig { dim: 1 << 16, n_layers: 1 << 10, n_latents: 0, ..good }),
            ("n_layers", ModelConfig { n_layers: usize::MAX, n_latents: 0, ..good }),
            ("n_layers", ModelConfig { n_layers: 1 << 40, n_latents: 0, ..good }),
            ("n_layers", ModelConfig { n_layers: 0, ..good }),
            ("n_heads", ModelConfig { n_heads: 0, ..good }),
            ("n_kv_heads", ModelConfig { n_kv_heads: 0, ..good }),
            ("n_kv_heads", ModelConfig { n_kv_heads: 3, ..good }),
            ("n_kv_heads", ModelConfig { n_kv_heads: 16, ..good }),
            ("vocab_size", ModelConfig { vocab_size: 1, ..good }),
            ("vocab_size", ModelConfig { vocab_size: 1 << 32, ..good }),
            ("max_seq_len", ModelConfig { max_seq_len: 0, ..good }),
            ("max_seq_len", ModelConfig { max_seq_len: 1 << 31, ..good }),
            ("window", ModelConfig { window: 0, ..good }),
            ("window", ModelConfig { window: usize::MAX, ..good }),
            ("n_latents", ModelConfig { n_latents: 25, ..good }),
            ("n_latents", ModelConfig { n_latents: usize::MAX / 3 * 3, ..good }),
            ("ffn_hidden", ModelConfig { ffn_hidden: 0, ..good }),
            ("n_latents", ModelConfig { n_latents: 3 << 32, ..good }),
            ("ffn_hidden", ModelConfig { ffn_hidden: usize::MAX, ..good }),
            ("norm_eps", ModelConfig { norm_eps: f64::NAN, ..good }),
            ("norm_eps", ModelConfig { norm_eps: 0.0, ..good }),
            ("rope_theta", ModelConfig { rope_theta: -1.0, ..good }),
            ("init_std", ModelConfig { init_std: 0.0, ..good }),
            ("init_std", ModelConfig { init_std: f64::NAN, ..good }),
            ("n_latents", ModelConfig { attention: Attention::Bidirectional, ..good }),
            ("window", ModelConfig { attention: Attention::Bidirectional, n_latents: 0, ..good }),
            ("encoder_width", ModelConfig { encoder_width: 1, n_latents: 0, ..good }),
            ("encoder_width", ModelConfig { encoder_width: usize::MAX, ..good }),
            ("prior_layers", ModelConfig { prior_layers: 1, n_latents: 0, ..good }),
            ("prior_layers", ModelConfig { prior_layers: usize::MAX, ..good }),
            ("map_layers", ModelConfig { map_layers: 1, n_latents: 0, ..good }),
            ("map_layers", ModelConfig { map_layers: usize::MAX, ..good }),
        ];
        for (expected, config) in cases {
            match config.validate() {
                Err(Error::Config { field, .. }) => assert_eq!(field, expected, "{config:?}"),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
    }

    /// None of these may divide by zero or overflow, whatever a caller fills in.
    #[test]
    fn derived_extents_of_an_invalid_model_do_not_panic() {
        for extent in [0, 1, usize::MAX] {
            let config = ModelConfig {
                dim: extent,
                n_layers: extent,
                n_heads: extent.min(1),
                n_kv_heads: extent,
                vocab_size: extent,
                max_seq_len: extent,
                n_latents: extent,
                ffn_hidden: 0,
                encoder_width: extent,
                prior_layers: extent,
                map_layers: extent,
                attention: Attention::Bidirectional,
                ..ModelConfig::ltm_small()
            };
            let config = config.resolved();
            let _ = (config.head_dim(), config.kv_dim(), config.latents_per_layer());
            let _ = (config.latent_stride(), config.param_count(), config.mask_id());
            assert!(config.validate().is_err());
        }
    }

    #[test]
    fn the_feed_forward_width_is_optional() {
        let text = "dim = 32\nn_layers = 2\nn_heads = 4\nn_kv_heads = 2\nvocab_size = 61\n\
                    max_seq_len = 24\nwindow = 7\nn_latents = 4\nnorm_eps = 1e-5\n\
                    rope_theta = 10000.0\n";
        let config: ModelConfig = toml::from_str(text).unwrap();
        assert_eq!((config.ffn_hidden, config.resolved().ffn_hidden), (0, 96));
        config.resolved().validate().unwrap();
        let written = toml::to_string(&config.resolved()).unwrap();
        assert_eq!(toml::from_str::<ModelConfig>(&written).unwrap(), config.resolved());
        assert!(toml::from_str::<ModelConfig>(&format!("{text}widnow = 7\n")).is_err());
    }
}
