//! Finite grammars with shared choices, and the exact probability of a text under one. Knows no story.
//!
//! A *variable* has rows of columns; one row is drawn, uniformly, when a text first mentions the variable,
//! and every later mention of any of its columns shows the same row. Everything else is sequences and weighted
//! alternatives. Different choices may give the same text: [`Grammar::probability`] sums over all of them.

use std::collections::BTreeMap;

use ltm_kernels::ops::philox::Philox;

/// Most variables a grammar may have.
const MAX_VARIABLES: usize = 8;

/// Which row each variable has, or [`OPEN`] before its first mention.
type Rows = [u16; MAX_VARIABLES];
const OPEN: u16 = u16::MAX;

/// How far a text has been explained, under which rows, and with what probability in all.
type States = BTreeMap<(usize, Rows), f64>;

/// A distribution over texts.
pub(super) struct Grammar {
    /// Words in the order of their ids.
    words: Vec<String>,
    pub(super) variables: Vec<Variable>,
    pub(super) root: Node,
}

pub(super) struct Variable {
    pub(super) name: String,
    columns: Vec<String>,
    /// `rows[row][column]` is a word.
    pub(super) rows: Vec<Vec<u32>>,
}

pub(super) enum Node {
    Word(u32),
    /// The word that a variable's row has in a column.
    Mention {
        variable: usize,
        column: usize,
    },
    Sequence(Vec<Self>),
    /// Probabilities that sum to 1, and what they are of.
    Choice(Vec<(f64, Self)>),
}

impl Variable {
    /// The columns with their names: of columns that tell each other's words, the first.
    pub(super) fn own_columns(&self) -> Vec<(usize, &str)> {
        let tells = |from: usize, to: usize| {
            let words = self.rows.iter().map(|row| (row[from], row[to]));
            let mut of = std::collections::BTreeMap::new();
            words.into_iter().all(|(from, to)| *of.entry(from).or_insert(to) == to)
        };
        let is_own = |column: &usize| !(0..*column).any(|c| tells(c, *column) && tells(*column, c));
        (0..self.columns.len()).filter(is_own).map(|c| (c, self.columns[c].as_str())).collect()
    }
}

impl Grammar {
    /// Builds a grammar from its variables, `(name, columns, rows)` with columns and rows as words in one
    /// string each, and its text.
    ///
    /// In the text `$name.column` mentions a variable (`$name` its first column), `[one|two :3|]` is
    /// a choice whose second alternative has weight 3, and any other word stands for itself.
    ///
    /// # Panics
    /// When the text or a variable is malformed: grammars are part of the program.
    pub(super) fn new(variables: &[(&str, &str, Vec<String>)], text: &str) -> Self {
        assert!(
            variables.len() <= MAX_VARIABLES,
            "a grammar has at most {MAX_VARIABLES} variables"
        );
        let mut grammar = Self { words: vec![], variables: vec![], root: Node::Sequence(vec![]) };
        for (name, columns, rows) in variables {
            let columns: Vec<String> = columns.split_whitespace().map(String::from).collect();
            let rows: Vec<Vec<u32>> = rows
                .iter()
                .map(|row| row.split_whitespace().map(|word| grammar.intern(word)).collect())
                .collect();
            assert!(rows.len() < usize::from(OPEN) && !rows.is_empty(), "{name}: number of rows");
            assert!(rows.iter().all(|row| row.len() == columns.len()), "{name}: columns of a row");
            grammar.variables.push(Variable { name: (*name).into(), columns, rows });
        }
        let spaced = ["[", "|", "]"]
            .iter()
            .fold(text.to_owned(), |text, mark| text.replace(mark, &format!(" {mark} ")));
        let mut symbols = spaced.split_whitespace().peekable();
        grammar.root = grammar.parse(&mut symbols).0;
        assert_eq!(symbols.next(), None, "a choice is closed before it is opened");
        grammar
    }

    /// Words in the order of their ids.
    pub(super) fn words(&self) -> &[String] {
        &self.words
    }

    /// Draws a text.
    pub(super) fn sample(&self, philox: &Philox) -> Vec<u32> {
        let mut sampler = Sampler { grammar: self, philox, draws: 0, rows: [OPEN; MAX_VARIABLES] };
        let mut text = Vec::new();
        sampler.expand(&self.root, &mut text);
        text
    }

    /// The probability of a text, summed over all choices that give it.
    pub(super) fn probability(&self, text: &[u32]) -> f64 {
        let start = States::from([((0, [OPEN; MAX_VARIABLES]), 1.0)]);
        let ends = self.explain(&self.root, text, &start);
        ends.iter().filter(|((at, _), _)| *at == text.len()).map(|(_, mass)| mass).sum()
    }

    /// The states after `node`, from those before it: the forward algorithm.
    fn explain(&self, node: &Node, text: &[u32], before: &States) -> States {
        let mut after = States::new();
        match node {
            Node::Word(word) => {
                for (&(at, rows), mass) in before {
                    if text.get(at) == Some(word) {
                        *after.entry((at + 1, rows)).or_default() += mass;
                    }
                }
            }
            Node::Mention { variable, column } => {
                let all = &self.variables[*variable].rows;
                for (&(at, mut rows), mass) in before {
                    let open = rows[*variable] == OPEN;
                    let (candidates, share) = match rows[*variable] {
                        OPEN => (0..all.len(), 1.0 / all.len() as f64),
                        row => (row.into()..usize::from(row) + 1, 1.0),
                    };
                    for row in candidates {
                        if text.get(at) == Some(&all[row][*column]) {
                            if open {
                                rows[*variable] = row as u16;
                            }
                            *after.entry((at + 1, rows)).or_default() += mass * share;
                        }
                    }
                }
            }
            Node::Sequence(nodes) => {
                after.clone_from(before);
                for node in nodes {
                    if after.is_empty() {
                        break;
                    }
                    after = self.explain(node, text, &after);
                }
            }
            Node::Choice(alternatives) => {
                for (share, node) in alternatives {
                    for (state, mass) in self.explain(node, text, before) {
                        *after.entry(state).or_default() += mass * share;
                    }
                }
            }
        }
        after
    }

    fn intern(&mut self, word: &str) -> u32 {
        let id = self.words.iter().position(|known| known == word).unwrap_or_else(|| {
            self.words.push(word.into());
            self.words.len() - 1
        });
        id.try_into().expect("a grammar has fewer than 2^32 words")
    }

    /// Parses until `|`, `]` or the end; returns the sequence and its weight.
    fn parse<'a>(
        &mut self,
        symbols: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
    ) -> (Node, f64) {
        let (mut nodes, mut weight) = (Vec::new(), 1.0);
        while let Some(symbol) = symbols.next_if(|&symbol| symbol != "|" && symbol != "]") {
            if symbol == "[" {
                let mut alternatives = Vec::new();
                loop {
                    let (node, weight) = self.parse(symbols);
                    alternatives.push((weight, node));
                    if symbols.next().expect("a choice is closed by ]") == "]" {
                        break;
                    }
                }
                let total: f64 = alternatives.iter().map(|(weight, _)| weight).sum();
                alternatives.iter_mut().for_each(|(weight, _)| *weight /= total);
                nodes.push(Node::Choice(alternatives));
            } else if let Some(number) = symbol.strip_prefix(':') {
                weight = number.parse().expect("a weight is a number");
            } else if let Some(mention) = symbol.strip_prefix('$') {
                nodes.push(self.mention(mention));
            } else {
                nodes.push(Node::Word(self.intern(symbol)));
            }
        }
        (Node::Sequence(nodes), weight)
    }

    fn mention(&self, mention: &str) -> Node {
        let (name, column) = mention.split_once('.').unwrap_or((mention, ""));
        let mut variables = self.variables.iter();
        let variable = variables.position(|v| v.name == name).expect("a mention names a variable");
        let columns = &self.variables[variable].columns;
        let column = match column {
            "" => 0,
            column => columns.iter().position(|c| c == column).expect("a mention names a column"),
        };
        Node::Mention { variable, column }
    }
}

struct Sampler<'a> {
    grammar: &'a Grammar,
    philox: &'a Philox,
    draws: u64,
    rows: Rows,
}

impl Sampler<'_> {
    fn expand(&mut self, node: &Node, text: &mut Vec<u32>) {
        match node {
            Node::Word(word) => text.push(*word),
            Node::Mention { variable, column } => {
                let rows = &self.grammar.variables[*variable].rows;
                if self.rows[*variable] == OPEN {
                    self.rows[*variable] = self.philox.below(self.draws, rows.len() as u64) as u16;
                    self.draws += 1;
                }
                text.push(rows[usize::from(self.rows[*variable])][*column]);
            }
            Node::Sequence(nodes) => nodes.iter().for_each(|node| self.expand(node, text)),
            Node::Choice(alternatives) => {
                let mut left = self.philox.uniform(self.draws);
                self.draws += 1;
                let (last, others) = alternatives.split_last().expect("a choice has alternatives");
                let chosen = others.iter().find(|(share, _)| {
                    left -= share;
                    left < 0.0
                });
                self.expand(&chosen.unwrap_or(last).1, text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm_kernels::ops::philox::PhiloxKey;

    /// Small and ambiguous: "b" comes from three places, names repeat across rows, a choice may be empty.
    fn tiny() -> Grammar {
        let rows = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect();
        let variables = [
            ("who", "name said", rows(&["a x", "a y", "b x"])),
            ("what", "thing", rows(&["b", "c"])),
        ];
        Grammar::new(&variables, "[$who.name|b :2|] $what [$who.said|x|$what $who] [|b] $what .")
    }

    /// All derivations one by one: another way to the same numbers.
    fn derivations(grammar: &Grammar) -> BTreeMap<Vec<u32>, f64> {
        type Partial = (Vec<u32>, Rows, f64);
        fn go(grammar: &Grammar, node: &Node, (text, rows, p): Partial) -> Vec<Partial> {
            match node {
                Node::Word(word) => vec![([text, vec![*word]].concat(), rows, p)],
                Node::Mention { variable, column } => {
                    let all = &grammar.variables[*variable].rows;
                    (0..all.len())
                        .filter(|&row| [OPEN, row as u16].contains(&rows[*variable]))
                        .map(|row| {
                            let share =
                                if rows[*variable] == OPEN { all.len() as f64 } else { 1.0 };
                            let mut rows = rows;
                            rows[*variable] = row as u16;
                            ([&text[..], &[all[row][*column]]].concat(), rows, p / share)
                        })
                        .collect()
                }
                Node::Sequence(nodes) => {
                    nodes.iter().fold(vec![(text, rows, p)], |partials, node| {
                        partials
                            .into_iter()
                            .flat_map(|partial| go(grammar, node, partial))
                            .collect()
                    })
                }
                Node::Choice(alternatives) => alternatives
                    .iter()
                    .flat_map(|(share, node)| go(grammar, node, (text.clone(), rows, p * share)))
                    .collect(),
            }
        }
        let mut texts = BTreeMap::new();
        for (text, _, p) in go(grammar, &grammar.root, (vec![], [OPEN; MAX_VARIABLES], 1.0)) {
            *texts.entry(text).or_default() += p;
        }
        texts
    }

    #[test]
    fn probabilities_are_those_of_all_derivations_and_sum_to_one() {
        let grammar = tiny();
        let texts = derivations(&grammar);
        assert!(texts.len() > 20);
        let mut total = 0.0;
        for (text, expected) in &texts {
            let p = grammar.probability(text);
            assert!((p - expected).abs() <= 1e-15, "{text:?}: {p} against {expected}");
            total += p;
        }
        assert!((total - 1.0).abs() <= 1e-12, "{total}");
    }

    #[test]
    fn all_texts_of_any_words_sum_to_one() {
        // Not only those that the derivations name: nothing else may have mass.
        let grammar = tiny();
        let words = grammar.words().len();
        let mut total = 0.0;
        for length in 0..=7_u32 {
            for code in 0..words.pow(length) {
                let text: Vec<u32> =
                    (0..length).map(|i| (code / words.pow(i) % words) as u32).collect();
                total += grammar.probability(&text);
            }
        }
        assert!((total - 1.0).abs() <= 1e-12, "{total}");
    }

    #[test]
    fn samples_come_as_often_as_their_probability_says() {
        let grammar = tiny();
        let n = 20_000;
        let mut counts = BTreeMap::<_, u32>::new();
        for seed in 0..n {
            let philox = Philox::new(PhiloxKey { seed, stream: 0, step: 0 });
            *counts.entry(grammar.sample(&philox)).or_default() += 1;
        }
        for (text, p) in derivations(&grammar) {
            let count = f64::from(counts.remove(&text).unwrap_or_default());
            let (mean, variance) = (n as f64 * p, n as f64 * p * (1.0 - p));
            assert!((count - mean).abs() <= 5.0 * variance.sqrt(), "{text:?}: {count} for {mean}");
        }
        assert!(counts.is_empty(), "samples without probability: {counts:?}");
    }
}
