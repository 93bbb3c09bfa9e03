//! Names, shapes and initial distributions of a model's parameters, in their one fixed order.
//! Knows no values.

use crate::config::ENCODER_SPAN;
use crate::{Error, ModelConfig, Result};

/// The distribution that a parameter starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Independent normal numbers with mean 0.
    Normal {
        /// Standard deviation.
        std: f64,
    },
    /// Every number is 1.
    Ones,
    /// Every number is this one.
    Constant {
        /// The number.
        value: f64,
    },
}

/// Which distribution a parameter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The decoder, `p(x|z)`.
    Decoder,
    /// The encoder, `q(z|x)` in one pass.
    Encoder,
    /// The learned prior, `p(z)`.
    Prior,
}

/// One parameter of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name in a checkpoint.
    pub name: String,
    /// Extents, row-major; a matrix is `[out, in]`.
    pub shape: Vec<usize>,
    /// The initial distribution.
    pub init: Init,
    /// Whether weight decay applies: to matrices only.
    pub decay: bool,
    /// What it is a parameter of.
    pub part: Part,
}

impl ParamSpec {
    /// Numbers in the parameter.
    #[expect(clippy::len_without_is_empty, reason = "no extent of a parameter is 0")]
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
}

/// Refuses parameters of other lengths than those of `specs`.
pub(crate) fn check_lengths(
    specs: &[ParamSpec],
    found: impl ExactSizeIterator<Item = usize>,
) -> Result<()> {
    if found.len() != specs.len() {
        let (expected, found) = (format!("{} parameters", specs.len()), found.len().to_string());
        return Err(Error::Argument { arg: "weights", expected, found });
    }
    match specs.iter().zip(found).find(|(spec, len)| spec.len() != *len) {
        Some((spec, len)) => {
            let (name, expected) = (spec.name.clone(), spec.shape.clone());
            Err(Error::TensorShape { name, expected, found: vec![len] })
        }
        None => Ok(()),
    }
}

/// One thing per parameter of a model: an index, a node, a buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelParams<T> {
    /// Embedding `(V,C)`, tied to the output.
    pub tok_embeddings: T,
    /// The layers, first to last.
    pub layers: Vec<LayerParams<T>>,
    /// Weight of the last norm, `(C)`.
    pub norm: T,
    /// The encoder, of a model that has one.
    pub encoder: Option<EncoderParams<T>>,
    /// The couplings of the learned prior of each layer's latents, in the order that maps noise to latents; none for the
    /// standard normal.
    pub prior: Vec<Vec<CouplingParams<T>>>,
    /// The layers that map the latents to what the decoder attends to; they have no cross-attention.
    pub map: Vec<LayerParams<T>>,
}

/// One thing per parameter of a coupling of the prior: a network of one hidden layer that reads one half of a layer's
/// latents and says how the other half is scaled and shifted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CouplingParams<T> {
    /// The map to the hidden layer, `(C,Z·C/2)`.
    pub hidden: T,
    /// Its bias, `(C)`.
    pub hidden_bias: T,
    /// The map to scales, then shifts, `(Z·C,C)`.
    pub out: T,
    /// Its bias, `(Z·C)`.
    pub out_bias: T,
}

/// One thing per parameter of the encoder, with `F` features.
#[derive(Clone, Debug, PartialEq)]
pub struct EncoderParams<T> {
    /// Embedding `(V+1,C)`; the last id is a position without text.
    pub tok_embeddings: T,
    /// From neighbouring tokens to features, `(F,3·C)`.
    pub features: T,
    /// Their bias, `(F)`.
    pub features_bias: T,
    /// Normalisation of the features' sums over a text, `(F)`.
    pub pooled: NormedParams<T>,
    /// The residual layer, `(F,F)`.
    pub mix: T,
    /// Its bias, `(F)`.
    pub mix_bias: T,
    /// Normalisation of its result, `(F)`.
    pub mixed: NormedParams<T>,
    /// The map to means, `(L·Z·C,F)`.
    pub mu: T,
    /// Normalisation of the means, `(L·Z·C)`.
    pub means: NormedParams<T>,
    /// The map to log-variances, `(L·Z·C,F)`.
    pub log_var: T,
    /// Their bias, `(L·Z·C)`.
    pub log_var_bias: T,
}

/// One thing per parameter of a normalisation; see [`Normed`](crate::encoder::Normed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NormedParams<T> {
    /// The factor of each feature.
    pub gain: T,
    /// What is added to it.
    pub shift: T,
}

/// One thing per parameter of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerParams<T> {
    /// Self-attention.
    pub attention: AttentionParams<T>,
    /// Cross-attention; the autoregressive baseline has none.
    pub cross_attention: Option<AttentionParams<T>>,
    /// Feed-forward.
    pub feed_forward: FeedForwardParams<T>,
}

/// One thing per parameter of an attention and the norm before it.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionParams<T> {
    /// Weight of the norm, `(C)`.
    pub norm: T,
    /// Query projection `(C,C)`.
    pub wq: T,
    /// Key projection `(G·D,C)`.
    pub wk: T,
    /// Value projection `(G·D,C)`.
    pub wv: T,
    /// Output projection `(C,C)`.
    pub wo: T,
}

/// One thing per parameter of a feed-forward and the norm before it:
/// `w2 · (silu(w1 · x) * (w3 · x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedForwardParams<T> {
    /// Weight of the norm, `(C)`.
    pub norm: T,
    /// Gate projection `(F,C)`.
    pub w1: T,
    /// Down projection `(C,F)`.
    pub w2: T,
    /// Up projection `(F,C)`.
    pub w3: T,
}

impl<T> ModelParams<T> {
    /// Calls `make` once per parameter, in the order of [`param_table`].
    ///
    /// Matrices start from normal(0, `init_std`); `wo` and the up projection `w3` from
    /// normal(0, `init_std` / sqrt(2 L)), so that the residual sum does not grow with depth. Scaling `w3`,
    /// and not the down projection `w2` that writes into the sum, follows the published code.
    pub fn new(config: &ModelConfig, mut make: impl FnMut(ParamSpec) -> T) -> Self {
        let width = config.dim;
        let residual_std = config.init_std / (2.0 * config.n_layers as f64).sqrt();
        Self {
            tok_embeddings: make(matrix(
                "tok_embeddings.weight".into(),
                [config.vocab_size, width],
                config.init_std,
            )),
            layers: (0..config.n_layers)
                .map(|layer| {
                    let prefix = format!("layers.{layer}");
                    let mut attention =
                        |kind| attention(config, &prefix, kind, residual_std, &mut make);
                    let self_attention = attention("attention");
                    let cross_attention =
                        (config.n_latents > 0).then(|| attention("cross_attention"));
                    let feed_forward = feed_forward(config, &prefix, residual_std, &mut make);
                    LayerParams { attention: self_attention, cross_attention, feed_forward }
                })
                .collect(),
            norm: make(norm("norm.weight".into(), width)),
            encoder: (config.encoder_width > 0).then(|| EncoderParams::new(config, &mut make)),
            prior: match config.prior_layers {
                0 => Vec::new(),
                n => (0..config.n_layers)
                    .map(|layer| {
                        let coupling = |idx| CouplingParams::new(config, [layer, idx], &mut make);
                        (0..n).map(coupling).collect()
                    })
                    .collect(),
            },
            map: (0..config.map_layers)
                .map(|layer| {
                    let prefix = format!("map.{layer}");
                    LayerParams {
                        attention: attention(config, &prefix, "attention", 0.0, &mut make),
                        cross_attention: None,
                        // Nothing is added to the latents at first.
                        feed_forward: feed_forward(config, &prefix, 0.0, &mut make),
                    }
                })
                .collect(),
        }
    }
}

impl<T> EncoderParams<T> {
    /// Calls `make` once per parameter. Maps keep the scale of what they read to within a factor; the log-variances
    /// start at -3 for every text, because a sample as wide as the prior tells the decoder nothing.
    fn new(config: &ModelConfig, make: &mut impl FnMut(ParamSpec) -> T) -> Self {
        let (width, features) = (config.dim, config.encoder_width);
        let latents = config.n_latents * config.dim;
        let name = |part: &str| format!("encoder.{part}");
        // The standard deviation of a uniform distribution within 1/sqrt(n), common for linear maps.
        let std = |n: usize| 1.0 / (3.0 * n as f64).sqrt();
        let mut map = |part: &str, [rows, columns]: [usize; 2], std| {
            make(matrix(name(&format!("{part}.weight")), [rows, columns], std))
        };
        let span = ENCODER_SPAN * width;
        let tok_embeddings = map("tok_embeddings", [config.vocab_size + 1, width], 1.0);
        let maps = [
            map("features", [features, span], std(span)),
            map("mix", [features, features], std(features)),
            map("mu", [latents, features], std(features)),
            map("log_var", [latents, features], 0.01),
        ];
        let [features_map, mix, mu, log_var] = maps;
        let mut constant = |part: &str, n: usize, value| {
            let (name, init) = (name(part), Init::Constant { value });
            make(ParamSpec { name, shape: vec![n], init, decay: false, part: Part::Encoder })
        };
        let features_bias = constant("features.bias", features, 0.0);
        let mix_bias = constant("mix.bias", features, 0.0);
        let log_var_bias = constant("log_var.bias", latents, -3.0);
        let mut normed = |part: &str, n| NormedParams {
            gain: constant(&format!("{part}.gain"), n, 1.0),
            shift: constant(&format!("{part}.shift"), n, 0.0),
        };
        Self {
            pooled: normed("pooled", features),
            mixed: normed("mixed", features),
            means: normed("means", latents),
            tok_embeddings,
            features: features_map,
            features_bias,
            mix,
            mix_bias,
            mu,
            log_var,
            log_var_bias,
        }
    }
}

impl<T> CouplingParams<T> {
    /// Another thing for each parameter.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> CouplingParams<U> {
        CouplingParams {
            hidden: f(self.hidden),
            hidden_bias: f(self.hidden_bias),
            out: f(self.out),
            out_bias: f(self.out_bias),
        }
    }

    /// Calls `make` once per parameter of coupling `idx` of a layer. The last map starts at 0, so that the prior starts as
    /// the standard normal.
    fn new(
        config: &ModelConfig,
        [layer, idx]: [usize; 2],
        make: &mut impl FnMut(ParamSpec) -> T,
    ) -> Self {
        let (width, latents) = (config.dim, config.latents_per_layer() * config.dim);
        let mut param = |part: &str, shape: &[usize], init| {
            let name = format!("prior.{layer}.{idx}.{part}");
            let decay = shape.len() == 2;
            make(ParamSpec { name, shape: shape.into(), init, decay, part: Part::Prior })
        };
        let nothing = Init::Constant { value: 0.0 };
        let std = 1.0 / (3.0 * (latents / 2) as f64).sqrt();
        Self {
            hidden: param("hidden.weight", &[width, latents / 2], Init::Normal { std }),
            hidden_bias: param("hidden.bias", &[width], nothing),
            out: param("out.weight", &[latents, width], nothing),
            out_bias: param("out.bias", &[latents], nothing),
        }
    }
}

/// The parameters of an attention of `kind` in the layer whose names begin with `prefix`.
fn attention<T>(
    config: &ModelConfig,
    prefix: &str,
    kind: &str,
    residual_std: f64,
    make: &mut impl FnMut(ParamSpec) -> T,
) -> AttentionParams<T> {
    let (width, std) = (config.dim, config.init_std);
    let name = |part: &str| format!("{prefix}.{kind}.{part}.weight");
    AttentionParams {
        norm: make(norm(format!("{prefix}.{kind}_norm.weight"), width)),
        wq: make(matrix(name("wq"), [width, width], std)),
        wk: make(matrix(name("wk"), [config.kv_dim(), width], std)),
        wv: make(matrix(name("wv"), [config.kv_dim(), width], std)),
        wo: make(matrix(name("wo"), [width, width], residual_std)),
    }
}

/// The parameters of the feed-forward in the layer whose names begin with `prefix`.
fn feed_forward<T>(
    config: &ModelConfig,
    prefix: &str,
    residual_std: f64,
    make: &mut impl FnMut(ParamSpec) -> T,
) -> FeedForwardParams<T> {
    let (width, hidden, std) = (config.dim, config.ffn_hidden, config.init_std);
    let name = |part: &str| format!("{prefix}.feed_forward.{part}.weight");
    FeedForwardParams {
        norm: make(norm(format!("{prefix}.ffn_norm.weight"), width)),
        w1: make(matrix(name("w1"), [hidden, width], std)),
        w2: make(matrix(name("w2"), [width, hidden], std)),
        w3: make(matrix(name("w3"), [hidden, width], residual_std)),
    }
}

impl ModelParams<usize> {
    /// Each parameter's index in [`param_table`].
    pub fn indices(config: &ModelConfig) -> Self {
        let mut counter = 0..;
        Self::new(config, |_| counter.next().expect("the counter has no end"))
    }
}

/// Every parameter of a model, in the order that [`Weights`](crate::Weights) and optimisers keep.
///
/// `config` must be [valid](ModelConfig::validate).
pub fn param_table(config: &ModelConfig) -> Vec<ParamSpec> {
    let mut table = Vec::new();
    ModelParams::new(config, |spec| table.push(spec));
    table
}

fn matrix(name: String, shape: [usize; 2], std: f64) -> ParamSpec {
    let part = part_of(&name);
    ParamSpec { name, shape: shape.into(), init: Init::Normal { std }, decay: true, part }
}

fn norm(name: String, width: usize) -> ParamSpec {
    let part = part_of(&name);
    ParamSpec { name, shape: vec![width], init: Init::Ones, decay: false, part }
}

/// The encoder's names have a prefix of their own.
fn part_of(name: &str) -> Part {
    if name.starts_with("encoder.") { Part::Encoder } else { Part::Decoder }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_holds_names_shapes_and_distributions() {
        let config = ModelConfig { n_kv_heads: 2, ..ModelConfig::ltm_small() };
        let table = param_table(&config);
        assert_eq!(table.len(), 2 + 3 * 14);
        let find = |name: &str| table.iter().find(|spec| spec.name == name).expect(name);
        assert_eq!(find("tok_embeddings.weight").shape, [50_258, 512]);
        assert_eq!(find("layers.0.attention.wk.weight").shape, [128, 512]);
        assert_eq!(find("layers.2.cross_attention.wq.weight").shape, [512, 512]);
        assert_eq!(find("layers.1.feed_forward.w1.weight").shape, [1376, 512]);
        assert_eq!(find("layers.1.feed_forward.w2.weight").shape, [512, 1376]);
        for name in ["attention.wo", "cross_attention.wo", "feed_forward.w3"] {
            let spec = find(&format!("layers.1.{name}.weight"));
            assert_eq!(spec.init, Init::Normal { std: 0.02 / 6f64.sqrt() });
        }
        for name in ["attention_norm", "cross_attention_norm", "ffn_norm"] {
            let spec = find(&format!("layers.2.{name}.weight"));
            assert_eq!((spec.init, spec.decay, spec.len()), (Init::Ones, false, 512));
        }
        assert!(table.iter().all(|spec| spec.decay == (spec.shape.len() == 2)));
    }

    #[test]
    fn indices_point_into_the_table() {
        let config = ModelConfig::ltm_small();
        let (table, indices) = (param_table(&config), ModelParams::indices(&config));
        assert_eq!(table[indices.norm].name, "norm.weight");
        let layer = &indices.layers[2];
        assert_eq!(table[layer.feed_forward.w3].name, "layers.2.feed_forward.w3.weight");
        let cross = layer.cross_attention.as_ref().unwrap();
        assert_eq!(table[cross.norm].name, "layers.2.cross_attention_norm.weight");
    }

    #[test]
    fn the_encoder_comes_last() {
        let config = ModelConfig { encoder_width: 32, ..ModelConfig::ltm_small() };
        let (table, indices) = (param_table(&config), ModelParams::indices(&config));
        let decoder = param_table(&ModelConfig::ltm_small());
        assert_eq!(table[..decoder.len()], decoder);
        let rest = &table[decoder.len()..];
        assert!(rest.iter().all(|s| s.name.starts_with("encoder.") && s.part == Part::Encoder));
        assert!(decoder.iter().all(|spec| spec.part == Part::Decoder));
        let encoder = indices.encoder.unwrap();
        let find = |at: usize| (table[at].name.as_str(), table[at].shape.as_slice());
        assert_eq!(
            find(encoder.tok_embeddings),
            ("encoder.tok_embeddings.weight", &[50_259, 512][..])
        );
        assert_eq!(find(encoder.features), ("encoder.features.weight", &[32, 3 * 512][..]));
        assert_eq!(find(encoder.mu), ("encoder.mu.weight", &[24 * 512, 32][..]));
        assert_eq!(find(encoder.means.shift), ("encoder.means.shift", &[24 * 512][..]));
        assert_eq!(table[encoder.log_var_bias].init, Init::Constant { value: -3.0 });
        assert_eq!(table[encoder.pooled.gain].init, Init::Constant { value: 1.0 });
    }

    #[test]
    fn the_prior_comes_after_the_encoder() {
        let encoder = ModelConfig { encoder_width: 32, ..ModelConfig::ltm_small() };
        let config = ModelConfig { prior_layers: 2, ..encoder };
        let (table, indices) = (param_table(&config), ModelParams::indices(&config));
        let before = param_table(&encoder);
        assert_eq!(table[..before.len()], before);
        let rest = &table[before.len()..];
        assert!(rest.iter().all(|s| s.name.starts_with("prior.") && s.part == Part::Prior));
        assert_eq!(rest.len(), 3 * 2 * 4);
        assert!(rest.iter().all(|spec| spec.decay == (spec.shape.len() == 2)));
        let last = indices.prior[2][1];
        let find = |at: usize| (table[at].name.as_str(), table[at].shape.as_slice());
        assert_eq!(find(last.hidden), ("prior.2.1.hidden.weight", &[512, 8 * 256][..]));
        assert_eq!(find(last.out), ("prior.2.1.out.weight", &[8 * 512, 512][..]));
        assert_eq!(table[last.out].init, Init::Constant { value: 0.0 });
        assert_eq!(config.param_count(), table.iter().map(ParamSpec::len).sum::<usize>());
    }

    #[test]
    fn the_map_comes_last_and_adds_nothing_at_first() {
        let before = ModelConfig { prior_layers: 1, ..ModelConfig::ltm_small() };
        let config = ModelConfig { map_layers: 2, ..before };
        let (table, indices) = (param_table(&config), ModelParams::indices(&config));
        let rest = &table[param_table(&before).len()..];
        assert!(rest.iter().all(|s| s.name.starts_with("map.") && s.part == Part::Decoder));
        assert_eq!(rest.len(), 2 * 9);
        let last = &indices.map[1];
        assert_eq!(table[last.attention.wq].name, "map.1.attention.wq.weight");
        for added in [last.attention.wo, last.feed_forward.w3] {
            assert_eq!(table[added].init, Init::Normal { std: 0.0 });
        }
    }

    #[test]
    fn the_baseline_has_no_cross_attention() {
        let config = ModelConfig { n_latents: 0, ..ModelConfig::ltm_small() };
        assert!(param_table(&config).iter().all(|spec| !spec.name.contains("cross")));
    }
}
