//! Texts that a model writes: many from one prompt, and a few that show what it has learned. Measures nothing.

use std::ops::Range;

use ltm_model::{DeviceWeights, SampleConfig};
use ltm_train::Config;
use ltm_train::data::{Batches, Tokenizer};
use ltm_vi::{
    FastStep, GenerateOptions, Generation, Generator, Inference, LatentSource, RoundScore, generate,
};
use serde::{Deserialize, Serialize};

use crate::text::{decode, encode};
use crate::{Error, Result};

/// How tokens are drawn.
pub const SAMPLE: SampleConfig = SampleConfig { temperature: 0.8, top_k: 0, top_p: 0.95 };

/// The most tokens of a sample.
const MAX_TOKENS: usize = 160;

/// Texts decoded as one batch.
const TOGETHER: u64 = 64;

/// One of several texts that begin with the same prompt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Its number, from 0.
    pub draw: u64,
    /// Prompt and continuation.
    pub text: String,
    /// The tokens that the model wrote, [`GenerateOptions::stop`] included.
    pub tokens: Vec<i32>,
    /// Whether the model ended it, by [`GenerateOptions::stop`].
    pub stopped: bool,
    /// The round of rethinking that it is of.
    pub round: usize,
    /// The texts of all rounds; empty without [`GenerateOptions::rethink`].
    pub rounds: Vec<Round>,
}

/// A text as a round of rethinking left it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Prompt and continuation.
    pub text: String,
    /// The tokens that the model wrote, [`GenerateOptions::stop`] included.
    pub tokens: Vec<i32>,
    /// Its score, where the latents have a density.
    pub score: Option<RoundScore>,
}

/// What happens while texts are written.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// Texts that are written together have been written in this round of rethinking; there is no text yet.
    Round(usize),
    /// A text is complete.
    Text(Text),
}

/// Writes the texts of these numbers that begin with `prompt`, and calls `on_written` with each in order, and after each round of
/// [`GenerateOptions::rethink`] but the last. The latents are fitted once, to
/// the last tokens of the prompt that the context holds, or drawn from the prior where the prompt is empty:
/// `options.latents` is not read. Every text has a draw of latents and tokens of its own, by its number.
///
/// # Errors
/// Those of the tokenizer, of [`Generator`] and of `on_written`.
pub fn continue_prompt<E: From<Error>>(
    config: &Config,
    weights: &DeviceWeights,
    tokenizer: &dyn Tokenizer,
    prompt: &str,
    options: &GenerateOptions,
    draws: Range<u64>,
    on_written: &mut dyn FnMut(Written) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let whole = encode(tokenizer, prompt)?;
    let read = &whole[whole.len().saturating_sub(config.model.max_seq_len)..];
    let latents = if read.len() > 1 { LatentSource::Prompt } else { LatentSource::Prior };
    let options = GenerateOptions { latents, ..*options };
    let inference = Inference::finished(&config.infer).map_err(Error::from)?;
    let observer = &mut |_: &FastStep| Ok(());
    let mut generator =
        Generator::new(&config.model, weights, &inference, &[read], &options, observer)
            .map_err(Error::from)?;
    for first in draws.clone().step_by(TOGETHER as usize) {
        let draws = first..draws.end.min(first.saturating_add(TOGETHER));
        generator.begin(draws.clone()).map_err(Error::from)?;
        for round in 0.. {
            while generator.next(observer).map_err(Error::from)?.is_some() {}
            if !generator.rethink(observer).map_err(Error::from)? {
                break;
            }
            on_written(Written::Round(round))?;
        }
        // Decoded in one piece: a space or a character may span prompt and continuation.
        let read = |tokens: &[i32]| decode(tokenizer, &[&whole[1..], tokens].concat());
        for (draw, written) in draws.zip(generator.texts()) {
            let Generation { tokens, round, rounds, .. } = written;
            let rounds = rounds.into_iter().map(|round| Round {
                text: read(&round.tokens),
                tokens: round.tokens,
                score: round.score,
            });
            let (text, rounds) = (read(&tokens), rounds.collect());
            let stopped = options.stop.is_some() && tokens.last().copied() == options.stop;
            on_written(Written::Text(Text { draw, text, tokens, stopped, round, rounds }))?;
        }
    }
    Ok(())
}

/// What a model writes.
#[derive(Clone, Debug, PartialEq)]
pub struct Samples {
    /// A text with latents from the prior and no prompt.
    pub from_nothing: String,
    /// Continuations of the first texts of a corpus.
    pub continuations: Vec<Continuation>,
}

/// The beginning of a text, and what a model makes of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Continuation {
    /// The prompt: the first third of the text, to which the latents are fitted.
    pub given: String,
    /// The text that the model writes after it.
    pub written: String,
}

/// Samples a text from nothing, and continues the texts that the first `continuations` rows of a corpus begin with, if
/// there is one. The texts depend on weights, corpus, `config.infer` and the seed.
///
/// # Errors
/// [`Error::Infer`] for a model that does not write token by token, and those of the corpus.
pub fn samples(
    config: &Config,
    weights: &DeviceWeights,
    tokenizer: &dyn Tokenizer,
    corpus: Option<&Batches>,
    continuations: u64,
) -> Result<Samples> {
    let separator = tokenizer.separator() as i32;
    let (_, precision) = config.run.compute_evaluation()?;
    let inference = Inference::finished(&config.infer)?;
    let options = GenerateOptions {
        max_tokens: config.model.max_seq_len.min(MAX_TOKENS),
        sample: SAMPLE,
        latents: LatentSource::Prior,
        refit: None,
        rethink: None,
        seed: config.run.seed,
        stop: Some(separator),
        precision,
    };
    let write = |prompt: &[i32], options: &GenerateOptions| -> Result<String> {
        let written = generate(&config.model, weights, &inference, prompt, options)?;
        Ok(decode(tokenizer, &written.tokens))
    };
    let from_nothing = write(&[separator], &options)?;
    let continuation = |corpus: &Batches, index: u64| {
        let (b, t) = (corpus.options().batch as u64, corpus.options().seq_len);
        let batch = corpus.batch(index / b)?;
        let prompt = first_third(&batch.tokens[(index % b) as usize * t..][..t], separator);
        let seed = options.seed.wrapping_add(index);
        let options = GenerateOptions { latents: LatentSource::Prompt, seed, ..options };
        let given = decode(tokenizer, &prompt[1..]);
        Ok(Continuation { given, written: write(prompt, &options)? })
    };
    let continuations = corpus.map_or(Ok(Vec::new()), |corpus| {
        let rows = 0..continuations.min(corpus.rows());
        rows.map(|index| continuation(corpus, index)).collect::<Result<_>>()
    })?;
    Ok(Samples { from_nothing, continuations })
}

/// A third of the text that a row begins with: enough to fit latents to, and enough left to write.
fn first_third(row: &[i32], separator: i32) -> &[i32] {
    let end = row.iter().skip(1).position(|token| *token == separator);
    let end = end.map_or(row.len(), |idx| idx + 1);
    &row[..(end / 3).max(2).min(row.len())]
}

#[cfg(test)]
mod tests {
    use ltm_train::data::Bytes;
    use ltm_vi::{Keep, Rethink, RethinkStart};

    use super::*;
    use crate::tiny::{config, weights};

    #[test]
    fn texts_begin_with_the_prompt_and_end_where_they_are_told() {
        let config = config(4);
        let options = GenerateOptions {
            max_tokens: 3,
            sample: SAMPLE,
            latents: LatentSource::Prompt,
            refit: None,
            rethink: None,
            seed: 5,
            stop: None,
            precision: ltm_vi::Precision::F32,
        };
        let texts = |prompt: &str, options: &GenerateOptions, count| -> Result<Vec<Text>> {
            let mut texts = Vec::new();
            let mut on_written = |written| -> Result<()> {
                match written {
                    Written::Text(text) => texts.push(text),
                    Written::Round(round) => assert_eq!((round, texts.len()), (0, 0)),
                }
                Ok(())
            };
            let weights = weights(&config);
            continue_prompt(&config, &weights, &Bytes, prompt, options, 0..count, &mut on_written)?;
            Ok(texts)
        };
        // More than are decoded together, and a prompt longer than the context.
        let long = "the dog saw the cat and the cat saw the dog";
        let all = texts(long, &options, TOGETHER + 1).expect("written");
        assert_eq!(all.len() as u64, TOGETHER + 1);
        for (draw, text) in (0..).zip(&all) {
            assert!(text.draw == draw && text.text.starts_with(long), "{text:?}");
            assert!(text.tokens.len() == 3 && !text.stopped, "{text:?}");
        }
        assert_ne!(all[0].tokens, all[1].tokens);
        let stop = Some(all[0].tokens[0]);
        let stopped = texts(long, &GenerateOptions { stop, ..options }, 1).expect("written");
        assert!(stopped[0].stopped && stopped[0].tokens.len() == 1, "{stopped:?}");
        assert_eq!(texts("", &options, 2).expect("from nothing").len(), 2);
        assert!(all.iter().all(|text| text.round == 0 && text.rounds.is_empty()));
        let (keep, start) = (Keep::Last, RethinkStart::Inference);
        let rethink = Some(Rethink { rounds: 1, keep, start, samples: 2 });
        let again = texts(long, &GenerateOptions { rethink, ..options }, 2).expect("written");
        for (text, plain) in again.iter().zip(&all) {
            let [first, last] = &text.rounds[..] else { panic!("two rounds: {text:?}") };
            assert_eq!((&first.text, &first.tokens), (&plain.text, &plain.tokens));
            assert_eq!((&last.text, &last.tokens, text.round), (&text.text, &text.tokens, 1));
            assert!(first.score.is_some() && last.score.is_some());
        }
    }

    #[test]
    fn a_prompt_is_a_third_of_the_first_text() {
        for (row, length) in [
            (&[0, 1, 2, 3, 4, 5, 6, 7, 8][..], 3),
            (&[0, 1, 2, 3, 4, 5, 0, 0, 0], 2),
            (&[0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 2, 3, 4, 5], 3),
            (&[0, 1], 2),
            (&[0], 1),
        ] {
            assert_eq!(first_third(row, 0), &row[..length]);
        }
    }
}
