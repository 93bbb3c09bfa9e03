//! Whether texts of a model of storyworld are stories, and whether they keep the facts that they state. Knows no model.

use ltm_model::ModelConfig;
use ltm_train::data::Tokenizer;
use ltm_train::data::storyworld::{self, Check, Repeat};
use serde::Serialize;

use super::Mean;

/// A story with its prompt, and how much of it was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    /// Its words, the separator at its end if it has one.
    pub tokens: Vec<u32>,
    /// Words of the prompt, whose facts are not counted as repeats.
    pub given: usize,
}

/// How many stories are of the grammar, and how many facts they keep, near and far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StoryMetrics {
    /// Number of stories.
    pub stories: usize,
    /// The share of stories that the grammar can generate: grammatical, and without a contradiction.
    pub consistent: Mean,
    /// The share of stories of the grammar's sentences, in order and to the end, whatever their facts.
    pub grammatical: Mean,
    /// The share of a story's sentences that are of the grammar.
    pub sentences: Mean,
    /// Facts that a story contradicts, in sentences of the grammar.
    pub contradictions: Mean,
    /// The most words that attention alone spans, see [`reach`].
    pub reach: usize,
    /// Facts that were determined within the reach of attention.
    pub near: Kept,
    /// Facts that were determined further back, which only latents carry.
    pub far: Kept,
    /// The same by fact.
    pub facts: Vec<Fact>,
}

/// Repeats of one fact.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// Its name in the grammar.
    pub fact: &'static str,
    /// Within the reach of attention.
    pub near: Kept,
    /// Beyond it.
    pub far: Kept,
}

/// How many of repeated facts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Mentions that earlier ones determine or exclude.
    pub repeats: usize,
    /// The share of them that agrees with what was mentioned before; NaN of none.
    pub share: f64,
    /// Its standard error over stories, to first order.
    pub standard_error: f64,
}

/// Whether these are the words of storyworld.
pub fn are_stories(tokenizer: &dyn Tokenizer) -> bool {
    tokenizer.fingerprint() == storyworld::tokenizer().fingerprint()
}

/// The largest distance between a word and one that it can attend to, through all layers: a layer reads `window` words,
/// of which the last predicts the next. What is further back reaches a word through the latents or not at all.
pub fn reach(config: &ModelConfig) -> usize {
    config.n_layers * (config.window - 1) + 1
}

/// What was written of a story after its prompt, as text in which `*word*` repeats a fact that was determined beyond
/// `reach`, and `~word~` contradicts one.
pub fn marked(story: &Story, reach: usize) -> String {
    let tokenizer = storyworld::tokenizer();
    let words = story.tokens.strip_suffix(&[tokenizer.separator()]).unwrap_or(&story.tokens);
    let repeats = storyworld::check(words).repeats;
    let text = tokenizer.decode(words);
    let (mut marked, mut start, mut before) = (String::new(), 0, tokenizer.separator());
    for (at, id) in words.iter().enumerate() {
        let end = start + tokenizer.text_bytes(before, *id);
        let (space, word) =
            text[start..end].split_at(usize::from(text[start..end].starts_with(' ')));
        (start, before) = (end, *id);
        if at < story.given {
            continue;
        }
        let far = repeats.iter().filter(|repeat| repeat.at == at && repeat.distance > reach);
        let mark = match far.map(|repeat| repeat.is_kept).min() {
            Some(true) => "*",
            Some(false) => "~",
            None => "",
        };
        marked.extend([space, mark, word, mark]);
    }
    marked.trim_start().into()
}

impl StoryMetrics {
    /// Checks stories.
    pub fn of(stories: &[Story], reach: usize) -> Self {
        let checks: Vec<(Check, usize)> =
            stories.iter().map(|story| (storyworld::check(&story.tokens), story.given)).collect();
        let mean = |of: &dyn Fn(&Check, usize) -> f64| {
            Mean::of(&checks.iter().map(|(check, given)| of(check, *given)).collect::<Vec<_>>())
        };
        let share = |is: bool| f64::from(u8::from(is));
        let kept = |holds: &dyn Fn(&Repeat) -> bool| {
            let of_story = |(check, given): &(Check, usize)| {
                let repeats = || check.repeats.iter().filter(|r| r.at >= *given && holds(r));
                [repeats().filter(|r| r.is_kept).count(), repeats().count()]
            };
            Kept::of(&checks.iter().map(of_story).collect::<Vec<_>>())
        };
        let mut names: Vec<&str> =
            checks.iter().flat_map(|(check, _)| &check.repeats).map(|repeat| repeat.fact).collect();
        names.sort_unstable();
        names.dedup();
        let fact = |fact| Fact {
            fact,
            near: kept(&|r| r.fact == fact && r.distance <= reach),
            far: kept(&|r| r.fact == fact && r.distance > reach),
        };
        Self {
            stories: stories.len(),
            consistent: mean(&|check, _| share(check.is_consistent())),
            grammatical: mean(&|check, _| share(check.is_grammatical)),
            sentences: mean(&|check, _| check.parsed as f64 / check.sentences.max(1) as f64),
            contradictions: mean(&|check, given| {
                let wrong = check.repeats.iter().filter(|r| r.at >= given && !r.is_kept);
                wrong.count() as f64
            }),
            reach,
            near: kept(&|r| r.distance <= reach),
            far: kept(&|r| r.distance > reach),
            facts: names.into_iter().map(fact).collect(),
        }
    }
}

impl Kept {
    /// A ratio of sums over stories, of `[kept, repeated]` facts each.
    fn of(stories: &[[usize; 2]]) -> Self {
        let [kept, repeats] = [0, 1].map(|i| stories.iter().map(|s| s[i]).sum::<usize>());
        let (share, n) = (kept as f64 / repeats as f64, stories.len() as f64);
        let residual =
            |[kept, repeats]: &[usize; 2]| (*kept as f64 - share * *repeats as f64).powi(2);
        let squares: f64 = stories.iter().map(residual).sum();
        let standard_error = (squares * n / (n - 1.0)).sqrt() / repeats as f64;
        Self { repeats, share, standard_error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stories(count: u64) -> Vec<Story> {
        let story = |index| Story { tokens: storyworld::sample(3, index).tokens, given: 0 };
        (0..count).map(story).collect()
    }

    #[test]
    fn facts_from_afar_are_marked() {
        let story = &stories(1)[0];
        let far = storyworld::check(&story.tokens).repeats;
        let far: Vec<_> = far.iter().filter(|repeat| repeat.distance > 4).collect();
        let text = marked(story, 4);
        assert_eq!(text.matches('*').count(), 2 * far.len());
        assert_eq!(
            text.replace('*', ""),
            storyworld::tokenizer().decode(&story.tokens[..story.tokens.len() - 1])
        );
        // A name in place of another that was mentioned before.
        let wrong = stories(20).into_iter().find_map(|story| {
            let far = |story: &Story| {
                let repeats = storyworld::check(&story.tokens).repeats.into_iter();
                repeats.filter(|r| r.fact == "cast" && r.distance > 4).collect::<Vec<_>>()
            };
            let names = far(&story);
            let at = names.last()?.at;
            let mut wrong = Story { given: at, ..story.clone() };
            names.iter().find_map(|other| {
                wrong.tokens[at] = story.tokens[other.at];
                let is_wrong = far(&wrong).iter().any(|r| r.at == at && !r.is_kept);
                is_wrong.then(|| wrong.clone())
            })
        });
        let wrong = wrong.expect("a story names two people twice");
        assert!(marked(&wrong, 4).starts_with('~'), "{}", marked(&wrong, 4));
        assert_eq!(marked(&wrong, 1000).find(['*', '~']), None);
    }

    #[test]
    fn drawn_stories_are_consistent() {
        let found = StoryMetrics::of(&stories(50), 4);
        for mean in [found.consistent, found.grammatical, found.sentences] {
            assert_eq!((mean.mean, mean.standard_error, mean.count), (1.0, 0.0, 50));
        }
        assert_eq!((found.contradictions.mean, found.near.share, found.far.share), (0.0, 1.0, 1.0));
        assert!(found.far.repeats > 500 && found.near.repeats > 10, "{found:?}");
        let sum = |of: fn(&Fact) -> usize| found.facts.iter().map(of).sum::<usize>();
        assert_eq!(sum(|fact| fact.near.repeats), found.near.repeats);
        assert_eq!(sum(|fact| fact.far.repeats), found.far.repeats);
        // A longer reach leaves less beyond it.
        let wide = StoryMetrics::of(&stories(50), 96);
        assert_eq!(wide.far.repeats, 0);
        assert!(wide.far.share.is_nan());
        assert_eq!(wide.near.repeats, found.near.repeats + found.far.repeats);
    }

    #[test]
    fn a_contradiction_counts_where_it_is_unless_it_was_given() {
        let whole = stories(2);
        let all = storyworld::check(&whole[0].tokens).repeats;
        let names = storyworld::vocabulary();
        let far = all.iter().find(|repeat| {
            let word = names[whole[0].tokens[repeat.at] as usize].as_str();
            repeat.fact == "cast"
                && repeat.distance > 4
                && !["he", "she", "him", "her"].contains(&word)
        });
        let at = far.expect("the hero or the friend comes back").at;
        let mut planted = whole.clone();
        // Of the names two are the story's.
        let cast = ["tom", "anna", "ben", "clara"]
            .map(|name| names.iter().position(|word| word == name).expect("a name") as u32);
        let used = &whole[0].tokens;
        planted[0].tokens[at] = *cast.iter().find(|name| !used.contains(name)).expect("another");
        let (before, after) = (StoryMetrics::of(&whole, 4), StoryMetrics::of(&planted, 4));
        assert_eq!((after.consistent.mean, after.grammatical.mean), (0.5, 1.0));
        assert_eq!((after.contradictions.mean, after.near), (0.5, before.near));
        let share = 1.0 - 1.0 / before.far.repeats as f64;
        assert!((after.far.share - share).abs() <= 1e-12, "{after:?}");
        planted[0].given = at + 1;
        let given = StoryMetrics::of(&planted, 4);
        assert_eq!((given.contradictions.mean, given.far.share), (0.0, 1.0));
        assert!(given.far.repeats < before.far.repeats);
    }

    #[test]
    fn attention_reaches_through_all_layers() {
        let config = ModelConfig { n_layers: 1, window: 4, ..crate::tiny::MODEL };
        assert_eq!(reach(&config), 4);
        assert_eq!(reach(&ModelConfig { n_layers: 3, ..config }), 10);
        assert!(are_stories(&*storyworld::tokenizer()));
        assert!(!are_stories(&ltm_train::data::Bytes));
    }
}
