//! Statistics of generated texts that need no other model: variety, repetition, length.
//! Knows no model; a text is a list of units, words or tokens.

use std::collections::HashMap;
use std::hash::Hash;

use serde::Serialize;

use super::Mean;

/// The longest n-grams of self-BLEU.
pub const BLEU_ORDER: usize = 4;

/// The numerator of a precision that would be 0: NLTK's `SmoothingFunction().method1`.
const BLEU_SMOOTHING: f64 = 0.1;

/// The n of the n-grams whose repetition within a text is measured.
const REPETITION_ORDER: usize = 4;

/// Statistics of a set of texts. Most of them change with the number and the length of the texts, so only sets that are
/// equal in both are comparable.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TextMetrics {
    /// Number of texts.
    pub texts: usize,
    /// Texts without a unit.
    pub empty: usize,
    /// Units of a text.
    pub length: Mean,
    /// The shortest text, in units.
    pub shortest: usize,
    /// The longest text, in units.
    pub longest: usize,
    /// Entropy of the units of a text that is not empty, in nats: `-sum_u f_u·ln f_u` over its frequencies.
    pub entropy: Mean,
    /// distinct-n: different n-grams per n-gram of all texts, for n of 1, 2, 3 (Li et al. 2016); `None` without n-grams.
    pub distinct: [Option<f64>; 3],
    /// self-BLEU: the mean BLEU-4 of each text against all others (Zhu et al. 2018), as NLTK's `sentence_bleu` with
    /// smoothing `method1`; `None` for fewer than two texts.
    pub self_bleu: Option<f64>,
    /// rep-4: the share of a text's 4-grams that already occurred in it, over texts that have any (Welleck et al. 2020).
    pub repetition: Mean,
}

impl TextMetrics {
    /// Measures texts; `progress(done, all)` counts texts compared with the others.
    pub fn of<U: Hash + Eq + Clone>(texts: &[Vec<U>], progress: &mut dyn FnMut(u64, u64)) -> Self {
        let texts = &number(texts);
        let lengths: Vec<f64> = texts.iter().map(|text| text.len() as f64).collect();
        let present = || texts.iter().filter(|text| !text.is_empty());
        let repetition: Vec<f64> = texts
            .iter()
            .filter(|text| text.len() >= REPETITION_ORDER)
            .map(|text| {
                let all = text.len() + 1 - REPETITION_ORDER;
                1.0 - count(text, REPETITION_ORDER).len() as f64 / all as f64
            })
            .collect();
        Self {
            texts: texts.len(),
            empty: texts.len() - present().count(),
            length: Mean::of(&lengths),
            shortest: texts.iter().map(Vec::len).min().unwrap_or(0),
            longest: texts.iter().map(Vec::len).max().unwrap_or(0),
            entropy: Mean::of(&present().map(|text| entropy(text)).collect::<Vec<_>>()),
            distinct: [1, 2, 3].map(|n| distinct(texts, n)),
            self_bleu: self_bleu(texts, progress),
            repetition: Mean::of(&repetition),
        }
    }
}

/// Replaces each unit by a number.
fn number<U: Hash + Eq + Clone>(texts: &[Vec<U>]) -> Vec<Vec<u32>> {
    let mut numbers = HashMap::new();
    let mut number = |unit: &U| {
        let next = numbers.len() as u32;
        *numbers.entry(unit.clone()).or_insert(next)
    };
    texts.iter().map(|text| text.iter().map(&mut number).collect()).collect()
}

/// How often each n-gram occurs.
fn count(text: &[u32], n: usize) -> HashMap<&[u32], u32> {
    let mut counts = HashMap::new();
    for gram in text.windows(n) {
        *counts.entry(gram).or_insert(0) += 1;
    }
    counts
}

fn entropy(text: &[u32]) -> f64 {
    let mut counts: Vec<u32> = count(text, 1).into_values().collect();
    // In one order, so that the sum has the same bits every time.
    counts.sort_unstable();
    let frequencies = counts.iter().map(|count| f64::from(*count) / text.len() as f64);
    frequencies.map(|f| -f * f.ln()).sum()
}

fn distinct(texts: &[Vec<u32>], n: usize) -> Option<f64> {
    let all: usize = texts.iter().map(|text| text.windows(n).len()).sum();
    let grams: std::collections::HashSet<&[u32]> =
        texts.iter().flat_map(|text| text.windows(n)).collect();
    (all > 0).then(|| grams.len() as f64 / all as f64)
}

/// The two largest counts of an n-gram in a text, and which text has the largest.
#[derive(Clone, Copy, Default)]
struct Largest {
    first: u32,
    owner: usize,
    second: u32,
}

/// The mean over texts of BLEU with all the other texts as references.
///
/// As NLTK's `sentence_bleu` with equal weights up to [`BLEU_ORDER`] and its smoothing `method1`: a precision without a
/// match counts 0.1 matches, a text without a common unit counts 0, and the brevity penalty takes the reference of the
/// nearest length, the shorter of two. A count is clipped to the largest one in another text, for which the two largest
/// counts of each n-gram suffice, so that the time is linear in the texts' length.
fn self_bleu(texts: &[Vec<u32>], progress: &mut dyn FnMut(u64, u64)) -> Option<f64> {
    if texts.len() < 2 {
        return None;
    }
    let mut largest: HashMap<&[u32], Largest> = HashMap::new();
    for (owner, text) in texts.iter().enumerate() {
        for n in 1..=BLEU_ORDER {
            for (gram, count) in count(text, n) {
                let entry = largest.entry(gram).or_default();
                if count > entry.first {
                    *entry = Largest { first: count, owner, second: entry.first };
                } else {
                    entry.second = entry.second.max(count);
                }
            }
        }
    }
    let mut lengths: Vec<usize> = texts.iter().map(Vec::len).collect();
    lengths.sort_unstable();
    let mut sum = 0.0;
    for (owner, text) in texts.iter().enumerate() {
        progress(owner as u64, texts.len() as u64);
        let matches: [u64; BLEU_ORDER] = std::array::from_fn(|i| {
            let clipped = count(text, i + 1).into_iter().map(|(gram, count)| {
                let Largest { first, owner: of, second } = largest[gram];
                count.min(if of == owner { second } else { first })
            });
            clipped.map(u64::from).sum()
        });
        sum += bleu(text.len(), nearest(&lengths, text.len()), matches);
    }
    Some(sum / texts.len() as f64)
}

/// The length nearest to `own` in the sorted `lengths` less one `own`, the shorter of two.
fn nearest(lengths: &[usize], own: usize) -> usize {
    let at = lengths.partition_point(|length| *length < own);
    let below = at.checked_sub(1).map(|i| lengths[i]);
    match (below, lengths.get(at + 1)) {
        (Some(below), Some(above)) if own - below > above - own => *above,
        (Some(below), _) => below,
        (None, Some(above)) => *above,
        (None, None) => own,
    }
}

fn bleu(own: usize, reference: usize, matches: [u64; BLEU_ORDER]) -> f64 {
    if own == 0 || matches[0] == 0 {
        return 0.0;
    }
    let log_precision = |(i, matches): (usize, &u64)| {
        let grams = own.saturating_sub(i).max(1) as f64;
        let matches = if *matches == 0 { BLEU_SMOOTHING } else { *matches as f64 };
        (matches / grams).ln() / BLEU_ORDER as f64
    };
    let log_precision: f64 = matches.iter().enumerate().map(log_precision).sum();
    (log_precision + (1.0 - reference as f64 / own as f64).min(0.0)).exp()
}

#[cfg(test)]
mod tests {
    use ltm_testkit::seeded;

    use super::*;

    fn words(texts: &[&str]) -> Vec<Vec<String>> {
        let split = |text: &&str| text.split_whitespace().map(Into::into).collect();
        texts.iter().map(split).collect()
    }

    fn measure(texts: &[&str]) -> TextMetrics {
        TextMetrics::of(&words(texts), &mut |_, _| ())
    }

    fn close(found: f64, expected: f64) {
        // A few roundings of numbers near 1.
        assert!((found - expected).abs() <= 1e-12, "{found} is not {expected}");
    }

    #[test]
    fn variety_and_repetition_by_hand() {
        let found = measure(&["a b a b a b", "a c", ""]);
        assert_eq!((found.texts, found.empty), (3, 1));
        assert_eq!((found.shortest, found.longest), (0, 6));
        close(found.length.mean, 8.0 / 3.0);
        // a b c of 8; ab ba ac of 6; aba bab of 4.
        assert_eq!(found.distinct, [Some(3.0 / 8.0), Some(3.0 / 6.0), Some(2.0 / 4.0)]);
        // Both texts that are not empty are two words half and half.
        close(found.entropy.mean, 2_f64.ln());
        assert_eq!(found.entropy.count, 2);
        // abab, baba, abab: two of three are new.
        close(found.repetition.mean, 1.0 / 3.0);
        assert_eq!(found.repetition.count, 1);
    }

    #[test]
    fn self_bleu_by_hand() {
        // First against second: 4/5, 3/4, 2/3, 1/2 match, and the reference is shorter. Second against first: all
        // match, and 4 words for 5 are brief.
        let found = measure(&["the cat sat down now", "the cat sat down"]);
        let first = (0.8_f64 * 0.75 * (2.0 / 3.0) * 0.5).powf(0.25);
        close(found.self_bleu.expect("two texts"), (first + (-0.25_f64).exp()) / 2.0);
        // One word of two matches, no 2-gram; 3-grams and 4-grams are counted once.
        let found = measure(&["a b", "a c"]).self_bleu.expect("two texts");
        close(found, (0.5_f64 * 0.1 * 0.1 * 0.1).powf(0.25));
        assert_eq!(measure(&["a b c d", "a b c d"]).self_bleu, Some(1.0));
        assert_eq!(measure(&["a b", "c d"]).self_bleu, Some(0.0));
        assert_eq!(measure(&["a b"]).self_bleu, None);
    }

    /// BLEU by its definition: every text against every other.
    fn naive(texts: &[Vec<u32>]) -> f64 {
        let of_text = |(i, text): (usize, &Vec<u32>)| {
            let others = || texts.iter().enumerate().filter(move |(j, _)| *j != i).map(|(_, t)| t);
            let matches = std::array::from_fn(|n| {
                let in_others =
                    |gram| others().map(|t| count(t, n + 1).get(gram).copied().unwrap_or(0)).max();
                count(text, n + 1)
                    .into_iter()
                    .map(|(gram, count)| u64::from(count.min(in_others(gram).unwrap_or(0))))
                    .sum()
            });
            let reference = others().map(Vec::len).min_by_key(|l| (l.abs_diff(text.len()), *l));
            bleu(text.len(), reference.expect("another text"), matches)
        };
        texts.iter().enumerate().map(of_text).sum::<f64>() / texts.len() as f64
    }

    #[test]
    fn self_bleu_in_linear_time_is_the_quadratic_one() {
        for count in 2..12 {
            // Lengths of 0 to 14 over four words.
            let text = |i: u64| -> Vec<u32> {
                let numbers = seeded(100 * count + i, 15);
                let length = (numbers[0].abs() * 1e3) as usize % 15;
                numbers[1..=length].iter().map(|x| (x.abs() * 1e3) as u32 % 4).collect()
            };
            let texts: Vec<Vec<u32>> = (0..count).map(text).collect();
            close(self_bleu(&texts, &mut |_, _| ()).expect("two texts or more"), naive(&texts));
        }
    }

    #[test]
    fn nothing_is_measured_of_nothing() {
        let found = measure(&[]);
        assert_eq!((found.texts, found.distinct, found.self_bleu), (0, [None; 3], None));
        assert!(found.entropy.mean.is_nan());
    }
}
