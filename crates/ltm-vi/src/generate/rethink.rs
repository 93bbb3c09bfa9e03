//! What rethinking is: how many rounds, which of them is kept, and what a round leaves. Writes nothing.

use serde::{Deserialize, Serialize};

use crate::error::argument;
use crate::{Extents, Protocol, Result, Task, suits};

/// Rounds of rethinking. A round fits the latents of a text to all of it, its prompt and what was written, draws latents
/// from that fit and writes the continuation again from its beginning: alternately `z ~ q(z|x)` and `x ~ p(x|z)`, the
/// Gibbs loop between latents and text (arXiv 2602.06584).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rethink {
    /// Rounds after the first writing, which is round 0.
    pub rounds: usize,
    /// Which round's text is returned.
    pub keep: Keep,
    /// Where the fit of a round begins.
    pub start: RethinkStart,
    /// Fresh samples of the latents in the score of each round.
    pub samples: usize,
}

/// Which round's text is returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// The one of the lowest score, the earliest of equals. A text chosen by its score is no sample of the model.
    Best,
    /// The last one, whatever its score.
    Last,
}

/// Where the fit of a round begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RethinkStart {
    /// Where the method of inference begins: the fit depends on the text alone.
    Inference,
    /// At the posterior that the text was written from, if it was written from one.
    Posterior,
}

/// A text as a round left it.
#[derive(Clone, Debug, PartialEq)]
pub struct Round {
    /// The continuation, with the stop token if it was generated.
    pub tokens: Vec<i32>,
    /// The latents `(L·Z,C)` that it was written with, at its end.
    pub z: Vec<f32>,
    /// Its score; `None` without a density of the latents, or without a token to predict.
    pub score: Option<RoundScore>,
}

/// A bound on a text under the latents that were fitted to it after it was written.
///
/// In expectation over its samples it is above `-log p` of prompt and continuation per token. It ranks continuations of
/// one prompt: it is no measure of what a text means, and the lowest of several is no bound for the text that it chose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundScore {
    /// [`Protocol::Elbo`] with the samples of [`Rethink::samples`].
    pub protocol: Protocol,
    /// The negative ELBO of prompt and continuation over their scored tokens: as far as the context holds them, which are
    /// its last `max_seq_len` tokens.
    pub nats_per_token: f64,
    /// The part of its error that more samples would remove; NaN for one sample.
    pub sampling_error: f64,
    /// Tokens that were scored.
    pub tokens: usize,
}

impl Rethink {
    /// Refuses what no model does, or this one does not.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) for no round, and for samples that [`Protocol::check`] refuses; [`Error::Unsuitable`](crate::Error::Unsuitable) for a
    /// model without latents.
    pub fn check(&self, model: impl Into<Extents>) -> Result<()> {
        let model = model.into();
        if self.rounds == 0 {
            return Err(argument("rethink", "at least 1 round", 0));
        }
        Protocol::Elbo { samples: self.samples }.check(1)?;
        match model.n_latents {
            0 => Err(suits::no_rethinking()),
            _ => Ok(()),
        }
    }

    /// What the latents are inferred for, to ask [`suits`](crate::suits()) about a configuration.
    pub fn task(&self) -> Task {
        Task::Rethink { by_score: self.keep == Keep::Best }
    }
}

/// The round whose text is returned; `None` before the last has a score.
pub(super) fn chosen(rethink: &Rethink, rounds: &[Round]) -> Option<usize> {
    let last = rethink.rounds;
    if rounds.len() <= last {
        return None;
    }
    let scored = rounds
        .iter()
        .enumerate()
        .filter_map(|(idx, round)| round.score.map(|score| (idx, score.nats_per_token)));
    // The earliest of equals.
    let best = scored.min_by(|(_, a), (_, b)| a.total_cmp(b));
    Some(match (rethink.keep, best) {
        (Keep::Best, Some((best, _))) => best,
        (Keep::Best, None) | (Keep::Last, _) => last,
    })
}
