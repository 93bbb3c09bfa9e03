//! Incremental decoding: one token of each sequence at a time, from cached keys and values.
//! Knows no graph and no sampling.

mod pass;

use std::sync::Arc;

use ltm_kernels::{Buffer, Device};

use crate::params::ModelParams;
use crate::{Attention, Error, ModelConfig, Result, Weights};

use pass::{KeyValues, Model, Workspace, zeros};

/// Decodes `B` sequences together, each with its own latents.
///
/// [`prefill`](Self::prefill) reads the prompts, [`step`](Self::step) adds one token to each. The decoder
/// caches the keys and values of past tokens within the window `W`, so a step costs the same at every
/// position; once the window is full it allocates no buffer. Copies made by
/// [`try_clone`](Self::try_clone) share the weights.
#[derive(Debug)]
pub struct Decoder {
    model: Model,
    state: State,
    work: Workspace,
}

/// The tokens decoded so far.
#[derive(Debug)]
struct State {
    position: usize,
    /// Per layer: keys (rotated) and values of the last tokens, `(slots,B,G,D)`. Token `t` is in slot
    /// `t % W`. With the slot outermost, the slots of a window that is not full yet are contiguous, and
    /// all sequences are one set of `B·H` heads to the attention kernel.
    caches: Vec<KeyValues>,
    /// Per layer: keys (rotated) and values of the latents, `(B,Z,G,D)`. `None` until they are set, empty
    /// for a model without latents.
    latents: Option<Vec<KeyValues>>,
    /// `(B,V)`, on the device.
    logits: Buffer,
    /// The same on the host.
    host_logits: Vec<f32>,
}

impl Decoder {
    /// A decoder for `batch` sequences, with a copy of `weights` on `device`.
    ///
    /// # Errors
    /// Those of [`Weights::check`], [`Error::Config`] for a model whose attention is not causal, and
    /// [`Error::Argument`] when `batch` is 0 or too large to be addressed.
    pub fn new(
        config: ModelConfig,
        weights: &Weights,
        device: Device,
        batch: usize,
    ) -> Result<Self> {
        weights.check(&config)?;
        if config.attention != Attention::Causal {
            return Err(Error::Config {
                field: "attention",
                expected: "`causal` to decode token by token".into(),
                found: "bidirectional".into(),
            });
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
        let load = |values: &Vec<f32>| {
            let mut buffer = zeros(&device, values.len())?;
            buffer.write_f32(values)?;
            Ok(buffer)
        };
        let params = weights.params.iter().map(load).collect::<Result<_>>()?;
        let indices = Arc::new(ModelParams::indices(&config));
        let model = Model { config, device, batch, params: Arc::new(params), indices };
        let state = State {
            position: 0,
            caches: (0..config.n_layers).map(|_| KeyValues::empty()).collect(),
            latents: (config.n_latents == 0).then(Vec::new),
            logits: zeros(&device, batch * config.vocab_size)?,
            host_logits: Vec::new(),
        };
        let work = Workspace::new(&model, 1)?;
        Ok(Self { model, state, work })
    }

    /// A decoder that continues from the same state, with its own caches and the same weights.
    ///
    /// # Errors
    /// [`Error::Kernel`] when the device is out of memory.
    pub fn try_clone(&self) -> Result<Self> {
        let State { position, caches, latents, logits, host_logits } = &self.state;
        let copy = |all: &[KeyValues]| all.iter().map(KeyValues::try_clone).collect::<Result<_>>();
        let state = State {
            position: *position,
            caches: copy(caches)?,
            latents: latents.as_deref().map(copy).transpose()?,
            logits: logits.try_clone()?,
            host_logits: host_logits.clone(),
        };
        let work = Workspace::new(&self.model, 1)?;
        Ok(Self { model: self.model.clone(), state, work })
    }

    /// Sets the latents `z (B,L·Z,C)` for all tokens from here on. The cache of earlier tokens is not
    /// recomputed; a [`prefill`](Self::prefill) starts over.
    ///
    /// # Errors
    /// [`Error::Argument`] when `z` has another length or a number that is not finite; the latents are
    /// then unchanged.
    pub fn set_latents(&mut self, z: &[f32]) -> Result<()> {
        let config = &self.model.config;
        let expected = self.model.batch * config.n_latents * config.dim;
        if z.len() != expected {
            return Err(argument("z", format!("{expected} numbers"), z.len()));
        }
        if let Some(index) = z.iter().position(|number| !number.is_finite()) {
            return Err(argument("z", "finite", format!("{} at index {index}", z[index])));
        }
        self.state.latents = Some(self.model.latent_key_values(z)?);
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
        let Model { config, batch, .. } = self.model;
        let t = tokens.len() / batch;
        if t == 0 || !tokens.len().is_multiple_of(batch) {
            let expected = format!("a positive multiple of {batch} tokens");
            return Err(argument("tokens", expected, tokens.len()));
        }
        if t > config.max_seq_len {
            let max_seq_len = config.max_seq_len;
            return Err(Error::ContextFull { position: 0, added: t, max_seq_len });
        }
        let mut work = Workspace::for_prompt(&self.model, t)?;
        self.state.advance(&self.model, &mut work, tokens, 0)
    }

    /// Adds one token to each sequence, `tokens (B)`, and returns the logits `(B,V)` of the next.
    /// Decoding may start with a step, without a [`prefill`](Self::prefill).
    ///
    /// # Errors
    /// Those of [`prefill`](Self::prefill); the decoder is then unchanged.
    pub fn step(&mut self, tokens: &[i32]) -> Result<&[f32]> {
        let Model { config, batch, .. } = self.model;
        if tokens.len() != batch {
            return Err(argument("tokens", format!("{batch} tokens"), tokens.len()));
        }
        let (position, max_seq_len) = (self.state.position, config.max_seq_len);
        if position == max_seq_len {
            return Err(Error::ContextFull { position, added: 1, max_seq_len });
        }
        self.state.advance(&self.model, &mut self.work, tokens, position)
    }

    /// The last logits `(B,V)`; `None` before the first token.
    pub fn logits(&self) -> Option<&[f32]> {
        (self.state.position > 0).then_some(&self.state.host_logits[..])
    }

    /// Number of tokens read of each sequence.
    pub fn position(&self) -> usize {
        self.state.position
    }
}

impl State {
    /// Reads the tokens of `work`, the first of which is at `start`, into caches and logits.
    fn advance(
        &mut self,
        model: &Model,
        work: &mut Workspace,
        tokens: &[i32],
        start: usize,
    ) -> Result<&[f32]> {
        model.device.run(|| self.read(model, work, tokens, start))?;
        Ok(&self.host_logits)
    }

    fn read(
        &mut self,
        model: &Model,
        work: &mut Workspace,
        tokens: &[i32],
        start: usize,
    ) -> Result<()> {
        let Some(latents) = &self.latents else {
            return Err(argument("z", "set before the first token", "none"));
        };
        // Only this can fail on a caller's mistake, and nothing has changed yet.
        work.embed(model, tokens, start)?;
        for (layer, params) in model.indices.layers.iter().enumerate() {
            work.self_attention(model, &params.attention, &mut self.caches[layer], start)?;
            if let Some(params) = &params.cross_attention {
                work.cross_attention(model, params, &latents[layer])?;
            }
            work.feed_forward(model, &params.feed_forward)?;
        }
        work.output(model, &mut self.logits)?;
        self.host_logits = self.logits.to_f32()?;
        self.position = start + work.t;
        Ok(())
    }
}

fn argument(arg: &'static str, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Argument { arg, expected: expected.into(), found: found.to_string() }
}

#[cfg(test)]
mod tests {
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
        encoder_layers: 0,
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
