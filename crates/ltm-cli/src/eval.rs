//! `ltm eval`: scores of a corpus, or of files, by named protocols.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use indicatif::ProgressBar;
use ltm_eval::corpus::{default_protocols, sampled_part};
use ltm_eval::suites::Suite;
use ltm_train::data::{Corpus, Format, Order, Split, load};
use ltm_train::eval::{LatentNumbers, evaluate_in, scores};
use ltm_train::{Checkpoint, Config, Evaluation, run_data};
use ltm_vi::{Noise, Protocol};
use serde_json::{Value, json};

use crate::convergence;
use crate::device_args::CheckpointArgs;
use crate::files::{ReadArgs, Reading};
use crate::generate::check_new;
use crate::gsm8k;
use crate::output::{OutputError, number, plus_minus, usage};
use crate::suites::{self, Request};

/// Arguments of `eval`.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: CheckpointArgs,
    /// Corpus folder or file of documents [default: the run's validation split]
    data: Option<PathBuf>,
    /// Evaluation protocol, repeatable [default: the cheap ones that apply to the model]
    ///
    ///   reconstruction: NLL at the fitted latents; not a bound
    ///   elbo-fitted-noise: the published ELBO; optimistic when the fit has seen the noise
    ///   elbo:SAMPLES: ELBO with fresh noise; a valid bound
    ///   iwae:SAMPLES: importance-weighted bound with fresh noise; tighter than the ELBO
    ///   prequential:STRIDE:SAMPLES: each block of STRIDE tokens is predicted from latents fitted to the
    ///     tokens before it; comparable with autoregressive models
    ///   prequential-shuffled:STRIDE:SAMPLES: the same with the latents of another text: what they are
    ///     worth without knowing the text
    ///   prequential-overlap:STRIDE:SAMPLES: as prequential, in overlapping windows, for a longer context
    ///   autoregressive: exact NLL, for models without latents
    ///   autoregressive-overlap:STRIDE: the same in overlapping windows
    ///   masked-diffusion:MASKS: bound of a masked diffusion model
    ///
    /// SAMPLES and MASKS default to 8. docs/evaluation.md describes which protocols are comparable.
    #[arg(long, verbatim_doc_comment)]
    protocol: Vec<Protocol>,
    /// Write the scores of each document to this new file, one JSON object per line; of each row where rows are windows
    /// across documents
    #[arg(long, value_name = "FILE")]
    per_document: Option<PathBuf>,
    /// Also print `elbo` and `iwae` after `infer.steps` fast steps and after four times as many, from each start
    #[arg(long)]
    convergence: bool,
    /// LAMBADA: samples of the latents [default: 8]; GSM8K: answers per question [default: 5]
    #[arg(long, value_name = "COUNT")]
    samples: Option<usize>,
    /// Number of rows to score, drawn by a fixed permutation; LAMBADA and GSM8K: of the first passages or questions; 0
    /// scores all
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    sequences: u64,
    /// Seed of the evaluation's noise and samples [default: `run.seed` of the configuration]
    #[arg(long)]
    seed: Option<u64>,
    /// Split of a corpus folder [default: val]
    #[arg(long, value_enum)]
    split: Option<Part>,
    /// Format of a file [default: detected from its name and content]
    #[arg(long, value_enum)]
    format: Option<FileFormat>,
    #[command(flatten)]
    read: ReadArgs,
    /// Print the scores as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    gsm8k: gsm8k::Gsm8kArgs,
}

/// A split of a corpus.
#[derive(Clone, Copy, ValueEnum)]
pub enum Part {
    /// Training split
    Train,
    /// Validation split
    Val,
}

/// The format of a file, and with that its evaluation.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileFormat {
    /// Plain text; documents are separated by lines containing only `<|endoftext|>`
    Text,
    /// One JSON object per line
    Jsonl,
    /// A JSON array of objects, or one object per line
    Json,
    /// Comma-separated values
    Csv,
    /// Tab-separated values
    Tsv,
    /// A Parquet table
    Parquet,
    /// LAMBADA passages as JSON lines; scores the prediction of the last word
    Lambada,
    /// GSM8K word problems as JSON lines; scores generated answers by pass@k, or with --protocol the texts of questions and
    /// answers
    Gsm8k,
}

/// The data to score.
enum Subject {
    /// A folder of token shards.
    Corpus(PathBuf),
    /// A file of documents, scored as a corpus.
    Documents(PathBuf, Option<Format>),
    /// A file of LAMBADA's passages.
    Lambada(PathBuf),
    /// A file of GSM8K's problems.
    Gsm8k(PathBuf),
}

impl Subject {
    fn of(args: &Args, config: &Config) -> anyhow::Result<Self> {
        let of_files = args.format.is_some() || args.read.key.is_some() || args.read.skip_malformed;
        let file = match &args.data {
            Some(path) if of_files || !path.is_dir() => path.clone(),
            _ if of_files => {
                let message = "--format, --key and --skip-malformed apply to files: name a file";
                return Err(usage(message));
            }
            Some(dir) => return Ok(Self::Corpus(dir.clone())),
            None => return Ok(Self::Corpus(run_data::ensure(config)?)),
        };
        if args.split.is_some() {
            let file = file.display();
            return Err(usage(format!("--split applies to corpus folders, {file} is a file")));
        }
        let Some(format) = args.format else {
            return Ok(match Suite::of_file(&file)? {
                Some(Suite::Lambada) => Self::Lambada(file),
                Some(Suite::Gsm8k) if args.read.key.is_none() => Self::problems(file, args),
                _ => Self::Documents(file, None),
            });
        };
        Ok(match format {
            FileFormat::Text => Self::Documents(file, Some(Format::Text)),
            FileFormat::Jsonl => Self::Documents(file, Some(Format::Jsonl)),
            FileFormat::Json => Self::Documents(file, Some(Format::Json)),
            FileFormat::Tsv => Self::Documents(file, Some(Format::Tsv)),
            FileFormat::Csv => Self::Documents(file, Some(Format::Csv)),
            FileFormat::Parquet => Self::Documents(file, Some(Format::Parquet)),
            FileFormat::Lambada => Self::Lambada(file),
            FileFormat::Gsm8k => Self::problems(file, args),
        })
    }

    /// GSM8K's problems: answered, or where a protocol is asked for scored as texts.
    fn problems(file: PathBuf, args: &Args) -> Self {
        match args.protocol.is_empty() {
            true => Self::Gsm8k(file),
            false => Self::Documents(file, Some(Format::Gsm8k)),
        }
    }

    /// Whether it is scored by protocols; test sets have one of their own.
    fn has_protocols(&self) -> bool {
        matches!(self, Self::Corpus(_) | Self::Documents(..))
    }
}

impl Args {
    /// The request to a test set.
    fn request<'a>(
        &self,
        checkpoint: &'a Checkpoint,
        config: &'a Config,
        file: &'a Path,
        samples: usize,
    ) -> Request<'a> {
        let read = self.read.options(None);
        Request { checkpoint, config, file, read, limit: self.sequences, samples, json: self.json }
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(file) = &args.per_document {
        check_new(file)?;
    }
    let checkpoint = args.model.load()?;
    let mut config = checkpoint.config.clone();
    let tokenizer = &checkpoint.tokenizer;
    let subject = Subject::of(&args, &config)?;
    check_arguments(&args, &subject)?;
    if !subject.has_protocols() {
        crate::group::alone("the evaluation of LAMBADA and GSM8K")?;
    } else if args.convergence {
        crate::group::alone("eval --convergence")?;
    }
    let group = crate::group::join(&mut config.run.device)?;
    let (path, corpus, skipped) = match subject {
        Subject::Corpus(dir) => {
            let split = match args.split {
                Some(Part::Train) => Split::Train,
                Some(Part::Val) | None => Split::Val,
            };
            let corpus = Corpus::open(&dir, split, Some(tokenizer))?;
            (dir, corpus, None)
        }
        Subject::Documents(path, format) => {
            let mut reading = Reading::new();
            let read = load(
                std::slice::from_ref(&path),
                tokenizer,
                &args.read.options(format),
                sampled_part(&config, args.sequences),
                &mut |notice| reading.see(notice),
            );
            reading.finish();
            let (corpus, skipped) = read?;
            (path, corpus, Some(skipped))
        }
        Subject::Lambada(file) => {
            config.run.seed = args.seed.unwrap_or(config.run.seed);
            let samples = args.samples.unwrap_or(Protocol::DEFAULT_SAMPLES);
            suites::lambada(&args.request(&checkpoint, &config, &file, samples))?;
            return Ok(ExitCode::SUCCESS);
        }
        Subject::Gsm8k(file) => {
            config.run.seed = args.seed.unwrap_or(config.run.seed);
            let samples = args.samples.unwrap_or(gsm8k::SAMPLES);
            let request = args.request(&checkpoint, &config, &file, samples);
            gsm8k::run(&request, &args.gsm8k)?;
            return Ok(ExitCode::SUCCESS);
        }
    };
    let batches = run_data::open_corpus(&config, corpus, Order::Sequential)?;
    // Not before: a generated corpus belongs to the run's own seed.
    config.run.seed = args.seed.unwrap_or(config.run.seed);
    let mut protocols = args.protocol;
    if protocols.is_empty() {
        protocols = default_protocols(&config);
    }
    let targets = batches.options().seq_len;
    for protocol in &protocols {
        if let Err(error) = protocol.check(targets) {
            return Err(usage(format!("--protocol {protocol}: {error}")));
        }
    }
    let weights = config.on_device(&checkpoint.weights)?;
    let bar = match group.is_first() {
        true => crate::progress_bar(0, "scored {pos}/{len} batches, ETA {eta}"),
        false => ProgressBar::hidden(),
    };
    let mut progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        ControlFlow::Continue(())
    };
    let sequences = args.sequences;
    let evaluation =
        evaluate_in(&group, &config, &weights, &batches, &protocols, sequences, &mut progress);
    bar.finish_and_clear();
    let evaluation = evaluation?.expect("nothing stops it");
    let is_first = group.is_first();
    group.leave()?;
    if !is_first {
        return Ok(ExitCode::SUCCESS);
    }
    let fits = match args.convergence {
        true => convergence::fits(&config, &weights, &batches, args.sequences)?,
        false => Vec::new(),
    };
    if let Some(file) = &args.per_document {
        scores::write(file, None, &evaluation)?;
    }
    if args.json {
        let mut numbers = numbers(&evaluation);
        if args.convergence {
            numbers["convergence"] = convergence::to_json(&fits);
        }
        if let Some(skipped) = skipped {
            numbers["file"] = json!({ "path": path.display().to_string(), "skipped": skipped });
        }
        outln!("{}", serde_json::to_string_pretty(&numbers)?)?;
    } else {
        outln!("checkpoint {}, data {}", checkpoint.dir.display(), path.display())?;
        if let Some(skipped @ 1..) = skipped {
            outln!("malformed records skipped   {skipped}")?;
        }
        outln!()?;
        print_table(&evaluation, &config)?;
        convergence::print_table(&fits)?;
    }
    warn_of_prior(&evaluation);
    Ok(ExitCode::SUCCESS)
}

/// Warns where latents were fitted for the worse.
pub fn warn_of_prior(evaluation: &Evaluation) {
    let Some(latents) = evaluation.latents.as_ref().filter(|l| l.is_worse_than_prior()) else {
        return;
    };
    note!(
        "warning: the fitted bound is {} nats per token above that of the prior, so the fast steps do harm: try a smaller \
         infer.lr, or train for longer",
        plus_minus(latents.above_prior(), 4)
    );
}

/// Refuses arguments that do not apply to the data.
fn check_arguments(args: &Args, subject: &Subject) -> anyhow::Result<()> {
    let refused = if subject.has_protocols() {
        let message =
            "--samples applies to LAMBADA and GSM8K; a protocol has its own: --protocol elbo:8";
        args.samples.map(|_| message)
    } else if !args.protocol.is_empty() {
        Some(
            "--protocol does not apply: this test set has its own protocol; --format jsonl scores it as text",
        )
    } else {
        args.per_document
            .as_ref()
            .map(|_| "--per-document applies to protocols, not to this test set")
            .or(args.convergence.then_some("--convergence does not apply to this test set"))
    };
    let is_gsm8k = matches!(subject, Subject::Gsm8k(_));
    let has_its_keys =
        matches!(subject, Subject::Gsm8k(_) | Subject::Documents(_, Some(Format::Gsm8k)));
    let refused = refused
        .or((!is_gsm8k && args.gsm8k.any()).then_some(
            "--shots, --train-file, --pass, --max-tokens, --temperature, --top-p, --samples-out and --rethink apply to GSM8K only, without --protocol",
        ))
        .or((has_its_keys && args.read.key.is_some())
            .then_some("--key does not apply to GSM8K, whose keys are `question` and `answer`"));
    refused.map_or(Ok(()), |message| Err(usage(message)))
}

/// The numbers by protocol, and `latents` for models that have them.
fn numbers(evaluation: &Evaluation) -> Value {
    let mut numbers = json!(evaluation.scores());
    if let Some(latents) = &evaluation.latents {
        numbers["latents"] = json!(LatentNumbers::from(latents));
    }
    numbers
}

/// The estimates and the use of the latents, as a table.
pub fn print_table(evaluation: &Evaluation, config: &Config) -> Result<(), OutputError> {
    let rule = |cells: [&str; 7]| {
        let [protocol, nats, perplexity, bits, mean, tokens, sequences] = cells;
        outln!(
            "{protocol:<30}  {nats:>17}  {perplexity:>10}  {bits:>13}  {mean:>15}  {tokens:>8}  {sequences:>9}"
        )
    };
    rule([
        "protocol",
        "nats per token",
        "perplexity",
        "bits per byte",
        "mean perplexity",
        "tokens",
        "sequences",
    ])?;
    for e in &evaluation.estimates {
        let bits = evaluation.bits_per_byte(e);
        rule([
            &label(e.protocol, config.infer.noise),
            &plus_minus((e.mean_nats_per_token, e.standard_error), 4),
            &number(e.perplexity(), 3),
            &bits.map_or("n/a".into(), |bits| number(bits, 4)),
            &number(e.mean_sequence_perplexity, 3),
            &e.tokens.to_string(),
            &e.per_sequence.len().to_string(),
        ])?;
    }
    outln!(
        "mean perplexity             mean of the perplexities of single sequences, as in the published \
         code; not comparable with corpus perplexity"
    )?;
    if let Some(latents) = &evaluation.latents {
        let kl: Vec<String> = latents.kl_per_layer().iter().map(|kl| number(*kl, 2)).collect();
        let variance = latents.mean_variance();
        outln!("KL per layer                {} nats per sequence", kl.join(", "))?;
        outln!("worth of the latents        {} nats per token", plus_minus(latents.worth(), 4))?;
        outln!(
            "fitted bound minus prior's  {} nats per token",
            plus_minus(latents.above_prior(), 4)
        )?;
        outln!(
            "variance of posterior means {} signal, {} noise of the fit, over {} rows",
            number(variance.signal, 4),
            number(variance.noise, 4),
            latents.refitted(),
        )?;
    }
    Ok(())
}

fn label(protocol: Protocol, noise: Noise) -> String {
    match protocol {
        Protocol::Reconstruction => "reconstruction (not a bound)".into(),
        Protocol::ElboFittedNoise if noise == Noise::Fixed => {
            "elbo-fitted-noise (optimistic)".into()
        }
        Protocol::Elbo { samples } => format!("elbo, {samples} fresh samples"),
        Protocol::Iwae { samples } => format!("iwae, {samples} fresh samples"),
        Protocol::MaskedDiffusion { samples } => format!("masked-diffusion, {samples} masks"),
        other => other.to_string(),
    }
}
