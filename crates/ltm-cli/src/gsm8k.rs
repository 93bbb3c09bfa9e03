//! GSM8K for `ltm eval`: word problems answered by generation, scored by pass@k.

use std::path::PathBuf;

use ltm_eval::samples::SAMPLE;
use ltm_eval::suites::gsm8k::{self, Options, Outcome, Problem};
use ltm_model::SampleConfig;
use ltm_train::data;
use ltm_vi::{Keep, Rethink};
use serde_json::json;

use crate::files::Reading;
use crate::generate::{NewFile, RethinkArgs, check_sample};
use crate::output::OutputError;
use crate::suites::Request;

/// Default number of answers per question: the published number is pass@5.
pub const SAMPLES: usize = 5;

/// Arguments of `eval` that only GSM8K has.
#[derive(clap::Args)]
#[command(next_help_heading = "GSM8K")]
pub struct Gsm8kArgs {
    /// Worked examples before each question, the first of `--train-file`, as many as fit in the context; published
    /// results use 0, 5 and 10 [default: 0]
    #[arg(long, value_name = "COUNT")]
    shots: Option<usize>,
    /// File with the worked examples, such as gsm8k-train.jsonl
    #[arg(long, value_name = "FILE", requires = "shots")]
    train_file: Option<PathBuf>,
    /// The values of k in pass@k, such as `1,5` [default: 1 and the number of samples]
    #[arg(long, value_name = "K", value_delimiter = ',')]
    pass: Vec<usize>,
    /// Maximum number of tokens per answer [default: 256]
    #[arg(long, value_name = "COUNT")]
    max_tokens: Option<usize>,
    /// Sampling temperature; 0 always takes the most likely token [default: 0.8]
    #[arg(long)]
    temperature: Option<f64>,
    /// Nucleus sampling: keep the smallest set of tokens with at least this total probability [default: 0.95]
    #[arg(long)]
    top_p: Option<f64>,
    /// Write every question with its answers to this new file, one JSON object per line
    #[arg(long, value_name = "FILE")]
    samples_out: Option<PathBuf>,
    #[command(flatten)]
    rethink: RethinkArgs,
}

impl Gsm8kArgs {
    /// Whether any was given.
    pub fn any(&self) -> bool {
        let Self { shots, train_file, pass, max_tokens, temperature, top_p, samples_out, rethink } =
            self;
        let sampling = max_tokens.is_some() || temperature.is_some() || top_p.is_some();
        let files = train_file.is_some() || samples_out.is_some();
        shots.is_some() || !pass.is_empty() || sampling || files || rethink.any()
    }
}

/// Answers the questions of a file.
pub fn run(request: &Request<'_>, args: &Gsm8kArgs) -> anyhow::Result<()> {
    let Request { checkpoint, config, file, read: how, limit, samples, json: as_json } = request;
    let (samples, malformed) = (*samples, how.malformed);
    let asked = args.shots.unwrap_or(0);
    if asked > 0 && args.train_file.is_none() {
        let (field, found) = ("shots".into(), asked.to_string());
        let expected = "0, or the option --train-file with the examples".into();
        return Err(ltm_train::Error::Field { field, expected, found }.into());
    }
    let sample = SampleConfig {
        temperature: args.temperature.unwrap_or(SAMPLE.temperature),
        top_p: args.top_p.unwrap_or(SAMPLE.top_p),
        ..SAMPLE
    };
    check_sample(&sample)?;
    let rethink = args.rethink.of(config)?;
    let (problems, skipped) = reading(|skip| gsm8k::load(file, malformed, *limit, skip))?;
    let shots = match &args.train_file {
        Some(file) => reading(|skip| gsm8k::examples(file, malformed, asked, skip))?.0,
        None => Vec::new(),
    };
    let mut passes = args.pass.clone();
    if passes.is_empty() {
        passes = vec![1, samples];
    }
    passes.sort_unstable();
    passes.dedup();
    let max_tokens = args.max_tokens.unwrap_or(256);
    let options = Options { shots, samples, passes, max_tokens, sample, rethink };
    let mut out = args.samples_out.as_deref().map(NewFile::new).transpose()?;
    let bar = crate::progress_bar(
        problems.len() as u64,
        "question {pos}/{len}, {msg} correct, ETA {eta}",
    );
    let mut right = 0;
    bar.set_message("0");
    let (weights, tokenizer) = (config.on_device(&checkpoint.weights)?, &*checkpoint.tokenizer);
    let outcome =
        gsm8k::evaluate(config, &weights, tokenizer, &problems, &options, &mut |answered| {
            right += usize::from(answered.right > 0);
            bar.set_message(right.to_string());
            bar.inc(1);
            out.as_mut().map_or(Ok(()), |out| Ok(out.append(answered)?))
        });
    bar.finish_and_clear();
    let outcome = outcome?;
    if *as_json {
        let file = json!({ "path": file.display().to_string(), "skipped": skipped });
        let numbers = json!({ "gsm8k": outcome, "file": file });
        outln!("{}", serde_json::to_string_pretty(&numbers)?)?;
    } else {
        outln!("checkpoint {}, data {}", checkpoint.dir.display(), file.display())?;
        if skipped > 0 {
            outln!("malformed records skipped   {skipped}")?;
        }
        print_table(&outcome, &options)?;
    }
    Ok(())
}

/// The problems that `read` finds, and how many records it skipped.
fn reading(
    read: impl FnOnce(&mut dyn FnMut(data::Error)) -> ltm_eval::Result<Vec<Problem>>,
) -> anyhow::Result<(Vec<Problem>, u64)> {
    let mut reading = Reading::new();
    let problems = read(&mut |error| reading.skip(&error));
    let skipped = reading.finish();
    Ok((problems?, skipped))
}

fn print_table(outcome: &Outcome, options: &Options) -> Result<(), OutputError> {
    let Outcome { questions, samples, shots, less_room, too_long, answers, extracted, .. } =
        outcome;
    outln!()?;
    outln!("GSM8K                       {shots} shots, {samples} sampled answers per question")?;
    for pass in &outcome.pass {
        let (rate, error) = (100.0 * pass.rate.mean, 100.0 * pass.rate.standard_error);
        outln!(
            "{:<28}{rate:.2} ± {error:.2} % of {questions} questions",
            format!("pass@{}", pass.k)
        )?;
    }
    outln!("answers with a number       {extracted} of {answers}")?;
    if let Some(Rethink { rounds, keep, .. }) = options.rethink {
        let kept = match keep {
            Keep::Best => format!("the best of {} texts by its score", rounds + 1),
            Keep::Last => "the last".into(),
        };
        outln!("rounds of rethinking        {rounds}; an answer is {kept}")?;
    }
    if outcome.fewer_shots > 0 {
        outln!(
            "fewer shots than requested  {} questions; {:.2} shots per question on average",
            outcome.fewer_shots,
            outcome.shots_used.mean
        )?;
    }
    if *less_room > 0 {
        let max_tokens = options.max_tokens;
        outln!(
            "limited answer length       {less_room} questions, with room for fewer than {max_tokens} tokens"
        )?;
    }
    if *too_long > 0 {
        outln!("too long for the model      {too_long} questions, counted as wrong")?;
    }
    Ok(())
}
