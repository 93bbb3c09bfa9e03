//! Measures of generated texts: their units, and the tables.

use clap::ValueEnum;
use ltm_eval::suites::Mean;
use ltm_eval::suites::generation::{BLEU_ORDER, TextMetrics};
use ltm_eval::suites::stories::{Kept, StoryMetrics};
use ltm_eval::text::decode;
use ltm_train::data::Tokenizer;

use crate::output::{OutputError, number, plus_minus};

/// The units of a text.
#[derive(Clone, Copy, ValueEnum)]
pub enum Units {
    /// Separated by white space, comparable between models
    Words,
    /// Of the model's tokenizer
    Tokens,
}

impl Units {
    pub fn name(self) -> &'static str {
        match self {
            Self::Words => "words",
            Self::Tokens => "tokens",
        }
    }

    /// The units of a text from a file.
    pub fn read(self, tokenizer: &dyn Tokenizer, text: &str) -> anyhow::Result<Vec<String>> {
        Ok(match self {
            Self::Words => words(text),
            Self::Tokens => tokenizer.encode(text)?.iter().map(u32::to_string).collect(),
        })
    }

    /// The units of a generated text, whose tokens need not be those of its characters.
    pub fn written(self, tokenizer: &dyn Tokenizer, tokens: &[i32]) -> Vec<String> {
        match self {
            Self::Words => words(&decode(tokenizer, tokens)),
            Self::Tokens => {
                let end = tokenizer.separator() as i32;
                tokens.strip_suffix(&[end]).unwrap_or(tokens).iter().map(i32::to_string).collect()
            }
        }
    }
}

/// The measures of texts, with progress.
pub fn measure(texts: &[Vec<String>]) -> TextMetrics {
    let bar = crate::progress_bar(0, "comparing texts {pos}/{len}, ETA {eta}");
    let metrics = TextMetrics::of(texts, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    metrics
}

/// One column of measures per set of texts.
pub fn print_table(units: Units, columns: &[(&str, TextMetrics)]) -> Result<(), OutputError> {
    let row = |name: &str, value: &dyn Fn(&TextMetrics) -> String| {
        let values = columns.iter().map(|(_, metrics)| format!("  {:>18}", value(metrics)));
        outln!("{name:<26}{}", values.collect::<String>())
    };
    let mean = |mean: &Mean| plus_minus((mean.mean, mean.standard_error), 3);
    let share = |share: Option<f64>| share.map_or("n/a".into(), |share| number(share, 4));
    let names = columns.iter().map(|(name, _)| format!("  {name:>18}")).collect::<String>();
    outln!("{:<26}{names}", format!("unit: {}", units.name()))?;
    row("texts", &|m| m.texts.to_string())?;
    row("empty texts", &|m| m.empty.to_string())?;
    row("length", &|m| mean(&m.length))?;
    row("shortest to longest", &|m| format!("{} to {}", m.shortest, m.longest))?;
    row("entropy per text, nats", &|m| mean(&m.entropy))?;
    for (n, i) in (1..).zip(0..3) {
        row(&format!("distinct-{n}"), &|m| share(m.distinct[i]))?;
    }
    row(&format!("self-BLEU-{BLEU_ORDER}"), &|m| share(m.self_bleu))?;
    row("rep-4 per text", &|m| mean(&m.repetition))
}

/// Whether texts are stories, and which facts they keep.
pub fn print_stories(found: &StoryMetrics) -> Result<(), OutputError> {
    let mean = |name: &str, mean: &Mean| {
        outln!("{name:<38}  {:>18}", plus_minus((mean.mean, mean.standard_error), 3))
    };
    let StoryMetrics { reach, .. } = found;
    outln!()?;
    mean("consistent stories, share", &found.consistent)?;
    mean("grammatical stories, share", &found.grammatical)?;
    mean("grammatical sentences, share", &found.sentences)?;
    mean("contradicted facts per story", &found.contradictions)?;
    outln!()?;
    let near = format!("within {reach} words");
    outln!("{:<16}  {near:>26}  {:>26}", "repeats kept", "beyond, by latents only")?;
    let row = |name: &str, near: &Kept, far: &Kept| {
        outln!("{name:<16}  {:>26}  {:>26}", kept(near), kept(far))
    };
    row("all facts", &found.near, &found.far)?;
    found.facts.iter().try_for_each(|fact| row(fact.fact, &fact.near, &fact.far))
}

/// A share with its error, and what it is of.
pub fn kept(kept: &Kept) -> String {
    match kept.repeats {
        0 => "none".into(),
        n => format!("{} of {n}", plus_minus((kept.share, kept.standard_error), 3)),
    }
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(Into::into).collect()
}
