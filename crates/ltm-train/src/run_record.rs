//! `run.json`: the corpus of a run, and the program and machine of every session that trained it. Numbers that a resumed
//! run must reproduce are elsewhere.

use std::path::Path;
use std::time::SystemTime;

use ltm_files::write_whole;
use serde_json::{Value, json};

use crate::Result;
use crate::checkpoint::DataRecord;
use crate::config::Config;

/// The file of a run that records its corpus, and version, commit and machine of every session that trained it.
pub const RUN_FILE: &str = "run.json";

/// Adds a session that starts after `step` to the record of a run. A record that cannot be read is replaced.
///
/// # Errors
/// [`Error::File`](crate::Error::File) when it cannot be written.
pub(crate) fn write(config: &Config, step: u64, data: &DataRecord) -> Result<()> {
    let path = config.run.dir.join(RUN_FILE);
    let before = if step == 0 { None } else { sessions(&path) };
    let mut sessions = before.unwrap_or_default();
    sessions.push(session(config, step));
    let record = json!({ "data": data, "sessions": sessions });
    let text = serde_json::to_string_pretty(&record).expect("plain data serialises");
    Ok(write_whole(&path, format!("{text}\n").as_bytes())?)
}

fn sessions(path: &Path) -> Option<Vec<Value>> {
    let record: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
    record["sessions"].as_array().cloned()
}

fn session(config: &Config, step: u64) -> Value {
    json!({
        "started": humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        "first_step": step + 1,
        "version": env!("CARGO_PKG_VERSION"),
        // Set by whoever builds a release; a package has no repository to ask.
        "commit": option_env!("LTM_COMMIT"),
        "host": gethostname::gethostname().to_string_lossy(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
        "device": config.run.device,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_add_up_and_a_fresh_run_starts_over() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let set = [format!("run.dir='{}'", temp.path().display())];
        let config =
            Config::parse(include_str!("../tests/tiny.toml"), Path::new("tiny.toml"), &set)
                .expect("good");
        let data = DataRecord {
            dir: "/data".into(),
            from_run: None,
            train: serde_json::from_value(json!({ "tokenizer": "bytes", "shards": [] }))
                .expect("a fingerprint"),
            val: None,
        };
        let path = temp.path().join(RUN_FILE);
        for (step, expected) in [(0, 1), (4, 2), (0, 1)] {
            write(&config, step, &data).expect("writable");
            let found = sessions(&path).expect("readable");
            assert_eq!(found.len(), expected);
            let last = &found[expected - 1];
            assert_eq!(last["first_step"], step + 1);
            assert_eq!(last["version"], env!("CARGO_PKG_VERSION"));
            assert!(
                ["host", "system", "started"].iter().all(|key| last[*key].is_string()),
                "{last}"
            );
        }
        std::fs::write(&path, "half a rec").expect("writable");
        write(&config, 4, &data).expect("writable");
        assert_eq!(sessions(&path).expect("readable").len(), 1);
    }
}
