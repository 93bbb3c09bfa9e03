//! The least and the greatest value of every number in a configuration, and the defaults.

use std::path::Path;

use ltm_train::Config;
use ltm_train::config::{KeyDefault, keys};

fn parse(set: &[&str]) -> Result<Config, String> {
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    let config = Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &set);
    config.map_err(|error| error.to_string())
}

#[test]
fn numbers_are_taken_to_their_bounds_and_no_further() {
    const EXACT: u64 = 1 << 53;
    for (key, accepted, refused) in [
        ("run.seed", [0, i64::MAX as u64].map(|n| n.to_string()).to_vec(), vec![]),
        (
            "data.documents",
            vec!["1".into(), (1_u64 << 32).to_string()],
            vec!["0".into(), ((1_u64 << 32) + 1).to_string()],
        ),
        (
            "data.val_documents",
            vec!["0".into(), (1_u64 << 32).to_string()],
            vec![((1_u64 << 32) + 1).to_string()],
        ),
        (
            "train.schedule_steps",
            vec!["1".into(), EXACT.to_string()],
            vec!["0".into(), (EXACT + 1).to_string()],
        ),
        // Two micro-batches a step.
        (
            "train.steps",
            vec!["3".into(), (EXACT / 2).to_string()],
            vec!["0".into(), (EXACT / 2 + 1).to_string()],
        ),
        ("train.batch", vec!["1".into()], vec!["0".into(), ((1 << 24) + 1).to_string()]),
        (
            "train.micro_batches",
            vec!["1".into(), (1 << 20).to_string()],
            vec!["0".into(), ((1 << 20) + 1).to_string()],
        ),
        (
            "train.checkpoint_every",
            vec!["1".into(), EXACT.to_string()],
            vec!["0".into(), (EXACT + 1).to_string()],
        ),
        (
            "train.keep_last",
            vec!["1".into(), EXACT.to_string()],
            vec!["0".into(), (EXACT + 1).to_string()],
        ),
        ("train.eval_every", vec!["0".into(), EXACT.to_string()], vec![(EXACT + 1).to_string()]),
        (
            "train.eval_sequences",
            vec!["0".into(), EXACT.to_string()],
            vec![(EXACT + 1).to_string()],
        ),
        (
            "train.eval_samples",
            vec!["2".into(), (1 << 20).to_string()],
            vec!["1".into(), ((1 << 20) + 1).to_string()],
        ),
        ("infer.rank", vec!["0".into(), "4".into()], vec!["5".into()]),
        ("train.seq_len", vec!["1".into(), "96".into()], vec!["0".into(), "97".into()]),
        (
            "train.lr",
            vec!["2e-4".into(), "3e38".into()],
            vec!["-1.0".into(), "3.5e38".into(), "nan".into(), "inf".into()],
        ),
        (
            "train.lr_min",
            vec!["0.0".into(), "2e-3".into()],
            vec!["-1e-9".into(), "3e-3".into(), "nan".into()],
        ),
        (
            "train.weight_decay",
            vec!["0.0".into(), "3e38".into()],
            vec!["-0.1".into(), "3.5e38".into(), "inf".into()],
        ),
        (
            "train.clip",
            vec!["1e-9".into(), "inf".into()],
            vec!["0.0".into(), "-1.0".into(), "nan".into()],
        ),
        (
            "train.betas",
            vec!["[0.0, 0.999]".into()],
            vec!["[1.0, 0.5]".into(), "[0.5, 1.0]".into(), "[-0.1, 0.5]".into()],
        ),
        ("train.warmup", vec!["0".into(), "5".into()], vec!["6".into()]),
    ] {
        for value in accepted {
            if let Err(error) = parse(&[&format!("{key}={value}")]) {
                panic!("{key} = {value}: {error}");
            }
        }
        for value in refused {
            let error = parse(&[&format!("{key}={value}")]).expect_err(&value);
            assert!(error.contains(key) && error.contains("expected"), "{key} = {value}: {error}");
        }
    }
    // More tokens, or more operations, in a micro-batch than can be counted.
    let tokens = ["model.max_seq_len=1024", "train.seq_len=256", "train.batch=16777216"];
    let operations =
        ["model.dim=8192", "model.n_layers=64", "model.n_latents=64", "train.batch=16777216"];
    for set in [&tokens[..], &operations] {
        let error = parse(set).expect_err("not countable");
        assert!(error.contains("`train.batch`: expected small enough"), "{error}");
    }
}

#[test]
fn defaults_are_the_documented_ones() {
    let expected = [
        ("run.seed", "`1`"),
        ("run.device", "`\"cpu\"`"),
        ("data.documents", "`20000`"),
        ("data.val_documents", "`500`"),
        ("train.batch", "`16`"),
        ("train.micro_batches", "`1`"),
        ("train.lr", "`0.001`"),
        ("train.weight_decay", "`0.1`"),
        ("train.betas", "`[0.9, 0.95]`"),
        ("train.clip", "`1.0`"),
        ("train.slow_gradient", "`\"final\"`"),
        ("train.importance_samples", "`1`"),
        ("train.importance_from", "`0.0`"),
        ("train.prefix_weight", "`0.0`"),
        ("train.prefix_from", "`0.0`"),
        ("train.prefix_block", "`24`"),
        ("train.checkpoint_every", "`1000`"),
        ("train.keep_last", "`2`"),
        ("train.eval_every", "`1000`"),
        ("train.eval_sequences", "`256`"),
        ("train.eval_samples", "`8`"),
    ];
    let own = keys().iter().filter(|key| ["run", "data", "train"].contains(&key.section));
    let own = own.filter(|key| matches!(key.default, KeyDefault::Value(_)));
    let found: Vec<(String, String)> =
        own.map(|key| (key.full_name(), key.default_text())).collect();
    assert_eq!(found, expected.map(|(key, text)| (key.to_string(), text.to_string())));
}

#[test]
fn a_mistake_is_named_by_its_line_and_column() {
    let tiny = include_str!("tiny.toml");
    for (text, place) in [
        ("[train]\nsteps = 1\nsteps = 2\n", "line 3, column 1: "),
        ("[run]\ndir = 'é' x\n", "line 2, column 11: "),
        ("x y\n", "line 1, column 3: "),
    ] {
        let error = Config::parse(text, Path::new("a.toml"), &[]).expect_err(text).to_string();
        assert!(error.starts_with(&format!("a.toml: {place}")), "{error}");
    }
    Config::parse(tiny, Path::new("a.toml"), &[]).expect("without a mistake");
}
