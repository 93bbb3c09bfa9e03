//! Training in which the fit of a row begins at the posterior that its last visit ended with.

use std::fs;
use std::path::Path;

use ltm_model::Weights;
use ltm_testkit::copy_folder;
use ltm_train::Config;
use ltm_train::data::{Batch, Batches, Split};
use ltm_train::posteriors::RowPosterior;
use ltm_train::run_data::open;
use ltm_train::{
    Checkpoint, Error, Next, Observer, Posteriors, Run, SlowLearner, Start, StepReport, Trainer,
};
use ltm_vi::{
    Batch as Texts, Gaussian, InferKey, Inference, Latents, Program, Protocol, Sequences,
    Start as FitStart, score,
};

/// Five rows, two per step: the third batch ends the first epoch and begins the second.
fn config(dir: &Path, set: &[&str]) -> Config {
    let dir = format!("run.dir='{}'", dir.display());
    let small = [
        dir.as_str(),
        "data.documents=5",
        "data.val_documents=2",
        "model.dim=8",
        "infer.start=given",
        "train.fast_steps=1",
        "train.micro_batches=1",
        "train.steps=8",
        "train.checkpoint_every=1",
        "train.keep_last=9",
        "train.eval_every=0",
        "train.eval_sequences=2",
    ];
    let set: Vec<String> = small.iter().chain(set).map(ToString::to_string).collect();
    Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &set).expect("good")
}

fn trainer(config: &Config) -> Trainer {
    let train = open(config, Split::Train).expect("generated");
    Trainer::new(config.clone(), train, None).expect("good parts")
}

fn batch(train: &Batches, step: u64) -> Batch {
    train.batch(step).expect("readable")
}

/// The fit of step `step` by hand: from these posteriors of its rows.
fn fit(config: &Config, learner: &SlowLearner, step: u64, batch: &Batch) -> Gaussian {
    let (b, t) = (config.train.batch, config.train.seq_len);
    let (device, precision) = config.run.compute().expect("a CPU");
    let mut program = Program::new(&config.model, b, t, &device, precision, config.training())
        .expect("a good model");
    let texts = Texts::new(&config.model, b, &batch.tokens, &batch.targets).expect("good ids");
    let mut problem = program.problem(learner.device_weights(), &texts).expect("they fit");
    let sequences = Sequences::From(0);
    let key = InferKey { seed: config.run.seed, step, sequences };
    let progress = config.train.progress(step);
    let inference = Inference::at(&config.fast_loop(), progress).expect("good");
    let first = problem.start(inference.start(), key).expect("a start");
    let mut start = first.to_host().expect("on the CPU");
    let len = config.model.n_latents * config.model.dim;
    for (at, number) in batch.numbers.iter().enumerate() {
        if let Some(kept) = learner.posteriors().rows.get(number) {
            start.mu[at * len..][..len].copy_from_slice(&kept.mu);
            start.log_var[at * len..][..len].copy_from_slice(&kept.log_var);
        }
    }
    let start = Gaussian::new(&start, &device, problem.dtype()).expect("finite");
    let inference = inference.from(FitStart::Given(start.into()));
    match inference.infer(&mut problem, key, &mut |_| Ok(())).expect("fitted") {
        Latents::Gaussian(q) => q,
        other => panic!("{other:?}"),
    }
}

/// Each visit begins where the last one ended, bit for bit, and with new noise: what is kept after a step is what a fit
/// by hand from what was kept before it ends with.
#[test]
fn a_visit_begins_where_the_last_one_ended() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    for set in [&[][..], &["model.encoder_width=8"], &["train.batch=8"]] {
        let config = config(temp.path(), set);
        let mut trainer = trainer(&config);
        let len = config.model.n_latents * config.model.dim;
        for step in 0..8 {
            let batch = batch(trainer.train_batches(), step);
            let before = trainer.learner().posteriors().clone();
            let fitted = fit(&config, trainer.learner(), step, &batch);
            let fitted = fitted.to_host().expect("on the CPU");
            trainer.step().expect("a step");
            let after = &trainer.learner().posteriors().rows;
            let mut expected = before.rows;
            let parts = fitted.mu.chunks(len).zip(fitted.log_var.chunks(len));
            for (number, (mu, log_var)) in batch.numbers.iter().zip(parts) {
                let row = RowPosterior { mu: mu.into(), log_var: log_var.into() };
                expected.insert(*number, row);
            }
            assert!(*after == expected, "step {step} {set:?}");
        }
        assert!(trainer.learner().posteriors().rows.keys().copied().eq(0..5), "every row");
    }
}

/// The bound of a batch at these posteriors, in nats per token.
fn bound(config: &Config, learner: &SlowLearner, batch: &Batch, q: Gaussian) -> f64 {
    let (b, t) = (config.train.batch, config.train.seq_len);
    let (device, precision) = config.run.compute().expect("a CPU");
    let mut program = Program::new(&config.model, b, t, &device, precision, config.training())
        .expect("a good model");
    let texts = Texts::new(&config.model, b, &batch.tokens, &batch.targets).expect("good ids");
    let mut problem = program.problem(learner.device_weights(), &texts).expect("they fit");
    let key = InferKey { seed: 9, step: 0, sequences: Sequences::From(0) };
    let inference = Inference::finished(&config.infer).expect("good");
    let protocol = Protocol::Elbo { samples: 64 };
    let scores = score(&mut problem, protocol, &q.into(), &inference, key).expect("scored");
    scores.estimate().expect("some tokens").mean_nats_per_token
}

/// With weights that stay, one step per visit lowers the bound of what is kept from visit to visit.
#[test]
fn many_visits_of_one_step_lower_the_bound() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let still = ["train.lr=0.0", "train.lr_min=0.0", "train.batch=5", "train.steps=40"];
    let fit_of_one = ["infer.schedule=constant", "infer.lr=0.02", "infer.beta1=0.0"];
    let config = config(temp.path(), &[&still[..], &fit_of_one].concat());
    let train = open(&config, Split::Train).expect("generated");
    let mut weights = Weights::init(&config.model, 5).expect("a good model");
    // Large enough for the latents to matter.
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
    let mut learner = SlowLearner::new(&config, &weights).expect("a learner");
    let mut unfitted = config.clone();
    unfitted.train.fast_steps = Some(0);
    let first = batch(&train, 0);
    let mut bounds = Vec::new();
    for step in 0..=20 {
        if step % 10 == 0 {
            let kept = fit(&unfitted, &learner, step, &first);
            bounds.push(bound(&config, &learner, &first, kept));
        }
        learner.step(&config, &[batch(&train, step)], step).expect("a step");
    }
    assert!(bounds[1] < bounds[0] && bounds[2] < bounds[1], "{bounds:?}");
    assert!(bounds[2] < bounds[0] - 0.01, "{bounds:?}");
}

/// Stops a run after this many steps.
struct StopAfter(u64);

impl Observer for StopAfter {
    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        if report.step == self.0 { Next::Stop } else { Next::Continue }
    }
}

fn train(config: &Config, start: Start, last: u64) {
    let mut run = Run::new(config.clone(), start).expect("a good run");
    run.run(&mut StopAfter(last)).expect("it trains");
}

const FILE: &str = "posteriors.safetensors";

/// The third step ends the first epoch: stopped before, in and after it, the run goes on as if it had not been.
#[test]
fn a_run_resumes_bit_for_bit_through_the_end_of_an_epoch() {
    for set in [&["train.fast_steps=2"][..], &["model.encoder_width=8", "train.prefix_weight=0.5"]]
    {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let [whole, parts] = ["whole", "parts"].map(|run| config(&temp.path().join(run), set));
        train(&whole, Start::Fresh, u64::MAX);
        let mut start = Start::Fresh;
        for last in [2, 3, 4, u64::MAX] {
            train(&parts, start, last);
            start = Start::Resume;
        }
        for step in 1..=8 {
            for file in ["model.safetensors", "optimizer.safetensors", FILE] {
                let file = format!("checkpoints/step-{step}/{file}");
                let read = |run: &Config| fs::read(run.run.dir.join(&file)).expect("written");
                assert!(read(&whole) == read(&parts), "{file} {set:?}");
            }
        }
        // In memory as in a folder, and another trainer goes on with the learner's posteriors.
        let mut first = trainer(&whole);
        for _ in 0..3 {
            first.step().expect("a step");
        }
        let batches = first.train_batches().clone();
        let learner = first.into_learner();
        let second = Trainer::from_learner(whole.clone(), learner, 3, batches, None);
        let mut second = second.expect("good parts");
        second.run(&mut ()).expect("trained");
        let saved = Checkpoint::load(&whole.run.dir).expect("saved");
        assert!(second.weights().expect("weights") == saved.weights);
        assert!(*second.learner().posteriors() == saved.posteriors().expect("saved"));
    }
}

/// A run that begins at the prior keeps nothing; one that goes on from it begins with first visits.
#[test]
fn a_run_may_begin_to_keep_and_cease() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let of = |start: &str, steps: &str| config(temp.path(), &[start, steps]);
    let kept = |step| {
        let dir = temp.path().join(format!("checkpoints/step-{step}"));
        let kept = Checkpoint::load(&dir).expect("whole").posteriors().expect("readable");
        (dir.join(FILE).exists(), kept.rows.len())
    };
    train(&of("infer.start=prior", "train.steps=3"), Start::Fresh, u64::MAX);
    train(&of("infer.start=given", "train.steps=4"), Start::Resume, u64::MAX);
    train(&of("infer.start=prior", "train.steps=5"), Start::Resume, u64::MAX);
    assert_eq!([kept(3), kept(4), kept(5)], [(false, 0), (true, 2), (false, 0)]);
}

#[test]
fn a_failed_step_keeps_what_was_kept() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    // The fourth step makes weights finite, but useless.
    let config = config(temp.path(), &["train.lr=1e30", "train.warmup=0", "train.lr_min=0.0"]);
    let mut trainer = trainer(&config);
    let taken = (0..8).take_while(|_| trainer.step().is_ok()).count();
    assert!((1..8).contains(&taken), "{taken}");
    let before = trainer.learner().posteriors().clone();
    let error = trainer.step().expect_err("diverged");
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert!(*trainer.learner().posteriors() == before && !before.rows.is_empty());
    // Posteriors of another model are refused, and change nothing either.
    let mut learner = trainer.into_learner();
    let row = RowPosterior { mu: [0.0; 3].into(), log_var: [0.0; 3].into() };
    let foreign = Posteriors { rows: [(7, row)].into() };
    let error = learner.set_posteriors(foreign).expect_err("too short").to_string();
    assert!(error.contains("of row 7, found 3"), "{error}");
    assert!(*learner.posteriors() == before);
}

/// The error of resuming a run whose newest checkpoint has this file of posteriors, without a checksum of it.
fn refused(whole: &Path, change: impl Fn(&Path)) -> String {
    let temp = tempfile::tempdir().expect("a temporary folder");
    copy_folder(whole, temp.path());
    let dir = temp.path().join("checkpoints/step-8");
    let state = dir.join("state.json");
    let text = fs::read_to_string(&state).expect("readable");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(json["files"][FILE]["crc32c"].is_u64(), "{json}");
    json["files"].as_object_mut().expect("an object").remove(FILE);
    fs::write(&state, json.to_string()).expect("writable");
    change(&dir.join(FILE));
    let resumed = Run::new(config(temp.path(), &["train.steps=9"]), Start::Resume);
    let error = ltm_train::chain(&resumed.err().expect("refused"));
    assert!(error.contains("step-8/posteriors.safetensors"), "{error}");
    error
}

#[test]
fn a_file_that_is_missing_damaged_or_of_another_model_is_named() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let [whole, wide] = ["whole", "wide"].map(|name| temp.path().join(name));
    train(&config(&whole, &[]), Start::Fresh, u64::MAX);
    train(&config(&wide, &["model.dim=16"]), Start::Fresh, u64::MAX);
    let foreign = fs::read(wide.join("checkpoints/step-8").join(FILE)).expect("written");
    let own = fs::read(whole.join("checkpoints/step-8").join(FILE)).expect("written");
    let with = |bytes: &[u8]| refused(&whole, |path| fs::write(path, bytes).expect("writable"));
    let edit = |from_end: usize, bytes: &[u8]| {
        let mut changed = own.clone();
        let at = changed.len() - from_end;
        changed[at..at + bytes.len()].copy_from_slice(bytes);
        with(&changed)
    };
    for (error, part) in [
        (refused(&whole, |path| fs::remove_file(path).expect("removable")), "No such file"),
        (with(&foreign), "expected F32 [5, 4, 8], found F32 [5, 4, 16]"),
        (with(b"none"), "a whole safetensors file"),
        (edit(4, &f32::NAN.to_le_bytes()), "expected finite numbers, found NaN"),
    ] {
        assert!(error.contains(part), "`{part}` is not in {error}");
    }
    // With its checksum: any changed byte, and a whole checkpoint has the file.
    let file = whole.join("checkpoints/step-8").join(FILE);
    let mut changed = own.clone();
    *changed.last_mut().expect("some") ^= 1;
    fs::write(&file, changed).expect("writable");
    let resume = || Run::new(config(&whole, &["train.steps=9"]), Start::Resume);
    let error = resume().err().expect("damaged").to_string();
    assert!(error.contains(FILE) && error.contains("CRC-32C"), "{error}");
    fs::remove_file(&file).expect("removable");
    let run = resume().expect("from the one before");
    assert!(ltm_train::chain(&run.ignored()[0]).contains(FILE));
}

#[test]
fn changed_data_drops_them() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = temp.path().join("run");
    train(&config(&dir, &[]), Start::Fresh, u64::MAX);
    let same = Run::new(config(&dir, &["train.steps=9"]), Start::Resume).expect("resumed");
    assert_eq!(same.changes().dropped_posteriors, 0);
    drop(same);
    let more = config(&dir, &["train.steps=9", "data.documents=6"]);
    let mut run = Run::new(more, Start::ResumeOnChangedData).expect("accepted");
    assert_eq!(run.changes().dropped_posteriors, 5);
    run.run(&mut ()).expect("trained");
    let kept = Checkpoint::load(&dir).expect("saved").posteriors().expect("readable");
    assert_eq!(kept.rows.len(), 2, "those of the one step since");
}

#[test]
fn what_has_nothing_to_keep_is_refused() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let parse = |set: &[&str]| {
        let set: Vec<String> = set.iter().map(ToString::to_string).collect();
        let text = include_str!("tiny.toml");
        Config::parse(text, Path::new("tiny.toml"), &set).expect_err("refused").to_string()
    };
    let start = |set: &[&str]| {
        let run = Run::new(config(temp.path(), set), Start::Fresh);
        run.err().expect("refused").to_string()
    };
    for (error, parts) in [
        (parse(&["infer.start=given", "model.n_latents=0"]), ["infer.start", "without latents"]),
        (parse(&["infer.start=given", "infer.method=langevin"]), ["infer.start", "a sample"]),
        (start(&["train.fast_steps=0"]), ["train.fast_steps", "at least 1"]),
        (start(&["data.rows=windows"]), ["data.rows", "begin at other tokens"]),
    ] {
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}
