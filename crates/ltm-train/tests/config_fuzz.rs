//! Random configuration files and overrides: never a panic, and a refusal names the file.

use std::path::Path;

use ltm_train::config::{Kind, keys};
use ltm_train::{Config, flops, memory};
use proptest::prelude::*;
use proptest::sample::select;

const TEXT: &str = include_str!("tiny.toml");

/// Loads, and does with what was accepted all that a command does without training.
fn check(text: &str, overrides: &[String]) {
    match Config::parse(text, Path::new("some.toml"), overrides) {
        Ok(config) => {
            // A run that an override shortens below its warm-up is refused as a file.
            if config.train.warmup < config.train.steps {
                let shown = config.to_annotated_toml(true);
                let again = Config::parse(&shown, Path::new("again.toml"), &[]);
                assert_eq!(again.expect("what is shown reads back"), config);
            }
            // A graph grows with the layers, so only few are traced.
            if config.model.n_layers <= 64 {
                let _ = flops::count(&config);
                let _ = memory::estimate(&config).map(|memory| memory.total());
            }
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("some.toml: "), "{message}");
            assert!(!message.contains('\n') && message.len() < 1000, "{message}");
        }
    }
}

/// Values of every kind, right and wrong.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (0_i64..100).prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|x| format!("{x:?}")),
        (0.0..1.0_f64).prop_map(|x| format!("{x:?}")),
        select(vec![
            "nan",
            "inf",
            "-inf",
            "true",
            "[]",
            "[1, 2]",
            "{}",
            "\"\"",
            "1979-05-27",
            "0x10",
            "1_000"
        ])
        .prop_map(String::from),
        "\\PC{0,12}",
        any::<String>(),
        "[0-9]{1,40}",
    ]
}

/// A key that exists, or one like it.
fn key() -> impl Strategy<Value = String> {
    let known = keys().iter().map(|key| key.full_name()).collect::<Vec<_>>();
    prop_oneof![9 => select(known), 1 => "[a-z.]{0,12}"]
}

fn override_text() -> impl Strategy<Value = String> {
    prop_oneof![9 => (key(), value()).prop_map(|(key, value)| format!("{key}={value}")), 1 => any::<String>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn overrides_never_panic(overrides in prop::collection::vec(override_text(), 0..4)) {
        check(TEXT, &overrides);
    }

    #[test]
    fn files_never_panic(text in any::<String>(), cut in 0..TEXT.len(), insert in any::<String>()) {
        check(&text, &[]);
        let cut = (cut..).find(|at| TEXT.is_char_boundary(*at)).unwrap_or(0);
        check(&format!("{}{insert}{}", &TEXT[..cut], &TEXT[cut..]), &[]);
        check(&TEXT[..cut], &[]);
    }

    #[test]
    fn random_sections_never_panic(lines in prop::collection::vec((key(), value()), 0..24)) {
        let mut text = String::new();
        for section in ["run", "data", "model", "infer", "train"] {
            text += &format!("[{section}]\r\n");
            for (key, value) in &lines {
                if let Some(name) = key.strip_prefix(section).and_then(|key| key.strip_prefix('.')) {
                    text += &format!("{name} = {value}\r\n");
                }
            }
        }
        check(&text, &[]);
    }
}

#[test]
fn a_choice_names_its_values() {
    for key in keys() {
        if let Kind::Choice(choices) = &key.kind {
            let set = format!("{}=nonsense", key.full_name());
            let error = Config::parse(TEXT, Path::new("some.toml"), &[set]).expect_err("nonsense");
            assert!(choices.iter().all(|(name, _)| error.to_string().contains(name)), "{error}");
        }
    }
}
