//! What several training seeds of one setting have in common: means over them. Draws nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::difference::mean;
use super::entry::{Entry, Score};

/// The key in which runs of one setting differ.
const SEED: &str = "run.seed";

/// What is said in place of a verdict where a setting was trained with one seed.
pub(super) const ONE_SEED: &str =
    "one seed, no verdict: train more with `ltm sweep FILE --seeds 3`";

/// One entry per setting: runs that differ only in their seed become one, whose scores are means over the seeds with
/// the standard errors of these. A setting with one seed stays as it is.
pub(super) fn over_seeds(entries: &[Entry]) -> Vec<Entry> {
    let mut settings: Vec<(BTreeMap<String, Value>, Vec<&Entry>)> = Vec::new();
    for entry in entries {
        let mut setting = entry.config.clone();
        let seed = setting.remove(SEED);
        let other = |one: &&Entry| one.config.get(SEED) != seed.as_ref();
        let of = settings.iter_mut().find(|(s, runs)| *s == setting && runs.iter().all(other));
        match of {
            Some((_, runs)) => runs.push(entry),
            None => settings.push((setting, vec![entry])),
        }
    }
    settings.into_iter().map(|(config, runs)| merged(config, &runs)).collect()
}

fn merged(config: BTreeMap<String, Value>, runs: &[&Entry]) -> Entry {
    let [first, _, ..] = runs else { return Entry { config, ..runs[0].clone() } };
    let score = |score: &Score| {
        let scored = runs.iter().filter_map(|run| run.score(&score.protocol));
        let seeds: Vec<f64> = scored.map(|score| score.nats).collect();
        match mean(&seeds) {
            (nats, Some(variance)) => {
                let error = (variance / seeds.len() as f64).sqrt();
                Score { nats, error, perplexity: nats.exp(), seeds, ..score.clone() }
            }
            (_, None) => score.clone(),
        }
    };
    let mut merged = Entry {
        name: format!("{} ({} seeds)", without_seed(first), runs.len()),
        config,
        scores: first.scores.iter().map(score).collect(),
        measured: first.measured.clone(),
    };
    // Those of one seed are not the setting's.
    merged.measured.nats.clear();
    merged
}

/// The name of a point without the part that names its seed.
fn without_seed(entry: &Entry) -> String {
    let seed = entry.config.get(SEED).map_or(String::new(), |seed| format!("seed={seed}"));
    let parts: Vec<&str> = entry.name.split(',').filter(|part| *part != seed).collect();
    if parts.is_empty() { entry.name.clone() } else { parts.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::claims::tests::nats;
    use crate::report::entry::tests::entry;

    fn seeded(name: &str, steps: u64, seed: u64, x: f64) -> Entry {
        let mut entry = entry(name, [6, steps], "fresh", &[("elbo:8", nats(x, 0.0))]);
        entry.config.insert(SEED.into(), seed.into());
        entry
    }

    #[test]
    fn a_setting_is_the_mean_over_its_seeds() {
        let runs = [
            seeded("a", 4, 1, 1.5),
            seeded("b", 16, 1, 1.2),
            seeded("a,seed=2", 4, 2, 1.7),
            seeded("a,seed=3", 4, 3, 1.6),
            seeded("again", 4, 3, 9.0),
        ];
        let found = over_seeds(&runs);
        let names: Vec<&str> = found.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(names, ["a (3 seeds)", "b", "again"]);
        let score = found[0].score("elbo:8").expect("scored");
        assert!((score.nats - 1.6).abs() <= 1e-12, "{score:?}");
        // A standard deviation of 0.1 over three.
        assert!((score.error - 0.1 / 3f64.sqrt()).abs() <= 1e-12, "{score:?}");
        assert_eq!(found[1].score("elbo:8"), runs[1].score("elbo:8"));
    }
}
