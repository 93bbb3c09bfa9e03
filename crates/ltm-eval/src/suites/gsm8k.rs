//! GSM8K (Cobbe et al. 2021): word problems, answered few-shot by generation and scored by pass@k. A problem is one line
//! of JSON with `question` and `answer`; an answer ends in `#### NUMBER`.

use std::ops::ControlFlow;
use std::path::Path;

use ltm_model::{DeviceWeights, SampleConfig};
use ltm_train::config::Config;
use ltm_train::data::{self, Malformed, Tokenizer, objects};
use ltm_vi::{GenerateOptions, Inference, LatentSource, generate_many};
use serde::Serialize;

use super::Mean;
use crate::{Error, Result};

/// The text before the number in an answer.
const MARK: &str = "####";

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

/// The number after the first `####` that a number follows, in the spelling of GSM8K's answers: a decimal number without
/// `$`, `+`, thousands separators, a final dot and superfluous zeros, so that `#### $1,080.00.` is `1080`. A fraction or
/// a power of ten is that decimal number too, `1/2` is `0.5` and `1e3` is `1000`; a fraction that no decimal number
/// equals stays a reduced fraction.
pub fn extract(text: &str) -> Option<String> {
    text.match_indices(MARK).find_map(|(at, _)| number(text[at..].trim_start_matches('#')))
}

fn number(text: &str) -> Option<String> {
    let mut rest = text.trim_start();
    let mut negative = false;
    while let Some(after) = rest.strip_prefix(['+', '-', '−', '$']) {
        negative |= rest.starts_with(['-', '−']);
        rest = after.trim_start();
    }
    let (first, after) = decimal(rest)?;
    let fraction = |numerator: &Decimal, after: &str| {
        let (denominator, after) = decimal(after.strip_prefix('/')?)?;
        // A date, or something else.
        (!after.starts_with('/')).then(|| ratio(numerator, &denominator)).flatten()
    };
    let slash = after.strip_prefix('/').is_some_and(|after| decimal(after).is_some());
    let value = if slash {
        fraction(&first, after)?
    } else {
        // A mixed number, such as 2 1/2.
        let mixed = after.strip_prefix(' ').and_then(decimal).and_then(|(numerator, after)| {
            let (numerator, denominator) =
                (numerator.whole()?, decimal(after.strip_prefix('/')?)?.0.whole()?);
            let sum = first.whole()?.checked_mul(denominator)?.checked_add(numerator)?;
            ratio(&Decimal::from(sum), &Decimal::from(denominator))
        });
        mixed.unwrap_or_else(|| first.to_string())
    };
    Some(if negative && value != "0" { format!("-{value}") } else { value })
}

/// `digits` times ten to the power of `exponent`.
struct Decimal {
    digits: String,
    exponent: i32,
}

impl From<u128> for Decimal {
    fn from(whole: u128) -> Self {
        Self { digits: whole.to_string(), exponent: 0 }
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let decimals = usize::try_from(-self.exponent).unwrap_or(0);
        let zeros = "0".repeat(usize::try_from(self.exponent).unwrap_or(0));
        // By hand: a width in a format has 16 bits.
        let padding = "0".repeat((decimals + 1).saturating_sub(self.digits.len()));
        let digits = format!("{padding}{}{zeros}", self.digits);
        let (whole, decimals) = digits.split_at(digits.len() - decimals);
        let (whole, decimals) = (whole.trim_start_matches('0'), decimals.trim_end_matches('0'));
        let dot = if decimals.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{decimals}", if whole.is_empty() { "0" } else { whole })
    }
}

impl Decimal {
    /// The value of a whole number that is not too long.
    fn whole(&self) -> Option<u128> {
        (self.exponent == 0).then(|| self.digits.parse().ok()).flatten()
    }
}

/// The unsigned decimal number that a text starts with, and what follows it.
fn decimal(text: &str) -> Option<(Decimal, &str)> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '.' | ',')).unwrap_or(text.len());
    let digits = text[..end].replace(',', "");
    let mut parts = digits.split('.');
    let (whole, decimals) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let digits = format!("{whole}{decimals}");
    if digits.is_empty() {
        return None;
    }
    let (power, rest) = power_of_ten(&text[end..]).unwrap_or((0, &text[end..]));
    let exponent = power - i32::try_from(decimals.len()).ok()?;
    Some((Decimal { digits, exponent }, rest))
}

/// The exponent of `e3` or `E-2` at the start of a text, of at most three digits, and what follows it.
fn power_of_ten(text: &str) -> Option<(i32, &str)> {
    let text = text.strip_prefix(['e', 'E'])?;
    let (sign, text) = match text.strip_prefix('-') {
        Some(text) => (-1, text),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    if end > 3 {
        return None;
    }
    Some((sign * text[..end].parse::<i32>().ok()?, &text[end..]))
}

/// A quotient as a decimal number, or as a reduced fraction where it is none; `None` for one of very long numbers.
fn ratio(numerator: &Decimal, denominator: &Decimal) -> Option<String> {
    let shift = numerator.exponent.checked_sub(denominator.exponent)?;
    let scaled = |number: &Decimal, zeros: i32| {
        let power = 10_u128.checked_pow(u32::try_from(zeros.max(0)).ok()?)?;
        number.digits.parse::<u128>().ok()?.checked_mul(power)
    };
    let (numerator, denominator) = (scaled(numerator, shift)?, scaled(denominator, -shift)?);
    let (mut a, mut b) = (numerator, denominator);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    let (numerator, denominator) = (numerator.checked_div(a)?, denominator.checked_div(a)?);
    let mut rest = denominator;
    let mut powers = 0; // of ten that the denominator divides
    while rest > 1 {
        let factor = [10, 5, 2].into_iter().find(|factor| rest.is_multiple_of(*factor));
        let Some(factor) = factor else { return Some(format!("{numerator}/{denominator}")) };
        rest /= factor;
        powers += 1;
    }
    let digits = numerator.checked_mul(10_u128.checked_pow(powers)?)?.checked_div(denominator)?;
    Some(Decimal { digits: digits.to_string(), exponent: -(powers as i32) }.to_string())
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
/// own draw from their posterior. The numbers depend on weights, problems, options, `config.infer` and the seed.
///
/// A prompt consists of `Question: …\nAnswer: …`, separated by empty lines; an answer ends at the end of the document or
/// before a next `Question:`.
///
/// # Errors
/// [`Error::Field`] for no samples, or a pass of 0 or more than the samples; those of the tokenizer, of generation and of
/// `on_answered`.
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
    let examples = options.shots.iter().map(|shot| {
        tokenizer.encode(&format!("{QUESTION} {}\nAnswer: {}\n\n", shot.question, shot.answer))
    });
    let examples = examples.collect::<data::Result<Vec<_>>>()?;
    let (_, precision) = config.run.compute()?;
    let inference = Inference::finished(&config.infer)?;
    let separator = tokenizer.separator();
    let mut all = Vec::with_capacity(problems.len());
    for (problem, index) in problems.iter().zip(0_u64..) {
        let question = tokenizer.encode(&format!("{QUESTION} {}\nAnswer:", problem.question))?;
        let max_seq_len = config.model.max_seq_len;
        let (shots, prompt) =
            prompt(separator, &examples, &question, max_seq_len, options.max_tokens);
        // The context's last token is read too, and one more comes out of it.
        let room = (max_seq_len + 1).saturating_sub(prompt.len()).min(options.max_tokens);
        let mut answers = Vec::new();
        if room > 0 {
            let generation = GenerateOptions {
                max_tokens: room,
                sample: options.sample,
                latents: LatentSource::Prompt,
                refit: None,
                // Far enough apart for the draws of a question.
                seed: config.run.seed.wrapping_add(index << 32),
                stop: Some(separator as i32),
                precision,
            };
            let draws = 0..options.samples as u64;
            let model = &config.model;
            let written = generate_many(model, weights, &inference, &prompt, &generation, draws)?;
            answers = written.iter().map(|one| answer(tokenizer, &one.tokens)).collect();
        }
        let numbers: Vec<_> = answers.iter().map(|answer| extract(answer)).collect();
        let right = numbers.iter().filter(|n| n.as_ref() == Some(&problem.number)).count();
        let Problem { line, question, number, .. } = problem.clone();
        let answered = Answered { line, question, number, shots, room, answers, numbers, right };
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
        pass: options.passes.iter().map(pass).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_extracted_in_one_spelling() {
        for (text, expected) in [
            ("so it is 3.\n#### 18", Some("18")),
            ("#### 70,000\n", Some("70000")),
            ("####$1,080.00.", Some("1080")),
            ("#### -$5", Some("-5")),
            ("#### $ -5 dollars", Some("-5")),
            ("#### −7", Some("-7")),
            ("#### +7", Some("7")),
            ("#### 18.Then more", Some("18")),
            ("#### 2.50 and 3", Some("2.5")),
            ("#### .5", Some("0.5")),
            ("#### 007", Some("7")),
            ("#### -0.0", Some("0")),
            ("#### 20%", Some("20")),
            ("#### 1/2", Some("0.5")),
            ("#### -3/4 of it", Some("-0.75")),
            ("#### 2/6", Some("1/3")),
            ("#### 6/3", Some("2")),
            ("#### $1,000/2", Some("500")),
            ("#### 1.5/0.5", Some("3")),
            ("#### 2 1/2", Some("2.5")),
            ("#### 2 1 2", Some("2")),
            ("#### 7/", Some("7")),
            ("#### 7 / week", Some("7")),
            ("#### 1/0", None),
            ("#### 1/2/2020", None),
            ("#### 1e3", Some("1000")),
            ("#### 1.25E2", Some("125")),
            ("#### 5e-1", Some("0.5")),
            ("#### -0e9", Some("0")),
            ("#### 3 eggs", Some("3")),
            ("#### 3eggs", Some("3")),
            ("#### none\n#### 4", Some("4")),
            ("####", None),
            ("#### .", None),
            ("#### ,", None),
            ("the answer is 18", None),
            ("### 18", None),
        ] {
            assert_eq!(extract(text).as_deref(), expected, "{text}");
        }
        let long = format!("0.{}1", "0".repeat(70_000));
        assert_eq!(extract(&format!("#### {long}")).as_deref(), Some(&*long));
    }

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
            Answered { line: 1, question, number, shots, room, answers, numbers, right }
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
        };
        let found = outcome(&all, &options);
        assert_eq!((found.fewer_shots, found.less_room, found.too_long), (2, 1, 1));
        assert_eq!((found.answers, found.extracted), (6, 5));
        // Right: a half, none, all, none.
        assert_eq!((found.pass[0].rate.mean, found.pass[1].rate.mean), (0.375, 0.5));
        assert_eq!(found.pass[0].rate.count, 4);
    }
}
