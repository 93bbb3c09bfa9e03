//! Every baseline of `configs/baselines` trains, is scored by its own protocol, and resumes bit for bit.

use std::path::{Path, PathBuf};

use ltm_train::config::TrainConfig;
use ltm_train::{Config, Error, Next, Observer, Run, Start, StepReport, eval::protocols};

const FILES: [(&str, &[&str]); 5] = [
    ("autoregressive-window", &["autoregressive"]),
    ("autoregressive-full", &["autoregressive"]),
    ("masked-diffusion", &["masked-diffusion"]),
    ("amortised", &["reconstruction", "elbo-fitted-noise", "elbo"]),
    ("langevin", &["reconstruction"]),
];

fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

fn load(name: &str, overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::load(&configs().join(format!("{name}.toml")), &overrides).expect("a good file")
}

const SMALL: [&str; 12] = [
    "data.documents=32",
    "data.val_documents=4",
    "model.dim=16",
    "model.n_heads=2",
    "model.n_kv_heads=2",
    "train.steps=4",
    "train.batch=2",
    "train.micro_batches=2",
    "train.checkpoint_every=2",
    "train.eval_every=0",
    "train.eval_sequences=4",
    "train.eval_samples=2",
];

/// The preset in the size of a test: four steps of four short rows each.
fn small(name: &str, dir: &Path) -> Config {
    let dir = format!("run.dir='{}'", dir.display());
    let steps = if name == "amortised" { "infer.steps=0" } else { "infer.steps=2" };
    let overrides = SMALL.into_iter().chain([dir.as_str(), steps]);
    load(&format!("baselines/{name}"), &overrides.collect::<Vec<_>>())
}

/// Stops a run after this many steps.
struct StopAfter(u64);

impl Observer for StopAfter {
    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        assert!(report.loss.is_finite() && report.grad_norm > 0.0);
        if report.step == self.0 { Next::Stop } else { Next::Continue }
    }
}

fn train(config: &Config, start: Start, last: u64) -> ltm_train::Summary {
    let mut run = Run::new(config.clone(), start).expect("a good run");
    run.run(&mut StopAfter(last)).expect("it trains")
}

#[test]
fn presets_have_the_quickstarts_blocks_data_and_budget() {
    let quickstart = load("quickstart", &[]);
    for (name, _) in FILES {
        let preset = load(&format!("baselines/{name}"), &[]);
        assert_eq!(preset.data, quickstart.data, "{name}");
        // What is of latents alone a baseline may lack.
        let (prefix_weight, prefix_from) = (0.0, 0.0);
        let quickstart_train = TrainConfig {
            fast_steps: None,
            prefix_weight,
            prefix_from,
            ..quickstart.train.clone()
        };
        assert_eq!(preset.train, quickstart_train, "{name}");
        let (found, expected) = (preset.model, quickstart.model);
        let blocks = |model: ltm_model::ModelConfig| {
            (model.dim, model.n_layers, model.n_heads, model.n_kv_heads, model.ffn_hidden)
        };
        assert_eq!(blocks(found), blocks(expected), "{name}");
        assert_eq!(found.n_words(), expected.vocab_size, "{name}");
    }
}

#[test]
fn presets_train_and_resume_bit_for_bit() {
    for (name, expected) in FILES {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let [whole, parts] = ["whole", "parts"].map(|run| small(name, &temp.path().join(run)));
        let summary = train(&whole, Start::Fresh, u64::MAX);
        let evaluation = summary.evaluation.expect("a finished run is scored");
        let found: Vec<_> = evaluation.estimates.iter().map(|e| e.protocol.name()).collect();
        assert_eq!(found, expected, "{name}");
        assert_eq!(protocols(&whole, 2).len(), expected.len());
        for estimate in &evaluation.estimates {
            // Nothing is learnt in four steps: every word costs about the log of the vocabulary.
            let (nats, vocabulary) = (estimate.mean_nats_per_token, whole.model.vocab_size as f64);
            assert!(nats > 0.8 * vocabulary.ln() && nats < 4.0 * vocabulary.ln(), "{name}: {nats}");
        }

        assert!(!train(&parts, Start::Fresh, 2).finished);
        train(&parts, Start::Resume, u64::MAX);
        for file in [
            "metrics.jsonl",
            "checkpoints/step-4/model.safetensors",
            "checkpoints/step-4/optimizer.safetensors",
        ] {
            let read = |run: &Config| std::fs::read(run.run.dir.join(file)).expect("written");
            assert!(read(&whole) == read(&parts), "{name}: {file}");
        }
    }
}

/// All that a step can have beside the published one: an encoder beside a fit and alone, a second loss on what follows
/// a prefix, importance weights, a target for the KL, and posteriors kept between visits.
#[test]
fn every_part_of_a_step_resumes_bit_for_bit() {
    let encoder = ["model.encoder_width=8", "infer.start=encoder", "train.prefix_weight=0.5"];
    let many = ["train.importance_samples=2", "train.importance_from=0.4", "infer.kl_hold=0.3"];
    let beside = ["infer.kl_target=5", "infer.free_bits=0.1", "infer.units=posterior"];
    let given = ["infer.start=given", "data.documents=5", "train.importance_samples=2"];
    for (steps, more) in [(0, &many), (2, &many), (2, &beside), (1, &given)] {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let config = |run: &str| {
            let dir = format!("run.dir='{}'", temp.path().join(run).display());
            let steps = format!("train.fast_steps={steps}");
            let quick = SMALL.into_iter().chain([dir.as_str(), &steps, "infer.steps=2"]);
            load("quickstart", &quick.chain(encoder).chain(*more).collect::<Vec<_>>())
        };
        let [whole, parts] = ["whole", "parts"].map(config);
        assert!(train(&whole, Start::Fresh, u64::MAX).finished);
        assert!(!train(&parts, Start::Fresh, 2).finished);
        train(&parts, Start::Resume, u64::MAX);
        let file = "checkpoints/step-4/model.safetensors";
        let read = |run: &Config| std::fs::read(run.run.dir.join(file)).expect("written");
        assert!(read(&whole) == read(&parts), "{steps} {more:?}");
    }
}

#[test]
fn what_would_train_something_else_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let mut encoder = small("amortised", temp.path());
    encoder.train.slow_gradient = ltm_train::config::SlowGradientKind::Trajectory;
    let mut summed = small("langevin", temp.path());
    summed.train.slow_gradient = ltm_train::config::SlowGradientKind::Trajectory;
    for (config, expected) in [(encoder, "train.slow_gradient"), (summed, "train.slow_gradient")] {
        match Run::new(config, Start::Fresh) {
            Err(Error::Field { field, .. }) => assert_eq!(field, expected),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("{expected} was not refused"),
        }
    }
}
