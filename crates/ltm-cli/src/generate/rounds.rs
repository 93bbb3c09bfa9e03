//! Rounds of rethinking: their options, and what is printed of them.

use clap::ValueEnum;
use ltm_eval::samples::Round;
use ltm_eval::suites::Mean;
use ltm_eval::suites::stories::{Story, StoryMetrics};
use ltm_train::Config;
use ltm_vi::{Keep, Protocol, Rethink, RethinkStart, RoundScore, suits};
use serde::Serialize;
use serde_json::{Value, json};

use super::measures::kept;
use crate::output::{OutputError, number, plus_minus, usage};

/// Options of rethinking.
#[derive(clap::Args)]
pub struct RethinkArgs {
    /// Write each text N more times, each time with latents fitted to what was written before [default: write it once]
    ///
    /// A round fits the posterior to the whole text, prompt and continuation, draws latents from it and writes the
    /// continuation again from its beginning. Each round's text is scored by a valid bound (elbo:8, nats per token of the
    /// whole text) under the posterior that is fitted to it. Together with --refit, latents are fitted again within every
    /// round too. A text chosen by its score is no longer a sample of the model.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    rethink: Option<u64>,
    /// Round whose text is kept [default: best]
    #[arg(long, value_enum, requires = "rethink")]
    rethink_keep: Option<KeepArg>,
    /// Posterior at which the fit of a round begins [default: inference]
    #[arg(long, value_enum, requires = "rethink")]
    rethink_start: Option<StartArg>,
}

/// Which round's text is kept.
#[derive(Clone, Copy, ValueEnum)]
enum KeepArg {
    /// The one of the lowest score
    Best,
    /// The last one, a sample of the rounds
    Last,
}

/// Where the fit of a round begins.
#[derive(Clone, Copy, ValueEnum)]
enum StartArg {
    /// Where every fit of the configuration begins
    Inference,
    /// At the posterior that the text was written from
    Posterior,
}

impl RethinkArgs {
    /// Whether any was given.
    pub fn any(&self) -> bool {
        // The others require it.
        self.rethink.is_some()
    }

    /// What the options stand for, for a model that has it.
    pub fn of(&self, config: &Config) -> anyhow::Result<Option<Rethink>> {
        let Some(rounds) = self.rethink else { return Ok(None) };
        let rethink = Rethink {
            rounds: usize::try_from(rounds).unwrap_or(usize::MAX),
            keep: match self.rethink_keep {
                Some(KeepArg::Best) | None => Keep::Best,
                Some(KeepArg::Last) => Keep::Last,
            },
            start: match self.rethink_start {
                Some(StartArg::Inference) | None => RethinkStart::Inference,
                Some(StartArg::Posterior) => RethinkStart::Posterior,
            },
            samples: Protocol::DEFAULT_SAMPLES,
        };
        suits(&config.model, &config.infer, rethink.task())
            .map_err(|error| usage(format!("--rethink: {error}")))?;
        Ok(Some(rethink))
    }
}

/// A round of a text, for a line of JSON.
pub fn line(round: &Round) -> Value {
    let score =
        round.score.map(|RoundScore { protocol, nats_per_token, sampling_error, .. }| {
            let protocol = protocol.to_string();
            json!({
                "protocol": protocol,
                "nats_per_token": nats_per_token,
                "sampling_error": sampling_error,
            })
        });
    json!({ "text": round.text, "tokens": round.tokens.len(), "score": score })
}

/// The rounds of many texts.
pub struct Rounds {
    protocol: Protocol,
    /// For each round the scores of its texts.
    scores: Vec<Vec<f64>>,
    /// For each round how many texts are of it.
    kept: Vec<usize>,
}

/// What is measured of the texts of one round.
#[derive(Serialize)]
pub struct Measured {
    round: usize,
    /// Texts that are of this round.
    kept: usize,
    /// Nats per token.
    score: Mean,
    #[serde(skip_serializing_if = "Option::is_none")]
    stories: Option<StoryMetrics>,
}

impl Rounds {
    /// The rounds of no text.
    pub fn new(rethink: &Rethink) -> Self {
        let protocol = Protocol::Elbo { samples: rethink.samples };
        Self { protocol, scores: Vec::new(), kept: Vec::new() }
    }

    /// Counts the rounds of a text, which is of round `kept`.
    pub fn add(&mut self, kept: usize, rounds: &[Round]) {
        self.scores.resize(rounds.len(), Vec::new());
        self.kept.resize(rounds.len(), 0);
        for (scores, round) in self.scores.iter_mut().zip(rounds) {
            scores.extend(round.score.map(|score| score.nats_per_token));
        }
        self.kept[kept] += 1;
    }

    /// Mean scores, and which rounds were kept, in a sentence.
    pub fn summary(&self) -> String {
        let kept: Vec<String> = (0..)
            .zip(&self.kept)
            .filter(|(_, kept)| **kept > 0)
            .map(|(round, kept)| format!("{kept} of round {round}"))
            .collect();
        let scores: Vec<String> =
            self.scores.iter().map(|scores| number(Mean::of(scores).mean, 4)).collect();
        let (protocol, kept, scores) = (self.protocol, kept.join(", "), scores.join(", "));
        format!("texts kept: {kept}; {protocol} by round, nats per token: {scores}")
    }

    /// Measures each round; `check` the stories that its texts are, if they are stories.
    pub fn measure(
        self,
        texts: &[Vec<Story>],
        check: &dyn Fn(&[Story]) -> Option<StoryMetrics>,
    ) -> Vec<Measured> {
        let of_round = |(round, (scores, kept)): (usize, (&Vec<f64>, &usize))| {
            let stories: Vec<Story> = texts.iter().map(|rounds| rounds[round].clone()).collect();
            Measured { round, kept: *kept, score: Mean::of(scores), stories: check(&stories) }
        };
        self.scores.iter().zip(&self.kept).enumerate().map(of_round).collect()
    }
}

/// One row per round.
pub fn print_table(rounds: &[Measured]) -> Result<(), OutputError> {
    outln!()?;
    let stories = rounds.iter().any(|round| round.stories.is_some());
    let titles = ["consistent", "grammatical", "repeats kept beyond"].map(|t| format!("  {t:>26}"));
    let titles = if stories { titles.concat() } else { String::new() };
    outln!("round  texts kept  {:>18}{titles}", "nats per token")?;
    for Measured { round, kept: texts, score, stories } in rounds {
        let share = |mean: &Mean| plus_minus((mean.mean, mean.standard_error), 3);
        let stories = stories.as_ref().map(|found| {
            [share(&found.consistent), share(&found.grammatical), kept(&found.far)]
                .map(|cell| format!("  {cell:>26}"))
                .concat()
        });
        let score = plus_minus((score.mean, score.standard_error), 4);
        outln!("{round:>5}  {texts:>10}  {score:>18}{}", stories.unwrap_or_default())?;
    }
    Ok(())
}
