//! Several runs next to each other: scores under each protocol with paired differences, and the keys in which their
//! configurations differ. Draws nothing.

use std::path::PathBuf;

use ltm_vi::Protocol;
use serde_json::{Map, Value, json};

use super::difference::Difference;
use super::entry::{Entry, kind, protocols};
use super::words::plus_minus;
use super::{name_of, read_run, rescore};
use crate::{Error, Result};

/// Runs that are compared with the first of them.
#[derive(Debug)]
pub struct Comparison {
    entries: Vec<Entry>,
}

/// A key in which configurations differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// `section.key`.
    pub key: String,
    /// Its value in each run; `None` where it is not set.
    pub values: Vec<Option<Value>>,
}

/// The scores of all runs under one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtocolTable {
    /// The protocol with its parameters, such as `elbo:8`.
    pub protocol: String,
    /// What such a number is: `valid bound`, `not a bound`, ….
    pub status: &'static str,
    /// The runs that have been scored by it, in the order of the comparison.
    pub rows: Vec<Row>,
}

/// One run under one protocol.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The run's index in the comparison.
    pub run: usize,
    /// Nats per token.
    pub nats_per_token: f64,
    /// Its standard error over sequences.
    pub standard_error: f64,
    /// `exp` of the former.
    pub perplexity: f64,
    /// Scored sequences.
    pub sequences: u64,
    /// Nats per token minus those of the table's first run; `None` for that run, and where one sequence is too few for
    /// a standard error.
    pub difference: Option<RowDifference>,
}

/// A difference between two runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowDifference {
    /// Nats per token.
    pub nats_per_token: f64,
    /// Its standard error.
    pub standard_error: f64,
    /// Whether the error is of differences sequence by sequence: both runs were scored on the same ones. If not,
    /// it is that of two independent samples, which is larger.
    pub paired: bool,
}

impl Comparison {
    /// Reads the folders of at least two runs. Without `rescored` the numbers are those of each run's last
    /// evaluation; with it, the newest checkpoints are scored on their validation splits by those protocols, on
    /// [`sequences` rows](ltm_train::data::Batches::sample) (0 for all). `progress(run, done, all)` counts batches.
    ///
    /// # Errors
    /// [`Error::Field`] for fewer than two runs, [`Error::File`] for a folder without a run, and those of
    /// [`Checkpoint::load`](ltm_train::Checkpoint::load) and [`evaluate`](ltm_train::evaluate).
    pub fn read(
        dirs: &[PathBuf],
        rescored: &[Protocol],
        sequences: u64,
        progress: &mut dyn FnMut(usize, u64, u64),
    ) -> Result<Self> {
        if dirs.len() < 2 {
            return Err(Error::field("runs", "at least two folders of runs", dirs.len()));
        }
        let mut entries = Vec::with_capacity(dirs.len());
        for (idx, dir) in dirs.iter().enumerate() {
            let (settings, mut measured) = read_run(dir)?;
            if !rescored.is_empty() {
                let mut progress = |done, all| progress(idx, done, all);
                rescore(dir, &mut measured, rescored, sequences, &mut progress)?;
            }
            entries.push(Entry::new(name_of(dirs, idx), settings, measured));
        }
        Ok(Self { entries })
    }

    /// Runs that were read before.
    pub(super) fn of(entries: Vec<Entry>) -> Self {
        Self { entries }
    }

    /// The runs' names, in order: their folders.
    pub fn names(&self) -> Vec<&str> {
        self.entries.iter().map(|entry| entry.name.as_str()).collect()
    }

    /// The keys in which the configurations differ, except for the runs' folders.
    pub fn settings(&self) -> Vec<Setting> {
        let mut keys: Vec<&String> = self.entries.iter().flat_map(|e| e.config.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        let setting = |key: &&String| {
            let values: Vec<Option<Value>> =
                self.entries.iter().map(|entry| entry.config.get(*key).cloned()).collect();
            let differs = values.iter().any(|value| *value != values[0]) && *key != "run.dir";
            differs.then(|| Setting { key: key.to_string(), values })
        };
        keys.iter().filter_map(setting).collect()
    }

    /// The scores by protocol, valid bounds first.
    pub fn tables(&self) -> Vec<ProtocolTable> {
        protocols(&self.entries).into_iter().map(|protocol| self.table(protocol)).collect()
    }

    fn table(&self, protocol: String) -> ProtocolTable {
        let mut first: Option<&Entry> = None;
        let mut rows = Vec::new();
        for (run, entry) in self.entries.iter().enumerate() {
            let Some(score) = entry.score(&protocol) else { continue };
            let difference = first.and_then(|first| {
                let paired = entry.paired_with(&protocol, first);
                let Difference { nats, error, .. } = entry.minus(&protocol, first, &protocol)?;
                Some(RowDifference { nats_per_token: nats, standard_error: error, paired })
            });
            first.get_or_insert(entry);
            let sequences = entry.measured.evaluation[&protocol].sequences;
            rows.push(Row {
                run,
                nats_per_token: score.nats,
                standard_error: score.error,
                perplexity: score.perplexity,
                sequences,
                difference,
            });
        }
        ProtocolTable { status: kind(&protocol).status(), protocol, rows }
    }

    /// The three sentences that come first: the best run, how clear its lead is, and what differs.
    pub(super) fn findings(&self) -> Vec<String> {
        let names = self.names();
        let mut findings = Vec::new();
        for table in self.tables().iter().filter(|table| table.rows.len() > 1).take(1) {
            let best =
                table.rows.iter().min_by(|a, b| a.nats_per_token.total_cmp(&b.nats_per_token));
            let Some(best) = best else { continue };
            let name = names[best.run];
            findings.push(format!(
                "Lowest under `{}` ({}): {name}, {} nats per token.",
                table.protocol,
                table.status,
                plus_minus(best.nats_per_token, best.standard_error)
            ));
            findings.push(match best.difference {
                None if best.run == table.rows[0].run => {
                    format!("No run scores below the baseline {name}.")
                }
                None => "One sequence is too few for a standard error.".into(),
                Some(d) => {
                    let how = if d.paired { "paired" } else { "not paired" };
                    format!(
                        "Its difference to the baseline {} is {:+.4} ± {:.4} nats per token ({how}), over sequences: \
                         these are two runs, and other seeds may differ by more.",
                        names[table.rows[0].run], d.nats_per_token, d.standard_error
                    )
                }
            });
        }
        let settings: Vec<String> =
            self.settings().into_iter().map(|s| format!("`{}`", s.key)).collect();
        findings.push(match settings.as_slice() {
            [] => "The configurations do not differ.".into(),
            [one] => format!("The configurations differ in {one} only."),
            many => format!("The configurations differ in {}.", many.join(", ")),
        });
        findings
    }

    /// The whole comparison as JSON: `runs`, `settings` by key, `protocols` with one object per run.
    pub fn to_json(&self) -> Value {
        let names = self.names();
        let by_name = |values: Vec<Value>| -> Value {
            names.iter().map(|name| name.to_string()).zip(values).collect::<Map<_, _>>().into()
        };
        let settings: Map<String, Value> = self
            .settings()
            .into_iter()
            .map(|s| {
                (s.key, by_name(s.values.into_iter().map(Option::unwrap_or_default).collect()))
            })
            .collect();
        let row = |row: &Row| {
            let mut value = json!({
                "run": names[row.run],
                "nats_per_token": row.nats_per_token,
                "standard_error": row.standard_error,
                "perplexity": row.perplexity,
                "sequences": row.sequences,
            });
            if let Some(difference) = row.difference {
                value["difference"] = json!({
                    "nats_per_token": difference.nats_per_token,
                    "standard_error": difference.standard_error,
                    "paired": difference.paired,
                });
            }
            value
        };
        let protocols: Map<String, Value> = self
            .tables()
            .iter()
            .map(|table| {
                let rows: Vec<Value> = table.rows.iter().map(row).collect();
                (table.protocol.clone(), json!({ "status": table.status, "runs": rows }))
            })
            .collect();
        json!({ "runs": names, "settings": settings, "protocols": protocols })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::entry::tests::entry;

    fn pair() -> Comparison {
        let scored = |name: &str, steps, nats: [f64; 4]| {
            entry(name, [6, steps], "fresh", &[("elbo:8", nats)])
        };
        Comparison::of(vec![
            scored("a", 4, [2.0, 3.0, 2.5, 3.5]),
            scored("b", 16, [1.8, 2.7, 2.3, 3.2]),
        ])
    }

    #[test]
    fn differences_are_paired_where_the_rows_are_the_same() {
        let table = &pair().tables()[0];
        assert_eq!((table.protocol.as_str(), table.status), ("elbo:8", "valid bound"));
        assert_eq!(table.rows[0].difference, None);
        // -0.2, -0.3, -0.2, -0.3 nats over 2, 3, 2, 3 tokens: -0.1 per token in every row.
        let difference = table.rows[1].difference.expect("the second run");
        assert!(
            difference.paired && (difference.nats_per_token + 0.1).abs() <= 1e-12,
            "{difference:?}"
        );
        assert!(difference.standard_error <= 1e-12, "{difference:?}");
    }

    #[test]
    fn rows_of_other_texts_are_not_paired() {
        let Comparison { mut entries } = pair();
        for (entry, digest) in entries.iter_mut().zip([1, 2]) {
            entry.measured.sequence_digests = Some(vec![digest; 4]);
        }
        let difference =
            Comparison { entries }.tables()[0].rows[1].difference.expect("the second run");
        assert!(!difference.paired, "{difference:?}");
        assert!((difference.standard_error - 0.02_f64.sqrt()).abs() <= 1e-12, "{difference:?}");
    }

    #[test]
    fn settings_that_differ_are_listed_key_by_key() {
        let comparison = pair();
        let keys: Vec<String> = comparison.settings().into_iter().map(|s| s.key).collect();
        assert_eq!(keys, ["infer.steps", "train.steps"]);
        let json = comparison.to_json();
        assert_eq!(json["settings"]["infer.steps"], json!({ "a": 4, "b": 16 }));
        assert_eq!(json["protocols"]["elbo:8"]["runs"][1]["difference"]["paired"], true);
        assert_eq!(json["runs"], json!(["a", "b"]));
    }
}
