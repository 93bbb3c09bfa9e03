//! `ltm compare` from outside: two runs, with paired differences and the settings that differ.

mod command;

use std::path::Path;

use command::{bad, good, json};

#[test]
fn runs_are_compared_row_by_row_and_key_by_key() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ltm-train/tests/tiny.toml");
    let tiny = tiny.display().to_string();
    let [a, b] = ["a", "b"].map(|name| temp.path().join(name).display().to_string());
    for (dir, window) in [(&a, 16), (&b, 8)] {
        let set = [format!("run.dir={dir}"), format!("model.window={window}")];
        let sets = ["--set", &set[0], "--set", &set[1], "--set", "train.steps=2"];
        good(&[&["train", &tiny, "--no-samples"][..], &sets].concat());
    }
    let found = json(&["compare", &a, &b]);
    assert_eq!(found["runs"], serde_json::json!(["a", "b"]));
    assert_eq!(found["settings"], serde_json::json!({ "model.window": { "a": 16, "b": 8 } }));
    let elbo = &found["protocols"]["elbo:2"];
    assert_eq!(elbo["status"], "valid bound");
    let [own, its] =
        [0, 1].map(|run| elbo["runs"][run]["nats_per_token"].as_f64().expect("a score"));
    let difference = &elbo["runs"][1]["difference"];
    assert_eq!(difference["paired"], true, "{found}");
    let nats = difference["nats_per_token"].as_f64().expect("a difference");
    assert!((nats - (its - own)).abs() <= 1e-9, "{found}");
    let paired = difference["standard_error"].as_f64().expect("an error");
    let of = |run: usize| elbo["runs"][run]["standard_error"].as_f64().expect("an error");
    assert!(paired < 0.5 * of(0).hypot(of(1)), "{found}");

    let text = good(&["compare", &a, &b]).0;
    for part in ["settings that differ", "model.window", "elbo:2 (valid bound)", "baseline", "yes"]
    {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let rescored = ["compare", &a, &b, "--protocol", "iwae:2", "--sequences", "3"];
    let rescored = json(&rescored);
    let runs = &rescored["protocols"]["iwae:2"]["runs"];
    assert_eq!(
        (&runs[0]["sequences"], &runs[1]["difference"]["paired"]),
        (&3.into(), &true.into())
    );
    assert_eq!(rescored["protocols"].as_object().map(|all| all.len()), Some(1));

    // One sequence gives no standard error, and makes no run the baseline.
    let one = good(&["compare", &a, &b, "--protocol", "elbo:2", "--sequences", "1"]).0;
    assert_eq!(one.matches("baseline").count(), 1, "{one}");

    // Scores of an earlier version have no rows, and are compared without.
    std::fs::remove_file(Path::new(&b).join("scores.jsonl")).expect("there");
    let found = json(&["compare", &a, &b]);
    assert_eq!(found["protocols"]["elbo:2"]["runs"][1]["difference"]["paired"], false);

    let out = temp.path().join("page").display().to_string();
    assert!(good(&["report", &a, &b, "--out", &out]).0.contains("index.html"));
    bad(&["compare", &a], 2, &["2 values required"]);
    bad(&["compare", &a, &out], 1, &["page", "metrics.jsonl"]);
}

/// `train --compare`: the same decoder without latents, twice, and what the numbers say; a second call trains nothing again.
#[test]
fn a_run_is_compared_with_its_decoder_without_latents() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/quickstart.toml");
    let config = config.display().to_string();
    let run = temp.path().join("run");
    let mut sets = vec![format!("run.dir='{}'", run.display())];
    let small = [
        "data.documents=64",
        "data.val_documents=8",
        "model.dim=16",
        "train.steps=4",
        "train.warmup=1",
        "train.prefix_from=0.5",
        "train.eval_sequences=8",
        "train.eval_samples=2",
    ];
    sets.extend(small.map(String::from));
    let sets: Vec<&str> = sets.iter().flat_map(|set| ["--set", set]).collect();
    let train =
        |more: &[&str]| good(&[&["train", &config, "--compare"], &sets[..], more].concat()).0;
    let first = train(&[]);
    for part in [
        "without latents",
        "with latents",
        "without, full context",
        "truth",
        "entropy",
        "no model can do better than 0.474",
        "comparison.svg",
    ] {
        assert!(first.contains(part), "`{part}` is not in\n{first}");
    }
    assert!(run.join("plots/comparison.svg").exists());
    let of = |name: &str| run.join("baselines").join(name).join("config.toml");
    let read = |name: &str| std::fs::read_to_string(of(name)).expect("a trained baseline");
    assert!(read("window").contains("window = 4") && read("full-context").contains("window = 96"));
    let changed =
        |name: &str| std::fs::metadata(of(name)).expect("there").modified().expect("a time");
    let before = ["window", "full-context"].map(changed);
    let again = train(&["--resume"]);
    let rows = |text: &str| -> Vec<String> {
        text.lines()
            .skip_while(|line| !line.starts_with("nats per token, lower"))
            .map(String::from)
            .collect()
    };
    assert_eq!(rows(&again), rows(&first));
    assert_eq!(["window", "full-context"].map(changed), before);
    let none = [
        "--set",
        "model.n_latents=0",
        "--set",
        "model.encoder_width=0",
        "--set",
        "infer.start=prior",
    ];
    let none =
        [&["train", &config, "--compare", "--set", "train.prefix_weight=0"], &none[..]].concat();
    bad(&none, 2, &["--compare", "model.n_latents"]);
    let sets = ["infer.method=langevin", "infer.kl_hold=0", "infer.kl_warmup=0"];
    let sets = sets.into_iter().flat_map(|set| ["--set", set]);
    let langevin: Vec<&str> = ["train", &config, "--compare"].into_iter().chain(sets).collect();
    bad(&langevin, 2, &["--compare", "it has a bound"]);
}
