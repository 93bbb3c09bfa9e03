//! Incremental decoding: one token of each sequence at a time, from cached keys and values.
//! Knows no graph and no sampling.

mod pass;

use std::ops::Range;
use std::sync::Arc;

use ltm_autodiff::Precision;
use ltm_kernels::{DType, Device};

use crate::inputs::{argument, check_latents, check_tokens};
use crate::params::ModelParams;
use crate::{Attention, DeviceWeights, Error, ModelConfig, Result, Weights, param_table};

use pass::{KeyValues, Model, Part, Workspace};

/// Decodes `B` sequences together, each with its own latents and its own position.
///
/// [`prefill`](Self::prefill) reads prompts of one length and [`prefill_rows`](Self::prefill_rows) those of some
/// sequences; [`step`](Self::step) adds one token to each. The decoder caches the keys and values of past tokens within
/// the window `W`, so a step costs the same at every position; once the window is full and all sequences are at one
/// position, it allocates no buffer. Decoders of one [`DeviceWeights`] share the weights.
#[derive(Debug)]
pub struct Decoder {
    model: Model,
    state: State,
    work: Workspace,
}

/// The tokens decoded so far.
#[derive(Debug)]
struct State {
    /// All sequences, in order.
    groups: Vec<Group>,
    /// Per layer: keys (rotated) and values of the latents, `(B,Z,G,D)`. `None` until they are set, empty
    /// for a model without latents.
    latents: Option<Vec<KeyValues>>,
    /// `(B,V)`, on the host.
    logits: Vec<f32>,
}

/// Consecutive sequences at one position.
#[derive(Debug)]
struct Group {
    rows: Range<usize>,
    position: usize,
    /// Per layer: keys (rotated) and values of the last tokens, `(slots,b,G,D)` for the group's `b` sequences. Token
    /// `t` is in slot `t % W`. With the slot outermost, the slots of a window that is not full yet are contiguous, and
    /// all sequences are one set of `b·H` heads to the attention kernel.
    caches: Vec<KeyValues>,
}

impl Group {
    fn empty(rows: Range<usize>, n_layers: usize) -> Self {
        Self { rows, position: 0, caches: (0..n_layers).map(|_| KeyValues::empty()).collect() }
    }

    /// A copy of the group's sequences within `rows`; `None` when there are none.
    fn part(&self, model: &Model, rows: &Range<usize>) -> Result<Option<Self>> {
        let kept = self.rows.start.max(rows.start)..self.rows.end.min(rows.end);
        if kept.is_empty() {
            return Ok(None);
        }
        let within = kept.start - self.rows.start..kept.end - self.rows.start;
        self.select(model, &[within], kept).map(Some)
    }

    /// A copy of the sequences `within` the group, as sequences `rows`.
    fn select(&self, model: &Model, within: &[Range<usize>], rows: Range<usize>) -> Result<Self> {
        let (b, width) = (self.rows.len(), model.config.kv_dim());
        let caches = self.caches.iter().map(|cache| cache.part(b, width, within));
        Ok(Self { rows, position: self.position, caches: caches.collect::<Result<_>>()? })
    }
}

impl Decoder {
    /// A decoder for `batch` sequences, with a copy of `weights` on `device`.
    ///
    /// # Errors
    /// Those of [`Weights::check`] and [`with_weights`](Self::with_weights).
    pub fn new(
        config: ModelConfig,
        weights: &Weights,
        device: Device,
        batch: usize,
    ) -> Result<Self> {
        let weights = DeviceWeights::new(&config, weights, &device, Precision::F32)?;
        Self::with_weights(config, weights, batch)
    }

    /// A decoder for `batch` sequences, on the device of `weights`, which it shares.
    ///
    /// # Errors
    /// Those of [`DeviceWeights::check`], [`Error::Config`] for an invalid model or one whose attention is not
    /// causal, and [`Error::Argument`] for weights that are not `f32`, or when `batch` is 0 or too large to be
    /// addressed.
    pub fn with_weights(config: ModelConfig, weights: DeviceWeights, batch: usize) -> Result<Self> {
        config.validate()?;
        weights.check(&param_table(&config))?;
        if config.attention != Attention::Causal {
            return Err(Error::Config {
                field: "attention",
                expected: "`causal` to decode token by token".into(),
                found: "bidirectional".into(),
            });
        }
        if weights.dtype() != DType::F32 {
            return Err(argument("weights", "f32 numbers", weights.dtype()));
        }
        // No buffer of this file is longer than the batch times this.
        let per_sequence = config
            .max_seq_len
            .max(config.n_latents)
            .checked_mul(config.vocab_size.max(config.ffn_hidden).max(config.dim));
        let fits = per_sequence
            .and_then(|count| count.checked_mul(batch))
            .is_some_and(|count| count <= isize::MAX as usize / 4);
        if batch == 0 || !fits {
            let expected = "at least 1, and few enough for their activations to be addressed";
            return Err(argument("batch", expected, batch));
        }
        let (device, indices) = (weights.device(), Arc::new(ModelParams::indices(&config)));
        let model = Model { config, device, batch, weights, indices };
        let state = State {
            groups: vec![Group::empty(0..batch, config.n_layers)],
            latents: (config.n_latents == 0).then(Vec::new),
            logits: Vec::new(),
        };
        let work = Workspace::new(&model, batch, 1)?;
        Ok(Self { model, state, work })
    }

    /// A decoder that continues from the same state, with its own caches and the same weights.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device is out of memory.
    pub fn try_clone(&self) -> Result<Self> {
        let State { groups, latents, logits } = &self.state;
        let whole = 0..self.model.batch;
        let groups = groups.iter().filter_map(|group| group.part(&self.model, &whole).transpose());
        let copy = |all: &[KeyValues]| all.iter().map(KeyValues::try_clone).collect::<Result<_>>();
        let state = State {
            groups: groups.collect::<Result<_>>()?,
            latents: latents.as_deref().map(copy).transpose()?,
            logits: logits.clone(),
        };
        let work = Workspace::new(&self.model, self.model.batch, 1)?;
        Ok(Self { model: self.model.clone(), state, work })
    }

    /// Keeps the sequences for which `kept` is true, in their order, and drops the others.
    ///
    /// # Errors
    /// [`Error::Argument`] when there is not one entry per sequence or none is kept, [`Error::Kernel`] when the
    /// device is out of memory; the decoder is then unchanged.
    pub fn retain(&mut self, kept: &[bool]) -> Result<()> {
        let batch = self.model.batch;
        if kept.len() != batch || !kept.contains(&true) {
            let expected = format!("{batch} entries, one of them true");
            return Err(argument("kept", expected, format!("{kept:?}")));
        }
        let mut groups: Vec<Group> = Vec::new();
        for group in &self.state.groups {
            let within = runs(&kept[group.rows.clone()]);
            let start = groups.last().map_or(0, |group| group.rows.end);
            let end = start + within.iter().map(Range::len).sum::<usize>();
            if end > start {
                groups.push(group.select(&self.model, &within, start..end)?);
            }
        }
        let rows = runs(kept);
        let latents = self.state.latents.as_ref().map(|all| {
            let part = |latents: &KeyValues| latents.part(batch, latents.k.len() / batch, &rows);
            all.iter().map(part).collect::<Result<Vec<_>>>()
        });
        let latents = latents.transpose()?;
        let n = kept.iter().filter(|kept| **kept).count();
        let work = Workspace::new(&self.model, n, 1)?;
        let width = self.state.logits.len() / batch;
        let logits =
            rows.iter().flat_map(|rows| &self.state.logits[rows.start * width..rows.end * width]);
        let logits = logits.copied().collect();
        self.state = State { groups, latents, logits };
        (self.model.batch, self.work) = (n, work);
        Ok(())
    }

    /// Takes over the sequences of `other`, after its own: each goes on from where it is. Both must have logits, or
    /// neither, and `other` have the same weights.
    ///
    /// # Errors
    /// [`Error::Argument`] for a decoder of other weights, or of which only one has read anything or has latents;
    /// [`Error::Kernel`] when the device is out of memory; the decoder is then unchanged.
    pub fn join(&mut self, other: Self) -> Result<()> {
        let (own, b) = (self.model.batch, other.model.batch);
        let same = self.model.config == other.model.config
            && self.model.weights.shares_with(&other.model.weights);
        if !same {
            return Err(argument("other", "a decoder of the same weights", "other weights"));
        }
        if self.state.logits.is_empty() != other.state.logits.is_empty() {
            let expected = "a decoder that has read tokens, as this one, or none";
            return Err(argument("other", expected, format!("position {}", other.position())));
        }
        let latents = match (&self.state.latents, &other.state.latents) {
            (Some(all), Some(more)) => {
                let join = |(own, more): (&KeyValues, &KeyValues)| own.followed_by(more);
                Some(all.iter().zip(more).map(join).collect::<Result<Vec<_>>>()?)
            }
            (None, None) => None,
            _ => return Err(argument("other", "latents, as this one, or none", "not so")),
        };
        let work = Workspace::new(&self.model, own + b, 1)?;
        let shifted = |group: Group| {
            let rows = group.rows.start + own..group.rows.end + own;
            Group { rows, ..group }
        };
        self.state.groups.extend(other.state.groups.into_iter().map(shifted));
        self.state.logits.extend(other.state.logits);
        self.state.latents = latents;
        (self.model.batch, self.work) = (own + b, work);
        Ok(())
    }

    /// Sets the latents `z (B,L·Z,C)` for all tokens from here on. The cache of earlier tokens is not
    /// recomputed; a [`prefill`](Self::prefill) starts over.
    ///
    /// # Errors
    /// [`Error::Argument`] when `z` has another length or a number that is not finite; the latents are
    /// then unchanged.
    pub fn set_latents(&mut self, z: &[f32]) -> Result<()> {
        check_latents(&self.model.config, self.model.batch, z)?;
        self.state.latents = Some(self.model.latent_key_values(z)?);
        Ok(())
    }

    /// As [`set_latents`](Self::set_latents) for the sequences `rows` alone, `z (rows,L·Z,C)`; the others keep theirs.
    ///
    /// # Errors
    /// Those of [`set_latents`](Self::set_latents), and [`Error::Argument`] for rows that do not exist, or when none
    /// have been set for all.
    pub fn set_latents_rows(&mut self, rows: Range<usize>, z: &[f32]) -> Result<()> {
        self.check_rows(&rows)?;
        check_latents(&self.model.config, rows.len(), z)?;
        let Some(latents) = &mut self.state.latents else {
            return Err(argument("z", "set for all sequences first", "none"));
        };
        let batch = self.model.batch;
        for (all, some) in latents.iter_mut().zip(self.model.latent_key_values(z)?) {
            for (all, some) in [(&mut all.k, some.k), (&mut all.v, some.v)] {
                let width = all.len() / batch;
                all.copy_range(rows.start * width, &some, 0, some.len())?;
            }
        }
        Ok(())
    }

    fn check_rows(&self, rows: &Range<usize>) -> Result<()> {
        let batch = self.model.batch;
        if rows.is_empty() || rows.end > batch {
            return Err(argument("rows", format!("some of 0..{batch}"), format!("{rows:?}")));
        }
        Ok(())
    }

    /// Starts over with the prompts `tokens (B,T)`, in one pass, and returns the logits `(B,V)` of the next
    /// token of each.
    ///
    /// # Errors
    /// [`Error::Argument`] when `tokens` is not a positive number of tokens for each sequence, or
    /// when the model has latents and none are set; [`Error::ContextFull`]; [`Error::Kernel`] for
    /// a token outside the vocabulary. The decoder is then unchanged.
    pub fn prefill(&mut self, tokens: &[i32]) -> Result<&[f32]> {
        self.prefill_rows(0..self.model.batch, tokens)
    }

    /// As [`prefill`](Self::prefill) for the sequences `rows` alone, `tokens (rows,T)`; the others stay where they
    /// are. Returns the logits `(B,V)` of all; those of sequences that have read nothing are 0.
    ///
    /// # Errors
    /// Those of [`prefill`](Self::prefill), and [`Error::Argument`] for rows that do not exist.
    pub fn prefill_rows(&mut self, rows: Range<usize>, tokens: &[i32]) -> Result<&[f32]> {
        self.check_rows(&rows)?;
        let config = self.model.config;
        let (b, t) = (rows.len(), tokens.len() / rows.len());
        if t == 0 || !tokens.len().is_multiple_of(b) {
            let expected = format!("a positive multiple of {b} tokens");
            return Err(argument("tokens", expected, tokens.len()));
        }
        if t > config.max_seq_len {
            let max_seq_len = config.max_seq_len;
            return Err(Error::ContextFull { position: 0, added: t, max_seq_len });
        }
        check_tokens(tokens, config.vocab_size)?;
        let mut work = Workspace::for_prompt(&self.model, b, t)?;
        let mut new = vec![Group::empty(rows.clone(), config.n_layers)];
        let logits = self.state.read(&self.model, &mut work, &rows, &mut new, tokens)?;
        self.state.split(&self.model, &rows)?;
        let (before, _, after) = self.state.take(&rows);
        self.state.groups = before.into_iter().chain(new).chain(after).collect();
        Ok(self.state.keep(&self.model, &rows, logits))
    }

    /// Adds one token to each sequence, `tokens (B)`, and returns the logits `(B,V)` of the next.
    /// Decoding may start with a step, without a [`prefill`](Self::prefill).
    ///
    /// # Errors
    /// Those of [`prefill`](Self::prefill); the decoder is then unchanged.
    pub fn step(&mut self, tokens: &[i32]) -> Result<&[f32]> {
        self.step_rows(0..self.model.batch, tokens)
    }

    /// As [`step`](Self::step) for the sequences `rows` alone, `tokens (rows)`; the others stay where they are.
    /// Returns the logits `(B,V)` of all.
    ///
    /// # Errors
    /// Those of [`step`](Self::step), and [`Error::Argument`] for rows that do not exist.
    pub fn step_rows(&mut self, rows: Range<usize>, tokens: &[i32]) -> Result<&[f32]> {
        self.check_rows(&rows)?;
        let config = self.model.config;
        if tokens.len() != rows.len() {
            return Err(argument("tokens", format!("{} tokens", rows.len()), tokens.len()));
        }
        let inside = |group: &&Group| group.rows.end > rows.start && group.rows.start < rows.end;
        let furthest = self.state.groups.iter().filter(inside).map(|group| group.position).max();
        if let Some(position) = furthest.filter(|position| *position == config.max_seq_len) {
            let max_seq_len = config.max_seq_len;
            return Err(Error::ContextFull { position, added: 1, max_seq_len });
        }
        check_tokens(tokens, config.vocab_size)?;
        if self.state.latents.is_none() {
            return Err(no_latents());
        }
        self.state.split(&self.model, &rows)?;
        let mut some;
        let work = match rows.len() == self.model.batch {
            true => &mut self.work,
            false => {
                some = Workspace::new(&self.model, rows.len(), 1)?;
                &mut some
            }
        };
        let (before, mut stepping, after) = self.state.take(&rows);
        let logits = self.state.read(&self.model, work, &rows, &mut stepping, tokens);
        self.state.groups = before.into_iter().chain(stepping).chain(after).collect();
        Ok(self.state.keep(&self.model, &rows, logits?))
    }

    /// The last logits `(B,V)`; `None` before the first token.
    pub fn logits(&self) -> Option<&[f32]> {
        (self.position() > 0).then_some(&self.state.logits[..])
    }

    /// Number of tokens read of the sequence that has read most.
    pub fn position(&self) -> usize {
        self.positions().into_iter().max().unwrap_or(0)
    }

    /// Number of tokens read of each sequence.
    pub fn positions(&self) -> Vec<usize> {
        let of = |group: &Group| std::iter::repeat_n(group.position, group.rows.len());
        self.state.groups.iter().flat_map(of).collect()
    }
}

impl State {
    /// Splits groups so that each is of `rows` or of none of them.
    fn split(&mut self, model: &Model, rows: &Range<usize>) -> Result<()> {
        for at in [rows.start, rows.end] {
            let across = |group: &Group| group.rows.start < at && at < group.rows.end;
            if let Some(i) = self.groups.iter().position(across) {
                let halves = [0..at, at..model.batch];
                let halves = halves.iter().map(|half| self.groups[i].part(model, half));
                let halves = halves.collect::<Result<Vec<_>>>()?;
                self.groups.splice(i..i + 1, halves.into_iter().flatten());
            }
        }
        Ok(())
    }

    /// Takes all groups out: those before, of and after `rows`, after a [split](Self::split).
    fn take(&mut self, rows: &Range<usize>) -> (Vec<Group>, Vec<Group>, Vec<Group>) {
        let (before, others): (Vec<_>, Vec<_>) =
            self.groups.drain(..).partition(|group| group.rows.end <= rows.start);
        let (of, after) = others.into_iter().partition(|group| group.rows.end <= rows.end);
        (before, of, after)
    }

    /// Reads the tokens of `work`, those of the sequences `rows`, which are the sequences of `groups`; returns the
    /// logits `(rows,V)`.
    fn read(
        &self,
        model: &Model,
        work: &mut Workspace,
        rows: &Range<usize>,
        groups: &mut [Group],
        tokens: &[i32],
    ) -> Result<Vec<f32>> {
        let Some(all) = &self.latents else { return Err(no_latents()) };
        let mut some = Vec::new();
        let latents = if rows.len() == model.batch {
            all
        } else {
            for latents in all {
                // One slot of a row for each sequence.
                let width = latents.k.len() / model.batch;
                some.push(latents.part(model.batch, width, std::slice::from_ref(rows))?);
            }
            &some
        };
        let t = work.t;
        let positions = |group: &Group| std::iter::repeat_n(group.position, group.rows.len());
        let positions: Vec<usize> = match work.is_prompt() {
            true => (0..t).collect(),
            false => groups.iter().flat_map(positions).collect(),
        };
        let mut parts = match groups {
            [_] => Vec::new(),
            _ => groups
                .iter()
                .map(|group| {
                    let within = group.rows.start - rows.start..group.rows.end - rows.start;
                    Part::new(model, within)
                })
                .collect::<Result<_>>()?,
        };
        let read = || -> Result<Vec<f32>> {
            work.embed(model, tokens, &positions)?;
            for (layer, params) in model.indices.layers.iter().enumerate() {
                let mut caches: Vec<_> = groups
                    .iter_mut()
                    .map(|group| (group.position, &mut group.caches[layer]))
                    .collect();
                work.self_attention(model, &params.attention, &mut caches, &mut parts)?;
                if let Some(params) = &params.cross_attention {
                    work.cross_attention(model, params, &latents[layer])?;
                }
                work.feed_forward(model, &params.feed_forward)?;
            }
            for group in groups {
                group.position += t;
            }
            work.output(model)
        };
        model.device.run(read)
    }

    /// Takes over the logits of some sequences; returns those of all.
    fn keep(&mut self, model: &Model, rows: &Range<usize>, logits: Vec<f32>) -> &[f32] {
        let width = model.config.vocab_size;
        if rows.len() == model.batch {
            self.logits = logits;
        } else {
            self.logits.resize(model.batch * width, 0.0);
            self.logits[rows.start * width..rows.end * width].copy_from_slice(&logits);
        }
        &self.logits
    }
}

/// The ranges of consecutive true entries.
fn runs(kept: &[bool]) -> Vec<Range<usize>> {
    let mut start = 0;
    let runs = kept.chunk_by(|a, b| a == b).map(|run| {
        start += run.len();
        (run[0], start - run.len()..start)
    });
    runs.filter_map(|(kept, rows)| kept.then_some(rows)).collect()
}

fn no_latents() -> Error {
    argument("z", "set before the first token", "none")
}

#[cfg(test)]
mod tests {
    use super::pass::zeros;
    use super::*;
    use ltm_kernels::ops::philox::{self, PhiloxKey};
    use ltm_testkit::{Tol, assert_close};

    const CONFIG: ModelConfig = ModelConfig {
        dim: 24,
        n_layers: 3,
        n_heads: 6,
        n_kv_heads: 2,
        vocab_size: 37,
        max_seq_len: 12,
        window: 5,
        n_latents: 6,
        ffn_hidden: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        attention: crate::Attention::Causal,
        encoder_width: 0,
        init_std: 0.02,
        prior_layers: 0,
        map_layers: 0,
    };
    const BATCH: usize = 2;

    /// Large enough weights for every path to matter in the logits.
    fn weights(config: &ModelConfig) -> Weights {
        let mut weights = Weights::init(config, 5).unwrap();
        weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 10.0 });
        weights
    }

    fn latents(config: &ModelConfig) -> Vec<f32> {
        let len = BATCH * config.n_latents * config.dim;
        let mut z = zeros(&Device::Cpu, len).unwrap();
        if len > 0 {
            let key = PhiloxKey { seed: 9, stream: 0, step: 0 };
            philox::normal(&Device::Cpu, &mut z, key, 0.0, 1.0).unwrap();
        }
        z.to_f32().expect("on the CPU")
    }

    fn decoder(config: ModelConfig) -> Decoder {
        let mut decoder = Decoder::new(config, &weights(&config), Device::Cpu, BATCH).unwrap();
        decoder.set_latents(&latents(&config)).unwrap();
        decoder
    }

    /// Token `t` of sequence `b`.
    fn token(b: usize, t: usize) -> i32 {
        ((b * 17 + t * 11 + t * t * 3) % 37) as i32
    }

    fn prompt(t: usize) -> Vec<i32> {
        (0..BATCH).flat_map(|b| (0..t).map(move |t| token(b, t))).collect()
    }

    fn tokens(t: usize) -> Vec<i32> {
        (0..BATCH).map(|b| token(b, t)).collect()
    }

    /// What sums in another order may change: a few roundings of f32, through three layers.
    fn assert_logits(actual: &[f32], expected: &[f32]) {
        let scale = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
        assert_close(actual, expected, Tol { abs: 1e-5 * f64::from(scale), rel: 0.0 });
    }

    /// Decoding from a prompt of each length must give the logits of one pass over each prefix.
    fn check(config: ModelConfig) {
        let mut whole = decoder(config);
        let expected: Vec<Vec<f32>> =
            (1..=config.max_seq_len).map(|t| whole.prefill(&prompt(t)).unwrap().to_vec()).collect();
        for prompt_len in 0..config.max_seq_len {
            let mut cached = decoder(config);
            if prompt_len > 0 {
                cached.prefill(&prompt(prompt_len)).unwrap();
            }
            for (t, expected) in expected.iter().enumerate().skip(prompt_len) {
                assert_logits(cached.step(&tokens(t)).unwrap(), expected);
                assert_eq!(cached.position(), t + 1);
            }
        }
    }

    #[test]
    fn cached_decoding_equals_a_pass_over_each_prefix() {
        for window in [1, 2, 3, 5, 11, 12, 40] {
            check(ModelConfig { window, ..CONFIG });
        }
    }

    #[test]
    fn it_does_so_for_every_kind_of_model() {
        check(ModelConfig { n_latents: 0, ..CONFIG });
        check(ModelConfig { n_kv_heads: 6, ..CONFIG });
        check(ModelConfig { n_kv_heads: 1, n_latents: 3, ..CONFIG });
        // More latents than positions.
        check(ModelConfig { n_latents: 39, ..CONFIG });
    }

    #[test]
    fn sequences_do_not_see_each_other() {
        let mut both = decoder(CONFIG);
        both.prefill(&prompt(7)).unwrap();
        let both = both.step(&tokens(7)).unwrap();
        let z = latents(&CONFIG);
        for b in 0..BATCH {
            let mut alone = Decoder::new(CONFIG, &weights(&CONFIG), Device::Cpu, 1).unwrap();
            alone.set_latents(&z[b * z.len() / BATCH..(b + 1) * z.len() / BATCH]).unwrap();
            alone.prefill(&prompt(7)[b * 7..(b + 1) * 7]).unwrap();
            let alone = alone.step(&[token(b, 7)]).unwrap();
            assert_logits(alone, &both[b * 37..(b + 1) * 37]);
        }
    }

    /// Prompts of different lengths, decoded together: each sequence has the logits that it has alone.
    #[test]
    fn sequences_have_positions_of_their_own() {
        for n_latents in [6, 0] {
            let config = ModelConfig { n_latents, ..CONFIG };
            let (weights, b) = (weights(&config), 4);
            let n = n_latents * config.dim;
            let z: Vec<f32> =
                [latents(&config), latents(&config).iter().map(|z| -z).collect()].concat();
            let row = |b: usize, t: Range<usize>| t.map(|t| token(b, t)).collect::<Vec<i32>>();
            let mut together = Decoder::new(config, &weights, Device::Cpu, b).unwrap();
            together.set_latents(&z).unwrap();
            let mut read = [2, 5, 5, 7];
            together.prefill_rows(0..1, &row(0, 0..2)).unwrap();
            together.prefill_rows(1..3, &[row(1, 0..5), row(2, 0..5)].concat()).unwrap();
            together.prefill_rows(3..4, &row(3, 0..7)).unwrap();
            let check = |together: &Decoder, read: [usize; 4]| {
                assert_eq!(together.positions(), read);
                for (b, read) in read.into_iter().enumerate() {
                    let mut alone = Decoder::new(config, &weights, Device::Cpu, 1).unwrap();
                    alone.set_latents(&z[b * n..(b + 1) * n]).unwrap();
                    let alone = alone.prefill(&row(b, 0..read)).unwrap();
                    assert_logits(&together.logits().unwrap()[b * 37..(b + 1) * 37], alone);
                }
            };
            check(&together, read);
            for _ in 0..3 {
                let next: Vec<i32> = (0..b).map(|b| token(b, read[b])).collect();
                together.step(&next).unwrap();
                read = read.map(|read| read + 1);
                check(&together, read);
            }
            // Some go on while the others wait, and one of a group starts over.
            together.step_rows(2..4, &[token(2, 8), token(3, 10)]).unwrap();
            check(&together, [5, 8, 9, 11]);
            together.prefill_rows(2..3, &row(2, 0..3)).unwrap();
            check(&together, [5, 8, 3, 11]);
            let mut copy = together.try_clone().unwrap();
            copy.step(&[token(0, 5), token(1, 8), token(2, 3), token(3, 11)]).unwrap();
            check(&copy, [6, 9, 4, 12]);
            let refused = copy.step(&[0; 4]).map(<[f32]>::len);
            assert!(matches!(refused, Err(Error::ContextFull { position: 12, .. })));
            copy.step_rows(0..3, &[token(0, 6), token(1, 9), token(2, 4)]).unwrap();
            check(&copy, [7, 10, 5, 12]);
            // Parts of two decoders, joined.
            let mut others = copy.try_clone().unwrap();
            others.retain(&[false, false, true, true]).unwrap();
            copy.retain(&[true, true, false, false]).unwrap();
            copy.join(others).unwrap();
            check(&copy, [7, 10, 5, 12]);
            copy.step_rows(0..3, &[token(0, 7), token(1, 10), token(2, 5)]).unwrap();
            check(&copy, [8, 11, 6, 12]);
            let stranger = Decoder::new(config, &weights, Device::Cpu, 1).unwrap();
            assert!(matches!(copy.join(stranger), Err(Error::Argument { arg: "other", .. })));
            check(&together, [5, 8, 3, 11]);
            assert!(
                copy.step_rows(3..5, &[0; 2]).is_err() && copy.prefill_rows(2..2, &[]).is_err()
            );
        }
    }

    #[test]
    fn latents_of_some_sequences_are_replaced() {
        let (mut all, mut some) = (decoder(CONFIG), decoder(CONFIG));
        let mut z = latents(&CONFIG);
        let half = z.len() / 2;
        z[half..].iter_mut().for_each(|z| *z *= -1.0);
        all.set_latents(&z).unwrap();
        some.set_latents_rows(1..2, &z[half..]).unwrap();
        assert_eq!(all.prefill(&prompt(4)).unwrap(), some.prefill(&prompt(4)).unwrap());
        assert!(some.set_latents_rows(2..3, &z[half..]).is_err());
        assert!(some.set_latents_rows(0..1, &z).is_err());
    }

    #[test]
    fn each_sequence_attends_to_its_own_latents() {
        let mut decoder = decoder(CONFIG);
        let before = decoder.prefill(&prompt(4)).unwrap().to_vec();
        let mut z = latents(&CONFIG);
        // The last latent of the last sequence: no other logits may move.
        *z.last_mut().unwrap() += 1.0;
        decoder.set_latents(&z).unwrap();
        let after = decoder.prefill(&prompt(4)).unwrap();
        assert_eq!(before[..37], after[..37]);
        assert_ne!(before[37..], after[37..]);
    }

    #[test]
    fn mistakes_are_refused_and_change_nothing() {
        let weights = weights(&CONFIG);
        for batch in [0, usize::MAX] {
            assert!(Decoder::new(CONFIG, &weights, Device::Cpu, batch).is_err());
        }
        let other = ModelConfig { ffn_hidden: 64, ..CONFIG };
        assert!(Decoder::new(other, &weights, Device::Cpu, 1).is_err());
        let mut bare = Decoder::new(CONFIG, &weights, Device::Cpu, BATCH).unwrap();
        assert!(bare.logits().is_none());
        assert!(matches!(bare.step(&tokens(0)), Err(Error::Argument { arg: "z", .. })));

        let mut decoder = decoder(CONFIG);
        let expected = decoder.prefill(&prompt(10)).unwrap().to_vec();
        assert!(decoder.set_latents(&[0.0]).is_err());
        let mut nan = latents(&CONFIG);
        nan[7] = f32::NAN;
        let error = decoder.set_latents(&nan).unwrap_err().to_string();
        assert!(error.contains("`z` must be finite, found NaN at index 7"), "{error}");
        for tokens in [&[][..], &[1, 2, 3]] {
            let result = decoder.prefill(tokens).map(<[f32]>::len);
            assert!(matches!(result, Err(Error::Argument { arg: "tokens", .. })), "{result:?}");
        }
        let result = decoder.prefill(&prompt(13)).map(<[f32]>::len);
        assert!(matches!(result, Err(Error::ContextFull { added: 13, .. })), "{result:?}");
        for outside in [-1, 37] {
            assert!(matches!(decoder.prefill(&[1, outside]), Err(Error::Kernel(_))));
            assert!(matches!(decoder.step(&[outside, 1]), Err(Error::Kernel(_))));
        }
        assert!(decoder.step(&[1]).is_err());
        assert_eq!((decoder.position(), decoder.logits()), (10, Some(&expected[..])));

        let mut whole = decoder.try_clone().expect("a small decoder fits");
        let expected = whole.prefill(&prompt(11)).unwrap();
        assert_logits(decoder.step(&tokens(10)).unwrap(), expected);
        decoder.step(&tokens(11)).unwrap();
        let result = decoder.step(&tokens(12)).map(<[f32]>::len);
        assert!(matches!(result, Err(Error::ContextFull { position: 12, .. })), "{result:?}");
    }
}
