//! Texts token by token, for several prompts at once. Knows no text and prints nothing.

use std::ops::Range;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_model::{Decoder, DeviceWeights, ModelConfig, sample};

use super::rethink::{Round, chosen};
use super::{GenerateOptions, Generation, MOST_DRAWS};
use crate::error::argument;
use crate::fit::Observer;
use crate::fitter::{Fitted, Fitter, Prompt};
use crate::key::Purpose;
use crate::{FastStep, InferKey, Inference, Result, Sequences};

/// Continues prompts token by token.
///
/// [`new`](Self::new) fits the latents of each prompt once; [`begin`](Self::begin) draws texts from these fits, as often
/// as asked; each call of [`next`](Self::next) adds one token to every text. A text depends on its prompt, the options
/// and its own seed alone, not on the texts that are decoded with it.
///
/// A generation is cancelled by not calling `next` again, and a fit by an error of its observer.
pub struct Generator {
    pub(super) fitter: Fitter,
    pub(super) options: GenerateOptions,
    pub(super) prompts: Vec<Prompt>,
    /// The fast steps of each prompt's fit.
    fits: Vec<Vec<FastStep>>,
    pub(super) texts: Vec<Text>,
    decoder: Option<Decoder>,
    /// The text of each of the decoder's sequences, in ascending order.
    rows: Vec<usize>,
    /// Tokens generated of each text that has not ended.
    position: usize,
}

/// A text in the making.
pub(super) struct Text {
    pub(super) prompt: usize,
    pub(super) seed: u64,
    uniforms: Philox,
    pub(super) latents: Fitted,
    pub(super) z: Vec<f32>,
    /// Everything that the decoder has read or is to read next, to read the end of it again.
    read: Vec<i32>,
    pub(super) tokens: Vec<i32>,
    goes_on: bool,
    /// What was written before, and scored.
    pub(super) rounds: Vec<Round>,
}

impl Text {
    /// The text of `prompt` number `idx` without a token of its own, in the round after `rounds`.
    pub(super) fn begin(
        (idx, prompt): (usize, &Prompt),
        seed: u64,
        (latents, z): (Fitted, Vec<f32>),
        rounds: Vec<Round>,
    ) -> Self {
        Self {
            prompt: idx,
            seed,
            uniforms: uniforms(seed, rounds.len()),
            latents,
            z,
            read: prompt.tokens.clone(),
            tokens: Vec::new(),
            goes_on: true,
            rounds,
        }
    }

    /// The key of its random numbers at a position of its round: each round counts as another sequence.
    pub(super) fn key(&self, position: u64) -> InferKey<'static> {
        let sequences = Sequences::From(self.rounds.len() as u64);
        InferKey { seed: self.seed, step: position, sequences }
    }
}

impl Generator {
    /// Fits latents to each of `prompts`, each of at least the token that documents begin with, and reports the steps
    /// to `observer`. A prompt of one token has no targets to fit to, so its latents come from the prior whatever the
    /// options are.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for an empty prompt, no prompt or a `refit` of 0, [`Error::PromptTooLong`](crate::Error::PromptTooLong); [`Error::Model`](crate::Error::Model)
    /// for a configuration, weights or tokens that do not fit; those of [`Rethink::check`](super::Rethink::check); those
    /// of [`Inference::infer`], such as the observer's.
    pub fn new(
        config: &ModelConfig,
        weights: &DeviceWeights,
        inference: &Inference,
        prompts: &[&[i32]],
        options: &GenerateOptions,
        observer: &mut Observer<'_>,
    ) -> Result<Self> {
        let fitter = Fitter::new(config, weights, inference, options.precision)?;
        options.sample.validate()?;
        if prompts.is_empty() {
            return Err(argument("prompts", "at least one", "none"));
        }
        prompts.iter().try_for_each(|prompt| fitter.check_prompt(prompt))?;
        if options.refit == Some(0) {
            return Err(argument("refit", "at least 1 token", 0));
        }
        if let Some(rethink) = &options.rethink {
            rethink.check(config)?;
        }
        let mut generator = Self {
            fitter,
            options: *options,
            prompts: Vec::new(),
            fits: Vec::new(),
            texts: Vec::new(),
            decoder: None,
            rows: Vec::new(),
            position: 0,
        };
        for prompt in prompts {
            let mut fit = Vec::new();
            let mut seen = |step: &FastStep| {
                observer(step)?;
                fit.push(step.clone());
                Ok(())
            };
            let prompt = [(*prompt, options.seed)];
            generator.prompts.extend(generator.fitter.prompts(
                &prompt,
                options.latents,
                &mut seen,
            )?);
            generator.fits.push(fit);
        }
        Ok(generator)
    }

    /// Begins one text for each prompt and each of `draws`, in this order, from the fits that were made: latents and
    /// tokens are drawn with the options' seed plus the draw's number. Texts that were begun before are dropped.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for more than 65536 texts, [`Error::Model`](crate::Error::Model) when the device runs out of memory.
    pub fn begin(&mut self, draws: Range<u64>) -> Result<()> {
        let count = draws.end.saturating_sub(draws.start);
        let count = count.saturating_mul(self.prompts.len() as u64);
        if count > MOST_DRAWS {
            return Err(argument("draws", format!("at most {MOST_DRAWS}"), count));
        }
        let mut texts = Vec::new();
        for (idx, prompt) in self.prompts.iter().enumerate() {
            for draw in draws.clone() {
                let seed = self.options.seed.wrapping_add(draw);
                let key = InferKey { seed, step: 0, sequences: Sequences::From(0) };
                let z = self.fitter.sample(&prompt.latents, key)?;
                let latents = (prompt.latents.clone(), z);
                texts.push(Text::begin((idx, prompt), seed, latents, Vec::new()));
            }
        }
        self.write(texts)
    }

    /// Replaces the texts by these, whose prompts a decoder reads; nothing is replaced when that fails.
    pub(super) fn write(&mut self, texts: Vec<Text>) -> Result<()> {
        let rows: Vec<usize> = (0..texts.len()).collect();
        let mut decoder = None;
        if !texts.is_empty() {
            let mut all = Decoder::with_weights(
                self.fitter.config,
                self.fitter.weights.clone(),
                texts.len(),
            )?;
            if self.fitter.config.n_latents > 0 {
                let z: Vec<f32> = texts.iter().flat_map(|text| text.z.iter().copied()).collect();
                all.set_latents(&z)?;
            }
            let whole: Vec<usize> = texts.iter().map(|text| text.read.len()).collect();
            read_ends(&texts, &rows, &mut all, &whole)?;
            decoder = Some(all);
        }
        (self.texts, self.rows, self.position, self.decoder) = (texts, rows, 0, decoder);
        Ok(())
    }

    /// Adds a token to each text and returns them, `None` for a text that has ended; `None` when all have, or have the
    /// most tokens. The steps of a fit are reported to `observer`.
    ///
    /// When the context is full, the last half of its tokens is read again from position 0, with the same latents:
    /// positions stay within those of training, and older tokens act through the latents alone. With
    /// [`refit`](GenerateOptions::refit) the latents are fitted again to the text so far, as far as the decoder has
    /// it, beginning at the posterior before, or at what an encoder predicts, and the text is read again with a new sample.
    ///
    /// # Errors
    /// Those of [`Inference::infer`], such as the observer's, and [`Error::Model`](crate::Error::Model) for logits that are not finite.
    pub fn next(&mut self, observer: &mut Observer<'_>) -> Result<Option<Vec<Option<i32>>>> {
        let goes_on = self.texts.iter().any(|text| text.goes_on);
        if !goes_on || self.position >= self.options.max_tokens {
            return Ok(None);
        }
        if self.position > 0 {
            self.read_last(observer)?;
        }
        let vocab_size = self.fitter.config.vocab_size;
        let GenerateOptions { sample: config, stop, .. } = self.options;
        let logits = self.decoder.as_ref().and_then(Decoder::logits);
        let logits = logits.ok_or_else(|| argument("draws", "begun", "none"))?;
        let mut next = vec![None; self.texts.len()];
        for (idx, logits) in self.rows.iter().zip(logits.chunks(vocab_size)) {
            let text = &self.texts[*idx];
            if text.goes_on {
                let uniform = text.uniforms.uniform(self.position as u64);
                next[*idx] = Some(sample(logits, &config, uniform)? as i32);
            }
        }
        for (text, token) in self.texts.iter_mut().zip(&next) {
            // A text that has ended may go on reading its last token, which does not affect the others.
            let read = token.or(text.tokens.last().copied()).unwrap_or(text.read[0]);
            text.read.push(read);
            text.tokens.extend(token);
            text.goes_on = token.is_some_and(|token| stop != Some(token));
        }
        self.position += 1;
        Ok(Some(next))
    }

    /// The texts that were begun, as far as they are, in the order of [`begin`](Self::begin): after the last round of
    /// rethinking those that are kept, before it those of the current round.
    pub fn texts(&self) -> Vec<Generation> {
        let of = |text: &Text| {
            let kept = self.options.rethink.and_then(|rethink| chosen(&rethink, &text.rounds));
            let round = kept.unwrap_or(text.rounds.len());
            let (tokens, z) = match kept {
                Some(kept) => (&text.rounds[kept].tokens, &text.rounds[kept].z),
                None => (&text.tokens, &text.z),
            };
            let fit = self.fits[text.prompt].clone();
            Generation {
                tokens: tokens.clone(),
                fit,
                z: z.clone(),
                round,
                rounds: text.rounds.clone(),
            }
        };
        self.texts.iter().map(of).collect()
    }

    /// Lets the decoder read the token that each text was given last.
    fn read_last(&mut self, observer: &mut Observer<'_>) -> Result<()> {
        let Some(mut decoder) = self.decoder.take() else { return Ok(()) };
        let result = self.read_with(&mut decoder, observer);
        self.decoder = Some(decoder);
        result
    }

    fn read_with(&mut self, decoder: &mut Decoder, observer: &mut Observer<'_>) -> Result<()> {
        // Texts that have ended are dropped when they are half of what is decoded.
        let kept: Vec<bool> = self.rows.iter().map(|idx| self.texts[*idx].goes_on).collect();
        if 2 * kept.iter().filter(|kept| **kept).count() <= kept.len() {
            decoder.retain(&kept)?;
            self.rows.retain(|idx| self.texts[*idx].goes_on);
        }
        let max_seq_len = self.fitter.config.max_seq_len;
        let is_refit = self.fitter.config.n_latents > 0
            && self.options.refit.is_some_and(|every| self.position.is_multiple_of(every));
        let positions = decoder.positions();
        // Tokens to read again from position 0; 0 to read the last one alone.
        let mut again = vec![0; positions.len()];
        let mut refits = Vec::new();
        for (row, position) in positions.into_iter().enumerate() {
            let is_full = position == max_seq_len;
            let kept = if is_full { max_seq_len.div_ceil(2) } else { position + 1 };
            let idx = self.rows[row];
            let refitted = is_refit && self.texts[idx].goes_on && kept > 1;
            if refitted {
                refits.push((row, idx, self.refit(idx, kept, observer)?));
            }
            if is_full || refitted {
                again[row] = kept;
            }
        }
        // After the last fit, so that a cancelled one changes no text.
        for (row, idx, (latents, z)) in refits {
            decoder.set_latents_rows(row..row + 1, &z)?;
            (self.texts[idx].latents, self.texts[idx].z) = (latents, z);
        }
        read_ends(&self.texts, &self.rows, decoder, &again)
    }

    /// The latents of a text fitted again, to its last `kept` tokens, and a sample of them.
    fn refit(
        &mut self,
        idx: usize,
        kept: usize,
        observer: &mut Observer<'_>,
    ) -> Result<(Fitted, Vec<f32>)> {
        let text = &self.texts[idx];
        // A key of its own for every position; the first fit's is step 0.
        let key = text.key(self.position as u64);
        // An encoder reads the longer text; else the fit goes on from the posterior before.
        let inference = match self.fitter.inference.start().encodes((&self.fitter.config).into()) {
            true => self.fitter.inference.clone(),
            false => self.fitter.after(&text.latents)?,
        };
        let batch = self.fitter.batch(&[&text.read[text.read.len() - kept..]])?;
        let latents = self.fitter.fit(&inference, &batch, key, observer)?;
        let z = self.fitter.sample(&latents, key)?;
        Ok((latents, z))
    }
}

/// The uniform numbers that the tokens of a text are chosen by, one per position of its round.
pub(super) fn uniforms(seed: u64, round: usize) -> Philox {
    Philox::new(PhiloxKey { seed, stream: Purpose::Token as u64, step: round as u64 })
}

/// Lets a decoder read, of the text of each of its `rows`, the last `again` tokens from position 0, or for 0 the last
/// token from where it is. Neighbours that do the same are read together.
fn read_ends(texts: &[Text], rows: &[usize], decoder: &mut Decoder, again: &[usize]) -> Result<()> {
    let texts: Vec<&[i32]> = rows.iter().map(|idx| &texts[*idx].read[..]).collect();
    read_again(&texts, decoder, again)
}

/// As [`read_ends`] for a text of each of the decoder's sequences.
pub(super) fn read_again(texts: &[&[i32]], decoder: &mut Decoder, again: &[usize]) -> Result<()> {
    let mut start = 0;
    for run in again.chunk_by(|a, b| a == b) {
        let (range, kept) = (start..start + run.len(), run[0]);
        start = range.end;
        let ends = texts[range.clone()].iter().flat_map(|text| &text[text.len() - kept.max(1)..]);
        let ends: Vec<i32> = ends.copied().collect();
        match kept {
            0 => decoder.step_rows(range, &ends)?,
            _ => decoder.prefill_rows(range, &ends)?,
        };
    }
    Ok(())
}
