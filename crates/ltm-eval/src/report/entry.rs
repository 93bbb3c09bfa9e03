//! A measured run as the report sees it: its settings, its numbers by protocol, and how two runs differ.
//! Draws nothing.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::difference::{Difference, welch};
use crate::measured::Measured;
use crate::sweep::Settings;

/// One run with its numbers: a point of a sweep, or a run's folder.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// The configuration by `section.key`.
    pub(super) config: BTreeMap<String, Value>,
    pub(super) scores: Vec<Score>,
    pub(super) measured: Measured,
}

/// A number of nats per token.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Score {
    /// The protocol with its numbers, such as `elbo:8`.
    pub(super) protocol: String,
    pub(super) nats: f64,
    /// Over seeds where there are several, otherwise over sequences.
    pub(super) error: f64,
    pub(super) perplexity: f64,
    /// The nats of each seed, where there are several.
    pub(super) seeds: Vec<f64>,
}

/// What a number of a protocol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// A valid bound on the likelihood, or the likelihood: below the entropy by chance only.
    Valid,
    /// The published bound, whose noise the fit has seen.
    FittedNoise,
    /// Not a bound.
    NoBound,
}

impl Kind {
    /// The kind in words.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Valid => "valid bound",
            Self::FittedNoise => "published bound, noise seen by the fit",
            Self::NoBound => "not a bound",
        }
    }
}

/// The kind of a protocol, by its name.
pub(super) fn kind(protocol: &str) -> Kind {
    match protocol.split(':').next().unwrap_or(protocol) {
        "reconstruction" => Kind::NoBound,
        "elbo-fitted-noise" => Kind::FittedNoise,
        _ => Kind::Valid,
    }
}

impl Entry {
    /// A run of this configuration.
    pub(super) fn new(name: String, settings: Settings, measured: Measured) -> Self {
        let keys = |(section, keys): (String, BTreeMap<String, Value>)| {
            keys.into_iter().map(move |(key, value)| (format!("{section}.{key}"), value))
        };
        let config = settings.into_iter().flat_map(keys).collect();
        let scored = measured.evaluation.iter().filter(|(_, score)| !score.nats_per_token.is_nan());
        let mut scores: Vec<Score> = scored
            .map(|(protocol, score)| Score {
                protocol: protocol.clone(),
                nats: score.nats_per_token,
                error: score.standard_error,
                perplexity: score.perplexity,
                seeds: Vec::new(),
            })
            .collect();
        scores.sort_by(|a, b| {
            (kind(&b.protocol), &a.protocol).cmp(&(kind(&a.protocol), &b.protocol))
        });
        Self { name, config, scores, measured }
    }

    pub(super) fn score(&self, protocol: &str) -> Option<&Score> {
        self.scores.iter().find(|score| score.protocol == protocol)
    }

    /// A number of the configuration.
    pub(super) fn number(&self, key: &str) -> Option<f64> {
        self.config.get(key).and_then(Value::as_f64)
    }

    /// Whether the fast loop's noise is one draw.
    pub(super) fn fixed_noise(&self) -> bool {
        self.config.get("infer.noise").is_some_and(|noise| noise == "fixed")
    }

    /// Whether the model has latents; without, there is no fast loop.
    pub(super) fn has_latents(&self) -> bool {
        self.number("model.n_latents").is_some_and(|n| n > 0.0)
    }

    /// Whether latents are inferred as in the paper, by fast steps on a bound.
    pub(super) fn is_fitted(&self) -> bool {
        let method = self.config.get("infer.method");
        self.has_latents() && method.is_none_or(|method| method == "variational")
    }

    /// Scored tokens of each sequence.
    fn tokens(&self) -> Vec<f64> {
        self.measured.sequence_tokens.iter().filter(|n| **n > 0).map(|n| *n as f64).collect()
    }

    /// Nats of each sequence, where they are of the sequences of [`tokens`](Self::tokens).
    fn nats(&self, protocol: &str) -> Option<Vec<f64>> {
        let (nats, tokens) = (self.measured.nats.get(protocol)?, self.tokens());
        let scored = self.measured.evaluation.get(protocol)?.tokens as f64;
        let same = nats.len() == tokens.len() && tokens.iter().sum::<f64>() == scored;
        same.then(|| nats.clone())
    }

    /// Whether both were scored on the same rows under this protocol, so that they can be compared row by row.
    /// Rows are identified by checksums of their tokens; in results without those, by the corpus and the lengths.
    pub(super) fn paired_with(&self, protocol: &str, other: &Entry) -> bool {
        self.pairs(protocol, other, protocol).is_some()
    }

    /// The nats of both by row, where both were scored on the same rows.
    fn pairs(&self, protocol: &str, other: &Entry, other_protocol: &str) -> Option<[Vec<f64>; 2]> {
        let [own, its] = [self, other].map(|entry| &entry.measured.sequence_digests);
        let same_rows = match (own, its) {
            (Some(own), Some(its)) => own == its,
            (None, None) => {
                let data = |entry: &Entry| {
                    let of_data = |(key, _): &(&String, &Value)| key.starts_with("data.");
                    entry
                        .config
                        .iter()
                        .filter(of_data)
                        .map(|(k, v)| (k.clone(), v.clone()))
                        .collect::<Vec<_>>()
                };
                data(self) == data(other)
            }
            _ => false,
        };
        let same = same_rows && self.tokens() == other.tokens();
        same.then(|| Some([self.nats(protocol)?, other.nats(other_protocol)?]))?
    }

    /// This entry's nats per token minus another's: of means over seeds where both have several, otherwise row by row where
    /// both were scored on the same ones.
    pub(super) fn minus(
        &self,
        protocol: &str,
        other: &Entry,
        other_protocol: &str,
    ) -> Option<Difference> {
        let (own, its) = (self.score(protocol)?, other.score(other_protocol)?);
        if let Some(difference) = welch(&own.seeds, &its.seeds) {
            return Some(difference);
        }
        match self.pairs(protocol, other, other_protocol) {
            Some([own, its]) => paired(&own, &its, &self.tokens()),
            None => {
                let (nats, error) = (own.nats - its.nats, own.error.hypot(its.error));
                Some(Difference { nats, error, critical: None })
            }
        }
    }

    /// Nats per token above the exact likelihood of the same texts, where that is known.
    pub(super) fn above_truth(&self, protocol: &str) -> Option<Difference> {
        let truth = &self.measured.true_entropy.as_ref()?.nats;
        let own = self.nats(protocol)?;
        (own.len() == truth.len()).then(|| paired(&own, truth, &self.tokens()))?
    }
}

/// Every protocol that some entry was scored by, those of bounds first.
pub(super) fn protocols(entries: &[Entry]) -> Vec<String> {
    let mut protocols: Vec<String> = Vec::new();
    for score in entries.iter().flat_map(|entry| &entry.scores) {
        if !protocols.contains(&score.protocol) {
            protocols.push(score.protocol.clone());
        }
    }
    protocols.sort_by_key(|protocol| (kind(protocol), protocol.clone()));
    protocols
}

/// The ratio of the summed differences to the summed tokens, with the standard error of that ratio to first
/// order; `None` for fewer than two sequences, or numbers that are not finite.
fn paired(a: &[f64], b: &[f64], tokens: &[f64]) -> Option<Difference> {
    let n = tokens.len() as f64;
    let total: f64 = tokens.iter().sum();
    let differences: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
    let nats = differences.iter().sum::<f64>() / total;
    let squares: f64 = differences.iter().zip(tokens).map(|(d, t)| (d - nats * t).powi(2)).sum();
    let error = (squares * n / (n - 1.0)).sqrt() / total;
    (n >= 2.0 && nats.is_finite()).then_some(Difference { nats, error, critical: None })
}

/// The keys in which entries differ, except those that follow from others under a budget.
fn varying(entries: &[&Entry]) -> Vec<String> {
    let keys: BTreeSet<&String> = entries.iter().flat_map(|entry| entry.config.keys()).collect();
    let follows = ["train.steps", "train.eval_sequences"];
    let differs = |key: &&&String| {
        let values: BTreeSet<String> = entries
            .iter()
            .map(|e| e.config.get(**key).map_or("".into(), Value::to_string))
            .collect();
        values.len() > 1 && !follows.contains(&key.as_str())
    };
    keys.iter().filter(differs).map(|key| key.to_string()).collect()
}

/// Entries that agree in everything but `along`, in its order: only groups with two values of it or more,
/// each with a label of what distinguishes it.
pub(super) fn groups<'a>(entries: &[&'a Entry], along: &str) -> Vec<(String, Vec<&'a Entry>)> {
    let keys: Vec<String> = varying(entries).into_iter().filter(|key| key != along).collect();
    let mut groups: BTreeMap<Vec<String>, Vec<&Entry>> = BTreeMap::new();
    for entry in entries {
        let value = |key: &String| entry.config.get(key).map_or("".into(), Value::to_string);
        groups.entry(keys.iter().map(value).collect()).or_default().push(entry);
    }
    groups.retain(|_, group| {
        let mut values: Vec<_> = group.iter().filter_map(|entry| entry.number(along)).collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        values.len() > 1
    });
    // A label needs only the keys in which the remaining groups differ.
    let distinct: Vec<usize> = (0..keys.len())
        .filter(|i| groups.keys().map(|values| &values[*i]).collect::<BTreeSet<_>>().len() > 1)
        .collect();
    let mut labelled: Vec<(String, Vec<&Entry>)> = groups
        .into_iter()
        .map(|(values, mut group)| {
            let order = |entry: &&Entry| entry.number(along).unwrap_or(f64::NAN);
            group.sort_by(|a, b| order(a).total_cmp(&order(b)));
            let part = |i: &usize| label(&keys[*i], &values[*i]);
            (distinct.iter().map(part).collect::<Vec<_>>().join(", "), group)
        })
        .collect();
    // By number where labels have numbers: 6 latents before 24.
    labelled.sort_by_key(|(label, group)| {
        let latents = group[0].number("model.n_latents").unwrap_or(0.0);
        let steps = group[0].number("infer.steps").unwrap_or(0.0);
        (latents as u64, steps as u64, label.clone())
    });
    labelled
}

/// A setting in words.
fn label(key: &str, value: &str) -> String {
    let value = value.trim_matches('"');
    match key {
        "model.n_latents" => format!("{value} latents"),
        "infer.steps" => format!("{value} fast steps"),
        "infer.noise" => format!("{value} noise"),
        "run.seed" => format!("seed {value}"),
        _ => format!("{} {value}", key.split_once('.').map_or(key, |(_, key)| key)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;
    use crate::sweep::PointResult;

    /// An entry with the nats of four sequences of 2, 3, 2 and 3 tokens.
    pub(crate) fn entry(
        name: &str,
        [n_latents, steps]: [u64; 2],
        noise: &str,
        protocols: &[(&str, [f64; 4])],
    ) -> Entry {
        let mut evaluation = serde_json::Map::new();
        let mut nats = serde_json::Map::new();
        for (protocol, numbers) in protocols {
            let mean = numbers.iter().sum::<f64>() / 10.0;
            evaluation.insert(
                (*protocol).into(),
                json!({ "nats_per_token": mean, "standard_error": 0.1, "tokens": 10,
                        "perplexity": mean.exp() }),
            );
            nats.insert((*protocol).into(), json!(numbers));
        }
        let line = json!({
            "name": name,
            "config": { "model": { "n_latents": n_latents },
                        "infer": { "steps": steps, "noise": noise }, "train": { "steps": 10 * steps } },
            "evaluation": evaluation, "nats": nats, "sequence_tokens": [2, 3, 2, 3],
            "true_entropy": { "nats_per_token": 1.0, "standard_error": 0.01,
                              "documents": 10, "nats": [2.0, 3.0, 2.0, 3.0] },
        });
        let PointResult { point, outcome, .. } =
            PointResult::parse(&line.to_string()).expect("a line of results");
        Entry::new(point.name, point.config, outcome.expect("numbers"))
    }

    #[test]
    fn pairs_lose_what_the_sequences_share() {
        let a = entry("a", [4, 4], "fresh", &[("elbo:8", [12.0, 33.0, 2.0, 3.0])]);
        let b = entry("b", [4, 8], "fresh", &[("elbo:8", [10.0, 30.0, 0.2, 0.0])]);
        let found = a.minus("elbo:8", &b, "elbo:8").expect("both have it");
        // Differences 2, 3, 1.8, 3 of 2, 3, 2, 3 tokens: 0.98 nats per token, and residuals 0.04, 0.06,
        // -0.16, 0.06.
        assert!((found.nats - 0.98).abs() <= 1e-12, "{found:?}");
        let squares: f64 = [0.04f64, 0.06, -0.16, 0.06].iter().map(|x| x * x).sum();
        assert!((found.error - (squares * 4.0 / 3.0).sqrt() / 10.0).abs() <= 1e-12, "{found:?}");
        let mut other = b.clone();
        other.measured.sequence_tokens = vec![3, 2, 2, 3];
        let unpaired = a.minus("elbo:8", &other, "elbo:8").expect("both have it");
        assert!((unpaired.error - 0.1 * 2f64.sqrt()).abs() <= 1e-12, "{unpaired:?}");
        assert!((a.above_truth("elbo:8").expect("known").nats - 4.0).abs() <= 1e-12);
        assert_eq!(a.minus("iwae:8", &b, "elbo:8"), None);
    }

    #[test]
    fn groups_agree_in_all_but_one_key() {
        let entries: Vec<Entry> = [(6, 64), (6, 4), (24, 4), (24, 64), (12, 4)]
            .iter()
            .flat_map(|(n, s)| ["fresh", "fixed"].map(|noise| entry("x", [*n, *s], noise, &[])))
            .collect();
        let all: Vec<&Entry> = entries.iter().collect();
        let found: Vec<_> = groups(&all, "infer.steps")
            .into_iter()
            .map(|(label, group)| {
                (label, group.iter().filter_map(|e| e.number("infer.steps")).collect())
            })
            .collect();
        let expected: Vec<(String, Vec<f64>)> = ["6 latents", "24 latents"]
            .iter()
            .flat_map(|n| {
                ["fixed", "fresh"].map(|noise| (format!("{noise} noise, {n}"), vec![4.0, 64.0]))
            })
            .collect();
        assert_eq!(found, expected);
    }
}
