//! Training as a library: from memory as from a folder, stopped by an observer at any moment, on data of one's own.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ltm_train::data::{
    BatchOptions, Batches, Corpus, Order, Result as DataResult, Split, Tokenizer,
};
use ltm_train::metrics::{Line, METRICS_FILE, read};
use ltm_train::run_data::{open, open_corpus};
use ltm_train::{Config, Error, Evaluation, Next, Observer, Run, Start, StepReport, Trainer};

const TINY: &str = include_str!("tiny.toml");

/// The smallest run, of six steps with an evaluation after each third one.
fn config(dir: &Path, set: &[&str]) -> Config {
    let dir = format!("run.dir='{}'", dir.display());
    let small = ["data.documents=12", "data.val_documents=4", "model.dim=8", "infer.steps=2"];
    let set: Vec<String> =
        small.iter().chain([&dir.as_str()]).chain(set).map(ToString::to_string).collect();
    Config::parse(TINY, Path::new("tiny.toml"), &set).expect("good")
}

/// The same tokens in memory.
fn in_memory(batches: &Batches) -> Batches {
    let corpus = batches.corpus();
    let ids = corpus.tokens(0..corpus.len()).expect("readable");
    let corpus = Corpus::from_tokens(corpus.tokenizer().clone(), ids).expect("tokens");
    Batches::new(corpus, batches.options()).expect("a good shape")
}

/// A trainer on the data of a configuration, which are generated into its folder.
fn trainer(config: &Config) -> Trainer {
    let [train, val] =
        [Split::Train, Split::Val].map(|split| in_memory(&open(config, split).expect("generated")));
    Trainer::new(config.clone(), train, Some(val)).expect("good parts")
}

/// What an observer saw; it stops after a step, or after so many batches of an evaluation after a step.
#[derive(Default)]
struct Watch {
    stop_after: Option<u64>,
    stop_in_evaluation: Option<(u64, u64)>,
    step: u64,
    reports: Vec<StepReport>,
    evaluations: Vec<(u64, Evaluation)>,
    batches_scored: u64,
}

impl Watch {
    fn stop_if(stop: bool) -> Next {
        if stop { Next::Stop } else { Next::Continue }
    }
}

impl Observer for Watch {
    fn started(&mut self, done: u64, _steps: u64) -> Next {
        self.step = done;
        Next::Continue
    }

    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        self.step = report.step;
        self.reports.push(*report);
        Self::stop_if(self.stop_after == Some(report.step))
    }

    fn evaluating(&mut self, done: u64, _all: u64) -> Next {
        self.batches_scored = done;
        Self::stop_if(self.stop_in_evaluation == Some((self.step, done)))
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Next {
        self.evaluations.push((step, evaluation.clone()));
        Next::Continue
    }
}

#[test]
fn without_a_folder_the_weights_and_numbers_are_those_of_a_run() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let config = config(&temp.path().join("run"), &[]);
    let mut run = Run::new(config.clone(), Start::Fresh).expect("started");
    let mut in_run = Watch::default();
    let summary = run.run(&mut in_run).expect("trained");
    drop(run);
    let trained = ltm_train::Checkpoint::load(&summary.checkpoint).expect("saved");
    let [train, val] =
        [Split::Train, Split::Val].map(|split| in_memory(&open(&config, split).expect("there")));
    let mut elsewhere = config.clone();
    elsewhere.run.dir = temp.path().join("none");
    let mut alone = Trainer::new(elsewhere, train, Some(val)).expect("good parts");
    let mut watch = Watch::default();
    let last = alone.run(&mut watch).expect("trained").expect("scored");
    assert!(alone.weights().expect("weights") == trained.weights);
    assert_eq!(watch.reports, in_run.reports);
    assert_eq!(last.scores(), summary.evaluation.expect("scored").scores());
    assert!(alone.is_finished() && !temp.path().join("none").exists());
    // What the run wrote is what both observers saw.
    let lines = read(&config.run.dir.join(METRICS_FILE)).expect("written");
    let steps: Vec<_> = lines.iter().filter(|line| matches!(line, Line::Step(_))).collect();
    assert!(
        watch
            .reports
            .iter()
            .map(|report| Line::Step(report.into()))
            .eq(steps.iter().copied().cloned())
    );
    let evaluated = lines.iter().filter_map(|line| match line {
        Line::Evaluation(line) => Some((line.step, line.eval.clone())),
        Line::Step(_) => None,
    });
    assert!(watch.evaluations.iter().map(|(step, found)| (*step, found.scores())).eq(evaluated));
}

#[test]
fn a_stop_after_a_step_leaves_that_step_and_nothing_else() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let config = config(temp.path(), &[]);
    let mut whole = trainer(&config);
    whole.run(&mut ()).expect("trained");
    let mut by_hand = trainer(&config);
    for step in 1..=3 {
        assert_eq!(by_hand.step().expect("a step").step, step);
    }
    let mut stopped = trainer(&config);
    // Step 3 is followed by an evaluation, which a stop precedes.
    let mut watch = Watch { stop_after: Some(3), ..Watch::default() };
    assert!(stopped.run(&mut watch).expect("stopped").is_none());
    assert_eq!((stopped.steps_taken(), watch.reports.len(), watch.evaluations.len()), (3, 3, 0));
    assert!(!stopped.is_finished());
    assert!(stopped.weights().expect("weights") == by_hand.weights().expect("weights"));
    // Its learner goes on in another trainer as in this one; the evaluation is made then.
    let (train, val) = (by_hand.train_batches().clone(), by_hand.val_batches().cloned());
    let moved = Trainer::from_learner(config, by_hand.into_learner(), 3, train, val);
    for mut resumed in [stopped, moved.expect("good parts")] {
        let mut watch = Watch::default();
        resumed.run(&mut watch).expect("trained");
        assert!(watch.evaluations.iter().map(|(step, _)| *step).eq([3, 6]));
        assert!(resumed.weights().expect("weights") == whole.weights().expect("weights"));
    }
}

#[test]
fn a_stop_in_an_evaluation_leaves_no_trace_of_it() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let config = config(&temp.path().join("data"), &[]);
    let mut whole = trainer(&config);
    let mut never = Watch::default();
    whole.run(&mut never).expect("trained");
    for step in [3, 6] {
        let mut stopped = trainer(&config);
        let mut watch = Watch { stop_in_evaluation: Some((step, 2)), ..Watch::default() };
        assert!(stopped.run(&mut watch).expect("stopped").is_none());
        assert_eq!((stopped.steps_taken(), watch.batches_scored), (step, 2));
        assert!(watch.evaluations.iter().all(|(scored, _)| *scored < step));
        assert!(!stopped.is_finished());
        let last = stopped.run(&mut ()).expect("trained").expect("scored");
        assert_eq!(last.scores(), never.evaluations[1].1.scores());
        assert!(stopped.weights().expect("weights") == whole.weights().expect("weights"));
    }
    // A stop with the last batch is one after the evaluation.
    let mut stopped = trainer(&config);
    let all = never.batches_scored;
    let mut watch = Watch { stop_in_evaluation: Some((3, all)), ..Watch::default() };
    stopped.run(&mut watch).expect("stopped");
    assert_eq!((stopped.steps_taken(), watch.evaluations.len()), (3, 1));
}

#[test]
fn a_run_that_was_stopped_before_or_in_an_evaluation_makes_it_when_it_is_resumed() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let new =
        |dir: &Path, start| Run::new(config(dir, &["model.prior_layers=2"]), start).expect("ready");
    let straight = temp.path().join("straight");
    new(&straight, Start::Fresh).run(&mut ()).expect("trained");
    for (step, batches) in [(3, None), (3, Some(2)), (6, None), (6, Some(2))] {
        let dir = temp.path().join(format!("stopped-{step}-{batches:?}"));
        let mut watch = Watch::default();
        match batches {
            None => watch.stop_after = Some(step),
            Some(batches) => watch.stop_in_evaluation = Some((step, batches)),
        }
        let summary = new(&dir, Start::Fresh).run(&mut watch).expect("stopped");
        assert!(!summary.finished && summary.evaluation.is_none() && summary.step == step);
        assert!(summary.checkpoint.ends_with(format!("step-{step}")));
        let lines = read(&dir.join(METRICS_FILE)).expect("written");
        assert!(matches!(lines.last(), Some(Line::Step(line)) if line.step == step));
        assert!(!dir.join("scores.jsonl").exists());
        if batches.is_some() {
            // A second stop at the same place changes nothing.
            let again = new(&dir, Start::Resume).run(&mut watch).expect("stopped");
            assert!(!again.finished && again.step == step);
            assert_eq!(read(&dir.join(METRICS_FILE)).expect("written"), lines);
        }
        // Resumed once more at its end, it is scored for its summary alone.
        for _ in 0..2 {
            let summary = new(&dir, Start::Resume).run(&mut ()).expect("trained");
            assert!(summary.finished && summary.evaluation.is_some());
            for file in [
                METRICS_FILE,
                "scores.jsonl",
                "checkpoints/step-6/model.safetensors",
                "checkpoints/step-6/optimizer.safetensors",
            ] {
                let [found, expected] =
                    [&dir, &straight].map(|dir| fs::read(dir.join(file)).expect(file));
                assert!(found == expected, "{file}, stopped at step {step} {batches:?}");
            }
        }
    }
}

/// Vowels and one id for every other letter; the separator is the last id.
#[derive(Debug)]
struct Vowels;

impl Tokenizer for Vowels {
    fn encode(&self, text: &str) -> DataResult<Vec<u32>> {
        let id = |c| "aeiou".find(c).unwrap_or(5) as u32;
        Ok(text.chars().filter(|c| c.is_ascii_lowercase()).map(id).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        tokens.iter().map(|&id| "aeiou_\n".as_bytes()[id as usize] as char).collect()
    }

    fn vocab_size(&self) -> usize {
        7
    }

    fn separator(&self) -> u32 {
        6
    }

    fn fingerprint(&self) -> String {
        "vowels".into()
    }
}

#[test]
fn data_and_a_tokenizer_of_ones_own_train() {
    let text = &TINY[TINY.find("[model]").expect("a section")..];
    let set = ["train.seq_len=8", "train.steps=30", "train.lr=1e-2", "train.eval_every=0"];
    let set = set.map(String::from);
    let config = Config::parse_for(&Vowels, text, Path::new("own.toml"), &set).expect("good");
    assert_eq!((config.model.vocab_size, config.data.path.is_none()), (7, true));
    let corpus = || {
        let words = ["banana", "papaya", "kiwi", "lemon"].iter().cycle().take(40);
        Corpus::from_documents(Arc::new(Vowels), words).expect("some text")
    };
    let shuffled = Order::Shuffled { seed: 1 };
    let train = open_corpus(&config, corpus(), shuffled).expect("batches");
    let val = open_corpus(&config, corpus(), Order::Sequential).expect("batches");
    let mut own = Trainer::new(config.clone(), train.clone(), Some(val.clone())).expect("ready");
    let mut watch = Watch::default();
    let evaluation = own.run(&mut watch).expect("trained").expect("scored");
    let [first, last] = [&watch.reports[0], &watch.reports[29]].map(|report| report.loss);
    assert!(last < 0.8 * first, "{first} {last}");
    assert!(evaluation.get("elbo").is_some_and(|e| e.mean_nats_per_token < first));
    // A run in a folder needs data that the configuration names.
    let temp = tempfile::tempdir().expect("a temporary folder");
    let mut in_folder = config.clone();
    in_folder.run.dir = temp.path().join("run");
    let error = Run::new(in_folder, Start::Fresh).err().expect("no data").to_string();
    assert!(error.contains("data.path"), "{error}");

    let shape = |options: BatchOptions| Batches::new(corpus(), options).expect("batches");
    let wide = shape(BatchOptions { seq_len: 9, ..train.options() });
    let mut bytes = config.clone();
    bytes.model.vocab_size = 257;
    for (config, train, val, parts) in [
        (&config, &wide, &val, ["`train`", "found [2, 9]"]),
        (&config, &train, &wide, ["`val`", "found [2, 9]"]),
        (&config, &train, &train, ["`val`", "sequential"]),
        (&bytes, &train, &val, ["`model.vocab_size`", "found 257"]),
    ] {
        let refused = Trainer::new(config.clone(), train.clone(), Some(val.clone()));
        let error = refused.err().expect("refused").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn a_failed_step_changes_nothing() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    // The first step makes weights finite, but useless.
    let set = ["train.lr=1e30", "train.warmup=0", "train.weight_decay=0.0", "train.eval_every=0"];
    let config = config(temp.path(), &set);
    let mut diverging = trainer(&config);
    let taken = (0..6).take_while(|_| diverging.step().is_ok()).count() as u64;
    assert!((1..6).contains(&taken), "{taken}");
    let weights = diverging.weights().expect("weights");
    for _ in 0..2 {
        let error = diverging.run(&mut ()).expect_err("diverged");
        assert!(matches!(error, Error::NonFinite { step, .. } if step == taken + 1), "{error}");
        assert_eq!(diverging.steps_taken(), taken);
        let same = |(a, b): (&Vec<f32>, &Vec<f32>)| {
            a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
        };
        let after = diverging.weights().expect("weights");
        assert!(weights.params.iter().zip(&after.params).all(same));
    }
}
