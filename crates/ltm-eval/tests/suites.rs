//! GSM8K and LAMBADA from outside: what is asked of a model, what is refused, and how answers are counted.

use std::fs;
use std::path::Path;

use ltm_eval::suites::gsm8k::{self, Answered, Options, Outcome, Problem, pass_at};
use ltm_eval::suites::lambada::{self, Lambada, WordScore};
use ltm_eval::{Error, Result};
use ltm_model::{Attention, DeviceWeights, ModelConfig, SampleConfig, Weights, param_table};
use ltm_train::Config;
use ltm_train::data::{Bytes, Malformed, ReadOptions, Result as DataResult, Tokenizer};
use ltm_vi::{Keep, Rethink, RethinkStart};

const MODEL: ModelConfig = ModelConfig {
    dim: 16,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 257,
    max_seq_len: 64,
    window: 16,
    n_latents: 4,
    ffn_hidden: 32,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

fn model(n_latents: usize) -> (Config, DeviceWeights) {
    let text = include_str!("../../ltm-train/tests/tiny.toml");
    let set = ["infer.steps=1".to_string()];
    let mut config = Config::parse(text, Path::new("tiny.toml"), &set).expect("good");
    config.model = ModelConfig { n_latents, ..MODEL };
    let weights = Weights::init(&config.model, 3).expect("good");
    let weights = config.on_device(&weights).expect("they fit");
    (config, weights)
}

/// Bytes, except that every text of the model is an answer: its tokens, a number that follows from the first of them,
/// and another question.
#[derive(Debug)]
struct Answers;

impl Tokenizer for Answers {
    fn encode(&self, text: &str) -> DataResult<Vec<u32>> {
        Bytes.encode(text)
    }

    fn decode(&self, tokens: &[u32]) -> String {
        assert!(
            !tokens.contains(&self.separator()),
            "the end of a document is no part of an answer"
        );
        let number = tokens.first().map_or(0, |first| 4 + first % 2);
        format!(" {tokens:?}\n#### {number}.\n\nQuestion: again?\n#### 99")
    }

    fn vocab_size(&self) -> usize {
        257
    }

    fn separator(&self) -> u32 {
        256
    }

    fn fingerprint(&self) -> String {
        "answers".into()
    }
}

/// How many tokens an answer shows.
fn shown_tokens(answer: &str) -> usize {
    let list = answer.split(['[', ']']).nth(1).expect("a list");
    list.split(',').filter(|token| !token.trim().is_empty()).count()
}

fn problem(line: u64, question: &str) -> Problem {
    Problem { line, question: question.into(), answer: "b".into(), number: "4".into() }
}

fn options(samples: usize) -> Options {
    Options {
        shots: vec![problem(1, "a"), problem(2, "a")],
        samples,
        passes: vec![1, samples],
        max_tokens: 8,
        sample: SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 },
        rethink: None,
    }
}

fn ask(
    (config, weights): &(Config, DeviceWeights),
    problems: &[Problem],
    options: &Options,
) -> Result<(Vec<Answered>, Outcome)> {
    let mut all = Vec::new();
    let mut on_answered = |answered: &Answered| {
        all.push(answered.clone());
        Ok(())
    };
    let outcome = gsm8k::evaluate(config, weights, &Answers, problems, options, &mut on_answered)?;
    Ok((all, outcome))
}

#[test]
fn questions_get_the_examples_and_the_room_that_the_context_leaves() {
    // A prompt is the separator, `Question: `, the question, and `\nAnswer:`; an example takes 23 tokens; and the last
    // token of an answer is not read.
    let expected =
        [(15, 1, 8), (16, 0, 8), (38, 0, 8), (39, 0, 7), (45, 0, 1), (46, 0, 0), (60, 0, 0)];
    let problems: Vec<Problem> = (10..)
        .zip(expected)
        .map(|(line, (length, ..))| problem(line, &"q".repeat(length)))
        .collect();
    let model = model(4);
    let (all, outcome) = ask(&model, &problems, &options(3)).expect("answered");
    assert_eq!(all.len(), expected.len());
    for ((answered, asked), (_, shots, room)) in all.iter().zip(&problems).zip(expected) {
        assert_eq!((answered.line, &answered.question), (asked.line, &asked.question));
        assert_eq!((&answered.number, answered.shots, answered.room), (&asked.number, shots, room));
        let samples = if room == 0 { 0 } else { 3 };
        assert_eq!((answered.answers.len(), answered.numbers.len()), (samples, samples));
        for (answer, number) in answered.answers.iter().zip(&answered.numbers) {
            assert!(
                answer.starts_with('[') && answer.ends_with('.'),
                "up to the next question: {answer}"
            );
            assert!(shown_tokens(answer) <= room, "{answer}");
            assert!(matches!(number.as_deref(), Some("4" | "5" | "0")), "{number:?}");
        }
        let right = answered.numbers.iter().flatten().filter(|number| *number == "4").count();
        assert_eq!(answered.right, right);
    }
    assert!(all.iter().flat_map(|one| &one.answers).any(|answer| shown_tokens(answer) == 8));
    let counts = [outcome.questions, outcome.samples, outcome.shots, outcome.fewer_shots];
    assert_eq!(counts, [7, 3, 2, 5]);
    let counts = [outcome.less_room, outcome.too_long, outcome.answers, outcome.extracted];
    assert_eq!(counts, [2, 2, 15, 15]);
    assert_eq!((outcome.shots_used.mean, outcome.shots_used.count), (0.2, 5));
    for (pass, k) in outcome.pass.iter().zip([1, 3]) {
        let mean = all.iter().map(|one| pass_at(3, one.right, k)).sum::<f64>() / 7.0;
        assert!(pass.k == k && (pass.rate.mean - mean).abs() <= 1e-15 && pass.rate.count == 7);
    }
    assert!(
        all.iter().any(|one| one.right > 0) && all.iter().any(|one| (1..3).contains(&one.right))
    );
}

#[test]
fn every_answer_has_a_draw_of_its_own_that_the_seed_decides() {
    let mut model = model(4);
    let same = [problem(1, "what?"), problem(2, "what?")];
    let answers = |model: &_, samples| {
        let (all, _) = ask(model, &same, &options(samples)).expect("answered");
        all.into_iter().map(|one| one.answers).collect::<Vec<_>>()
    };
    let found = answers(&model, 3);
    let mut different: Vec<&String> = found.iter().flatten().collect();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), 6, "the same question asked twice has other answers: {found:?}");
    assert_eq!(answers(&model, 3), found);
    let fewer = answers(&model, 2);
    assert_eq!([&fewer[0][..], &fewer[1][..]], [&found[0][..2], &found[1][..2]]);
    model.0.run.seed += 1;
    assert_ne!(answers(&model, 3)[0], found[0]);
}

#[test]
fn answers_are_written_again() {
    let model = model(4);
    let problems = [problem(1, "what?"), problem(2, &"q".repeat(60))];
    let (plain, outcome) = ask(&model, &problems, &options(4)).expect("answered");
    assert!(plain[0].rounds.is_empty() && outcome.rethink.is_none());
    let (keep, start) = (Keep::Best, RethinkStart::Inference);
    let rethink = Some(Rethink { rounds: 2, keep, start, samples: 2 });
    let again = Options { rethink, ..options(4) };
    let (all, outcome) = ask(&model, &problems, &again).expect("answered");
    assert_eq!((all[0].rounds.len(), all[1].rounds.len(), outcome.rethink), (4, 0, Some(2)));
    assert!(all[0].rounds.iter().any(|round| *round > 0), "{:?}", all[0]);
    let pairs = all[0].answers.iter().zip(&plain[0].answers).zip(&all[0].rounds);
    pairs.for_each(|((again, plain), round)| assert!(*round > 0 || again == plain));
    let refused = ask(&self::model(0), &problems, &again).expect_err("no latents");
    let expected =
        matches!(&refused, Error::Infer(ltm_vi::Error::Unsuitable { what: "rethink", .. }));
    assert!(expected, "{refused:?}");
}

#[test]
fn an_answer_ends_with_its_document() {
    let model = model(0);
    let many = Options { passes: vec![1], shots: Vec::new(), ..options(200) };
    let (all, outcome) = ask(&model, &[problem(1, "what?")], &many).expect("answered");
    // Each of 1600 tokens ends the document about once in 257 times.
    let short = all[0].answers.iter().filter(|answer| shown_tokens(answer) < 8).count();
    assert!((1..30).contains(&short), "{short}");
    assert_eq!((outcome.less_room, outcome.fewer_shots, outcome.shots), (0, 0, 0));
}

#[test]
fn numbers_of_answers_that_cannot_be_are_refused_by_name() {
    let model = model(0);
    let problems = [problem(1, "what?")];
    for (change, parts) in [
        (Options { samples: 0, ..options(1) }, ["samples", "at least 1"]),
        (Options { max_tokens: 0, ..options(1) }, ["max_tokens", "at least 1"]),
        (Options { passes: vec![1, 0], ..options(2) }, ["`pass`: expected 1 to 2", "found 0"]),
        (Options { passes: vec![3], ..options(2) }, ["`pass`: expected 1 to 2", "found 3"]),
    ] {
        let error = ask(&model, &problems, &change).expect_err("refused").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    ask(&model, &problems, &options(2)).expect("as many as there are samples");
    // What the caller cannot take ends it.
    let (config, weights) = &model;
    let mut asked = 0;
    let mut on_answered = |_: &Answered| {
        asked += 1;
        let expected = "room on the disk".into();
        Err(Error::Field { field: "out".into(), expected, found: "none".into() })
    };
    let problems = [problems[0].clone(), problems[0].clone()];
    let stopped =
        gsm8k::evaluate(config, weights, &Answers, &problems, &options(1), &mut on_answered);
    assert!(stopped.expect_err("stopped").to_string().contains("room on the disk"));
    assert_eq!(asked, 1);
}

#[test]
fn the_start_of_a_file_shows_whether_it_holds_problems() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("a.jsonl");
    for (text, expected) in [
        ("{\"question\": \"1+1?\", \"answer\": \"#### 2\"}", true),
        ("{\"question\": \"1+1?\"}", false),
        ("{\"answer\": \"#### 2\"}", false),
        ("{\"text\": \"a\"}\n{\"question\": \"1+1?\", \"answer\": \"#### 2\"}", false),
        ("", false),
    ] {
        fs::write(&path, text).expect("writable");
        assert_eq!(gsm8k::is_gsm8k(&path).expect("readable"), expected, "{text}");
    }
    let missing = temp.path().join("none.jsonl");
    assert!(gsm8k::is_gsm8k(&missing).expect_err("missing").to_string().contains("none.jsonl"));
    // The error shows the end of a long answer, not all of it.
    let long = format!("{{\"question\": \"q\", \"answer\": \"first\\n{}\"}}", "x".repeat(200));
    fs::write(&path, long).expect("writable");
    let error =
        gsm8k::load(&path, Malformed::Refuse, 0, &mut |_| ()).expect_err("no number").to_string();
    assert!(
        error.contains(&format!("`{}`", "x".repeat(80))) && !error.contains("first"),
        "{error}"
    );
}

fn read(
    path: &Path,
    limit: u64,
    malformed: Malformed,
    config: &Config,
) -> Result<(Vec<lambada::Passage>, u64)> {
    let options = ReadOptions { malformed, ..ReadOptions::default() };
    lambada::read(&[path.into()], config, &Bytes, &options, limit, &mut |_| ())
}

#[test]
fn passages_are_read_as_json_whatever_the_file_is_called() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("passages.txt");
    let line = |text: &str| format!("{{\"text\": \"{text}\"}}\n");
    let write = |lines: &[&str]| {
        fs::write(&path, lines.iter().map(|text| line(text)).collect::<String>())
            .expect("writable");
    };
    let (config, _) = model(0);
    write(&["a dog", "a cat", "a bird"]);
    let (all, skipped) = read(&path, 0, Malformed::Refuse, &config).expect("good");
    assert_eq!((all.len(), skipped), (3, 0));
    let (two, _) = read(&path, 2, Malformed::Refuse, &config).expect("good");
    assert_eq!(two, all[..2]);
    write(&["a dog", "alone", "a bird"]);
    let error = read(&path, 0, Malformed::Refuse, &config).expect_err("one word").to_string();
    assert!(error.contains("line 2") && error.contains("`alone`"), "{error}");
    let (found, skipped) = read(&path, 0, Malformed::Skip, &config).expect("skipped");
    assert_eq!((found, skipped), (vec![all[0].clone(), all[2].clone()], 1));
    write(&["alone"]);
    let error = read(&path, 0, Malformed::Skip, &config).expect_err("none").to_string();
    assert!(error.contains("passages.txt") && error.contains("expected passages"), "{error}");
}

#[test]
fn passages_are_scored_in_their_order_whatever_the_batch() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("a.jsonl");
    let text = "{\"text\": \"the dog saw a cat\"}\n{\"text\": \"one two\"}\n{\"text\": \"it was a bird\"}\n";
    fs::write(&path, text).expect("writable");
    for n_latents in [4, 0] {
        let (mut config, weights) = model(n_latents);
        let (passages, _) = read(&path, 0, Malformed::Refuse, &config).expect("good");
        let mut scored = |batch: usize, samples: usize| {
            config.train.batch = batch;
            let mut seen = Vec::new();
            let found =
                lambada::evaluate(&config, &weights, &passages, samples, &mut |done, all| {
                    seen.push((done, all));
                });
            assert_eq!(seen, [(0, 3), (1, 3), (2, 3), (3, 3)]);
            found.expect("scored")
        };
        let one = scored(1, 4);
        assert_eq!(one.samples, n_latents, "four, or none without latents");
        let words: Vec<usize> = one.words.iter().map(|word| word.tokens).collect();
        assert_eq!(words, [4, 4, 5], "a word has the space before it");
        for batch in [2, 8] {
            let other = scored(batch, 4);
            for (a, b) in one.words.iter().zip(&other.words) {
                assert!((a.nats - b.nats).abs() <= 1e-3 * a.nats, "{batch}: {a:?} {b:?}");
            }
        }
        let single = scored(2, 1);
        let variance = single.words[0].variance;
        assert!(if n_latents == 0 { variance == 0.0 } else { variance.is_nan() }, "{variance}");
        let nats: f64 = one.words.iter().map(|word| word.nats / word.tokens as f64).sum();
        // Near the uniform distribution over 257 tokens.
        assert!((nats / 3.0 - 257_f64.ln()).abs() <= 1.0, "{nats}");
    }
}

#[test]
fn what_cannot_be_scored_is_refused_by_name() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let path = temp.path().join("a.jsonl");
    fs::write(&path, "{\"text\": \"one two\"}\n").expect("writable");
    let (config, weights) = model(0);
    let (passages, _) = read(&path, 0, Malformed::Refuse, &config).expect("good");
    let error = lambada::evaluate(&config, &weights, &passages, 0, &mut |_, _| ());
    let error = error.expect_err("no samples").to_string();
    assert!(error.contains("`samples`: expected at least 1, found 0"), "{error}");
    // Finite weights whose logits are not.
    let mut wild = Weights::init(&config.model, 3).expect("good");
    for (spec, weights) in param_table(&config.model).iter().zip(&mut wild.params) {
        let scale = match spec.name.as_str() {
            "norm.weight" => 1e38,
            "tok_embeddings.weight" => 1e4,
            _ => 1.0,
        };
        weights.iter_mut().for_each(|x| *x *= scale);
    }
    let wild = config.on_device(&wild).expect("they fit");
    let error =
        lambada::evaluate(&config, &wild, &passages, 1, &mut |_, _| ()).expect_err("overflow");
    assert!(error.to_string().contains("the score of passage 1"), "{error}");
}

#[test]
fn the_numbers_of_lambada_by_hand() {
    let word = |nats, variance, predicted, tokens, cut| WordScore {
        tokens,
        nats,
        variance,
        predicted,
        cut,
    };
    let words = vec![word(1.0, 0.04, true, 2, true), word(3.0, 0.12, false, 3, false)];
    let found = Lambada { samples: 8, words: words.clone() };
    assert_eq!(found.protocol(), "last-word predictive, 8 samples");
    assert_eq!(Lambada { samples: 0, words }.protocol(), "last-word autoregressive");
    // Deviations of 1: sqrt(2/(2·1)).
    assert_eq!((found.nats_per_word(), found.accuracy(), found.cut()), ((2.0, 1.0), (0.5, 0.5), 1));
    let square = 2_f64.exp();
    assert_eq!(found.word_perplexity(), (square, square));
    // The root of the summed variances over two passages.
    assert!((found.sampling_error() - 0.2).abs() <= 1e-15, "{}", found.sampling_error());
    let json = found.to_json();
    for (key, expected) in [
        ("nats_per_word", 2.0),
        ("standard_error", 1.0),
        ("sampling_error", 0.2),
        ("word_perplexity", square),
        ("word_perplexity_standard_error", square),
        ("accuracy", 0.5),
        ("accuracy_standard_error", 0.5),
        ("passages", 2.0),
        ("word_tokens", 5.0),
        ("cut", 1.0),
    ] {
        let number = json[key].as_f64().expect(key);
        assert!((number - expected).abs() <= 1e-12, "{key}: {number}");
    }
    assert_eq!(json["protocol"], "last-word predictive, 8 samples");
}
