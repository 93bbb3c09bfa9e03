//! One pass of tokens through the layers, by direct kernel calls: of a whole prompt, or of one token
//! against the cache. Knows no order of calls.

use std::ops::Range;
use std::sync::Arc;

use ltm_autodiff::{Graph, Kind, Plan, Precision, Store, UpdateRate};
use ltm_kernels::ops::attention::{self, AttentionDims, Mask};
use ltm_kernels::ops::embedding::{self, EmbeddingDims};
use ltm_kernels::ops::matmul::{self, Layout, MatmulDims, Write};
use ltm_kernels::ops::rms_norm::{self, RmsNormDims};
use ltm_kernels::ops::rope::{self, RopeDims};
use ltm_kernels::ops::slice::{self, SliceDims};
use ltm_kernels::ops::swiglu;
use ltm_kernels::{Buffer, DType, Device};

use crate::blocks::cast_matrices;
use crate::model::declare_weights;
use crate::params::{AttentionParams, FeedForwardParams, ModelParams};
use crate::{DeviceWeights, ModelConfig, Result, latent_map};

/// What stays the same from token to token.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) config: ModelConfig,
    pub(super) device: Device,
    /// All sequences of the decoder; a pass may be of some.
    pub(super) batch: usize,
    pub(super) weights: DeviceWeights,
    pub(super) indices: Arc<ModelParams<usize>>,
}

/// Keys, already rotated, and values.
#[derive(Debug)]
pub(super) struct KeyValues {
    pub(super) k: Buffer,
    pub(super) v: Buffer,
}

impl KeyValues {
    pub(super) fn empty() -> Self {
        Self { k: Buffer::empty(), v: Buffer::empty() }
    }

    pub(super) fn try_clone(&self) -> Result<Self> {
        Ok(Self { k: self.k.try_clone()?, v: self.v.try_clone()? })
    }

    /// These numbers and `more` after them, of caches with one slot.
    pub(super) fn followed_by(&self, more: &Self) -> Result<Self> {
        let join = |own: &Buffer, more: &Buffer| -> Result<Buffer> {
            let mut all = zeros(&own.device(), own.len() + more.len())?;
            all.copy_range(0, own, 0, own.len())?;
            all.copy_range(own.len(), more, 0, more.len())?;
            Ok(all)
        };
        Ok(Self { k: join(&self.k, &more.k)?, v: join(&self.v, &more.v)? })
    }

    /// Of a cache `(slots,b,G·D)` with rows of `width` numbers, the sequences `rows` of its `b`.
    pub(super) fn part(&self, b: usize, width: usize, rows: &[Range<usize>]) -> Result<Self> {
        let part = |cache: &Buffer| -> Result<Buffer> {
            let (slots, mut to) = (cache.len() / (b * width), 0);
            let kept: usize = rows.iter().map(Range::len).sum();
            let mut part = zeros(&cache.device(), slots * kept * width)?;
            for slot in 0..slots {
                for rows in rows {
                    let len = rows.len() * width;
                    part.copy_range(to, cache, (slot * b + rows.start) * width, len)?;
                    to += len;
                }
            }
            Ok(part)
        };
        Ok(Self { k: part(&self.k)?, v: part(&self.v)? })
    }
}

impl Model {
    /// `1/sqrt(D)`.
    fn scale(&self) -> f64 {
        1.0 / (self.config.head_dim() as f64).sqrt()
    }

    /// How many tokens a token can see.
    pub(super) fn window(&self) -> usize {
        self.config.window.min(self.config.max_seq_len)
    }

    /// `out (rows,N) = x (rows,K) · weight (N,K)ᵀ`.
    fn project(
        &self,
        out: &mut Buffer,
        x: &Buffer,
        weight: usize,
        write: Write,
        rows: usize,
    ) -> Result<()> {
        let dims = MatmulDims {
            b: Layout::Transposed,
            ..MatmulDims::new(rows, out.len() / rows, x.len() / rows)
        };
        Ok(matmul::fwd(&self.device, out, x, &self.weights.params()[weight], write, dims)?)
    }

    fn rms_norm(&self, out: &mut Buffer, x: &Buffer, weight: usize) -> Result<()> {
        let config = &self.config;
        let dims = RmsNormDims { rows: x.len() / config.dim, c: config.dim };
        Ok(rms_norm::fwd(
            &self.device,
            out,
            x,
            &self.weights.params()[weight],
            config.norm_eps,
            dims,
        )?)
    }

    fn rotate(&self, out: &mut Buffer, x: &Buffer, rotations: &Buffer, heads: usize) -> Result<()> {
        let d = self.config.head_dim();
        // One rotation per token of a prompt, which all sequences share, or per sequence of a step.
        let t = rotations.len() / d;
        let dims = RopeDims { b: x.len() / (t * heads * d), t, h: heads, d };
        Ok(rope::fwd(&self.device, out, x, rotations, dims)?)
    }

    /// Writes the table `(T,D/2,2)` of `positions (T)`.
    fn rotations(&self, table: &mut Buffer, positions: &Buffer) -> Result<()> {
        let ModelConfig { rope_theta, .. } = self.config;
        Ok(rope::table(&self.device, table, positions, rope_theta, self.config.head_dim())?)
    }

    /// What the latents `z (b,L·Z,C)` are mapped to, in single precision.
    fn mapped(&self, z: &[f32]) -> Result<Vec<f32>> {
        let Self { config, device, weights, .. } = self;
        let mut g = Graph::new();
        let params = declare_weights(&mut g, config);
        let shape = [z.len() / (config.n_latents * config.dim), config.n_latents, config.dim];
        let noise = g.input("z", &shape, Kind::Float, UpdateRate::Step);
        let cast = cast_matrices(&mut g, &params)?;
        let mapped = latent_map::trace(&mut g, config, &cast, noise)?;
        let mut store = Store::with_parameters(&g, device, Precision::F32, &params)?;
        let mut plan = Plan::new(&g, device, Precision::F32, &[mapped])?;
        store.write_f32(noise, z)?;
        plan.run(store.with(weights.parameters()))?;
        Ok(plan.output(mapped)?.to_f32()?)
    }

    /// Cross-attention's keys and values of the latents `z (b,L·Z,C)`, layer by layer.
    pub(super) fn latent_key_values(&self, z: &[f32]) -> Result<Vec<KeyValues>> {
        let Self { config, device, .. } = self;
        let per_layer = config.latents_per_layer();
        if per_layer == 0 {
            return Ok(Vec::new());
        }
        let mapped;
        let z = match config.map_layers {
            0 => z,
            _ => {
                mapped = self.mapped(z)?;
                &mapped
            }
        };
        let b = z.len() / (config.n_latents * config.dim);
        let rows = b * per_layer;
        let mut all = zeros(device, z.len())?;
        all.write_f32(z)?;
        let positions: Vec<i32> = (0..per_layer).map(|j| id(j * config.latent_stride())).collect();
        let mut rotations = zeros(device, per_layer * config.head_dim())?;
        self.rotations(&mut rotations, &Buffer::from_vec(positions).to_device(device)?)?;

        let mut of_layer = zeros(device, rows * config.dim)?;
        let mut unrotated = zeros(device, rows * config.kv_dim())?;
        let mut latents = Vec::with_capacity(config.n_layers);
        for (layer, params) in self.indices.layers.iter().enumerate() {
            let params = params.cross_attention.as_ref().expect("a model with latents has it");
            let dims = SliceDims {
                b,
                rows: config.n_latents,
                start: layer * per_layer,
                len: per_layer,
                c: config.dim,
            };
            slice::fwd(device, &mut of_layer, &all, dims)?;
            let mut k = zeros(device, unrotated.len())?;
            let mut v = zeros(device, unrotated.len())?;
            self.project(&mut unrotated, &of_layer, params.wk, Write::Overwrite, rows)?;
            self.rotate(&mut k, &unrotated, &rotations, config.n_kv_heads)?;
            self.project(&mut v, &of_layer, params.wv, Write::Overwrite, rows)?;
            latents.push(KeyValues { k, v });
        }
        Ok(latents)
    }
}

/// Activations of `T` tokens of each sequence.
#[derive(Debug)]
pub(super) struct Workspace {
    b: usize,
    pub(super) t: usize,
    /// The tokens of a prompt attend to each other, a single token to the cache: `None`.
    prompt: Option<AttentionDims>,
    /// `(B,T)`.
    tokens: Buffer,
    /// `(T)` of a prompt, `(B)` of a step.
    positions: Buffer,
    /// `(T,D/2,2)` of a prompt, `(B,D/2,2)` of a step.
    rotations: Buffer,
    /// The residual sum, `(B,T,C)`.
    x: Buffer,
    /// `(B,T,C)`.
    normed: Buffer,
    /// `(B,T,H,D)`.
    q: Buffer,
    q_rotated: Buffer,
    attended: Buffer,
    /// `(B,T,G,D)`.
    k: Buffer,
    k_rotated: Buffer,
    v: Buffer,
    /// `(B,T,H)`.
    lse: Buffer,
    /// `(B,T,F)`.
    gate: Buffer,
    up: Buffer,
    hidden: Buffer,
    /// Of each sequence's last token, `(B,C)`.
    last: Buffer,
    last_normed: Buffer,
    /// `(B,V)`.
    logits: Buffer,
}

/// A group's share of a step in which not all sequences are at one position.
pub(super) struct Part {
    /// Which of the step's sequences.
    rows: Range<usize>,
    /// `(b,H,D)`.
    q: Buffer,
    attended: Buffer,
    /// `(b,G,D)`.
    k: Buffer,
    v: Buffer,
    /// `(b,H)`.
    lse: Buffer,
}

impl Part {
    pub(super) fn new(model: &Model, rows: Range<usize>) -> Result<Self> {
        let Model { config, device, .. } = model;
        let of_width = |width: usize| zeros(device, rows.len() * width);
        Ok(Self {
            q: of_width(config.dim)?,
            attended: of_width(config.dim)?,
            k: of_width(config.kv_dim())?,
            v: of_width(config.kv_dim())?,
            lse: of_width(config.n_heads)?,
            rows,
        })
    }
}

impl Workspace {
    pub(super) fn new(model: &Model, b: usize, t: usize) -> Result<Self> {
        Self::with_positions(model, b, t, b)
    }

    fn with_positions(model: &Model, b: usize, t: usize, positions: usize) -> Result<Self> {
        let Model { config, device, .. } = model;
        let rows = b * t;
        let of_width = |width: usize| zeros(device, rows * width);
        Ok(Self {
            b,
            t,
            prompt: None,
            tokens: Buffer::zeros(device, DType::I32, rows)?,
            positions: Buffer::zeros(device, DType::I32, positions)?,
            rotations: zeros(device, positions * config.head_dim())?,
            x: of_width(config.dim)?,
            normed: of_width(config.dim)?,
            q: of_width(config.dim)?,
            q_rotated: of_width(config.dim)?,
            attended: of_width(config.dim)?,
            k: of_width(config.kv_dim())?,
            k_rotated: of_width(config.kv_dim())?,
            v: of_width(config.kv_dim())?,
            lse: of_width(config.n_heads)?,
            gate: of_width(config.ffn_hidden)?,
            up: of_width(config.ffn_hidden)?,
            hidden: of_width(config.ffn_hidden)?,
            last: zeros(device, b * config.dim)?,
            last_normed: zeros(device, b * config.dim)?,
            logits: zeros(device, b * config.vocab_size)?,
        })
    }

    pub(super) fn for_prompt(model: &Model, b: usize, t: usize) -> Result<Self> {
        let config = &model.config;
        let dims = AttentionDims {
            b,
            t,
            t_k: t,
            h: config.n_heads,
            g: config.n_kv_heads,
            d: config.head_dim(),
            mask: Mask::Window(model.window().min(t)),
        };
        Ok(Self { prompt: Some(dims), ..Self::with_positions(model, b, t, t)? })
    }

    pub(super) fn is_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Embeds tokens that are in the vocabulary, at these positions.
    pub(super) fn embed(
        &mut self,
        model: &Model,
        tokens: &[i32],
        positions: &[usize],
    ) -> Result<()> {
        let config = &model.config;
        self.tokens.write_i32(tokens)?;
        let dims = EmbeddingDims { n: self.rows(), v: config.vocab_size, c: config.dim };
        let table = &model.weights.params()[model.indices.tok_embeddings];
        embedding::fwd(&model.device, &mut self.x, table, &self.tokens, dims)?;
        let positions: Vec<i32> = positions.iter().copied().map(id).collect();
        self.positions.write_i32(&positions)?;
        model.rotations(&mut self.rotations, &self.positions)
    }

    /// `x += wo · attention(norm(x))` over the window, whose keys and values go to the caches: one for each group of
    /// sequences, with its position. `parts` are of the same groups, and empty for a single one.
    pub(super) fn self_attention(
        &mut self,
        model: &Model,
        params: &AttentionParams<usize>,
        caches: &mut [(usize, &mut KeyValues)],
        parts: &mut [Part],
    ) -> Result<()> {
        let Model { config, device, .. } = model;
        let (rows, overwrite) = (self.rows(), Write::Overwrite);
        model.rms_norm(&mut self.normed, &self.x, params.norm)?;
        model.project(&mut self.q, &self.normed, params.wq, overwrite, rows)?;
        model.project(&mut self.k, &self.normed, params.wk, overwrite, rows)?;
        model.project(&mut self.v, &self.normed, params.wv, overwrite, rows)?;
        model.rotate(&mut self.q_rotated, &self.q, &self.rotations, config.n_heads)?;
        model.rotate(&mut self.k_rotated, &self.k, &self.rotations, config.n_kv_heads)?;

        let (q, k, v) = (&self.q_rotated, &self.k_rotated, &self.v);
        let (out, lse) = (&mut self.attended, &mut self.lse);
        match (self.prompt, caches) {
            (Some(dims), [(_, cache)]) => {
                attention::fwd(device, out, lse, q, k, v, model.scale(), dims)?;
                cache.k = last_slots(k, self.b, self.t, model.window())?;
                cache.v = last_slots(v, self.b, self.t, model.window())?;
            }
            (_, [(position, cache)]) => {
                attend_to_cache(model, out, lse, [q, k, v], cache, *position)?;
            }
            (_, caches) => {
                for (part, (position, cache)) in parts.iter_mut().zip(caches) {
                    let Part { rows, q: some_q, attended, k: some_k, v: some_v, lse } = part;
                    for (to, from) in [(&mut *some_q, q), (some_k, k), (some_v, v)] {
                        to.copy_range(0, from, rows.start * (to.len() / rows.len()), to.len())?;
                    }
                    let qkv = [&*some_q, some_k, some_v];
                    attend_to_cache(model, attended, lse, qkv, cache, *position)?;
                    out.copy_range(rows.start * config.dim, attended, 0, attended.len())?;
                }
            }
        }
        model.project(&mut self.x, &self.attended, params.wo, Write::Accumulate, rows)
    }

    /// `x += wo · attention(norm(x))` over the layer's latents.
    pub(super) fn cross_attention(
        &mut self,
        model: &Model,
        params: &AttentionParams<usize>,
        latents: &KeyValues,
    ) -> Result<()> {
        let config = &model.config;
        let rows = self.rows();
        model.rms_norm(&mut self.normed, &self.x, params.norm)?;
        model.project(&mut self.q, &self.normed, params.wq, Write::Overwrite, rows)?;
        model.rotate(&mut self.q_rotated, &self.q, &self.rotations, config.n_heads)?;
        let dims = AttentionDims {
            b: self.b,
            t: self.t,
            t_k: config.latents_per_layer(),
            h: config.n_heads,
            g: config.n_kv_heads,
            d: config.head_dim(),
            mask: Mask::None,
        };
        let (out, lse, scale) = (&mut self.attended, &mut self.lse, model.scale());
        let (q, KeyValues { k, v }) = (&self.q_rotated, latents);
        attention::fwd(&model.device, out, lse, q, k, v, scale, dims)?;
        model.project(&mut self.x, &self.attended, params.wo, Write::Accumulate, rows)
    }

    /// `x += w2 · (silu(w1 · norm(x)) * (w3 · norm(x)))`.
    pub(super) fn feed_forward(
        &mut self,
        model: &Model,
        params: &FeedForwardParams<usize>,
    ) -> Result<()> {
        let rows = self.rows();
        model.rms_norm(&mut self.normed, &self.x, params.norm)?;
        model.project(&mut self.gate, &self.normed, params.w1, Write::Overwrite, rows)?;
        model.project(&mut self.up, &self.normed, params.w3, Write::Overwrite, rows)?;
        swiglu::fwd(&model.device, &mut self.hidden, &self.gate, &self.up)?;
        model.project(&mut self.x, &self.hidden, params.w2, Write::Accumulate, rows)
    }

    /// The logits of the last token of each sequence.
    pub(super) fn output(&mut self, model: &Model) -> Result<Vec<f32>> {
        let Model { config, device, indices, .. } = model;
        let dims = SliceDims { b: self.b, rows: self.t, start: self.t - 1, len: 1, c: config.dim };
        slice::fwd(device, &mut self.last, &self.x, dims)?;
        model.rms_norm(&mut self.last_normed, &self.last, indices.norm)?;
        let (x, weight) = (&self.last_normed, indices.tok_embeddings);
        model.project(&mut self.logits, x, weight, Write::Overwrite, self.b)?;
        Ok(self.logits.to_f32()?)
    }
}

/// Puts keys and values of one token of each sequence into the cache, and lets its queries attend to that.
fn attend_to_cache(
    model: &Model,
    out: &mut Buffer,
    lse: &mut Buffer,
    [q, k, v]: [&Buffer; 3],
    cache: &mut KeyValues,
    position: usize,
) -> Result<()> {
    let (config, b) = (&model.config, k.len() / model.config.kv_dim());
    write_slot(&mut cache.k, k, position, model.window())?;
    write_slot(&mut cache.v, v, position, model.window())?;
    let dims = AttentionDims {
        b: 1,
        t: 1,
        t_k: cache.k.len() / k.len(),
        h: b * config.n_heads,
        g: b * config.n_kv_heads,
        d: config.head_dim(),
        mask: Mask::None,
    };
    // Rotations are in the keys, so the order of the slots does not matter.
    let (k, v, scale) = (&cache.k, &cache.v, model.scale());
    Ok(attention::fwd(&model.device, out, lse, q, k, v, scale, dims)?)
}

/// Puts the row `(B,G,D)` of the token at `position` into its slot of a cache, which grows by that
/// slot until it holds a window.
fn write_slot(cache: &mut Buffer, row: &Buffer, position: usize, window: usize) -> Result<()> {
    let (len, width) = (cache.len(), row.len());
    if len < window * width {
        let mut grown = zeros(&row.device(), len + width)?;
        if len > 0 {
            grown.copy_range(0, cache, 0, len)?;
        }
        grown.copy_range(len, row, 0, width)?;
        *cache = grown;
    } else {
        cache.copy_range(position % window * width, row, 0, width)?;
    }
    Ok(())
}

/// The cache `(slots,B,G,D)` after a prompt `(B,T,G,D)`.
fn last_slots(prompt: &Buffer, batch: usize, t: usize, window: usize) -> Result<Buffer> {
    let slots = window.min(t);
    let width = prompt.len() / (batch * t);
    let mut cache = zeros(&prompt.device(), slots * batch * width)?;
    for position in t - slots..t {
        for b in 0..batch {
            let to = (position % window * batch + b) * width;
            cache.copy_range(to, prompt, (b * t + position) * width, width)?;
        }
    }
    Ok(cache)
}

pub(super) fn zeros(device: &Device, len: usize) -> Result<Buffer> {
    Ok(Buffer::zeros(device, DType::F32, len)?)
}

/// A position as kernels take it.
fn id(position: usize) -> i32 {
    i32::try_from(position).expect("validated configurations keep positions in 32 bits")
}
