//! Rounds of rethinking: latents are fitted to what was written, and it is written again. Knows no text.

use super::generator::{Generator, Text};
use super::rethink::{Keep, Rethink, RethinkStart, Round, RoundScore};
use crate::fit::Observer;
use crate::fitter::Fitted;
use crate::{Batch, InferKey, Latents, Protocol, Result, Sequences, score, suits};

/// The position of a round's score, which no token has.
const SCORE: u64 = u64::MAX;

impl Generator {
    /// Writes the texts to their end, and again in every round of [`rethink`](Self::rethink).
    ///
    /// # Errors
    /// Those of [`next`](Self::next) and [`rethink`](Self::rethink).
    pub fn finish(&mut self, observer: &mut Observer<'_>) -> Result<()> {
        loop {
            while self.next(observer)?.is_some() {}
            if !self.rethink(observer)? {
                return Ok(());
            }
        }
    }

    /// Ends a round of [`rethinking`](super::GenerateOptions::rethink): fits the latents of each text to prompt and
    /// continuation as far as the context holds their end, scores the text under this fit, and begins the
    /// continuation again with a sample of it. The steps of the fits are reported to `observer`.
    ///
    /// Returns whether texts were begun again, for [`next`](Self::next) to write: `false` after the last round, and
    /// without rethinking. Random numbers are a function of the text's seed and the round. A call that fails changes
    /// nothing and can be made again.
    ///
    /// # Errors
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) when the best round is to be kept and the latents have no density; those of
    /// [`Inference::infer`](crate::Inference::infer), such as the observer's, and of [`score`](crate::score()).
    pub fn rethink(&mut self, observer: &mut Observer<'_>) -> Result<bool> {
        let Some(rethink) = self.options.rethink else { return Ok(false) };
        let written = self.texts.first().map_or(usize::MAX, |text| text.rounds.len());
        if written > rethink.rounds {
            return Ok(false);
        }
        // Texts of one length after each other share a program.
        let mut order: Vec<usize> = (0..self.texts.len()).collect();
        order.sort_by_key(|idx| self.whole(&self.texts[*idx]).len());
        let mut next: Vec<Option<Text>> = self.texts.iter().map(|_| None).collect();
        for idx in order {
            next[idx] = Some(self.think(idx, &rethink, observer)?);
        }
        let next: Vec<Text> = next.into_iter().flatten().collect();
        let is_last = written == rethink.rounds;
        if is_last {
            for (text, next) in self.texts.iter_mut().zip(next) {
                text.rounds = next.rounds;
            }
        } else {
            self.write(next)?;
        }
        Ok(!is_last)
    }

    /// The next round of a text: the one before with its score, and latents fitted to it.
    fn think(
        &mut self,
        idx: usize,
        rethink: &Rethink,
        observer: &mut Observer<'_>,
    ) -> Result<Text> {
        let text = &self.texts[idx];
        let round = text.rounds.len();
        // The key of the round to come: its fit is at position 0, as the prompt's is in round 0.
        let key = InferKey { sequences: Sequences::From(round as u64 + 1), ..text.key(0) };
        let inference = match rethink.start {
            RethinkStart::Inference => self.fitter.inference.clone(),
            RethinkStart::Posterior => self.fitter.after(&text.latents)?,
        };
        let tokens = self.whole(text);
        let mut latents = text.latents.clone();
        let mut score = None;
        if tokens.len() > 1 {
            let batch = self.fitter.batch(&[&tokens])?;
            latents = self.fitter.fit(&inference, &batch, key, observer)?;
            if rethink.keep == Keep::Best && matches!(latents, Fitted::Sample(_)) {
                return Err(suits::no_choice());
            }
            let key = InferKey { step: SCORE, ..key };
            score = self.score(&latents, &batch, rethink.samples, key)?;
        }
        let z = self.fitter.sample(&latents, key)?;
        let text = &self.texts[idx];
        let mut rounds = text.rounds.clone();
        rounds.push(Round { tokens: text.tokens.clone(), z: text.z.clone(), score });
        let prompt = (text.prompt, &self.prompts[text.prompt]);
        Ok(Text::begin(prompt, text.seed, (latents, z), rounds))
    }

    /// Prompt and continuation: their last tokens that a fit can predict, and one before these.
    fn whole(&self, text: &Text) -> Vec<i32> {
        let whole = [&self.prompts[text.prompt].tokens[..], &text.tokens].concat();
        whole[whole.len().saturating_sub(self.fitter.config.max_seq_len + 1)..].to_vec()
    }

    /// The bound of a text under latents fitted to it.
    fn score(
        &mut self,
        latents: &Fitted,
        batch: &Batch,
        samples: usize,
        key: InferKey,
    ) -> Result<Option<RoundScore>> {
        let Some(gaussian) = self.fitter.gaussian(latents)? else { return Ok(None) };
        let latents = Latents::Gaussian(gaussian);
        let protocol = Protocol::Elbo { samples };
        let [b, t] = batch.shape();
        let mut problem = self.fitter.programs.get(b, t)?.problem(&self.fitter.weights, batch)?;
        let found =
            score(&mut problem, protocol, &latents, &self.fitter.inference, key)?.estimate()?;
        Ok(Some(RoundScore {
            protocol,
            nats_per_token: found.mean_nats_per_token,
            sampling_error: found.sampling_error,
            tokens: found.tokens,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{GenerateOptions, Generation, generate, generate_many};
    use crate::{
        DeviceWeights, Error, FastStep, InferConfig, Inference, LatentSource, Method, ModelConfig,
        Precision, SampleConfig, Weights,
    };
    use ltm_kernels::Device;

    const CONFIG: ModelConfig = ModelConfig { max_seq_len: 8, ..crate::tiny::CONFIG };
    const RETHINK: Rethink =
        Rethink { rounds: 2, keep: Keep::Best, start: RethinkStart::Inference, samples: 3 };
    const OPTIONS: GenerateOptions = GenerateOptions {
        max_tokens: 4,
        sample: SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 },
        latents: LatentSource::Prompt,
        refit: None,
        rethink: Some(RETHINK),
        seed: 5,
        stop: None,
        precision: Precision::F32,
    };
    const PROMPT: [i32; 3] = [0, 4, 7];

    fn with(rethink: Rethink) -> GenerateOptions {
        GenerateOptions { rethink: Some(rethink), ..OPTIONS }
    }

    /// Weights large enough for latents to matter.
    fn weights(config: &ModelConfig) -> DeviceWeights {
        let mut weights = Weights::init(config, 1).unwrap();
        weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 15.0 });
        DeviceWeights::new(config, &weights, &Device::Cpu, Precision::F32).unwrap()
    }

    fn inference(method: Method) -> Inference {
        let noise = crate::Noise::Fresh;
        Inference::finished(&InferConfig { method, noise, ..InferConfig::published() }).unwrap()
    }

    fn check(prompt: &[i32], options: GenerateOptions) -> Result<Generation> {
        generate(&CONFIG, &weights(&CONFIG), &inference(Method::Variational), prompt, &options)
    }

    /// By hand: the text is fitted whole under the key of the next round, scored under that of its score, and written
    /// again as a generation from that posterior.
    #[test]
    fn a_round_fits_scores_and_writes_again() {
        let plain = check(&PROMPT, GenerateOptions { rethink: None, ..OPTIONS }).unwrap();
        let last = check(&PROMPT, with(Rethink { keep: Keep::Last, ..RETHINK })).unwrap();
        assert_eq!((plain.round, plain.rounds.len(), last.round, last.rounds.len()), (0, 0, 2, 3));
        // Round 0 is the text without rethinking, to the bit.
        assert_eq!((&last.rounds[0].tokens, &last.rounds[0].z), (&plain.tokens, &plain.z));
        assert_eq!((&last.rounds[2].tokens, &last.rounds[2].z), (&last.tokens, &last.z));

        let (weights, inference) = (weights(&CONFIG), inference(Method::Variational));
        let whole = [&PROMPT[..], &plain.tokens].concat();
        let batch = Batch::new(&CONFIG, 1, &whole[..6], &whole[1..]).unwrap();
        let (device, precision) = (Device::Cpu, Precision::F32);
        let none = crate::SlowGradient::None;
        let mut program = crate::Program::new(&CONFIG, 1, 6, &device, precision, none).unwrap();
        let mut problem = program.problem(&weights, &batch).unwrap();
        let key = InferKey { seed: OPTIONS.seed, step: 0, sequences: Sequences::From(1) };
        let latents = inference.infer(&mut problem, key, &mut |_| Ok(())).unwrap();
        let posterior = latents.gaussian().unwrap().to_host().unwrap();
        assert_eq!(last.rounds[1].z, posterior.fresh_sample(&CONFIG, key, 0).unwrap());
        let key = InferKey { step: SCORE, ..key };
        let elbo = Protocol::Elbo { samples: 3 };
        let scores = score(&mut problem, elbo, &latents, &inference, key).unwrap();
        let found = last.rounds[0].score.unwrap();
        assert_eq!((found.protocol, found.tokens), (elbo, 6));
        assert_eq!(found.nats_per_token, scores.nats[0] / 6.0);
        assert_eq!(found.sampling_error, scores.variance[0].sqrt() / 6.0);
        // The next text is written with that sample and numbers of its own.
        let greedy = GenerateOptions { sample: SampleConfig::GREEDY, ..OPTIONS };
        let written = check(&PROMPT, greedy).unwrap();
        for round in &written.rounds {
            let mut decoder = crate::Decoder::with_weights(CONFIG, weights.clone(), 1).unwrap();
            decoder.set_latents(&round.z).unwrap();
            let logits = decoder.prefill(&PROMPT).unwrap();
            let first = ltm_model::sample(logits, &SampleConfig::GREEDY, 0.0).unwrap();
            assert_eq!(round.tokens[0], first as i32);
        }
    }

    #[test]
    fn the_best_round_has_the_lowest_score_and_the_last_comes_last() {
        let best = check(&PROMPT, with(Rethink { rounds: 5, ..RETHINK })).unwrap();
        let scores = best.rounds.iter().map(|round| round.score.unwrap().nats_per_token);
        let lowest = scores.clone().fold(f64::INFINITY, f64::min);
        assert_eq!(scores.clone().position(|score| score == lowest), Some(best.round));
        assert!(scores.clone().any(|score| score != lowest), "rounds differ");
        assert_eq!(best.tokens, best.rounds[best.round].tokens);
        assert_eq!(best.z, best.rounds[best.round].z);
        let last =
            check(&PROMPT, with(Rethink { rounds: 5, keep: Keep::Last, ..RETHINK })).unwrap();
        assert_eq!((last.round, &last.rounds), (5, &best.rounds));
        // The rounds of fewer are the first of more.
        let fewer = check(&PROMPT, with(Rethink { rounds: 2, ..RETHINK })).unwrap();
        assert_eq!(fewer.rounds, best.rounds[..3]);
        let start = RethinkStart::Posterior;
        let other = check(&PROMPT, with(Rethink { rounds: 5, start, ..RETHINK })).unwrap();
        assert_eq!(other.rounds[0].tokens, best.rounds[0].tokens);
        assert_ne!(other.rounds[1].z, best.rounds[1].z);
    }

    /// Prompts of different lengths, of one token too, past the context, with refits, and texts that end early.
    #[test]
    fn texts_do_not_depend_on_their_neighbours() {
        let (weights, inference) = (weights(&CONFIG), inference(Method::Variational));
        let prompts: [&[i32]; 4] = [&[0, 4, 7], &[0], &[0, 2, 2, 8, 1], &[0, 9, 3, 1, 5, 5, 5, 2]];
        let stop = check(&PROMPT, OPTIONS).unwrap().tokens[2];
        for (refit, stop, max_tokens) in
            [(None, None, 20), (Some(3), None, 12), (None, Some(stop), 20)]
        {
            let options = GenerateOptions { max_tokens, refit, stop, ..OPTIONS };
            let mut fits = 0;
            let mut observer = |step: &FastStep| {
                fits += usize::from(step.step == 0);
                Ok(())
            };
            let mut generator =
                Generator::new(&CONFIG, &weights, &inference, &prompts, &options, &mut observer)
                    .unwrap();
            generator.begin(0..2).unwrap();
            generator.finish(&mut observer).unwrap();
            if (refit, stop) == (None, None) {
                // Three prompts have targets; then each of eight texts in each of three rounds.
                assert_eq!(fits, 3 + 8 * 3);
            }
            let together = generator.texts();
            for (i, prompt) in prompts.iter().enumerate() {
                let alone =
                    generate_many(&CONFIG, &weights, &inference, prompt, &options, 0..2).unwrap();
                assert_eq!(alone, together[2 * i..2 * i + 2], "{prompt:?}");
            }
            let rounds = together.iter().flat_map(|text| &text.rounds);
            for Round { tokens, score, .. } in rounds {
                // The context has eight targets.
                let ends = stop.is_some_and(|stop| tokens.last() == Some(&stop));
                assert!(tokens.len() == max_tokens || ends, "{tokens:?}");
                assert!(score.unwrap().tokens <= 8);
            }
            // Nothing is left to be done, and texts can be begun again.
            assert!(!generator.rethink(&mut |_| Ok(())).unwrap());
            assert!(generator.next(&mut |_| Ok(())).unwrap().is_none());
            generator.begin(1..2).unwrap();
            generator.finish(&mut |_| Ok(())).unwrap();
            assert_eq!(generator.texts()[2], together[5]);
        }
        let prior = GenerateOptions { latents: LatentSource::Prior, ..OPTIONS };
        let (prior, single) = (check(&PROMPT, prior).unwrap(), check(&[0], OPTIONS).unwrap());
        assert!(prior.fit.is_empty() && prior.rounds[1].score.is_some());
        assert_ne!(single.rounds[0].z, single.rounds[1].z);
        // Of no token at all there is nothing to fit and nothing to choose by.
        let none = check(&[0], GenerateOptions { max_tokens: 0, ..OPTIONS }).unwrap();
        assert_eq!((none.round, none.tokens.len(), none.rounds[0].score), (2, 0, None));
    }

    /// Cancelled in the fit of its second text, a round can be ended again.
    #[test]
    fn a_cancelled_round_changes_no_text() {
        let (weights, inference) = (weights(&CONFIG), inference(Method::Variational));
        let prompts: [&[i32]; 2] = [&[0, 4, 7], &[0, 2, 2, 8]];
        let run = |cancelled: Option<usize>| {
            let mut quiet = |_: &FastStep| Ok(());
            let mut generator =
                Generator::new(&CONFIG, &weights, &inference, &prompts, &OPTIONS, &mut quiet)
                    .unwrap();
            generator.begin(0..1).unwrap();
            for round in 0..=RETHINK.rounds {
                while generator.next(&mut quiet).unwrap().is_some() {}
                if cancelled == Some(round) {
                    let mut fits = 0;
                    let mut stop = |step: &FastStep| {
                        fits += usize::from(step.step == 0);
                        if fits == 2 { Err(Error::Stopped) } else { Ok(()) }
                    };
                    let before = generator.texts();
                    assert!(matches!(generator.rethink(&mut stop), Err(Error::Stopped)));
                    assert_eq!(generator.texts(), before);
                }
                assert_eq!(generator.rethink(&mut quiet).unwrap(), round < RETHINK.rounds);
            }
            generator.texts()
        };
        let whole = run(None);
        for round in 0..=RETHINK.rounds {
            assert_eq!(run(Some(round)), whole, "round {round}");
        }
    }

    #[test]
    fn what_has_no_score_keeps_its_last_round() {
        let (weights, langevin) = (weights(&CONFIG), inference(Method::Langevin));
        let write =
            |options: GenerateOptions| generate(&CONFIG, &weights, &langevin, &PROMPT, &options);
        for latents in [LatentSource::Prompt, LatentSource::Prior] {
            let best = write(GenerateOptions { latents, ..OPTIONS }).unwrap_err().to_string();
            assert!(best.contains("`rethink.keep` must be last"), "{best}");
        }
        let last = write(with(Rethink { keep: Keep::Last, ..RETHINK })).unwrap();
        assert_eq!((last.round, last.rounds.len()), (2, 3));
        assert!(last.rounds.iter().all(|round| round.score.is_none()));
        assert_ne!(last.rounds[1].z, last.rounds[2].z);
    }

    #[test]
    fn rounds_that_cannot_be_are_refused() {
        for (rethink, arg) in [
            (Rethink { rounds: 0, ..RETHINK }, "`rethink` must be at least 1 round"),
            (Rethink { samples: 0, ..RETHINK }, "`samples` must be at least 1"),
        ] {
            let error = check(&PROMPT, with(rethink)).unwrap_err().to_string();
            assert!(error.contains(arg), "{error}");
        }
        let none = ModelConfig { n_latents: 0, ..CONFIG };
        let (of_none, inference) = (weights(&none), inference(Method::Variational));
        let error = generate(&none, &of_none, &inference, &PROMPT, &OPTIONS).unwrap_err();
        assert!(error.to_string().contains("`rethink` must be omitted"), "{error}");
    }
}
