//! What the engine is asked for, and what it answers. Computes nothing.

use std::time::Instant;

use ltm_eval::ltm_vi::{FastStep, SampleConfig};
use serde::Serialize;
use tokio::sync::mpsc::UnboundedSender;

use crate::continuation::{Finish, Limits};
use crate::error::ApiError;
use crate::models::Named;

/// The channel of a request: closed when its client has gone away. What it holds is bounded by the request itself.
pub(crate) type Events = UnboundedSender<Event>;

/// A piece of work.
pub(crate) enum Job {
    Write(WriteJob),
    Read(ReadJob),
}

/// What is done for one text after the other.
pub(crate) enum ReadJob {
    Score(ScoreJob),
    Think(Box<ThinkJob>),
}

/// Texts that continue one prompt.
pub(crate) struct WriteJob {
    pub(crate) model: usize,
    /// The prompt, after the token that documents begin with.
    pub(crate) prompt: Vec<i32>,
    /// The request's number of the first text; the others follow.
    pub(crate) first: usize,
    /// Texts to write.
    pub(crate) count: usize,
    /// Seed of the fit and of the first text; the others follow.
    pub(crate) seed: u64,
    pub(crate) sample: SampleConfig,
    pub(crate) limits: Limits,
    /// Most likely tokens to report with each; `None` for no probabilities.
    pub(crate) top: Option<usize>,
    pub(crate) arrived: Instant,
    pub(crate) events: Events,
}

/// The probabilities of a prompt's own tokens.
pub(crate) struct ScoreJob {
    pub(crate) named: Named,
    pub(crate) prompt: Vec<i32>,
    /// The request's number of the prompt.
    pub(crate) number: usize,
    pub(crate) top: usize,
    pub(crate) events: Events,
}

/// The posterior of a text, and what is made of it.
pub(crate) struct ThinkJob {
    pub(crate) model: usize,
    pub(crate) text: Vec<i32>,
    /// Fast steps, where not as many as the configuration has.
    pub(crate) steps: Option<usize>,
    pub(crate) seed: u64,
    /// The latents `(L·Z,C)` to decode instead of the posterior's mean, by what each is multiplied with: 0 is the
    /// standard normal prior's mean.
    pub(crate) scales: Vec<f32>,
    pub(crate) max_tokens: usize,
    pub(crate) events: Events,
}

/// What happens to a request.
#[derive(Debug)]
pub(crate) enum Event {
    /// Fast step number `step` of a prompt's fit, from 0, of `of`.
    Thinking { step: usize, of: usize },
    /// A fast step of a text's fit of so many.
    Step(FastStep, usize),
    /// A token of text `choice`.
    Token { choice: usize, token: Box<Token> },
    /// The probabilities of prompt `number`: of its tokens after the first.
    Scored { number: usize, entries: Vec<Entry> },
    /// A text's posterior.
    Fitted(Box<FittedText>),
    /// The end of the request.
    Failed(ApiError),
}

/// A token of a text.
#[derive(Debug)]
pub(crate) struct Token {
    /// The text that it makes ready to send.
    pub(crate) text: String,
    pub(crate) entry: Option<Entry>,
    pub(crate) finish: Option<Finish>,
}

/// A token's log-probability, in nats, with those of the most likely tokens in its place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) token: i32,
    pub(crate) log_prob: f64,
    /// The most likely first.
    pub(crate) top: Vec<(i32, f64)>,
}

impl Entry {
    /// Of a distribution's log-probabilities; of equal ones the lower token is first.
    pub(crate) fn new(token: i32, log_probs: &[f64], top: usize) -> Self {
        let mut order: Vec<usize> = (0..log_probs.len()).collect();
        let by_rank = |a: &usize, b: &usize| log_probs[*b].total_cmp(&log_probs[*a]).then(a.cmp(b));
        let top = top.min(order.len());
        if top > 0 && top < order.len() {
            order.select_nth_unstable_by(top - 1, by_rank);
        }
        order.truncate(top);
        order.sort_unstable_by(by_rank);
        let top = order.into_iter().map(|token| (token as i32, log_probs[token])).collect();
        Self { token, log_prob: log_probs[token as usize], top }
    }
}

/// A text's posterior, and what the latents cost and saved, in nats.
#[derive(Debug, Serialize)]
pub(crate) struct FittedText {
    /// KL from the prior: the latents' cost.
    pub(crate) kl: f64,
    /// The same by layer.
    pub(crate) kl_per_layer: Vec<f64>,
    /// The negative ELBO of the text by fresh samples, a valid bound, and the variance that more samples would remove.
    pub(crate) bound: f64,
    pub(crate) bound_variance: f64,
    /// The same at the prior.
    pub(crate) prior_bound: f64,
    pub(crate) prior_bound_variance: f64,
    /// Fresh samples of each bound.
    pub(crate) samples: usize,
    /// `(L·Z,C)`, row-major.
    pub(crate) mu: Vec<f32>,
    pub(crate) log_var: Vec<f32>,
    /// L·Z and C.
    pub(crate) shape: [usize; 2],
    /// The text that is written greedily from the latents alone.
    pub(crate) decoded: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_likely_tokens_come_first_and_repeat_the_same_number() {
        let log_probs = [-3.0, -1.0, -1.0, -0.5];
        let entry = Entry::new(2, &log_probs, 3);
        assert_eq!(entry.top, [(3, -0.5), (1, -1.0), (2, -1.0)]);
        assert!(entry.top.contains(&(entry.token, entry.log_prob)));
        assert_eq!(Entry::new(0, &log_probs, 0).top, []);
        assert_eq!(Entry::new(0, &log_probs, 9).top.len(), 4);
    }
}
