//! Facts of a text under a grammar: which of them it repeats, over what distance, and which it contradicts. Knows no
//! story and no probability.
//!
//! A text that contradicts itself has no derivation. It is therefore read with every mention of a variable free to show
//! any row, sentence by sentence, so that a sentence outside the grammar hides only its own facts. What was mentioned
//! first stands: a later mention that no row of the variable allows together with those is a contradiction.

use super::grammar::{Grammar, Node};

/// A mention of a fact that earlier mentions determine, or exclude.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeat {
    /// The fact's name, a variable of the grammar such as `cast`.
    pub fact: &'static str,
    /// The word's index in the text.
    pub at: usize,
    /// Words from the nearest earlier mentions that determine this word, or exclude the one found, to this word.
    pub distance: usize,
    /// Whether the word agrees with all earlier mentions that stand.
    pub is_kept: bool,
}

/// A fact that a text states: what a column of a variable is, by everything that the text mentions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stated {
    /// The fact's name, such as `cast.hero`.
    pub fact: String,
    /// The word that it is.
    pub word: u32,
}

/// What a text mentions.
pub(super) struct Facts {
    /// Sentences: those of the grammar, and stretches outside it up to the next end of a sentence.
    pub(super) sentences: usize,
    /// Sentences of the grammar.
    pub(super) parsed: usize,
    /// In the order of the text.
    pub(super) repeats: Vec<Repeat>,
    /// The facts that the mentions that stand determine.
    pub(super) stated: Vec<Stated>,
}

/// The word at `at` as a mention of a variable's column.
#[derive(Clone, Copy, Debug)]
struct Mention {
    at: usize,
    variable: usize,
    column: usize,
    word: u32,
}

/// Whether a text is one of the grammar, but for its facts: each mention may show any row.
pub(super) fn is_grammatical(grammar: &Grammar, text: &[u32]) -> bool {
    readings(grammar, &grammar.root, text, 0).iter().any(|(end, _)| *end == text.len())
}

/// Reads the facts of a text. The parts of the grammar's outermost sequence are its sentences, which `end` ends.
pub(super) fn facts(grammar: &'static Grammar, text: &[u32], end: u32) -> Facts {
    let slots = match &grammar.root {
        Node::Sequence(slots) => &slots[..],
        slot => std::slice::from_ref(slot),
    };
    let mut found = Facts { sentences: 0, parsed: 0, repeats: Vec::new(), stated: Vec::new() };
    let mut standing: Vec<Vec<Mention>> = grammar.variables.iter().map(|_| Vec::new()).collect();
    let mut at = 0;
    while at < text.len() {
        let sentence = slots
            .iter()
            .flat_map(|slot| readings(grammar, slot, text, at))
            .filter(|(end, _)| *end > at)
            .map(|(end, mentions)| {
                let mut standing = standing.clone();
                let repeats = repeats(grammar, &mentions, &mut standing);
                (end, repeats, standing)
            })
            // Of several readings, the one with the fewest contradictions.
            .min_by_key(|(_, repeats, _)| repeats.iter().filter(|repeat| !repeat.is_kept).count());
        found.sentences += 1;
        at = match sentence {
            Some((end, repeats, stands)) => {
                found.parsed += 1;
                found.repeats.extend(repeats);
                standing = stands;
                end
            }
            None => {
                let stop = text[at..].iter().position(|word| *word == end);
                stop.map_or(text.len(), |stop| at + stop + 1)
            }
        };
    }
    found.stated = stated(grammar, &standing);
    found
}

/// What mentions determine, of each variable in its order. Of columns that determine each other, as a trade and its
/// tool, the first stands for all.
fn stated(grammar: &'static Grammar, standing: &[Vec<Mention>]) -> Vec<Stated> {
    let mut stated = Vec::new();
    for (at, (variable, stands)) in grammar.variables.iter().zip(standing).enumerate() {
        for (column, name) in variable.own_columns() {
            let question = Mention { at: 0, variable: at, column, word: 0 };
            if let [word] = words(grammar, &question, stands)[..] {
                stated.push(Stated { fact: format!("{}.{name}", variable.name), word });
            }
        }
    }
    stated
}

/// All readings of a text by `node` from the word `at` on: their ends, and what they mention.
fn readings(grammar: &Grammar, node: &Node, text: &[u32], at: usize) -> Vec<(usize, Vec<Mention>)> {
    match node {
        Node::Word(word) if text.get(at) == Some(word) => vec![(at + 1, Vec::new())],
        Node::Word(_) => Vec::new(),
        Node::Mention { variable, column } => {
            let (variable, column) = (*variable, *column);
            let mut rows = grammar.variables[variable].rows.iter();
            match text.get(at) {
                Some(&word) if rows.any(|row| row[column] == word) => {
                    vec![(at + 1, vec![Mention { at, variable, column, word }])]
                }
                _ => Vec::new(),
            }
        }
        Node::Sequence(nodes) => nodes.iter().fold(vec![(at, Vec::new())], |before, node| {
            let next = |(at, mentions): (usize, Vec<Mention>)| {
                readings(grammar, node, text, at)
                    .into_iter()
                    .map(move |(end, more)| (end, [&mentions[..], &more].concat()))
            };
            before.into_iter().flat_map(next).collect()
        }),
        Node::Choice(alternatives) => {
            alternatives.iter().flat_map(|(_, node)| readings(grammar, node, text, at)).collect()
        }
    }
}

/// The mentions that repeat what stands, to which the others, and those that agree, are added.
fn repeats(
    grammar: &'static Grammar,
    mentions: &[Mention],
    standing: &mut [Vec<Mention>],
) -> Vec<Repeat> {
    let mut repeats = Vec::new();
    for mention in mentions {
        let stands = &mut standing[mention.variable];
        let is_kept = words(grammar, mention, stands).contains(&mention.word);
        // From the nearest mention back, until the word is determined; or else until it is excluded.
        let since = |holds: &dyn Fn(&[u32]) -> bool| {
            let since = |from: &usize| holds(&words(grammar, mention, &stands[*from..]));
            (0..stands.len()).rev().find(since)
        };
        let determined = since(&|words| words.len() == 1);
        let from = determined.or_else(|| since(&|words| !words.contains(&mention.word)));
        if let Some(from) = from {
            let fact = &grammar.variables[mention.variable].name;
            let distance = mention.at - stands[from].at;
            repeats.push(Repeat { fact, at: mention.at, distance, is_kept });
        }
        if is_kept {
            stands.push(*mention);
        }
    }
    repeats
}

/// The words that a mention may show where these `others` of the same variable stand, each once.
fn words(grammar: &Grammar, mention: &Mention, others: &[Mention]) -> Vec<u32> {
    let rows = grammar.variables[mention.variable].rows.iter();
    let agrees = |row: &&Vec<u32>| others.iter().all(|other| row[other.column] == other.word);
    let mut words: Vec<u32> = rows.filter(agrees).map(|row| row[mention.column]).collect();
    words.sort_unstable();
    words.dedup();
    words
}
