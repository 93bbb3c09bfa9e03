//! Whether a run may be resumed: what has changed since its checkpoint, key by key. Reads and writes no files.

use std::path::PathBuf;

use crate::checkpoint::{Checkpoint, DataRecord};
use crate::config::Config;
use crate::data::Difference;
use crate::{Error, Result};

/// Keys that decide what a run is: with another value it would be another run.
const FIXED: [&str; 4] = ["run.seed", "train.batch", "train.micro_batches", "train.seq_len"];

/// Where the learning rate leaves its course because the schedule has changed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScheduleJump {
    /// The first step after the checkpoint, counted from 1.
    pub step: u64,
    /// The rate that the run would have had at this step.
    pub before: f64,
    /// The rate that it has now.
    pub after: f64,
    /// The steps that the schedule spanned before.
    pub schedule_steps: u64,
}

/// What has changed between a checkpoint and the configuration that resumes it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Keys of the configuration with another value.
    pub keys: Vec<Difference>,
    /// How the corpus and its rows differ; empty unless that was allowed.
    pub data: Vec<Difference>,
    /// Posteriors of rows that the checkpoint holds and that are not used, because the data has changed: their rows'
    /// next fits begin as at a first visit.
    pub dropped_posteriors: usize,
    /// Set when the learning rate is not the one that the run would have had.
    pub jump: Option<ScheduleJump>,
}

/// Refuses a configuration that would not be the same run.
///
/// # Errors
/// [`Error::File`] listing every changed key of another run; [`Error::Field`] for fewer steps than the checkpoint has
/// taken.
pub(crate) fn check_same_run(checkpoint: &Checkpoint, config: &Config) -> Result<()> {
    let (old, step) = (&checkpoint.config, checkpoint.state.step);
    let fixed = |change: &Difference| {
        change.key.starts_with("model.") || FIXED.contains(&change.key.as_str())
    };
    let refused: Vec<Difference> = differences(old, config).into_iter().filter(fixed).collect();
    if !refused.is_empty() {
        let path = checkpoint.dir.join(crate::checkpoint::CONFIG_FILE);
        let list = |value: fn(&Difference) -> &String| {
            let values = refused.iter().map(|change| format!("{} = {}", change.key, value(change)));
            values.collect::<Vec<_>>().join(", ")
        };
        let expected =
            format!("{}, which cannot change when a run is resumed", list(|change| &change.old));
        return Err(Error::content(&path, "configuration", expected, list(|change| &change.new)));
    }
    if config.train.steps < step {
        let expected = format!("at least {step}, the number of steps already taken");
        return Err(Error::field("train.steps", expected, config.train.steps));
    }
    Ok(())
}

/// Compares a checkpoint with the configuration and the corpus that resume it.
///
/// # Errors
/// [`Error::DataChanged`] when the corpus or how it is cut into rows has changed and `accept_data` is false.
pub(crate) fn changes(
    checkpoint: &Checkpoint,
    config: &Config,
    data: &DataRecord,
    accept_data: bool,
) -> Result<Changes> {
    let (old, step) = (&checkpoint.config, checkpoint.state.step);
    let mut changed = Vec::new();
    if let Some(recorded) = &checkpoint.state.data {
        changed.extend(recorded.train.differences(&data.train));
        match (&recorded.val, &data.val) {
            (Some(old), Some(new)) => changed.extend(old.differences(new)),
            (None, None) => {}
            (old, _) => {
                let [old, new] = if old.is_some() { ["yes", "no"] } else { ["no", "yes"] };
                let key = "validation split".into();
                changed.push(Difference { key, old: old.into(), new: new.into() });
            }
        }
    }
    let [old_rows, new_rows] =
        [old, config].map(|config| format!("{:?}", config.data.row_kind()).to_lowercase());
    if old_rows != new_rows {
        changed.push(Difference { key: "data.rows".into(), old: old_rows, new: new_rows });
    }
    // The validation split of generated stories differs in the parameters of the training split.
    let mut seen = std::collections::HashSet::new();
    changed.retain(|change| seen.insert(change.to_string()));
    if !changed.is_empty() && !accept_data {
        let checkpoint = checkpoint.dir.clone();
        return Err(Error::DataChanged { checkpoint, differences: changed });
    }
    let mut keys = differences(old, config);
    keys.retain(|change| change.key != "data.rows");
    let [before, after] = [old, config].map(|config| config.train.lr_at(step));
    let jumps = before != after && step < config.train.steps && step > 0;
    let schedule_steps = old.train.schedule_steps();
    let jump = jumps.then_some(ScheduleJump { step: step + 1, before, after, schedule_steps });
    Ok(Changes { keys, data: changed, dropped_posteriors: 0, jump })
}

/// The keys whose values differ, in the order of the sections.
fn differences(old: &Config, new: &Config) -> Vec<Difference> {
    let [old, new] = [old, new].map(|config| {
        let mut config = config.clone();
        // Where the run's folder, its corpus and its tokenizer are means nothing, and need not be text. What is in
        // the corpus is compared by its fingerprint.
        (config.run.dir, config.data.path, config.data.tokenizer) = (PathBuf::new(), None, None);
        toml::Table::try_from(config).expect("a configuration is made of plain values")
    });
    let mut found = Vec::new();
    for section in ["run", "data", "model", "infer", "train"] {
        let [old, new] =
            [&old, &new].map(|config| config.get(section).and_then(toml::Value::as_table));
        let mut keys: Vec<&String> =
            [old, new].into_iter().flatten().flat_map(|map| map.keys()).collect();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            let [old, new] = [old, new].map(|map| map.and_then(|map| map.get(key)));
            let name = format!("{section}.{key}");
            if old != new {
                found.push(Difference { key: name, old: shown(old), new: shown(new) });
            }
        }
    }
    found
}

/// A value as it is written in a configuration file.
fn shown(value: Option<&toml::Value>) -> String {
    value.map_or_else(|| "not set".into(), ToString::to_string)
}
