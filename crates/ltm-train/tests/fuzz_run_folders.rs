//! The small files of a run's folder, changed at random: whatever they hold, nothing panics, and what is refused names
//! the file or key.
//!
//! `LTM_FUZZ_CASES` sets the number of cases, `PROPTEST_RNG_SEED` the seed.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

use ltm_testkit::copy_folder;
use ltm_train::{Checkpoint, Config, Run, Start};
use proptest::prelude::*;

const FILES: [&str; 5] =
    ["checkpoints/step-2/state.json", "metrics.jsonl", ".ltm-lock", "latest", "run.json"];

fn config(dir: &Path, steps: u64) -> Config {
    let set = [
        format!("run.dir='{}'", dir.display()),
        format!("train.steps={steps}"),
        "data.documents=4".into(),
        "data.val_documents=0".into(),
        "model.dim=8".into(),
        "model.n_layers=1".into(),
        "model.n_latents=1".into(),
        "infer.steps=1".into(),
        "train.batch=1".into(),
        "train.micro_batches=1".into(),
        "train.warmup=1".into(),
        "train.checkpoint_every=1".into(),
    ];
    Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &set).expect("good")
}

/// A run of two steps, made once.
fn run() -> &'static Path {
    static RUN: OnceLock<tempfile::TempDir> = OnceLock::new();
    RUN.get_or_init(|| {
        let temp = tempfile::tempdir().expect("a temporary folder");
        Run::new(config(temp.path(), 2), Start::Fresh)
            .and_then(|mut run| run.run(&mut ()))
            .expect("trained");
        temp
    })
    .path()
}

/// One change of a file's bytes; positions are shares of its length.
#[derive(Clone, Debug)]
enum Change {
    Truncate(f64),
    Set(f64, u8),
    Insert(f64, Vec<u8>),
    /// Replaces the run of digits after a position.
    Number(f64, String),
    Duplicate(f64, f64),
    Replace(Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let at = |share: f64| (share * bytes.len() as f64) as usize;
        match self {
            Self::Truncate(share) => bytes.truncate(at(*share)),
            Self::Set(share, byte) => {
                let at = at(*share);
                if let Some(found) = bytes.get_mut(at) {
                    *found = *byte;
                }
            }
            Self::Insert(share, new) => {
                let at = at(*share);
                bytes.splice(at..at, new.iter().copied());
            }
            Self::Number(share, text) => {
                let start = (at(*share)..bytes.len()).find(|i| bytes[*i].is_ascii_digit());
                if let Some(start) = start {
                    let digits = bytes[start..].iter().take_while(|b| b.is_ascii_digit()).count();
                    bytes.splice(start..start + digits, text.bytes());
                }
            }
            Self::Duplicate(from, to) => {
                let (from, to) = (at(*from), at(*to));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(to..to, part);
            }
            Self::Replace(new) => *bytes = new.clone(),
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    let number = prop_oneof![
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i64>().prop_map(|n| n.to_string()),
        prop::sample::select(vec![
            "18446744073709551616",
            "1e400",
            "0.5",
            "null",
            "\"2\"",
            "[]",
            "NaN"
        ])
        .prop_map(String::from),
        (0..5_u64).prop_map(|n| n.to_string()),
    ];
    let share = 0.0..1.0;
    prop_oneof![
        share.clone().prop_map(Change::Truncate),
        (share.clone(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        (share.clone(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, new)| Change::Insert(at, new)),
        (share.clone(), number).prop_map(|(at, text)| Change::Number(at, text)),
        (share.clone(), share).prop_map(|(from, to)| Change::Duplicate(from, to)),
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Change::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("LTM_FUZZ_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn changed_files_are_used_or_refused_by_name(
        file in prop::sample::select(FILES.to_vec()),
        changes in prop::collection::vec(change(), 1..4),
        steps in 2..4_u64,
    ) {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let dir = temp.path().join("run");
        copy_folder(run(), &dir);
        let path = dir.join(file);
        let mut bytes = fs::read(&path).unwrap_or_default();
        changes.iter().for_each(|change| change.apply(&mut bytes));
        fs::write(&path, bytes).expect("writable");
        if let Err(error) = Checkpoint::load(&dir.join("checkpoints/step-2")) {
            prop_assert!(error.to_string().contains("state.json"), "{error}");
        }
        let resumed = Run::new(config(&dir, steps), Start::Resume)
            .and_then(|mut run| run.run(&mut ()));
        match resumed {
            Ok(summary) => prop_assert!(summary.finished),
            Err(error) => {
                let message = error.to_string();
                let names = ["state.json", "metrics.jsonl", "data has changed", "step-2"];
                prop_assert!(names.iter().any(|name| message.contains(name)), "{message}");
            }
        }
        // Whatever happened to the newest, the one before it is whole.
        prop_assert!(Checkpoint::load(&dir).is_ok());
    }
}
