//! Texts that join and leave while others are written. Knows no text and prints nothing.

use ltm_kernels::ops::philox::Philox;
use ltm_model::{Decoder, DeviceWeights, ModelConfig, SampleConfig, sample};

use super::generator::{read_again, uniforms};
use crate::error::argument;
use crate::fit::Observer;
use crate::fitter::{Fitter, Prompt};
use crate::{InferKey, Inference, LatentSource, Precision, Result, Sequences};

/// Continues texts of any number of prompts, one token of each per call of [`next`](Self::next); texts may be
/// [begun](Self::begin) at any time, and end when the caller says so.
///
/// A text is the one that [`Generator`](super::Generator) writes with the same seed: it depends on its prompt and its
/// own draw alone, not on the texts that are decoded with it.
pub struct Pool {
    fitter: Fitter,
    /// The sequences of `texts`; `None` without any.
    decoder: Option<Decoder>,
    texts: Vec<Text>,
}

/// What a text of a [`Pool`] is drawn with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// A number of the caller's, by which [`Pool::next`] names the text.
    pub id: u64,
    /// Seed of latents and tokens.
    pub seed: u64,
    /// How tokens are chosen.
    pub sample: SampleConfig,
}

/// A text in the making.
struct Text {
    draw: Draw,
    uniforms: Philox,
    /// Everything that the decoder has read or is to read next.
    read: Vec<i32>,
    /// Tokens written.
    written: u64,
}

/// A token of a text, with what it was chosen from.
#[derive(Debug)]
pub struct Next<'a> {
    /// The text's [`Draw::id`].
    pub id: u64,
    /// The token; an error, such as one for logits that are not finite, ends this text and no other.
    pub token: Result<i32>,
    /// The logits `(V)` that it was chosen from.
    pub logits: &'a [f32],
}

impl Pool {
    /// A pool without texts, of the model of `weights`, which it shares.
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) for a configuration or weights that do not fit.
    pub fn new(
        config: &ModelConfig,
        weights: &DeviceWeights,
        inference: &Inference,
        precision: Precision,
    ) -> Result<Self> {
        let fitter = Fitter::new(config, weights, inference, precision)?;
        Ok(Self { fitter, decoder: None, texts: Vec::new() })
    }

    /// Fits latents to prompts of one length, at least the token that documents begin with, each with a seed of its own and as
    /// it would be alone. Steps are reported to `observer` as sums over the prompts; its error ends the fit. A prompt of one
    /// token, or a model without latents, has nothing to fit.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for an empty prompt and for lengths that differ,
    /// [`Error::PromptTooLong`](crate::Error::PromptTooLong); those of [`Inference::infer`].
    pub fn fit(
        &mut self,
        prompts: &[(&[i32], u64)],
        observer: &mut Observer<'_>,
    ) -> Result<Vec<Prompt>> {
        self.fitter.prompts(prompts, LatentSource::Prompt, observer)
    }

    /// Begins texts, each of a prompt and with latents of its own. Neighbours of one length are read together.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for no text, [`Error::Model`](crate::Error::Model) for options of
    /// sampling that are out of range and when the device runs out of memory; the pool is then unchanged.
    pub fn begin(&mut self, texts: &[(&Prompt, Draw)]) -> Result<()> {
        if texts.is_empty() {
            return Err(argument("texts", "at least one", "none"));
        }
        texts.iter().try_for_each(|(_, draw)| draw.sample.validate())?;
        let Fitter { config, weights, .. } = &self.fitter;
        let mut new = Decoder::with_weights(*config, weights.clone(), texts.len())?;
        if config.n_latents > 0 {
            let mut z = Vec::new();
            for (prompt, draw) in texts {
                let key = InferKey { seed: draw.seed, step: 0, sequences: Sequences::From(0) };
                z.extend(self.fitter.sample(&prompt.latents, key)?);
            }
            new.set_latents(&z)?;
        }
        let read: Vec<&[i32]> = texts.iter().map(|(prompt, _)| prompt.tokens()).collect();
        let whole: Vec<usize> = read.iter().map(|tokens| tokens.len()).collect();
        read_again(&read, &mut new, &whole)?;
        match &mut self.decoder {
            Some(decoder) => decoder.join(new)?,
            empty => *empty = Some(new),
        }
        self.texts.extend(texts.iter().map(|(prompt, draw)| Text {
            draw: *draw,
            uniforms: uniforms(draw.seed, 0),
            read: prompt.tokens.clone(),
            written: 0,
        }));
        Ok(())
    }

    /// Texts that are being written.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether no text is being written.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Chooses the next token of each text and calls `on_token` with it, which returns whether the text goes on; the
    /// others leave the pool. Where a context is full, the text goes on as in
    /// [`Generator::next`](super::Generator::next).
    ///
    /// # Errors
    /// [`Error::Model`](crate::Error::Model) when a kernel fails: all texts have then left the pool.
    pub fn next(&mut self, on_token: &mut dyn FnMut(Next<'_>) -> bool) -> Result<()> {
        // Put back where nothing fails: a decoder that has failed is of no more use.
        let Some(mut decoder) = self.decoder.take() else { return Ok(()) };
        let texts = std::mem::take(&mut self.texts);
        let all = decoder.logits().ok_or_else(|| argument("texts", "begun", "none"))?;
        let mut kept = Vec::with_capacity(texts.len());
        let mut staying = Vec::with_capacity(texts.len());
        for (mut text, logits) in texts.into_iter().zip(all.chunks(self.fitter.config.vocab_size)) {
            let Draw { id, sample: config, .. } = text.draw;
            let chosen = sample(logits, &config, text.uniforms.uniform(text.written));
            let token = chosen.map(|token| token as i32).map_err(crate::Error::from);
            let next = token.as_ref().ok().copied();
            let goes_on = on_token(Next { id, token, logits }) && next.is_some();
            kept.push(goes_on);
            if let (true, Some(next)) = (goes_on, next) {
                text.read.push(next);
                text.written += 1;
                staying.push(text);
            }
        }
        if staying.is_empty() {
            return Ok(());
        }
        if staying.len() < kept.len() {
            decoder.retain(&kept)?;
        }
        let max_seq_len = self.fitter.config.max_seq_len;
        // Tokens to read again from position 0; 0 to read the last one alone.
        let again = |position: usize| match position == max_seq_len {
            true => max_seq_len.div_ceil(2),
            false => 0,
        };
        let again: Vec<usize> = decoder.positions().into_iter().map(again).collect();
        let read: Vec<&[i32]> = staying.iter().map(|text| &text.read[..]).collect();
        read_again(&read, &mut decoder, &again)?;
        (self.decoder, self.texts) = (Some(decoder), staying);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::fitter::Fitted;
    use crate::{Error, FastStep, GenerateOptions, InferConfig, StartKind, generate_many};
    use ltm_kernels::Device;
    use ltm_model::Weights;

    const CONFIG: ModelConfig = ModelConfig { max_seq_len: 8, ..crate::tiny::CONFIG };
    const SAMPLE: SampleConfig = SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 };

    fn weights(config: &ModelConfig) -> DeviceWeights {
        let mut weights = Weights::init(config, 1).unwrap();
        weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
        DeviceWeights::new(config, &weights, &Device::Cpu, Precision::F32).unwrap()
    }

    fn inference() -> Inference {
        Inference::finished(&InferConfig::published()).unwrap()
    }

    /// What a generator writes such a text with.
    fn options(max_tokens: usize, sample: SampleConfig, seed: u64) -> GenerateOptions {
        GenerateOptions {
            max_tokens,
            sample,
            latents: LatentSource::Prompt,
            refit: None,
            rethink: None,
            seed,
            stop: None,
            precision: Precision::F32,
        }
    }

    /// Texts that begin at different moments, end at different lengths and pass their context: each is what it is alone.
    #[test]
    fn a_text_is_what_it_is_alone() {
        for n_latents in [CONFIG.n_latents, 0] {
            let config = ModelConfig { n_latents, ..CONFIG };
            let (weights, inference) = (weights(&config), inference());
            let prompts: [&[i32]; 3] = [&[0, 4, 7], &[0], &[0, 2, 2, 8, 1]];
            // Moment, prompt, seed, temperature and length of each.
            let texts =
                [(0, 0, 5, 1.0, 20), (0, 1, 6, 0.0, 3), (2, 2, 5, 0.7, 12), (2, 0, 9, 1.0, 1)];
            let mut pool = Pool::new(&config, &weights, &inference, Precision::F32).unwrap();
            let mut written: BTreeMap<u64, Vec<i32>> = BTreeMap::new();
            for moment in 0.. {
                for (id, (begins, prompt, seed, temperature, _)) in (0..).zip(texts) {
                    if begins == moment {
                        let prompt = [(prompts[prompt], seed)];
                        let prompt = pool.fit(&prompt, &mut |_| Ok(())).unwrap().remove(0);
                        let sample = SampleConfig { temperature, ..SAMPLE };
                        pool.begin(&[(&prompt, Draw { id, seed, sample })]).unwrap();
                    }
                }
                let mut on_token = |next: Next<'_>| {
                    let text = written.entry(next.id).or_default();
                    text.push(next.token.unwrap());
                    assert_eq!(next.logits.len(), config.vocab_size);
                    text.len() < texts[next.id as usize].4
                };
                pool.next(&mut on_token).unwrap();
                if moment > 2 && pool.is_empty() {
                    break;
                }
            }
            for (id, (_, prompt, seed, temperature, max_tokens)) in (0..).zip(texts) {
                let sample = SampleConfig { temperature, ..SAMPLE };
                let options = options(max_tokens, sample, seed);
                let alone =
                    generate_many(&config, &weights, &inference, prompts[prompt], &options, 0..1);
                assert_eq!(alone.unwrap()[0].tokens, written[&id], "text {id}");
            }
        }
    }

    /// Several texts of one prompt are the draws of a generator.
    #[test]
    fn texts_of_one_prompt_are_its_draws() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let mut pool = Pool::new(&CONFIG, &weights, &inference, Precision::F32).unwrap();
        let prompt = pool.fit(&[(&[0, 4], 5)], &mut |_| Ok(())).unwrap().remove(0);
        let draws = [0, 1, 2].map(|id| (&prompt, Draw { id, seed: 5 + id, sample: SAMPLE }));
        pool.begin(&draws).unwrap();
        let mut written = vec![Vec::new(); 3];
        while !pool.is_empty() {
            let mut on_token = |next: Next<'_>| {
                written[next.id as usize].push(next.token.unwrap());
                written[next.id as usize].len() < 12
            };
            pool.next(&mut on_token).unwrap();
        }
        let options = options(12, SAMPLE, 5);
        let all = generate_many(&CONFIG, &weights, &inference, &[0, 4], &options, 0..3).unwrap();
        let expected: Vec<Vec<i32>> = all.into_iter().map(|text| text.tokens).collect();
        assert_eq!(written, expected);
    }

    /// Prompts that are fitted together have the posteriors that each has alone, to the bit.
    #[test]
    fn prompts_are_fitted_together_as_alone() {
        let encodes = ModelConfig { encoder_width: 6, ..CONFIG };
        for (start, config) in [(StartKind::Drawn, CONFIG), (StartKind::Encoder, encodes)] {
            // An encoder of weights that large would predict nothing finite.
            let small = Weights::init(&config, 1).unwrap();
            let weights = match start {
                StartKind::Encoder => {
                    DeviceWeights::new(&config, &small, &Device::Cpu, Precision::F32).unwrap()
                }
                _ => weights(&config),
            };
            let infer = InferConfig { start, ..InferConfig::published() };
            let inference = Inference::finished(&infer).unwrap();
            let mut pool = Pool::new(&config, &weights, &inference, Precision::F32).unwrap();
            let prompts: [(&[i32], u64); 5] = [
                (&[0, 4, 7], 5),
                (&[0, 2, 2], 5),
                (&[0, 4, 7], 9),
                (&[0, 1, 3], 2),
                (&[0, 0, 0], 1),
            ];
            let mut seen = 0;
            let mut count = |_: &FastStep| {
                seen += 1;
                Ok(())
            };
            let together = pool.fit(&prompts, &mut count).unwrap();
            assert_eq!(seen, infer.steps);
            for (prompt, together) in prompts.iter().zip(&together) {
                let alone = pool.fit(&[*prompt], &mut |_| Ok(())).unwrap().remove(0);
                let (Fitted::Posterior(alone), Fitted::Posterior(together)) =
                    (&alone.latents, &together.latents)
                else {
                    panic!("a posterior was fitted");
                };
                assert!(alone.mu.iter().all(|x| x.is_finite()) && alone == together, "{start:?}");
            }
        }
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let (weights, inference) = (weights(&CONFIG), inference());
        let mut pool = Pool::new(&CONFIG, &weights, &inference, Precision::F32).unwrap();
        let quiet = &mut |_: &FastStep| Ok(());
        assert!(matches!(pool.fit(&[(&[], 1)], quiet), Err(Error::Argument { .. })));
        let uneven = pool.fit(&[(&[0, 4], 1), (&[0], 2)], quiet).err();
        assert!(matches!(uneven, Some(Error::Argument { arg: "prompts", .. })));
        let long = pool.fit(&[(&[1; 9], 1)], quiet).err();
        assert!(matches!(long, Some(Error::PromptTooLong { tokens: 9, max_seq_len: 8 })));
        assert!(pool.fit(&[(&[0, 11], 1)], quiet).is_err());
        let mut stop = |step: &FastStep| if step.step == 2 { Err(Error::Stopped) } else { Ok(()) };
        assert!(matches!(pool.fit(&[(&[0, 4], 1)], &mut stop), Err(Error::Stopped)));
        let prompt = pool.fit(&[(&[0, 4], 1)], quiet).unwrap().remove(0);
        assert_eq!(prompt.tokens(), [0, 4]);
        let cold = SampleConfig { temperature: -1.0, ..SAMPLE };
        assert!(pool.begin(&[(&prompt, Draw { id: 0, seed: 1, sample: cold })]).is_err());
        assert!(pool.begin(&[]).is_err());
        assert_eq!(pool.len(), 0);
        pool.next(&mut |_| unreachable!("there is no text")).unwrap();
        let draws = [0, 1].map(|id| (&prompt, Draw { id, seed: id, sample: SAMPLE }));
        pool.begin(&draws).unwrap();
        pool.next(&mut |next| next.id == 1).unwrap();
        assert_eq!(pool.len(), 1);
    }
}
