//! Short stories whose exact likelihood is known: their grammar, samples and entropy. Knows no files and no
//! tokenizer.

mod facts;
mod grammar;
mod story;

use std::sync::LazyLock;

use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use self::facts::{Repeat, Stated};
use self::grammar::Grammar;
use super::difference::Difference;
use crate::{Error, Result};

/// Stories enough for [`true_entropy`] to be known to a thousandth.
pub const ENTROPY_DOCUMENTS: u64 = 4000;

/// No story is longer, its separator included.
pub const MAX_TOKENS: usize = 96;

/// The random stream of this module: "tale" in ASCII.
const STREAM: u64 = 0x7461_6c65;

static STORIES: LazyLock<Grammar> = LazyLock::new(story::grammar);

/// A story.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// Its words, then the separator.
    pub tokens: Vec<u32>,
    /// Its log-probability in nats, the separator included.
    pub log_prob: f64,
}

/// An estimate of the stories' entropy, which no model's expected NLL can be below, with its standard errors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Entropy {
    /// Nats per story: the mean of `-log_prob`.
    pub nats_per_document: f64,
    /// Its standard error.
    pub nats_per_document_se: f64,
    /// All nats over all tokens, separators included.
    pub nats_per_token: f64,
    /// Its standard error, by the delta method for a ratio of means.
    pub nats_per_token_se: f64,
}

/// The words in the order of their ids.
pub fn vocabulary() -> Vec<String> {
    STORIES.words().to_vec()
}

fn separator() -> u32 {
    STORIES.words().len() as u32
}

pub(crate) fn tokens(seed: u64, index: u64) -> Vec<u32> {
    let mut tokens = STORIES.sample(&Philox::new(PhiloxKey { seed, stream: STREAM, step: index }));
    tokens.push(separator());
    tokens
}

/// Story number `index` of `seed`.
pub fn sample(seed: u64, index: u64) -> Document {
    let tokens = tokens(seed, index);
    let log_prob = log_prob(&tokens);
    Document { tokens, log_prob }
}

/// The exact log-probability, in nats, of a story with its separator, summed over all derivations; minus
/// infinity for anything that is no story.
pub fn log_prob(tokens: &[u32]) -> f64 {
    match tokens.split_last() {
        Some((&last, text)) if last == separator() => STORIES.probability(text).ln(),
        _ => f64::NEG_INFINITY,
    }
}

/// How a text agrees with the grammar of the stories and with itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// Its [`log_prob`]: finite for a story, which contradicts nothing.
    pub log_prob: f64,
    /// Whether it is a story but for contradictions: sentences of the grammar, in order, then the separator.
    pub is_grammatical: bool,
    /// Sentences, also those outside the grammar.
    pub sentences: usize,
    /// Sentences of the grammar, in whatever order.
    pub parsed: usize,
    /// Mentions of facts that earlier mentions determine or exclude, in sentences of the grammar.
    pub repeats: Vec<Repeat>,
    /// What it says of each fact, such as its hero's name: the facts that its mentions determine.
    pub stated: Vec<Stated>,
}

impl Check {
    /// Whether the text is a story: grammatical, and without a contradiction.
    pub fn is_consistent(&self) -> bool {
        self.log_prob > f64::NEG_INFINITY
    }
}

/// Checks a text up to its first separator, at which a story ends: whether it is one, and which of the facts that it
/// mentions (who, where, what, how many) it keeps.
pub fn check(tokens: &[u32]) -> Check {
    let end = tokens.iter().position(|token| *token == separator());
    let text = &tokens[..end.unwrap_or(tokens.len())];
    let stop =
        STORIES.words().iter().position(|word| word == ".").map_or(separator(), |at| at as u32);
    let found = facts::facts(&STORIES, text, stop);
    Check {
        log_prob: log_prob(&tokens[..end.map_or(tokens.len(), |end| end + 1)]),
        is_grammatical: end.is_some() && facts::is_grammatical(&STORIES, text),
        sentences: found.sentences,
        parsed: found.parsed,
        repeats: found.repeats,
        stated: found.stated,
    }
}

/// Estimates the entropy from stories `0..n` of `seed`.
///
/// # Errors
/// [`Error::Field`] when `n` is under 2, too few for a standard error.
pub fn true_entropy(seed: u64, n: u64) -> Result<Entropy> {
    if n < 2 {
        return Err(Error::field("n", "at least 2 documents", n));
    }
    let drawn: Vec<(f64, f64)> = (0..n)
        .into_par_iter()
        .map(|index| {
            let document = sample(seed, index);
            (-document.log_prob, document.tokens.len() as f64)
        })
        .collect();
    let count = n as f64;
    let mean = |of: &dyn Fn(&(f64, f64)) -> f64| drawn.iter().map(of).sum::<f64>() / count;
    let (nats, length) = (mean(&|d| d.0), mean(&|d| d.1));
    let ratio = nats / length;
    let standard_error = |residual: &dyn Fn(&(f64, f64)) -> f64| {
        (mean(&|d| residual(d).powi(2)) / (count - 1.0)).sqrt()
    };
    Ok(Entropy {
        nats_per_document: nats,
        nats_per_document_se: standard_error(&|d| d.0 - nats),
        nats_per_token: ratio,
        nats_per_token_se: standard_error(&|d| d.0 - ratio * d.1) / length,
    })
}

/// Which stories a corpus holds: `0..documents` of `seed` in the training split, the next `val_documents` in the
/// validation split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters {
    /// The seed that stories are drawn with.
    pub seed: u64,
    /// Stories to train on.
    pub documents: u64,
    /// Stories to validate on.
    pub val_documents: u64,
}

impl Parameters {
    /// How `new` differs.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        [
            Difference::of("storyworld.seed", self.seed, new.seed),
            Difference::of("storyworld.documents", self.documents, new.documents),
            Difference::of("storyworld.val_documents", self.val_documents, new.val_documents),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stories_have_the_promised_size() {
        let words = vocabulary().len();
        assert!((200..400).contains(&words), "{words} words");
        let lengths: Vec<usize> = (0..2000).map(|index| tokens(1, index).len()).collect();
        let (min, max) = (lengths.iter().min().expect("some"), lengths.iter().max().expect("some"));
        assert!(*min >= 48 && *max <= MAX_TOKENS, "{min} to {max} tokens");
    }

    #[test]
    fn drawn_stories_are_possible_and_others_are_not() {
        for index in 0..50 {
            let document = sample(2, index);
            assert!(document.log_prob.is_finite() && document.log_prob < -20.0, "{document:?}");
            let text = &document.tokens[..document.tokens.len() - 1];
            assert_eq!(log_prob(text), f64::NEG_INFINITY, "no separator");
            let mut other = document.tokens.clone();
            other.swap(3, 20);
            assert_eq!(log_prob(&other), f64::NEG_INFINITY);
        }
        assert_eq!(log_prob(&[]), f64::NEG_INFINITY);
        assert_eq!(log_prob(&[separator()]), f64::NEG_INFINITY);
    }

    #[test]
    fn a_drawn_story_keeps_its_facts() {
        let mut far = 0;
        for index in 0..1000 {
            let document = sample(4, index);
            let found = check(&document.tokens);
            assert!(found.is_grammatical && found.is_consistent(), "story {index}: {found:?}");
            assert_eq!(found.log_prob, document.log_prob);
            assert_eq!((found.sentences, found.sentences >= 7), (found.parsed, true), "{index}");
            assert!(found.repeats.iter().all(|repeat| repeat.is_kept), "story {index}: {found:?}");
            far += found.repeats.iter().filter(|repeat| repeat.distance > 16).count();
        }
        assert!(far > 3000, "{far} of 1000 stories");
    }

    /// The words of a text, which has none outside the vocabulary.
    fn ids(text: &str) -> Vec<u32> {
        let id = |word| STORIES.words().iter().position(|known| known == word).expect(word) as u32;
        text.split_whitespace().map(id).collect()
    }

    const STORY: &str = "one rainy morning , tom went to the kitchen with a red dog . \
        anna the baker was there , feeling happy . \
        tom had two cakes and anna had three . \
        all day they baked with the big spoon , and the rain made them wet . \
        then the red dog hid the spoon . \
        anna gave him some honey . \
        two plus three is five , said tom . \
        tom and anna ate the honey and laughed .";

    #[test]
    fn the_facts_of_a_story_by_hand() {
        let whole = [&ids(STORY)[..], &[separator()]].concat();
        let found = check(&whole);
        assert!(found.is_consistent() && found.is_grammatical, "{found:?}");
        assert_eq!((found.sentences, found.parsed), (8, 8));
        let at = |word: &str, nth: usize| {
            let word = ids(word)[0];
            let all = whole.iter().enumerate().filter(|(_, token)| **token == word);
            all.map(|(at, _)| at).nth(nth).expect("it occurs as often")
        };
        let repeat = |at: usize| found.repeats.iter().find(|repeat| repeat.at == at);
        for (word, from, expected) in [
            // The place makes the baker; the spoon is known from the word before it of the same trade.
            (at("baker", 0), at("kitchen", 0), "scene"),
            (at("spoon", 0), at("baked", 0), "scene"),
            (at("rain", 0), at("rainy", 0), "weather"),
            (at("him", 0), at("tom", 1), "cast"),
            (at("dog", 1), at("dog", 0), "animal"),
            // A sum is known from both its numbers.
            (at("five", 0), at("two", 1), "sum"),
            (at("laughed", 0), at("happy", 0), "mood"),
        ] {
            let found = repeat(word).expect("a repeat");
            assert_eq!((found.fact, found.distance), (expected, word - from), "{found:?}");
        }
        // What is mentioned first repeats nothing.
        for word in ["rainy", "kitchen", "red", "happy", "two", "three"] {
            assert_eq!(repeat(at(word, 0)), None, "{word}");
        }
    }

    #[test]
    fn what_a_story_states_by_hand() {
        let stated = |text: &str| {
            let stated = check(&ids(text)).stated.into_iter();
            let shown = stated.map(|s| format!("{} {}", s.fact, STORIES.words()[s.word as usize]));
            shown.collect::<Vec<_>>().join(", ")
        };
        // `him` is told by `he`, and of a trade's words the first stands for all.
        let expected = "cast.hero tom, cast.he he, cast.friend anna, scene.things cakes, scene.place kitchen, \
            sum.a two, sum.b three, sum.total five, weather.kind rainy, mood.kind happy, colour.kind red, \
            animal.kind dog, treat.kind honey";
        assert_eq!(stated(STORY), expected);
        // One that is told by none of its words is not stated, and the baker tells the trade but not the place.
        let found = stated("anna the baker was there , feeling sad .");
        assert_eq!(found, "cast.friend anna, scene.things cakes, mood.kind sad");
        assert_eq!(stated("tom tom"), "");
    }

    #[test]
    fn a_planted_contradiction_is_found_where_it_is() {
        let mut planted = 0;
        for index in 0..60 {
            let tokens = tokens(6, index);
            for repeat in check(&tokens).repeats {
                let variable = STORIES.variables.iter().find(|v| v.name == repeat.fact);
                let rows = &variable.expect("a fact of the grammar").rows;
                let word = tokens[repeat.at];
                let column = rows.iter().find_map(|row| row.iter().position(|w| *w == word));
                let column = column.expect("a word of the fact");
                let row = rows.iter().rev().find(|row| !row.contains(&word)).expect("another row");
                let mut other = tokens.clone();
                other[repeat.at] = row[column];
                let found = check(&other);
                if !found.is_grammatical {
                    // A word of several columns was replaced by that of another one.
                    continue;
                }
                let wrong: Vec<_> = found.repeats.iter().filter(|found| !found.is_kept).collect();
                let expected = Repeat { is_kept: false, ..repeat };
                assert!(!found.is_consistent(), "{other:?}");
                assert_eq!(wrong, [&expected], "story {index}");
                planted += 1;
            }
        }
        assert!(planted > 500, "{planted}");
    }

    #[test]
    fn a_sentence_outside_the_grammar_hides_only_itself() {
        let broken = STORY.replace("feeling happy", "happy happy");
        let found = check(&[&ids(&broken)[..], &[separator()]].concat());
        assert!(!found.is_grammatical && !found.is_consistent());
        assert_eq!((found.sentences, found.parsed), (8, 7));
        assert!(found.repeats.iter().all(|repeat| repeat.is_kept), "{found:?}");
        let other = broken.replace("cakes and anna", "cakes and rosa");
        let wrong = check(&ids(&other)).repeats.into_iter().filter(|repeat| !repeat.is_kept);
        // Anna was hidden, so rosa is the friend, and the two annas after her are contradictions.
        assert_eq!(wrong.count(), 2);
        // Without its end, or with more after it, it is none; the text after the first separator is not read.
        let whole = ids(STORY);
        assert!(!check(&whole).is_grammatical);
        assert!(!check(&[&whole[..20], &[separator()]].concat()).is_grammatical);
        assert!(check(&[&whole[..], &[separator(), 3, 4]].concat()).is_consistent());
        assert_eq!(check(&[]).sentences, 0);
        assert_eq!(check(&[u32::MAX, 7]).parsed, 0);
    }

    #[test]
    fn a_story_is_a_function_of_seed_and_index() {
        assert_eq!(sample(3, 7), sample(3, 7));
        assert_ne!(sample(3, 7), sample(3, 8));
        assert_ne!(sample(3, 7), sample(4, 7));
    }

    #[test]
    fn the_entropy_estimate_is_consistent() {
        let (few, more) =
            (true_entropy(1, 300).expect("enough"), true_entropy(2, 1200).expect("enough"));
        let gap = (few.nats_per_token - more.nats_per_token).abs();
        assert!(
            gap <= 4.0 * few.nats_per_token_se.hypot(more.nats_per_token_se),
            "{few:?} {more:?}"
        );
        assert!(more.nats_per_document_se < few.nats_per_document_se);
        // The choices behind a story alone are worth log(380 * 24 * 6 * 6 * 8 * 8 * 64 * 8) = 23.1 nats; not
        // every story shows all of them, but the choice of sentences adds more.
        assert!((25.0..60.0).contains(&more.nats_per_document), "{more:?}");
        assert!(true_entropy(1, 1).is_err());
    }

    #[test]
    fn the_errors_of_the_entropy_by_hand() {
        let stories = [0, 1, 2].map(|index| sample(7, index));
        let (nats, lengths) = (
            stories.each_ref().map(|story| -story.log_prob),
            stories.each_ref().map(|story| story.tokens.len() as f64),
        );
        let mean = |values: [f64; 3]| values.iter().sum::<f64>() / 3.0;
        // Of a mean of three: sqrt(sum of squared residuals / (3·2)).
        let error =
            |residuals: [f64; 3]| (residuals.iter().map(|r| r * r).sum::<f64>() / 6.0).sqrt();
        let ratio = nats.iter().sum::<f64>() / lengths.iter().sum::<f64>();
        let found = true_entropy(7, 3).expect("enough");
        for (found, expected) in [
            (found.nats_per_document, mean(nats)),
            (found.nats_per_document_se, error(nats.map(|x| x - mean(nats)))),
            (found.nats_per_token, ratio),
            // Of a ratio of means to first order: that of what it leaves, per mean length.
            (
                found.nats_per_token_se,
                error([0, 1, 2].map(|i| nats[i] - ratio * lengths[i])) / mean(lengths),
            ),
        ] {
            assert!((found - expected).abs() <= 1e-12 * expected, "{found} is not {expected}");
        }
        true_entropy(7, 2).expect("two are enough");
        let error = true_entropy(7, 1).expect_err("too few").to_string();
        assert!(
            error.contains("`n`") && error.contains("at least 2") && error.contains("found 1"),
            "{error}"
        );
    }
}
