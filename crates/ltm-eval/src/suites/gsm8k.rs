//! GSM8K (Cobbe et al. 2021): word problems, answered few-shot by generation and scored by pass@k. A problem is one line
//! of JSON with `question` and `answer`; an answer ends in `#### NUMBER`.

mod number;

use std::ops::ControlFlow;
use std::path::Path;

use ltm_model::{DeviceWeights, SampleConfig};
use ltm_train::config::Config;
use ltm_train::data::{self, Malformed, Tokenizer, objects};
use ltm_vi::{GenerateOptions, Inference, LatentSource, Rethink, generate_many, suits};
use serde::Serialize;

use super::Mean;
use crate::{Error, Result};

pub use number::extract;

/// The text before a question in a prompt.
const QUESTION: &str = "Question:";

/// A word problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file's line, counted from 1.
    pub line: u64,
    /// The question.
    pub question: String,
    /// The worked answer, with its number at the end.
    pub answer: String,
    /// The number, see [`extract`].
    pub number: String,
}

/// Whether the first object of a file has `question` and `answer`.
///
/// # Errors
/// [`Error::File`] when it cannot be read.
pub fn is_gsm8k(path: &Path) -> Result<bool> {
    let mut found = false;
    objects(path, Malformed::Skip, &mut |_| (), &mut |place, object| {
        let has = |key| place.string(object, key).is_ok();
        found = has("question") && has("answer");
        Ok(ControlFlow::Break(()))
    })?;
    Ok(found)
}

/// Reads the first `count` problems of a file (0 for all), and reports each malformed line that is skipped to `on_skip`.
///
/// # Errors
/// [`Error::File`] for a record that is not a problem and not to be skipped, and for a file that has no problems or cannot be read.
pub fn load(
    path: &Path,
    malformed: Malformed,
    count: u64,
    on_skip: &mut dyn FnMut(data::Error),
) -> Result<Vec<Problem>> {
    let mut problems = Vec::new();
    objects(path, malformed, on_skip, &mut |place, object| {
        let text = |key| place.string(object, key).map(str::trim).map(String::from);
        let (question, answer) = (text("question")?, text("answer")?);
        let number = extract(&answer).ok_or_else(|| {
            place.error("an `answer` that ends in `#### NUMBER`", format!("`{}`", tail(&answer)))
        })?;
        problems.push(Problem { line: place.line, question, answer, number });
        let full = problems.len() as u64 == count;
        Ok(if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    if problems.is_empty() {
        return Err(Error::content(
            path,
            "content",
            "problems with `question` and `answer`",
            "none",
        ));
    }
    Ok(problems)
}

/// Reads the first `count` problems of a file as worked examples.
///
/// # Errors
/// Those of [`load`], and [`Error::File`] when there are fewer.
pub fn examples(
    path: &Path,
    malformed: Malformed,
    count: usize,
    on_skip: &mut dyn FnMut(data::Error),
) -> Result<Vec<Problem>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let problems = load(path, malformed, count as u64, on_skip)?;
    if problems.len() < count {
        let (expected, found) = (format!("{count} examples"), problems.len().to_string());
        return Err(Error::content(path, "content", expected, found));
    }
    Ok(problems)
}

/// The last line of a text, as far as an error should show it.
fn tail(text: &str) -> String {
    text.lines().last().unwrap_or("").chars().take(80).collect()
}

/// pass@k of `n` answers of which `right` are correct: `1 - C(n-right,k)/C(n,k)`, the probability that at least one of
/// `k` of them is correct, unbiased (Chen et al. 2021, equation 1). `k` and `right` are at most `n`; larger ones count
/// as `n`.
pub fn pass_at(n: usize, right: usize, k: usize) -> f64 {
    let (right, k) = (right.min(n), k.min(n));
    // C(n-right,k)/C(n,k) is the product over the last `right` numbers up to n of 1 - k/i.
    1.0 - (n - right + 1..=n)
        .map(|i| 1.0 - k as f64 / i as f64)
        .map(|f| f.max(0.0))
        .product::<f64>()
}

/// How problems are prompted and answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    /// Worked examples before the question: as many of the first ones as fit into the context.
    pub shots: Vec<Problem>,
    /// Answers sampled per question.
    pub samples: usize,
    /// The values of k for pass@k, each at most `samples`.
    pub passes: Vec<usize>,
    /// The most tokens in an answer.
    pub max_tokens: usize,
    /// How tokens are chosen.
    pub sample: SampleConfig,
    /// Writes each answer again with latents fitted to question and answer.
    pub rethink: Option<Rethink>,
}

/// A question's answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Answered {
    /// The question's line in its file.
    pub line: u64,
    /// The question.
    pub question: String,
    /// The correct number.
    pub number: String,
    /// Worked examples in the prompt.
    pub shots: usize,
    /// The most tokens that the context left for an answer; 0 when the question alone is too long for the model.
    pub room: usize,
    /// The generated answers, up to a next question; empty when the question was too long.
    pub answers: Vec<String>,
    /// The number extracted from each answer, if any.
    pub numbers: Vec<Option<String>>,
    /// How many of them are correct.
    pub right: usize,
    /// With rethinking, the round that each answer is of; empty without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<usize>,
}

/// Pass rates, and counts of prompts that did not fit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Questions asked.
    pub questions: usize,
    /// Answers sampled for each.
    pub samples: usize,
    /// Worked examples requested.
    pub shots: usize,
    /// Worked examples per prompt, except questions that were too long.
    pub shots_used: Mean,
    /// Questions with fewer examples than requested, because the context was full.
    pub fewer_shots: usize,
    /// Questions whose answers had less room than requested.
    pub less_room: usize,
    /// Questions that are too long for the model without any example, which count as wrong.
    pub too_long: usize,
    /// Answers generated.
    pub answers: usize,
    /// Answers from which a number was extracted.
    pub extracted: usize,
    /// Rounds of rethinking that each answer was chosen from or is the last of; absent without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rethink: Option<usize>,
    /// Pass rates, by k.
    pub pass: Vec<Pass>,
}

/// The share of questions for which at least one of `k` answers is correct.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Pass {
    /// Number of answers.
    pub k: usize,
    /// The unbiased estimate over questions.
    #[serde(flatten)]
    pub rate: Mean,
}

/// Asks a model each problem: latents are fitted once to examples and question, and every answer is generated with its
/// own draw from their posterior, and with [`Options::rethink`] again from a fit to question and answer. The numbers depend on weights, problems, options, `config.infer` and the seed.
///
/// A prompt consists of `Question: …\nAnswer: …`, separated by empty lines; an answer ends at the end of the document or
/// before a next `Question:`.
///
/// # Errors
/// [`Error::Field`] for no samples, or a pass of 0 or more than the samples; those of the tokenizer, of generation, of
/// [`Rethink::check`] and of `on_answered`.
pub fn evaluate(
    config: &Config,
    weights: &DeviceWeights,
    tokenizer: &dyn Tokenizer,
    problems: &[Problem],
    options: &Options,
    on_answered: &mut dyn FnMut(&Answered) -> Result<()>,
) -> Result<Outcome> {
    if options.samples == 0 || options.max_tokens == 0 {
        return Err(Error::field("samples, max_tokens", "at least 1", 0));
    }
    if let Some(k) = options.passes.iter().find(|k| **k == 0 || **k > options.samples) {
        return Err(Error::field("pass", format!("1 to {}, the samples", options.samples), k));
    }
    if let Some(rethink) = &options.rethink {
        rethink.check(&config.model)?;
        suits(&config.model, &config.infer, rethink.task())?;
    }
    let examples = options.shots.iter().map(|shot| {
        let document = data::gsm8k_document(&shot.question, &shot.answer);
        tokenizer.encode(&format!("{document}\n\n"))
    });
    let examples = examples.collect::<data::Result<Vec<_>>>()?;
    let (_, precision) = config.run.compute_evaluation()?;
    let inference = Inference::finished(&config.infer)?;
    let separator = tokenizer.separator();
    let mut all = Vec::with_capacity(problems.len());
    for (problem, index) in problems.iter().zip(0_u64..) {
        let question = tokenizer.encode(&data::gsm8k_question(&problem.question))?;
        let max_seq_len = config.model.max_seq_len;
        let (shots, prompt) =
            prompt(separator, &examples, &question, max_seq_len, options.max_tokens);
        // The context's last token is read too, and one more comes out of it.
        let room = (max_seq_len + 1).saturating_sub(prompt.len()).min(options.max_tokens);
        let (mut answers, mut rounds) = (Vec::new(), Vec::new());
        if room > 0 {
            let generation = GenerateOptions {
                max_tokens: room,
                sample: options.sample,
                latents: LatentSource::Prompt,
                refit: None,
                rethink: options.rethink,
                // Far enough apart for the draws of a question.
                seed: config.run.seed.wrapping_add(index << 32),
                stop: Some(separator as i32),
                precision,
            };
            let draws = 0..options.samples as u64;
            let model = &config.model;
            let written = generate_many(model, weights, &inference, &prompt, &generation, draws)?;
            answers = written.iter().map(|one| answer(tokenizer, &one.tokens)).collect();
            if options.rethink.is_some() {
                rounds = written.iter().map(|one| one.round).collect();
            }
        }
        let numbers: Vec<_> = answers.iter().map(|answer| extract(answer)).collect();
        let right = numbers.iter().filter(|n| n.as_ref() == Some(&problem.number)).count();
        let Problem { line, question, number, .. } = problem.clone();
        let answered =
            Answered { line, question, number, shots, room, answers, numbers, right, rounds };
        on_answered(&answered)?;
        all.push(answered);
    }
    Ok(outcome(&all, options))
}

/// The number of examples that leave room for an answer of `max_tokens`, and the prompt: these, then the question.
fn prompt(
    separator: u32,
    examples: &[Vec<u32>],
    question: &[u32],
    max_seq_len: usize,
    max_tokens: usize,
) -> (usize, Vec<i32>) {
    // The separator at the beginning is read, the last token of the answer is not.
    let mut length = question.len().saturating_add(max_tokens);
    let fits = |example: &&Vec<u32>| {
        length = length.saturating_add(example.len());
        length <= max_seq_len
    };
    let shots: Vec<&Vec<u32>> = examples.iter().take_while(fits).collect();
    let ids = shots.iter().copied().flatten().chain(question);
    let prompt = [separator].iter().chain(ids).map(|id| *id as i32).collect();
    (shots.len(), prompt)
}

/// The generated text, without the end of the document, up to a next question.
fn answer(tokenizer: &dyn Tokenizer, tokens: &[i32]) -> String {
    let ids: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
    let ids = ids.strip_suffix(&[tokenizer.separator()]).unwrap_or(&ids);
    let text = tokenizer.decode(ids);
    text.split(QUESTION).next().unwrap_or("").trim().into()
}

fn outcome(all: &[Answered], options: &Options) -> Outcome {
    let count = |holds: &dyn Fn(&Answered) -> bool| all.iter().filter(|one| holds(one)).count();
    let put = || all.iter().filter(|one| one.room > 0);
    let pass = |&k: &usize| {
        let each: Vec<f64> = all.iter().map(|one| pass_at(options.samples, one.right, k)).collect();
        Pass { k, rate: Mean::of(&each) }
    };
    Outcome {
        questions: all.len(),
        samples: options.samples,
        shots: options.shots.len(),
        shots_used: Mean::of(&put().map(|one| one.shots as f64).collect::<Vec<_>>()),
        fewer_shots: put().filter(|one| one.shots < options.shots.len()).count(),
        less_room: put().filter(|one| one.room < options.max_tokens).count(),
        too_long: count(&|one| one.room == 0),
        answers: all.iter().map(|one| one.answers.len()).sum(),
        extracted: all.iter().flat_map(|one| &one.numbers).filter(|n| n.is_some()).count(),
        rethink: options.rethink.map(|rethink| rethink.rounds),
        pass: options.passes.iter().map(pass).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(n: usize, k: usize) -> f64 {
        (0..k).map(|i| (n as f64 - i as f64) / (k - i) as f64).product()
    }

    #[test]
    fn pass_at_k_is_the_closed_formula() {
        for n in 1..9 {
            for (right, k) in (0..=n).flat_map(|right| (1..=n).map(move |k| (right, k))) {
                let expected = 1.0 - choose(n - right, k) / choose(n, k);
                let found = pass_at(n, right, k);
                // Eight factors of one rounding each.
                assert!((found - expected).abs() <= 1e-14, "{n} {right} {k}: {found} {expected}");
            }
        }
        // By hand: of 5, 2 right, 2 tried: 1 - 3/10.
        assert!((pass_at(5, 2, 2) - 0.7).abs() <= 1e-15);
    }

    #[test]
    fn as_many_examples_as_fit_stand_before_the_question() {
        let examples = [vec![1; 4], vec![2; 4], vec![3; 1]];
        // 1 separator, 3 of the question, and an answer of 3 whose last token is not read: 6 without an example.
        for (max_seq_len, shots) in [(5, 0), (9, 0), (10, 1), (13, 1), (14, 2), (15, 3), (99, 3)] {
            let (found, prompt) = prompt(9, &examples, &[7, 8, 7], max_seq_len, 3);
            assert_eq!(found, shots, "{max_seq_len}");
            assert_eq!((prompt[0], prompt.last()), (9, Some(&7)));
            assert_eq!(prompt.len(), 4 + [0, 4, 8, 9][shots]);
        }
    }

    #[test]
    fn problems_are_read_and_bad_lines_named() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("a.jsonl");
        let good = r#"{"question": "1+1? ", "answer": "It is 2.\n#### 2"}"#;
        let write = |lines: &[&str]| std::fs::write(&path, lines.join("\n")).expect("writable");
        write(&[good, "", good]);
        let found = load(&path, Malformed::Refuse, 0, &mut |e| panic!("{e}")).expect("good");
        assert_eq!((found.len(), found[1].line), (2, 3));
        assert_eq!((&*found[0].question, &*found[0].number), ("1+1?", "2"));
        assert_eq!(load(&path, Malformed::Refuse, 1, &mut |_| ()).expect("good").len(), 1);
        assert!(is_gsm8k(&path).expect("readable"));
        for (bad, reason) in [
            (r#"{"question": "1+1?", "answer": "two"}"#, "`two`"),
            (r#"{"question": "1+1?"}"#, "`answer`"),
            (r#"{"question": 3, "answer": "\n#### 2"}"#, "`question`"),
            ("[2]", "another value"),
            ("{", "EOF"),
        ] {
            write(&[good, bad, good]);
            let error = load(&path, Malformed::Refuse, 0, &mut |_| ()).expect_err("malformed");
            let error = error.to_string();
            assert!(error.contains("line 2") && error.contains(reason), "{error}");
            let mut skipped = 0;
            let found = load(&path, Malformed::Skip, 0, &mut |_| skipped += 1).expect("skipped");
            assert_eq!((found.len(), skipped), (2, 1));
        }
        write(&[r#"{"text": "a"}"#]);
        assert!(!is_gsm8k(&path).expect("readable"));
        write(&[""]);
        assert!(load(&path, Malformed::Skip, 0, &mut |_| ()).is_err());
    }

    #[test]
    fn what_is_counted_adds_up() {
        let one = |shots, room, numbers: &[Option<&str>]| {
            let numbers: Vec<_> = numbers.iter().map(|n| n.map(String::from)).collect();
            let right = numbers.iter().flatten().filter(|n| *n == "4").count();
            let answers = vec![String::new(); numbers.len()];
            let (question, number) = ("2+2?".into(), "4".into());
            let rounds = Vec::new();
            Answered { line: 1, question, number, shots, room, answers, numbers, right, rounds }
        };
        let all = [
            one(1, 8, &[Some("4"), None]),
            one(0, 8, &[Some("5"), Some("5")]),
            one(0, 2, &[Some("4"), Some("4")]),
            one(0, 0, &[]),
        ];
        let shot = Problem {
            line: 1,
            question: String::new(),
            answer: String::new(),
            number: String::new(),
        };
        let options = Options {
            shots: vec![shot],
            samples: 2,
            passes: vec![1, 2],
            max_tokens: 8,
            sample: SampleConfig::GREEDY,
            rethink: None,
        };
        let found = outcome(&all, &options);
        assert_eq!((found.fewer_shots, found.less_room, found.too_long), (2, 1, 1));
        assert_eq!((found.answers, found.extracted), (6, 5));
        // Right: a half, none, all, none.
        assert_eq!((found.pass[0].rate.mean, found.pass[1].rate.mean), (0.375, 0.5));
        assert_eq!(found.pass[0].rate.count, 4);
    }
}
