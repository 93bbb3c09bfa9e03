//! What several training seeds of one setting have in common: means over them, and when a difference between two
//! settings is more than the variation between seeds. Draws nothing.

use std::collections::BTreeMap;

use serde_json::Value;

use super::entry::{Difference, Entry, Score};

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

/// The mean, and the variance where there are several numbers.
fn mean(x: &[f64]) -> (f64, Option<f64>) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let squares: f64 = x.iter().map(|x| (x - mean).powi(2)).sum();
    (mean, (x.len() > 1).then(|| squares / (n - 1.0)))
}

/// The difference of two means over seeds by Welch's t-test, which takes the variances to be unequal: its standard
/// error, and how many of these are beyond chance. `None` where either has one seed.
pub(super) fn welch(a: &[f64], b: &[f64]) -> Option<Difference> {
    let [(a_mean, a_variance), (b_mean, b_variance)] = [mean(a), mean(b)];
    let [a_n, b_n] = [a, b].map(|x| x.len() as f64);
    let [a, b] = [a_variance? / a_n, b_variance? / b_n];
    let freedom = (a + b).powi(2) / (a.powi(2) / (a_n - 1.0) + b.powi(2) / (b_n - 1.0));
    let critical = Some(critical(freedom));
    Some(Difference { nats: a_mean - b_mean, error: (a + b).sqrt(), critical })
}

/// Student's t that is exceeded by chance, on either side, in one of twenty cases, and at least 2. Degrees of freedom
/// are rounded down, which makes it larger.
fn critical(freedom: f64) -> f64 {
    const T: [f64; 30] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
        2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
        2.052, 2.048, 2.045, 2.042,
    ];
    // Without any variance the degrees of freedom are 0/0: two equal numbers each.
    let rounded = if freedom.is_nan() { 1 } else { freedom.max(1.0) as usize };
    T.get(rounded - 1).copied().unwrap_or(2.0)
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

    #[test]
    fn a_difference_is_measured_by_the_variation_between_seeds() {
        let difference = welch(&[1.5, 1.7, 1.6], &[1.2, 1.3, 1.25]).expect("three each");
        assert!((difference.nats - 0.35).abs() <= 1e-12, "{difference:?}");
        let [a, b] = [0.01 / 3.0, 0.0025 / 3.0];
        assert!((difference.error - f64::sqrt(a + b)).abs() <= 1e-12, "{difference:?}");
        // Welch's degrees of freedom: (a + b)²/(a²/2 + b²/2) = 2.94, so 2.
        assert_eq!(difference.critical, Some(4.303));
        assert_eq!(welch(&[1.5], &[1.2, 1.3]), None);
        assert_eq!(welch(&[1.0; 2], &[2.0; 2]).expect("two each").critical, Some(12.706));
        assert_eq!([3.99, 30.0, 31.0, 1e9].map(critical), [3.182, 2.042, 2.0, 2.0]);
    }
}
